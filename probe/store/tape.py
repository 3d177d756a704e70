"""``Tape``: a recording in memory that is written like a dump and read like one, and becomes one when it grows too large."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.numpy_files import ArrayReader
from probe.store.source import Array, TensorReader
from probe.store.statistics import range_statistics

if TYPE_CHECKING:
    from probe.store.dump import Dump
    from probe.store.writer import DumpWriter

DEFAULT_LIMIT = 1 << 30  # bytes of tensors held in memory


class Tape:
    """A sink and, once its ``with`` block is left, a source with full rows. ``close`` when it is read.

    Above ``memory_limit`` bytes everything moves to a dump in a temporary folder; what follows goes there directly, so that memory holds
    one tensor at a time. The folder goes with ``close``, with the object, or when the block is left by an exception.

    Arrays are held as they are, not copied: whoever adds one must not write to it again.
    """

    kind = "tape"
    roles_known = True

    def __init__(
        self, path: str = "tape", *, header: RunHeader | None = None, memory_limit: int = DEFAULT_LIMIT
    ) -> None:
        """
        Args:
            path: what results call this recording.
            memory_limit: bytes.
        """
        self.path = path
        self.header = header or RunHeader()
        self._limit = memory_limit
        self._rows: list[TensorInfo] = []
        self._arrays: dict[tuple[str, str], Array] = {}
        self._held = 0
        self._seen: set[tuple[str, str]] = set()
        self._folder: str | None = None
        self._writer: DumpWriter | None = None
        self._dump: Dump | None = None
        self._remove: weakref.finalize | None = None

    # --- as a sink

    def __enter__(self) -> Self:
        return self

    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo:
        """Append one tensor; its row comes back with statistics. ``array`` is None for rows that say why there is none.

        Raises:
            InputError: the tensor was already added for this input, or the temporary folder cannot be written.
        """
        key = (info.name, info.input_id)
        if key in self._seen:
            raise InputError(f"tensor {info.name!r} was recorded twice for input {info.input_id!r}", where=self.path)
        assert array is not None or info.status != "recorded", f"{info.name!r} has no values and no reason why"
        self._seen.add(key)
        if self._writer is None and array is not None and self._held + array.nbytes > self._limit:
            self._spill()
        if self._writer is not None:
            row = self._writer.add(info, array)
        elif array is None:
            row = info
        else:
            row = self._hold(info, np.asarray(array))
        self._rows.append(row)
        return row

    def _hold(self, info: TensorInfo, array: Array) -> TensorInfo:
        self._arrays[info.name, info.input_id] = array
        self._held += array.nbytes
        return replace(
            info, dtype=dtype_name(array.dtype), shape=tuple(array.shape), bytes=array.nbytes, **range_statistics(array)
        )

    def replace_header(self, header: RunHeader) -> None:
        """Change the run header."""
        self.header = header

    def _spill(self) -> None:
        from probe.store.writer import DumpWriter

        self._folder = tempfile.mkdtemp(prefix="probe-tape-")
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._writer = DumpWriter(Path(self._folder) / "tape", self.header).__enter__()
        rows, self._rows = self._rows, []
        for row in rows:
            # Statistics are made anew: a row as it was given has no position yet.
            self._rows.append(self._writer.add(row, self._arrays.pop((row.name, row.input_id), None)))
        self._held = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.replace_header(self.header)
            writer.__exit__(kind, error, trace)
        if kind is not None:
            self.close()
        elif writer is not None:
            from probe.store.dump import Dump

            self._dump = Dump(writer.path)
            self._rows = list(self._dump.rows())

    # --- as a source

    @property
    def spilled(self) -> bool:
        """Whether the tensors lie in a temporary folder."""
        return self._folder is not None

    def rows(self) -> Sequence[TensorInfo]:
        return self._rows

    def open(self, row: TensorInfo) -> TensorReader:
        if row.status != "recorded":
            raise InputError(f"tensor {row.name!r} has no stored values: {row.note or row.status}", where=self.path)
        if self._dump is not None:
            return self._dump.open(row)
        return ArrayReader(self._arrays[row.name, row.input_id])

    def close(self) -> None:
        if self._dump is not None:
            self._dump.close()
            self._dump = None
        self._arrays.clear()
        if self._remove is not None:
            self._remove()
