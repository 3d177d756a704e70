"""Network inputs from files: one set or a dataset, from .npz, folders, dumps and Polygraphy's ``--save-inputs`` JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name, kind_of
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


def odd_inputs(sets: Sequence[InputSet]) -> list[str]:
    """A note for each input that has no elements, or holds NaN or Inf: what was computed from it says little, and who only reads a verdict or a
    time cannot see that. -Inf alone is told apart, since masks are written so."""
    empty = {name: one for one in reversed(sets) for name, value in one.feeds.items() if np.asarray(value).size == 0}
    return [
        *(
            f"input {name!r} of {one.id} has no elements ({list(np.asarray(one.feeds[name]).shape)}): what has none is equal to anything of its shape"
            for name, one in empty.items()
        ),
        *_not_finite(sets),
    ]


def _not_finite(sets: Sequence[InputSet]) -> list[str]:
    found: dict[str, list[tuple[InputSet, Array]]] = {}
    for one in sets:
        for name, value in one.feeds.items():
            array = np.asarray(value)
            if kind_of(dtype_name(array.dtype)) in ("float", "complex") and not np.isfinite(array).all():
                found.setdefault(name, []).append((one, array))
    return [_said_of(name, where, len(sets)) for name, where in found.items()]


def _said_of(name: str, where: Sequence[tuple[InputSet, Array]], sets: int) -> str:
    one, array = where[0]
    wrong = ~np.isfinite(array)
    counts = {"NaN": np.isnan(array), "Inf": np.isposinf(array.real), "-Inf": np.isneginf(array.real)}
    kinds = [f"{number} {kind}" for kind, at in counts.items() if (number := int(np.count_nonzero(at)))]
    first = ",".join(str(int(axis)) for axis in np.argwhere(wrong)[0])
    place = f" of {array.size} elements, first at [{first}]" if array.ndim else ""
    among = f" in {len(where)} of {sets} input sets, first in {one.id}," if sets > 1 else ""
    mask = not any(np.isnan(a).any() or np.isposinf(a.real).any() for _, a in where)
    effect = "whatever it reaches cannot be judged, and a time measured with it is of no real input"
    unless = "unless it is a mask that is added before a softmax, " if mask else ""
    return f"input {name!r}{among} holds {' and '.join(kinds)}{place}: {unless}{effect}"


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
