"""Writing a recording: streams tensors to a hidden folder, which gets its name by one rename when it is whole (``target``).

Data is not fsynced: the hashes in the manifest, checked on reading, tell a torn file from a whole one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.statistics import range_statistics
from probe.store.target import LOCKED, Target, disk_errors, lock

Array = np.ndarray[Any, Any]

FORMAT = "probe.dump/1"
ALIGNMENT = 4096  # bytes: a page, so that any tensor can be mapped on its own
MAX_DATA_FILE = 8 << 30  # bytes, after which the next data-NNN.bin starts


class DumpWriter:
    """Write a dump folder in bounded memory: one tensor at a time, in the order they are added.

    Use as a context manager. Leaving it cleanly publishes the folder; leaving it by an exception removes everything.

    Raises:
        InputError: the target exists (and ``overwrite`` is off, or it is not a dump), or cannot be written.
    """

    def __init__(
        self, path: str | Path, header: RunHeader, *, overwrite: bool = False, stats_only: bool = False
    ) -> None:
        self.path = Path(path)
        self._header = replace(header, stats_only=stats_only)
        self._stats_only = stats_only
        self._target = Target(self.path, overwrite=overwrite, is_folder=True)
        self._partial = self._target.partial
        self._rows: BinaryIO | None = None
        self._data: BinaryIO | None = None
        self._data_number = -1
        self._offset = 0
        self._count = 0
        self._seen: set[tuple[str, str]] = set()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="probe-sha256")

    def __enter__(self) -> Self:
        try:
            with disk_errors(self.path):
                self._target.prepare()
                self._rows = (self._partial / LOCKED).open("wb")
                lock(self._rows)
        except BaseException:
            self._target.discard()
            raise
        return self

    def replace_header(self, header: RunHeader) -> None:
        """Change the run header; it is written last, so any time before the end will do."""
        self._header = replace(header, stats_only=self._stats_only)

    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo:
        """Append one tensor and return its row, with statistics, hash and position filled in.

        ``array`` is None for rows that say why there is no tensor (``not_run``, ``unsupported``).

        Raises:
            InputError: this tensor was already added for this input, or the disk is full.
        """
        key = (info.name, info.input_id)
        if not is_text(info.name):
            raise InputError(f"tensor name {info.name!r} is not Unicode text", hint="rename the file or the tensor")
        if key in self._seen:
            raise InputError(
                f"tensor {info.name!r} was recorded twice for input {info.input_id!r}", where=str(self.path)
            )
        if info.step is not None and not math.isfinite(info.step):
            info = replace(info, step=None)  # the scale of a damaged model: no step to measure errors in
        assert array is not None or info.status != "recorded", f"{info.name!r} has no values and no reason why"
        row = info if array is None else self._store(info, array)
        self._seen.add(key)
        with disk_errors(self.path):
            assert self._rows is not None, "DumpWriter is used outside its with block"
            self._rows.write(_line({"kind": "tensor", **_without_defaults(row)}))
        self._count += 1
        return row

    def _store(self, info: TensorInfo, array: Array) -> TensorInfo:
        dtype = dtype_name(array.dtype)
        array = np.asarray(array, order="C")  # once, for the bytes and for the statistics
        payload = stored_bytes(array)
        hashing = self._pool.submit(lambda: hashlib.sha256(payload).hexdigest())
        number, offset = (None, None) if self._stats_only else self._append(payload)
        return replace(
            info,
            dtype=dtype,
            shape=tuple(array.shape),
            status="stats_only" if self._stats_only else "recorded",
            data=number,
            offset=offset,
            bytes=payload.nbytes,
            **range_statistics(array),
            sha256=hashing.result(),
        )

    def _append(self, payload: memoryview) -> tuple[int, int]:
        with disk_errors(self.path):
            if self._data is None or self._offset + payload.nbytes > MAX_DATA_FILE:
                if self._data is not None:
                    self._data.close()
                self._data_number += 1
                self._data = (self._partial / data_file(self._data_number)).open("wb", buffering=0)
                self._offset = 0
            start = self._offset
            _write_all(self._data, payload)
            padding = -payload.nbytes % ALIGNMENT
            _write_all(self._data, memoryview(bytes(padding)))
            self._offset += payload.nbytes + padding
        return self._data_number, start

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        try:
            if kind is None:
                self._publish()
        finally:
            for file in (self._rows, self._data):
                if file is not None:
                    with suppress(OSError):  # the folder is being removed, or everything in it was closed before
                        file.close()
            self._target.discard()

    def _publish(self) -> None:
        assert self._rows is not None
        with disk_errors(self.path):
            if self._data is not None:
                self._data.close()
            self._rows.flush()  # and not closed: it is the sign of life until the folder has its name
            digest = hashlib.sha256()
            with (self._partial / "manifest.jsonl").open("wb") as manifest, (self._partial / LOCKED).open("rb") as rows:
                head = _line({"kind": "run", "format": FORMAT, **asdict(self._header)})
                manifest.write(head)
                digest.update(head)
                while chunk := rows.read(1 << 20):
                    manifest.write(chunk)
                    digest.update(chunk)
                manifest.write(_line({"kind": "end", "tensors": self._count, "sha256": digest.hexdigest()}))
                manifest.flush()
                os.fsync(manifest.fileno())
            (self._partial / LOCKED).unlink()
            self._target.publish()


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate, as file names that are no UTF-8 give
        return False
    return True


def data_file(number: int) -> str:
    """``data-000.bin``, ``data-001.bin``, ..."""
    return f"data-{number:03d}.bin"


def stored_bytes(array: Array) -> memoryview:
    """The bytes a dump holds for an array: C order, little-endian; strings as a JSON array of text in UTF-8."""
    if array.dtype.kind in "OSUT":
        return memoryview(json.dumps([text_of(x) for x in array.reshape(-1)]).encode())
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def text_of(element: Any) -> str:
    """An element of a text tensor; bytes that are no UTF-8 keep their identity as lone surrogates."""
    return element.decode("utf-8", "surrogateescape") if isinstance(element, bytes) else str(element)


def _line(row: dict[str, Any]) -> bytes:
    # Non-finite statistics cannot occur (they are over finite elements), so allow_nan=False is a check and not a loss.
    # ensure_ascii: a lone surrogate, as paths that are no UTF-8 give, stays representable.
    return json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n"


_DEFAULTS = asdict(TensorInfo(name="", dtype="", shape=()))
_ALWAYS = frozenset(("name", "dtype", "shape", "role", "status", "input_id"))


def _without_defaults(row: TensorInfo) -> dict[str, Any]:
    return {k: v for k, v in asdict(row).items() if k in _ALWAYS or v != _DEFAULTS[k]}


def _write_all(file: BinaryIO, payload: memoryview) -> None:
    while payload.nbytes:  # an unbuffered write may be short, at 2 GiB or on a nearly full disk
        payload = payload[file.write(payload) :]
