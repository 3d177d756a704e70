"""Recordings written by tests: a builder, and diffs of plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from probe.compare.diff import diff_sources
from probe.results.diff import DiffResult
from probe.results.tensors import InputInfo, Role, RunHeader, TensorInfo
from probe.store.opening import open_source
from probe.store.writer import DumpWriter

Array = np.ndarray[Any, Any]
GOLDEN = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


class Recorder:
    """Builds a dump: tensors are (name, array) with role, reads and input as keywords."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[TensorInfo, Array | None]] = []
        self.header = RunHeader()
        self.stats_only = False

    def add(self, name: str, array: Any, role: Role = "internal", input_id: str = "", **more: Any) -> Recorder:
        data = None if array is None else np.asarray(array)
        kind = more.pop("dtype", "float32" if data is None else "")
        self.rows.append((TensorInfo(name, kind, (), input_id, role, **more), data))
        return self

    def open(self) -> Any:
        with DumpWriter(self.path, self.header, stats_only=self.stats_only) as writer:
            for info, array in self.rows:
                writer.add(info, array)
        return open_source(self.path)


def diff(make: Callable[[], Recorder], actual: dict[str, Any], golden: dict[str, Any], **options: Any) -> DiffResult:
    """Diff of outputs given as arrays."""
    sides = []
    for arrays in (actual, golden):
        side = make()
        for name, array in arrays.items():
            side.add(name, array, "output")
        sides.append(side.open())
    return diff_sources(*sides, **options)


def dataset(make: Callable[[], Recorder], arrays: dict[str, Array], order: list[str] | None = None) -> Any:
    side = make()
    side.header = RunHeader(inputs=tuple(InputInfo(k, f"sha-{k}", f"file {k}") for k in order or arrays))
    for key in order or arrays:
        side.add("y", arrays[key], "output", key)
    return side.open()
