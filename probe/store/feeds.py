"""Network inputs from files: one set or a dataset, from .npz, folders, dumps and Polygraphy's ``--save-inputs`` JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.tensors import InputInfo
from probe.store.opening import is_folder, open_source, read_array
from probe.store.writer import stored_bytes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class InputSet:
    """Feeds of one inference: ONNX input name -> array. ``id`` names it in recordings and results."""

    id: str
    feeds: Mapping[str, Array]
    source: str  # "file PATH", "seed 0"

    @property
    def sha256(self) -> str:
        return hash_feeds(self.feeds)


def input_infos(sets: Iterable[InputSet]) -> tuple[InputInfo, ...]:
    """What results and recordings say of their inputs; the feeds are hashed."""
    return tuple(InputInfo(one.id, one.sha256, one.source) for one in sets)


def hash_feeds(feeds: Mapping[str, Array]) -> str:
    """SHA-256 over names, types, shapes and bytes, independent of the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(feeds):
        array = np.asarray(feeds[name])
        digest.update(repr((name, dtype_name(array.dtype), array.shape)).encode("utf-8", "surrogatepass"))
        digest.update(stored_bytes(array))
    return digest.hexdigest()


def read_input_sets(path: str | Path) -> list[InputSet]:
    """Input sets of a file or folder, in name order.

    - ``.npz``: one set; keys are input names, or ``in/NAME`` beside ``out/NAME``.
    - a folder of ``.npz``: one set a file. A folder of ``.npy``: one set, file names are input names.
    - a dump, or Polygraphy's inputs JSON (a list of sets): as many sets as it holds.

    Raises:
        InputError: nothing there, nothing readable, or no inputs in it.
    """
    path = Path(path)
    if is_folder(path) and not (path / "manifest.jsonl").exists():
        files = sorted(path.glob("*.npz"))
        if files and any(path.glob("*.npy")):
            what = f"{path} holds .npz files, a set each, and .npy files, which are one set together"
            raise InputError(what, hint="put them into two folders")
        if files:
            return [one for file in files for one in read_input_sets(file)]
    source = open_source(path)
    try:
        rows = list(source.rows())
        named = [row for row in rows if row.role == "input"]
        if not named and (source.roles_known or not rows):
            raise InputError(f"no network inputs in {path}", hint="keys are input names, or in/NAME beside out/NAME")
        sets: dict[str, dict[str, Array]] = {}
        for row in named or rows:
            sets.setdefault(row.input_id, {})[row.name] = read_array(source, row)
    finally:
        source.close()
    # Recordings of several inputs name them, so that what is recorded from them meets what was recorded beside them.
    return [InputSet(id=key or path.stem, feeds=feeds, source=f"file {path}") for key, feeds in sets.items()]
