"""``.safetensors`` as source and sink, through the safetensors library: keeps bfloat16 and float8 where .npz cannot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from probe.errors import InputError
from probe.precision import ML_DTYPES, dtype_name, numpy_dtype
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.numpy_files import ArrayReader
from probe.store.source import Array
from probe.store.target import Target, disk_errors
from probe.store.writer import is_text

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class Safetensors:
    """A ``.safetensors`` file. Names only: it has no roles.

    Raises:
        InputError: not a safetensors file, or a type probe does not know.
    """

    kind = "safetensors"
    roles_known = False

    def __init__(self, path: str | Path) -> None:
        import safetensors

        self.path = str(path)
        self.header = RunHeader()
        try:
            self._file: Any = safetensors.safe_open(str(path), framework="numpy")
            self._rows = [self._row(name) for name in self._file.keys()]  # noqa: SIM118  (not a dict)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}", hint="write it again with safetensors") from error

    def _row(self, name: str) -> TensorInfo:
        part = self._file.get_slice(name)
        code = part.get_dtype()
        if code not in _DTYPES:
            raise InputError(f"tensor {name!r} has the type {code}, which probe does not read", where=self.path)
        return TensorInfo(name, _DTYPES[code], tuple(part.get_shape()))

    def rows(self) -> Sequence[TensorInfo]:
        return self._rows

    def open(self, row: TensorInfo) -> ArrayReader:
        dtype = numpy_dtype(row.dtype)
        if row.dtype not in ML_DTYPES or row.dtype == "bfloat16":
            return ArrayReader(self._file.get_tensor(row.name))
        # The library has no numpy type for float8, but it checked the offsets.
        start, stop = self._places[row.name]["data_offsets"]
        with open(self.path, "rb") as file:
            file.seek(start + self._data_start)
            return ArrayReader(np.frombuffer(file.read(stop - start), dtype).reshape(row.shape))

    @cached_property
    def _data_start(self) -> int:
        with open(self.path, "rb") as file:
            return 8 + int.from_bytes(file.read(8), "little")

    @cached_property
    def _places(self) -> dict[str, Any]:
        with open(self.path, "rb") as file:
            return json.loads(file.read(self._data_start)[8:])

    def close(self) -> None:
        self._file = None


class SafetensorsWriter:
    """A ``.safetensors`` sink. The format's header stands first, so all tensors are held in memory until the end.

    Raises:
        InputError: text tensors, two input sets, or the file cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        self._target = Target(path, overwrite=overwrite, is_folder=False)
        self._tensors: dict[str, Array] = {}
        self._input_id: str | None = None

    def __enter__(self) -> Self:
        return self

    def replace_header(self, header: RunHeader) -> None:
        return None

    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo:
        if self._input_id not in (None, info.input_id):
            raise InputError(
                "a .safetensors file holds one input set", where=str(self._path), hint="name a folder with -o"
            )
        self._input_id = info.input_id
        if array is None:
            return info
        if array.dtype.kind in "OSUT" or array.dtype.name not in _DTYPES.values():
            raise InputError(f"tensor {info.name!r} is {dtype_name(array.dtype)}, which .safetensors cannot hold",
                             where=str(self._path), hint="name a folder with -o, or leave it out with --select")  # fmt: skip
        if info.name in self._tensors or info.name == "__metadata__" or not is_text(info.name):
            why = "appears twice" if info.name in self._tensors else "is reserved or not Unicode text"
            raise InputError(f"tensor name {info.name!r} {why} in a .safetensors file", where=str(self._path),
                             hint="name a folder with -o")  # fmt: skip
        # Little-endian, and a copy: a runner may reuse its buffer for the next tensor.
        self._tensors[info.name] = np.array(array, array.dtype.newbyteorder("<"), order="C")
        return info

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        import safetensors
        from safetensors.numpy import save_file

        try:
            with disk_errors(self._path):
                self._target.prepare()
                save_file(self._tensors, str(self._target.partial))
                self._target.publish()
        except safetensors.SafetensorError as failure:
            raise InputError(f"cannot write {self._path}: {failure}", hint="choose another -o") from failure
        finally:
            self._target.discard()
