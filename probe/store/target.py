"""Where a recording will appear: by one rename when it is whole, never over something that is none, tidied after dead processes.

A process killed at any moment leaves ``.NAME.partial-PID-TOKEN``, or for the time between two renames of an overwritten folder
``.NAME.old-PID-TOKEN``. The next recording to the same place removes the first and puts the second back.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from probe.errors import InputError

try:
    import fcntl
except ImportError:  # not a POSIX system: the process id alone tells the living from the dead
    fcntl = None

# What rename says when another recording came in between.
_TAKEN = frozenset((errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT))
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NAME_LIMIT = 200  # bytes of NAME that fit beside the rest into the 255 of a file name
LOCKED = "rows"  # the file of a partial folder that its writer holds locked


class Target:
    """The final path of a recording and the hidden one beside it that it is written to, a folder or a file.

    Raises:
        InputError: the path is taken (and ``overwrite`` is off, or it is no recording), or cannot be looked at.
    """

    def __init__(self, path: Path, *, overwrite: bool, is_folder: bool) -> None:
        self.path = path
        self._overwrite = overwrite
        self._is_folder = is_folder
        self._made: list[Path] = []
        with disk_errors(path):
            _tidy_up(path)
            _refuse_to_clobber(path, overwrite, is_folder)
        self.partial = path.parent / f".{_stem(path)}.partial-{os.getpid()}-{secrets.token_hex(4)}"

    def prepare(self) -> None:
        """Make the parents, and the hidden folder if it is one."""
        missing = [self.path.parent, *self.path.parent.parents]
        self._made = [folder for folder in missing if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._is_folder:
            self.partial.mkdir()

    def publish(self) -> None:
        """Give what was written its name.

        Raises:
            InputError: something took the place in the meantime.
        """
        _refuse_to_clobber(self.path, self._overwrite, self._is_folder)
        try:
            if self._is_folder:
                _swap_in(self.partial, self.path, self._overwrite)
            elif self._overwrite:
                os.replace(self.partial, self.path)
            else:
                _link(self.partial, self.path)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            what = f"{self.path} was made or removed by another process while this recording ran"
            raise InputError(what, hint="choose another -o, or pass --overwrite") from error
        self._made = []

    def discard(self) -> None:
        """Remove what was not published, the parents made for it included. After ``publish`` nothing is left to remove."""
        if self._is_folder:
            shutil.rmtree(self.partial, ignore_errors=True)
        else:
            with suppress(OSError):
                self.partial.unlink()
        for folder in self._made:
            with suppress(OSError):  # not empty: somebody else uses it now
                folder.rmdir()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn OSError into the user's error: full disk, read-only folder, no permission, a name too long."""
    try:
        yield
    except OSError as error:
        hint = "choose another -o"
        if error.errno in _FULL:
            hint = "free some space, choose another -o, or record less with --select or --stats-only"
        what = f"cannot write the recording: {error.strerror or error}"
        raise InputError(what, where=str(path), hint=hint) from error


def lock(file: BinaryIO) -> None:
    """Hold ``file`` until it is closed, as a sign of life that other containers see: there, process ids mean nothing."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _refuse_to_clobber(path: Path, overwrite: bool, is_folder: bool) -> None:
    if is_folder:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise InputError(f"{path} exists and is not a folder", hint="choose another -o")
        if not path.exists() or not any(path.iterdir()):
            return
    else:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} exists and is not a file", hint="choose another -o")
        if not path.exists():
            return
    if not overwrite:
        raise InputError(f"{path} exists", hint="choose another -o, or pass --overwrite")
    if is_folder:
        _refuse_what_is_no_dump(path)


def _refuse_what_is_no_dump(path: Path) -> None:
    """Overwriting removes the whole folder: it must be one that probe made and that holds nothing else."""
    manifest = path / "manifest.jsonl"
    with suppress(OSError), manifest.open("rb") as file:
        if b'"format":"probe.dump/' in file.read(256):
            ours = re.compile(r"manifest\.jsonl|data-\d{3,}\.bin")
            foreign = sorted(entry.name for entry in path.iterdir() if not ours.fullmatch(entry.name))
            if not foreign:
                return
            what = f"{path} holds more than a recording ({', '.join(foreign[:3])}); it will not be overwritten"
            raise InputError(what, hint="move the other files away, or choose another -o")
    raise InputError(f"{path} is not a recording; it will not be overwritten", hint="choose another -o")


def _swap_in(partial: Path, path: Path, overwrite: bool) -> None:
    if not overwrite or not path.exists():
        os.rename(partial, path)
        return
    old = path.parent / f".{_stem(path)}.old-{os.getpid()}-{secrets.token_hex(4)}"
    os.rename(path, old)
    try:
        os.rename(partial, path)
    except OSError:
        with suppress(OSError):  # another recording took the place: that one stays
            os.rename(old, path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _link(partial: Path, path: Path) -> None:
    """Rename a file without replacing one that came in between, which ``rename`` would."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno == errno.EEXIST or path.exists():
            raise
        os.rename(partial, path)  # a file system without hard links
    else:
        partial.unlink()


def _stem(path: Path) -> str:
    return os.fsdecode(os.fsencode(path.name)[:_NAME_LIMIT])


def _tidy_up(path: Path) -> None:
    stem = _stem(path)
    mark = re.compile(re.escape(f".{stem}.") + r"(partial|old)-(\d+)-[0-9a-f]{8}")
    try:
        entries = list(path.parent.iterdir())
    except OSError:  # no folder yet, or one that may be written to and not listed
        return
    for entry in entries:
        match = mark.fullmatch(entry.name)
        if match is None or _alive(int(match[2])) or _locked(entry):
            continue
        with suppress(OSError):
            if match[1] == "old" and stem == path.name and not path.exists():
                os.rename(entry, path)
            elif entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _locked(entry: Path) -> bool:
    if fcntl is None:
        return False
    try:
        with (entry / LOCKED if entry.is_dir() else entry).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
