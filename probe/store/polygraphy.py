"""Polygraphy's JSON: saved outputs (``RunResults``) and saved inputs, read without decoding more than one tensor at a time.

Arrays stand in the file as base64 text of ``.npy`` bytes. msgspec leaves them where they are in the mapped file (``Raw``), so a
1.6 GB file costs no more memory than its largest tensor. Format: Polygraphy 0.49 to 0.53 (``json/serde.py``).
"""

from __future__ import annotations

import binascii
import io
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.numpy_files import DAMAGE, ArrayReader, npy_header, read_whole

_HEADER_TEXT = 4096  # base64 characters: more than any npy header


class _Array(msgspec.Struct):
    array: msgspec.Raw
    polygraphy_class: str = "ndarray"


class _Lazy(msgspec.Struct):
    values: _Array


class _Iteration(msgspec.Struct):
    outputs: dict[str, msgspec.Raw]
    runner_name: str | None = None


class _RunResults(msgspec.Struct):
    lst: list[tuple[str, list[_Iteration]]]


@dataclass(frozen=True, slots=True)
class _Place:
    row: TensorInfo
    text: msgspec.Raw


class PolygraphyJson:
    """One runner of a ``--save-outputs`` file (iterations are inputs ``iteration-K``), or a ``--save-inputs`` file.

    Args:
        runner: which runner, when the file holds several; a prefix that fits one of them is enough.

    Raises:
        InputError: not Polygraphy's JSON, several runners and none named, or arrays that are no numpy arrays.
    """

    kind = "polygraphy"

    def __init__(self, path: str | Path, runner: str = "") -> None:
        self.path = str(path)
        self.header = RunHeader()
        content = _map(Path(path))
        try:
            sets = _input_sets(content)
            self.roles_known = sets is not None
            if sets is not None:
                self._places = [p for k, feeds in enumerate(sets) for p in self._index(feeds, k, len(sets), "input")]
            else:
                name, iterations = self._pick(msgspec.json.decode(content, type=_RunResults).lst, runner)
                self.header = RunHeader(runner=name)
                self._places = [
                    p
                    for k, one in enumerate(iterations)
                    for p in self._index(one.outputs, k, len(iterations), "internal")
                ]
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot read {path} as Polygraphy JSON: {error}",
                hint="files written by polygraphy run --save-outputs or --save-inputs are read here",
            ) from error
        self._by_key = {(p.row.name, p.row.input_id): p.text for p in self._places}

    def _pick(self, runs: list[tuple[str, list[_Iteration]]], wanted: str) -> tuple[str, list[_Iteration]]:
        fitting = [run for run in runs if run[0] == wanted] or [run for run in runs if run[0].startswith(wanted)]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(name for name, _ in runs) or "none"
        problem = f"no runner {wanted!r}" if not fitting else f"{len(fitting)} runners"
        raise InputError(f"{problem} in {self.path}", where=f"runners: {names}", hint=f"pick one: {self.path}#NAME")

    def _index(self, arrays: dict[str, msgspec.Raw], number: int, total: int, role: str) -> list[_Place]:
        identity = f"iteration-{number}" if total > 1 else ""
        places = []
        for name, raw in arrays.items():
            try:
                array = msgspec.json.decode(raw, type=_Array)
            except msgspec.ValidationError:
                array = msgspec.json.decode(raw, type=_Lazy).values
            if array.polygraphy_class != "ndarray":
                info = TensorInfo(name, "float32", (), identity, role=role, status="unsupported",  # type: ignore[arg-type]
                                  note=f"stored as a torch {array.polygraphy_class}; save numpy arrays")  # fmt: skip
            else:
                head = self._decode(name, array.array, _HEADER_TEXT)
                dtype, shape = npy_header(io.BytesIO(head), self.path, name)
                info = TensorInfo(name, dtype, shape, identity, role=role)  # type: ignore[arg-type]
            places.append(_Place(info, array.array))
        return places

    def _decode(self, name: str, text: msgspec.Raw, limit: int | None = None) -> bytes:
        view = memoryview(text)[1:-1]  # the quotes
        try:
            try:  # strict: otherwise characters that are no base64 are skipped, and what follows them shifted
                return binascii.a2b_base64(view[:limit], strict_mode=True)
            except binascii.Error:  # some writers escape "/"
                return binascii.a2b_base64(msgspec.json.decode(text, type=str).encode()[:limit], strict_mode=True)
        except (ValueError, msgspec.MsgspecError) as error:
            raise InputError(f"tensor {name!r} is not base64 text: {error}", where=self.path) from error

    def rows(self) -> Sequence[TensorInfo]:
        return [place.row for place in self._places]

    def open(self, row: TensorInfo) -> ArrayReader:
        if row.status != "recorded":
            raise InputError(f"tensor {row.name!r} cannot be read: {row.note}", where=self.path)
        content = self._decode(row.name, self._by_key[row.name, row.input_id])
        try:
            return ArrayReader(read_whole(io.BytesIO(content)))
        except DAMAGE as error:
            raise InputError(f"tensor {row.name!r} is damaged: {error}", where=self.path) from error

    def close(self) -> None:
        return None  # the mapping lives as long as the rows that point into it


class PolygraphyFolder:
    """What ``--save-outputs`` and ``--save-inputs`` write to a folder: a file an iteration, in the order of their names.

    Raises:
        InputError: as ``PolygraphyJson``; or inputs and outputs are mixed.
    """

    kind = "polygraphy"

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        files = sorted(Path(path).glob("*.json"))
        self._parts = [PolygraphyJson(file) for file in files]
        if len({part.roles_known for part in self._parts}) != 1:
            raise InputError(f"{path} holds no files of Polygraphy, or both inputs and outputs", hint="name one kind")
        self.roles_known = self._parts[0].roles_known
        self.header = self._parts[0].header
        self._owners: dict[tuple[str, str], tuple[PolygraphyJson, TensorInfo]] = {}
        several = len(self._parts) > 1
        for number, part in enumerate(self._parts):
            for row in part.rows():
                place = f"iteration-{number}" if several else ""
                # a file may hold several iterations itself
                identity = f"{place}-{row.input_id}" if place and row.input_id else place or row.input_id
                self._owners[row.name, identity] = (part, replace(row, input_id=identity))

    def rows(self) -> Sequence[TensorInfo]:
        return [row for _, row in self._owners.values()]

    def open(self, row: TensorInfo) -> ArrayReader:
        part, _ = self._owners[row.name, row.input_id]
        own = next(one for one in part.rows() if one.name == row.name and row.input_id.endswith(one.input_id))
        return part.open(own)

    def close(self) -> None:
        return None


def _input_sets(content: mmap.mmap | bytes) -> list[dict[str, msgspec.Raw]] | None:
    """The sets of a file of inputs: a list of them, or one alone as folders hold them. None: a file of outputs."""
    if bytes(content[:64]).lstrip()[:1] == b"[":
        return msgspec.json.decode(content, type=list[dict[str, msgspec.Raw]])
    one = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    return None if not one or "lst" in one or "polygraphy_class" in one else [one]


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:
        return b""  # an empty file cannot be mapped
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
