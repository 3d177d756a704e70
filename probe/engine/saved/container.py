"""The ``.probe`` file as bytes: sections, each with its hash, and a header that says where they lie. Knows nothing of networks.

Layout, integers little-endian::

    0    8 bytes   magic
    8    u32       version of this layout and of the header
    12   u32       zero
    16   u64       where the header begins, in bytes from the start of the file
    24   u64       bytes of the header, which ends the file
    32   32 bytes  SHA-256 of the header
    4096 ...       sections, each at a multiple of 4096 bytes, so that it can be mapped; zeros between them
    ...            the header, JSON

What is read is checked against a hash before it is used; what no hash covers (the zeros between sections) is never read.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from probe.errors import InputError
from probe.results.build import Section

if TYPE_CHECKING:
    from types import TracebackType

MAGIC = b"\x89PROBE\r\n"  # a text-mode transfer changes it, and no text file begins so
VERSION = 1
PAGE = 4096  # bytes
_PREAMBLE = struct.Struct("<8sIIQQ32s")
_HASHED_AT_ONCE = 1 << 24  # bytes: a piece goes through the processor's cache once
_AGAIN = "copy it again, or build it again: probe build MODEL -o FILE"

Buffer = bytes | memoryview


def is_saved_engine(path: str | Path) -> bool:
    """Whether a file begins as a saved engine does. Reads eight bytes."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


class Writer:
    """Writes a container beside its place; it gets its name by one rename when it is whole.

    Weights of the same bytes are stored once.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InputError: the file cannot be made.
        """
        self.path = path
        self._target = Path(os.path.realpath(path))  # through a link: the link stays, its file is replaced
        self._partial = self._target.with_name(
            f".{self._target.name[:180]}.{os.getpid()}-{secrets.token_hex(4)}.partial"
        )
        self._by_hash: dict[str, str] = {}
        self.sections: list[Section] = []
        self._file: BinaryIO = self._guarded(lambda: open(self._partial, "xb"))  # noqa: SIM115 - closed by __exit__
        self._guarded(lambda: self._file.write(bytes(PAGE)))
        self._end = PAGE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._partial.unlink()

    def section(self, name: str, data: Buffer) -> None:
        """Write a section.

        Raises:
            InputError: the disk is full, or gone.
        """
        self._append(name, data, hashlib.sha256(data).hexdigest())

    def weight(self, data: Buffer) -> str:
        """Write a weight, unless one of these bytes is there; returns the name of its section.

        Raises:
            InputError: the disk is full, or gone.
        """
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._by_hash:
            self._by_hash[digest] = f"weight/{len(self._by_hash)}"
            self._append(self._by_hash[digest], data, digest)
        return self._by_hash[digest]

    def finish(
        self, header: Callable[[tuple[Section, ...]], bytes], *, check: Callable[[Path], None] | None = None
    ) -> None:
        """Write the header, look at the file once more, and give it its name.

        Args:
            header: makes it, of the sections.
            check: called with the place of the whole file, which has no name yet; what it raises leaves nothing behind.

        Raises:
            InputError: the disk is full, or gone.
        """
        text = header(tuple(self.sections))
        preamble = _PREAMBLE.pack(MAGIC, VERSION, 0, self._aligned(), len(text), hashlib.sha256(text).digest())

        def write() -> None:
            self._file.seek(self._aligned())
            self._file.write(text)
            self._file.seek(0)
            self._file.write(preamble)
            self._file.close()

        self._guarded(write)
        if check is not None:
            check(self._partial)
        self._guarded(lambda: os.replace(self._partial, self._target))

    def _append(self, name: str, data: Buffer, digest: str) -> None:
        offset = self._aligned()

        def write() -> None:
            self._file.seek(offset)
            self._file.write(data)

        self._guarded(write)
        self._end = offset + len(data)
        self.sections.append(Section(name, offset, len(data), digest))

    def _aligned(self) -> int:
        return -(-self._end // PAGE) * PAGE

    def _guarded(self, write: Callable[[], Any]) -> Any:
        try:
            return write()
        except OSError as error:
            raise InputError(f"cannot write the engine: {error.strerror or error}", where=str(self.path)) from error


@dataclass(frozen=True, slots=True)
class Container:
    """A file whose header was checked, mapped: it stays readable as it is, whatever takes its name meanwhile."""

    path: Path
    header: bytes
    data: memoryview  # of the whole file
    end: int  # where sections end

    def read(self, sections: Sequence[Section]) -> Mapping[str, memoryview]:
        """The bytes of all sections by name, each checked against its hash.

        Raises:
            InputError: a section lies outside the file or has other bytes than were written.
        """
        where = str(self.path)
        views: dict[str, memoryview] = {}
        for one in sections:
            if not (PAGE <= one.offset <= one.offset + one.bytes <= self.end) or one.name in views:
                raise InputError(
                    f"the engine is damaged: no room for its section {one.name!r}", where=where, hint=_AGAIN
                )
            views[one.name] = self.data[one.offset : one.offset + one.bytes]
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            digests = pool.map(_digest, (views[one.name] for one in sections))
            wrong = [one for one, digest in zip(sections, digests, strict=True) if digest != one.sha256]
        if wrong:
            first = wrong[0]
            what = f"the engine is damaged: bytes {first.offset} to {first.offset + first.bytes} ({first.name}) are not those written"
            raise InputError(what, where=where, hint=_AGAIN)
        return views


def open_container(path: str | Path) -> Container:
    """Map a file and check its header.

    Raises:
        InputError: it cannot be read, is no saved engine, was written in another version, is cut short, extended or damaged.
    """
    path = Path(path)
    where = str(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the engine: {getattr(error, 'strerror', None) or error}", where=where) from error
    if data[: len(MAGIC)] != MAGIC:
        raise InputError("not a saved engine of probe", where=where, hint="probe build MODEL -o FILE writes one")
    if size < _PREAMBLE.size:
        raise InputError(f"the engine is truncated: {size} bytes are left of it", where=where, hint=_AGAIN)
    _, version, zero, offset, length, digest = _PREAMBLE.unpack(data[: _PREAMBLE.size])
    if version != VERSION:
        raise InputError(
            f"the engine is of format {version}; this version of probe reads format {VERSION}",
            where=where,
            hint="build it again with this version: probe build MODEL -o FILE",
        )
    if offset + length != size:
        how = "truncated" if offset + length > size else "damaged"
        what = f"the engine is {how}: {size:,} bytes are there, {offset + length:,} were written"
        raise InputError(what, where=where, hint=_AGAIN)
    header = bytes(data[offset : offset + length])
    if zero or offset < PAGE or hashlib.sha256(header).digest() != digest:
        raise InputError("the engine is damaged: its header is not as it was written", where=where, hint=_AGAIN)
    return Container(path, header, data, offset)


def _digest(data: memoryview) -> str:
    digest = hashlib.sha256()
    for at in range(0, len(data), _HASHED_AT_ONCE):
        digest.update(data[at : at + _HASHED_AT_ONCE])
    return digest.hexdigest()
