"""numpy's formats as sources and sinks: ``.npz`` archives, single ``.npy`` files, folders of ``.npy``."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import unquote

import numpy as np

from probe.errors import InputError
from probe.precision import ML_DTYPES, dtype_name
from probe.results.tensors import Role, RunHeader, TensorInfo
from probe.store.source import Array

_BROKEN = "the file is damaged or not what its name says; write it again with numpy"


class ArrayReader:
    """A tensor that is in memory, or mapped by numpy."""

    def __init__(self, array: Array) -> None:
        self.dtype = dtype_name(array.dtype)
        self.shape = array.shape
        self._flat = array.reshape(-1)
        if self.dtype == "string":
            self._flat = np.array([x.decode() if isinstance(x, bytes) else str(x) for x in self._flat], dtype=object)

    def window(self, start: int, stop: int) -> Array:
        return np.ascontiguousarray(self._flat[start:stop])

    def close(self) -> None:
        return None


class Npz:
    """An ``.npz``: keys are tensor names; where any key begins with ``out/``, ``in/NAME`` and ``out/NAME`` give roles.

    Types and shapes come from the members' headers; a member is read when it is opened.

    Raises:
        InputError: no zip archive, a damaged one, or a member that is no array.
    """

    kind = "npz"

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.header = RunHeader()
        try:
            self._zip = zipfile.ZipFile(path)
            names = self._zip.namelist()
            self.roles_known = any(name.startswith("out/") for name in names)
            self._members: dict[str, str] = {}
            self._rows: list[TensorInfo] = []
            for member in names:
                name, role = self._split(member.removesuffix(".npy"))
                if name in self._members:
                    raise InputError(f"two arrays are called {name!r}", where=self.path)
                self._members[name] = member
                with self._zip.open(member) as file:
                    dtype, shape = _npy_header(file, self.path, member)
                self._rows.append(TensorInfo(name=name, dtype=dtype, shape=shape, role=role))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"cannot read {path}: {error}", hint=_BROKEN) from error

    def _split(self, key: str) -> tuple[str, Role]:
        if self.roles_known and key.startswith("out/"):
            return key[4:], "output"
        if self.roles_known and key.startswith("in/"):
            return key[3:], "input"
        # Inputs alone, as saved for a run: in/NAME with nothing beside it.
        return (key[3:], "input") if key.startswith("in/") else (key, "internal")

    def rows(self) -> Sequence[TensorInfo]:
        return self._rows

    def open(self, row: TensorInfo) -> ArrayReader:
        member = self._members[row.name]
        try:
            with self._zip.open(member) as file:
                return ArrayReader(np.lib.format.read_array(file, allow_pickle=False))  # the archive's CRC is checked
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, MemoryError) as error:
            raise InputError(f"cannot read array {row.name!r}: {error}", where=self.path, hint=_BROKEN) from error

    def close(self) -> None:
        self._zip.close()


class NpyFolder:
    """A folder of ``.npy``: the path below the folder without suffix, percent-decoded, is the tensor's name."""

    kind = "npy folder"
    roles_known = False

    def __init__(self, path: str | Path, files: Sequence[Path] | None = None) -> None:
        self.path = str(path)
        self.header = RunHeader()
        root = Path(path)
        found = sorted(root.rglob("*.npy")) if files is None else files
        if not found:
            raise InputError(f"no recording in {path}: neither manifest.jsonl nor any .npy", hint="name another folder")
        self._files: dict[str, Path] = {}
        self._rows: list[TensorInfo] = []
        for file in found:
            name = unquote((file.relative_to(root) if file != root else Path(file.name)).with_suffix("").as_posix())
            if name in self._files:
                raise InputError(f"two files are tensor {name!r}", where=f"{self._files[name]} and {file}")
            self._files[name] = file
            try:
                with file.open("rb") as opened:
                    dtype, shape = _npy_header(opened, str(file), file.name)
            except OSError as error:
                raise InputError(f"cannot read {file}: {error.strerror}") from error
            self._rows.append(TensorInfo(name=name, dtype=dtype, shape=shape))

    def rows(self) -> Sequence[TensorInfo]:
        return self._rows

    def open(self, row: TensorInfo) -> ArrayReader:
        file = self._files[row.name]
        try:
            text_or_empty = row.dtype == "string" or row.count == 0
            return ArrayReader(np.load(file, mmap_mode=None if text_or_empty else "r", allow_pickle=False))
        except (OSError, ValueError, EOFError, MemoryError) as error:
            raise InputError(f"cannot read {file}: {error}", hint=_BROKEN) from error

    def close(self) -> None:
        return None


class NpyFile(NpyFolder):
    """One ``.npy``: one tensor, named after the file."""

    kind = "npy"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, [Path(path)])


class NpzWriter:
    """An ``.npz`` sink: ``in/NAME`` and ``out/NAME`` (or ``NAME`` for internal tensors), one tensor in memory at a time.

    Types numpy's format cannot name (bfloat16, float8) are widened to float32; their values are unchanged.

    Raises:
        InputError: a second input set (an ``.npz`` holds one), or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        self._input_id: str | None = None

    def __enter__(self) -> Self:
        try:
            self._zip = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_STORED, allowZip64=True)
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}") from error
        return self

    def replace_header(self, header: RunHeader) -> None:
        return None  # an .npz has no place for it

    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo:
        if self._input_id not in (None, info.input_id):
            raise InputError("an .npz holds one input set", where=str(self._path), hint="name a folder with -o")
        self._input_id = info.input_id
        if array is None:
            return info
        prefix = {"input": "in/", "output": "out/", "internal": ""}[info.role]
        try:
            with self._zip.open(f"{prefix}{info.name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, portable(array), allow_pickle=False)
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}") from error
        return info

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._zip.close()
            if kind is None:
                os.replace(self._partial, self._path)
        except OSError as failure:
            if kind is None:
                raise InputError(f"cannot write {self._path}: {failure.strerror}") from failure
        finally:
            self._partial.unlink(missing_ok=True)


def portable(array: Array) -> Array:
    """The array in a type every reader of numpy files knows: text fixed-width, ml_dtypes floats as float32, int4 as int8."""
    if array.dtype.kind in "OSUT":
        return np.array([str(x) for x in array.reshape(-1)], dtype=str).reshape(array.shape)
    if array.dtype.name in ML_DTYPES:
        return array.astype(np.int8 if "int" in array.dtype.name else np.float32)
    return np.asarray(array, order="C")  # ascontiguousarray would make a scalar 1-D


def _npy_header(file: BinaryIO | Any, path: str, member: str) -> tuple[str, tuple[int, ...]]:
    """Type name and shape from a ``.npy`` header, without reading the values."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError, SyntaxError, TypeError) as error:
        raise InputError(f"{member} is not a numpy array: {error}", where=path, hint=_BROKEN) from error
    if dtype.hasobject:
        raise InputError(f"{member} holds pickled Python objects", where=path, hint="save text with dtype=str")
    if dtype.kind == "V":
        raise InputError(
            f"{member} has the raw type {dtype}, which says nothing about its numbers",
            where=path,
            hint="numpy cannot store bfloat16 or float8: convert to float32 before saving, or use .safetensors",
        )
    return dtype_name(dtype), tuple(int(extent) for extent in shape)
