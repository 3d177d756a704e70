"""Reading a dump folder: ``manifest.jsonl`` validated whole, ``data-NNN.bin`` mapped, every byte checked against its hash."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import InputError
from probe.precision import numpy_dtype
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.source import Array
from probe.store.writer import ALIGNMENT, FORMAT, data_file

_MAX_DATA_FILES = 1_000_000
_POPULATE_READ = 22  # MADV_POPULATE_READ, which Python's mmap does not name yet
_BROKEN = "the recording was damaged or changed after it was made; record it again"


class Dump:
    """A recording made by ``DumpWriter``, as a ``TensorSource``.

    The manifest is checked when the object is made: format, its own hash, every row's extent against the data files. The bytes of a
    tensor are checked when they have been read in full.

    Raises:
        InputError: no dump at ``path``, or not a whole one.
    """

    kind = "dump"
    roles_known = True

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._folder = Path(path)
        self.header, self._rows = _read_manifest(self._folder / "manifest.jsonl")
        self._maps: dict[int, mmap.mmap] = {}
        self._check_extents()

    def rows(self) -> Sequence[TensorInfo]:
        return self._rows

    @cached_property
    def names(self) -> dict[tuple[str, str], TensorInfo]:
        """Rows by (name, input_id)."""
        return {(row.name, row.input_id): row for row in self._rows}

    def open(self, row: TensorInfo) -> MappedReader | TextReader:
        if row.status != "recorded":
            reason = "it was recorded with --stats-only" if row.status == "stats_only" else row.note or row.status
            raise InputError(f"tensor {row.name!r} has no stored values: {reason}", where=self.path)
        assert row.bytes is not None and row.data is not None and row.offset is not None, "checked by _check_extents"
        data = self._map(row.data) if row.bytes else None
        if row.dtype == "string":
            return TextReader(row, bytes(data[row.offset : row.offset + row.bytes]) if data else b"[]", self.path)
        return MappedReader(row, data, self.path)

    def close(self) -> None:
        for mapping in self._maps.values():
            with suppress(BufferError):  # a caller still holds a window; the mapping goes with the last of them
                mapping.close()
        self._maps.clear()

    def _map(self, number: int) -> mmap.mmap:
        if number not in self._maps:
            path = self._folder / data_file(number)
            try:
                with path.open("rb") as file:
                    self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise InputError(f"cannot read {path}: {error}", hint=_BROKEN) from error
        return self._maps[number]

    def _check_extents(self) -> None:
        sizes: dict[int, int] = {}
        seen: set[tuple[str, str]] = set()
        for row in self._rows:
            where = f"{self._folder / 'manifest.jsonl'}, tensor {row.name!r}"
            if (row.name, row.input_id) in seen:
                raise InputError("a tensor appears twice for one input", where=where, hint=_BROKEN)
            seen.add((row.name, row.input_id))
            if not _possible(row.shape):
                raise InputError(f"no tensor has the shape {list(row.shape)}", where=where, hint=_BROKEN)
            if not all(0 <= count <= row.count for count in (row.nan or 0, row.inf or 0)):
                what = f"{row.nan} NaN and {row.inf} Inf among {row.count} elements"
                raise InputError(what, where=where, hint=_BROKEN)
            if row.status != "recorded":
                continue
            try:
                itemsize = numpy_dtype(row.dtype).itemsize
            except InputError as error:
                raise InputError(error.what, where=where, hint=_BROKEN) from error
            if row.bytes is None or row.data is None or row.offset is None:
                raise InputError("a recorded tensor has no position in the data files", where=where, hint=_BROKEN)
            if row.bytes < 0 or not 0 <= row.data < _MAX_DATA_FILES:
                what = f"{row.bytes} bytes in data file {row.data} is no position"
                raise InputError(what, where=where, hint=_BROKEN)
            if row.dtype != "string" and row.bytes != row.count * itemsize:
                raise InputError(
                    f"{row.bytes} bytes cannot hold {row.dtype}{list(row.shape)}", where=where, hint=_BROKEN
                )
            if row.offset < 0 or row.offset % ALIGNMENT:
                raise InputError(f"offset {row.offset} is not a multiple of {ALIGNMENT}", where=where, hint=_BROKEN)
            if row.data not in sizes:
                path = self._folder / data_file(row.data)
                sizes[row.data] = path.stat().st_size if path.is_file() else 0
            if row.offset + row.bytes > sizes[row.data]:
                raise InputError(
                    f"{data_file(row.data)} is truncated: {sizes[row.data]} bytes, {row.offset + row.bytes} needed",
                    where=where,
                    hint=_BROKEN,
                )


def _possible(shape: tuple[int, ...]) -> bool:
    """Whether numpy can have an array of this shape: 64 axes, 2^63 bytes even where an extent of zero leaves no element."""
    if len(shape) > 64 or any(extent < 0 for extent in shape):
        return False
    return math.prod(extent or 1 for extent in shape) < 1 << 59  # 16 bytes an element at most


class MappedReader:
    """One tensor of a mapped file. Pages leave memory as soon as the next window is asked for: peak memory is one window.

    Reading the windows in order also computes the SHA-256 in a second thread; ``close`` compares it with the manifest.
    """

    _hashers = ThreadPoolExecutor(2, thread_name_prefix="probe-sha256")  # golden and actual, side by side

    def __init__(self, row: TensorInfo, data: mmap.mmap | None, path: str) -> None:
        assert row.bytes is not None and row.offset is not None
        self.dtype = row.dtype
        self.shape = row.shape
        self._row = row
        self._path = path
        self._data = data
        self._numpy = numpy_dtype(row.dtype)
        self._digest = hashlib.sha256()
        self._hashed = 0  # elements that the digest covers
        self._hashing: Future[None] | None = None
        self._mapped = (0, 0)  # bytes of the last window

    def window(self, start: int, stop: int) -> Array:
        size = self._numpy.itemsize
        assert self._row.offset is not None
        first, length = self._row.offset + start * size, (stop - start) * size
        if self._data is None or length <= 0:
            return np.empty(0, self._numpy)
        if not (self._mapped[0] <= first and first + length <= sum(self._mapped)):  # else part of the window held
            self._settle()
            self._mapped = (first, length)
            _populate(self._data, first, length)
        flat = np.frombuffer(self._data, dtype=np.uint8, count=length, offset=first)
        if start == self._hashed:
            if self._hashing is not None:
                self._hashing.result()
            self._hashed = stop
            self._hashing = self._hashers.submit(self._digest.update, flat)  # type: ignore[arg-type]
        return flat.view(self._numpy)

    def _settle(self) -> None:
        """Wait for the hash of the last window and give its pages back."""
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None
        first, length = self._mapped
        if length and self._data is not None:
            page = first - first % mmap.PAGESIZE
            self._data.madvise(mmap.MADV_DONTNEED, page, first + length - page)
            self._mapped = (0, 0)

    def close(self) -> None:
        self._settle()
        if self._hashed == self._row.count and self._digest.hexdigest() != self._row.sha256:
            raise InputError(
                f"the bytes of tensor {self._row.name!r} are not those that were recorded (SHA-256 differs)",
                where=self._path,
                hint=_BROKEN,
            )


def _populate(data: mmap.mmap, first: int, length: int) -> None:
    """Map the pages of a window at once: a fault a page costs as much as the metrics. Linux 5.14; elsewhere they fault one by one."""
    page = first - first % mmap.PAGESIZE
    with contextlib.suppress(OSError, ValueError):
        data.madvise(_POPULATE_READ, page, first + length - page)


class TextReader:
    """A string tensor: decoded whole, since text has no fixed stride."""

    dtype = "string"

    def __init__(self, row: TensorInfo, payload: bytes, path: str) -> None:
        self.shape = row.shape
        broken = InputError(f"the text of tensor {row.name!r} is not what was recorded", where=path, hint=_BROKEN)
        if hashlib.sha256(payload).hexdigest() != row.sha256:
            raise broken
        try:
            texts = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise broken from error
        if not isinstance(texts, list) or len(texts) != row.count or not all(isinstance(x, str) for x in texts):
            raise broken
        self._values = np.array(texts, dtype=object)

    def window(self, start: int, stop: int) -> Array:
        return self._values[start:stop]

    def close(self) -> None:
        return None


def _read_manifest(path: Path) -> tuple[RunHeader, list[TensorInfo]]:
    import msgspec

    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="name a folder made by probe dump") from error
    lines = content.splitlines(keepends=True)
    try:
        if len(lines) < 2 or not lines[-1].endswith(b"\n"):
            raise ValueError("no end line: the file is truncated")
        head, end = _decode(lines[0]), _decode(lines[-1])
        if head.pop("kind", None) != "run":
            raise ValueError("the first line is not a run header")
        if (version := head.pop("format", None)) != FORMAT:
            raise ValueError(f"format {version!r}; this probe reads {FORMAT}")
        if end.get("kind") != "end":
            raise ValueError("no end line: the file is truncated")
        if hashlib.sha256(content[: len(content) - len(lines[-1])]).hexdigest() != end.get("sha256"):
            raise ValueError("its SHA-256 is not the one in its end line")
        if end.get("tensors") != len(lines) - 2:
            raise ValueError(f"{len(lines) - 2} rows, {end.get('tensors')} promised")
        rows = [_decode(line) for line in lines[1:-1]]
        if any(row.pop("kind", None) != "tensor" for row in rows):
            raise ValueError("a line between header and end is no tensor")
        return msgspec.convert(head, RunHeader), msgspec.convert(rows, list[TensorInfo])
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:  # ValidationError is a ValueError
        raise InputError(f"not a whole recording: {error}", where=str(path), hint=_BROKEN) from error


def _decode(line: bytes) -> dict[str, Any]:
    # Not msgspec's parser, which refuses lone surrogates: paths and input ids that are no UTF-8 give them.
    value = json.loads(line, parse_constant=_refuse)
    return value if isinstance(value, dict) else _refuse(f"{line[:20]!r}")


def _refuse(what: str) -> Any:
    raise ValueError(f"{what} stands where a JSON object or number should")
