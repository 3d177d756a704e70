"""numpy's formats as sources and sinks: ``.npz`` archives, single ``.npy`` files, folders of ``.npy``."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import unquote

import numpy as np

from probe.errors import InputError
from probe.precision import ML_DTYPES, dtype_name
from probe.results.tensors import Role, RunHeader, TensorInfo
from probe.store.source import Array
from probe.store.target import Target, disk_errors, lock
from probe.store.writer import is_text, text_of

# What the standard library and numpy raise on bytes that are no archive and no array.
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, NotImplementedError, RuntimeError,
           ValueError, OverflowError, MemoryError)  # fmt: skip
_END_OF_ARCHIVE = 22  # bytes of the record at the end of a zip archive, and of an archive without members
_MEMBER_LIMIT = 65535  # bytes of a name in a zip archive
_MORE = "there is more data than its header speaks of"
_BROKEN = "the file is damaged or not what its name says; write it again with numpy"


class ArrayReader:
    """A tensor that is in memory, or mapped by numpy."""

    def __init__(self, array: Array) -> None:
        self.dtype = dtype_name(array.dtype)
        self.shape = array.shape
        self._flat = array.reshape(-1)
        if self.dtype == "string":
            self._flat = np.array([text_of(x) for x in self._flat], dtype=object)

    def window(self, start: int, stop: int) -> Array:
        window = self._flat[start:stop]  # native byte order: what measures it looks at bits
        return np.ascontiguousarray(window, window.dtype.newbyteorder("="))

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
            _check_directory(self._zip, Path(path))
            self.roles_known = any(name.startswith("out/") for name in names)
            self._members: dict[str, str] = {}
            self._rows: list[TensorInfo] = []
            for member in names:
                name, role = self._split(member.removesuffix(".npy"))
                if name in self._members:
                    raise InputError(f"two arrays are called {name!r}", where=self.path)
                self._members[name] = member
                with self._zip.open(member) as file:
                    dtype, shape = npy_header(file, self.path, member)
                self._rows.append(TensorInfo(name=name, dtype=dtype, shape=shape, role=role))
        except DAMAGE as error:
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
                return ArrayReader(read_whole(file))  # the archive's CRC is checked
        except DAMAGE as error:
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
                    dtype, shape = npy_header(opened, str(file), file.name)
            except OSError as error:
                raise InputError(f"cannot read {file}: {error.strerror}") from error
            self._rows.append(TensorInfo(name=name, dtype=dtype, shape=shape))

    def rows(self) -> Sequence[TensorInfo]:
        return self._rows

    def open(self, row: TensorInfo) -> ArrayReader:
        file = self._files[row.name]
        try:
            if row.dtype != "string" and row.count:
                array = np.load(file, mmap_mode="r", allow_pickle=False)
                if file.stat().st_size != array.offset + array.nbytes:
                    raise ValueError(_MORE)
                return ArrayReader(array)
            with file.open("rb") as opened:
                return ArrayReader(read_whole(opened))
        except DAMAGE as error:
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

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        self._target = Target(path, overwrite=overwrite, is_folder=False)
        self._input_id: str | None = None
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        try:
            with disk_errors(self._path):
                self._target.prepare()
                self._file = self._target.partial.open("xb")
                lock(self._file)
                self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED, allowZip64=True)
        except BaseException:
            self._target.discard()
            raise
        return self

    def replace_header(self, header: RunHeader) -> None:
        return None  # an .npz has no place for it

    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo:
        if self._input_id not in (None, info.input_id):
            raise InputError("an .npz holds one input set", where=str(self._path), hint="name a folder with -o")
        self._input_id = info.input_id
        if array is None:
            return info
        member = {"input": "in/", "output": "out/", "internal": ""}[info.role] + f"{info.name}.npy"
        if info.role == "internal" and info.name.startswith(("in/", "out/")):
            what = f"tensor {info.name!r} inside the network would be read back as one of its inputs or outputs"
            raise InputError(what, where=str(self._path), hint="name a folder with -o, or leave it out with --select")
        _check_member(member, info.name, self._names, self._path)
        self._names.add(info.name)
        stored = portable(array)
        if stored.dtype.kind == "U" and any(text_of(x).endswith("\0") for x in array.reshape(-1)):
            what = f"a text of tensor {info.name!r} ends in a zero character, which numpy files drop"
            raise InputError(what, where=str(self._path), hint="name a folder with -o")
        with disk_errors(self._path), self._zip.open(member, "w", force_zip64=True) as opened:
            np.lib.format.write_array(opened, stored, allow_pickle=False)
        return info

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with disk_errors(self._path):
                    self._zip.close()
                    self._file.flush()
                    self._target.publish()
        finally:
            self._zip.fp = None  # an archive that is given up is not completed when Python collects it
            with suppress(OSError):
                self._file.close()
            self._target.discard()


def _check_directory(archive: zipfile.ZipFile, path: Path) -> None:
    """zipfile stops without a word where an entry of a damaged directory claims to be longer than the rest of it."""
    size, found = path.stat().st_size, len(archive.namelist())
    with path.open("rb") as file:
        file.seek(max(0, size - _END_OF_ARCHIVE - 0xFFFF))  # the end record, and a comment behind it
        end = file.read()
    promised = int.from_bytes(end[end.rfind(b"PK\x05\x06") + 10 :][:2], "little")
    if promised not in (found, 0xFFFF):  # the archive holds more than this field can say
        raise zipfile.BadZipFile(f"its directory lists {found} of {promised} members")
    if not found and size > _END_OF_ARCHIVE:
        raise zipfile.BadZipFile("its directory is empty and it is not")


def _check_member(member: str, name: str, taken: set[str], path: Path) -> None:
    """What zip would cut off, mix up or fail on."""
    if not is_text(member):
        problem = "is not Unicode text, which an .npz needs"
    elif len(member.encode()) > _MEMBER_LIMIT:
        problem = "is too long for an .npz"
    elif "\0" in member:
        problem = "holds a zero character, which an .npz cannot"
    elif name in taken:
        problem = "appears twice, which an .npz cannot hold"
    else:
        return
    raise InputError(f"tensor name {name[:80]!r} {problem}", where=str(path), hint="name a folder with -o")


def read_whole(file: BinaryIO | Any) -> Array:
    """The array in an open ``.npy`` that must hold nothing else: a damaged header would otherwise hide half of its data.

    Raises:
        ValueError: and others; see ``DAMAGE``.
    """
    array = np.lib.format.read_array(file, allow_pickle=False)
    if file.read(1):
        raise ValueError(_MORE)
    return array


def portable(array: Array) -> Array:
    """The array in a type every reader of numpy files knows: text fixed-width, ml_dtypes floats as float32, int4 as int8."""
    if array.dtype.kind in "OSUT":
        return np.array([text_of(x) for x in array.reshape(-1)], dtype=str).reshape(array.shape)
    if array.dtype.name in ML_DTYPES:
        return array.astype(np.int8 if "int" in array.dtype.name else np.float32)
    return np.asarray(array, order="C")  # ascontiguousarray would make a scalar 1-D


def npy_header(file: BinaryIO | Any, path: str, member: str) -> tuple[str, tuple[int, ...]]:
    """Type name and shape from a ``.npy`` header, without reading the values."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (*DAMAGE, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise InputError(f"{member} is not a numpy array: {error}", where=path, hint=_BROKEN) from error
    if dtype.hasobject:
        raise InputError(f"{member} holds pickled Python objects", where=path, hint="save text with dtype=str")
    if dtype.kind == "V":
        raise InputError(
            f"{member} has the raw type {dtype}, which says nothing about its numbers",
            where=path,
            hint="numpy cannot store bfloat16 or float8: convert to float32 before saving, or use .safetensors",
        )
    if any(extent < 0 for extent in shape):
        raise InputError(f"{member} has the shape {shape}", where=path, hint=_BROKEN)
    return dtype_name(dtype), tuple(int(extent) for extent in shape)
