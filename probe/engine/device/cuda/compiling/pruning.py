"""The folder of compiled kernels stays below a bound: what nobody has used for longest is removed. Several processes may do so at once."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

LIMIT = 1 << 30  # bytes, as the driver's own cache has: some ten thousand kernels, of hundreds of networks
_LEAVES = 0.9  # of the limit: not every kernel that comes makes another go
_UNTOLD = 24 * 3600.0  # seconds for which another use is not noted: times of files are written once a day at most
_ABANDONED = 3600.0  # seconds after which a file that is being written has lost its writer


def note_use(path: Path, modified: float) -> None:
    """A kernel was taken from the folder: what was used last is removed last.

    Args:
        modified: when a use of it was noted last.
    """
    if time.time() - modified > _UNTOLD:
        with suppress(OSError):  # someone else's folder, or the kernel was just removed
            os.utime(path)


def prune(folder: Path, limit: int = LIMIT) -> int:
    """Remove kernels, those first that were used longest ago, until nine tenths of the limit are left; nothing below the limit.

    A process that has one of them open goes on reading it, one that looks for it compiles it again. Who prunes at the same time removes
    the same kernels, not others. Files that are no kernels stay, but for those half written by processes that ended.

    Returns:
        kernels removed.
    """
    kernels, total, now = [], 0, time.time()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    known = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(".kernel"):
                        kernels.append((known.st_mtime, entry.name, known.st_size))
                        total += known.st_size
                    elif entry.name.endswith(".part") and now - known.st_mtime > _ABANDONED:
                        Path(entry).unlink()
                except OSError:  # gone meanwhile, or in use on a system that does not remove such files
                    continue
    except OSError:
        return 0
    if total <= limit:
        return 0
    removed = 0
    for _, name, size in sorted(kernels):
        if total <= limit * _LEAVES:
            break
        total -= size  # of one that another process has removed, too
        try:
            (folder / name).unlink()
            removed += 1
        except OSError:
            continue
    return removed
