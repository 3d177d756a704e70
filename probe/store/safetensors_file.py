"""``.safetensors`` as source and sink, through the safetensors library: keeps bfloat16 and float8 where .npz cannot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.numpy_files import ArrayReader
from probe.store.source import Array

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
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
        return ArrayReader(self._file.get_tensor(row.name))

    def close(self) -> None:
        self._file = None


class SafetensorsWriter:
    """A ``.safetensors`` sink. The format's header stands first, so all tensors are held in memory until the end.

    Raises:
        InputError: text tensors, two input sets, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
        if array.dtype.kind in "OSUTc":
            raise InputError(f"tensor {info.name!r} is {info.dtype}, which .safetensors cannot hold",
                             where=str(self._path), hint="name a folder with -o, or leave it out with --select")  # fmt: skip
        self._tensors[info.name] = np.asarray(array, order="C")
        return info

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        import safetensors
        from safetensors.numpy import save_file

        partial = self._path.with_name(f".{self._path.name}.partial-{os.getpid()}")
        try:
            save_file(self._tensors, str(partial))
            os.replace(partial, self._path)
        except (OSError, safetensors.SafetensorError, KeyError) as failure:
            raise InputError(f"cannot write {self._path}: {failure}") from failure
        finally:
            partial.unlink(missing_ok=True)
