"""How much memory there is, and how to stay within it: which tensors to hand out together."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

_FRACTION = 0.7  # of what is available, when the user sets no limit: others live here too
_UNLIMITED = 1 << 60


def available_bytes() -> int:
    """Memory this process may still take: the least of what the system has available and what its control groups leave."""
    return min(_system_available(), _group_available())


def default_limit() -> int:
    """Bytes a run may take when the user sets no limit: what the process has now, and 70 % of what is available."""
    return resident_bytes() + int(available_bytes() * _FRACTION)


def resident_bytes() -> int:
    """Memory of this process now."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
        import resource

        return int(fields[1]) * resource.getpagesize()
    except (OSError, ImportError, IndexError, ValueError):
        return 0


def return_freed_memory() -> None:
    """Give memory that was freed back to the system. The C library keeps it otherwise, in pieces too small for the next session."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):  # not glibc: other allocators give back by themselves
        ctypes.CDLL(None).malloc_trim(0)


def _system_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return _UNLIMITED  # not a system that says; the user can: --memory-limit


def _group_available(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """What the control groups around this process leave (version 2 and 1). Page cache counts as free: it is given back."""
    least = _UNLIMITED
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return least
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        v2 = controllers == ""
        base = root if v2 else root / "memory"
        limit_name, used_name = (
            ("memory.max", "memory.current") if v2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        folder = base / path.lstrip("/")
        # Inside a container the path may be the host's, which is not mounted: then the root of the mount is our group.
        while True:
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None and limit < _UNLIMITED:
                least = min(least, max(limit - used + _file_cache(folder / "memory.stat"), 0))
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent
    return least


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there; or "max"
        return None


def _file_cache(path: Path) -> int:
    try:
        counts = dict(line.split() for line in path.read_text().splitlines())
        return int(counts.get("inactive_file", counts.get("total_inactive_file", "0")))
    except (OSError, ValueError):
        return 0


def peak_of_live_tensors(order: Sequence[tuple[Sequence[str], Sequence[str]]], sizes: Mapping[str, int]) -> int:
    """Bytes of the largest set of tensors alive at once when each is freed after its last reader.

    Args:
        order: (made, read) names of every node in execution order.
    """
    last = {name: index for index, (_, read) in enumerate(order) for name in read}
    ends: dict[int, list[str]] = {}
    alive = peak = 0
    for index, (made, _) in enumerate(order):
        for name in made:
            alive += sizes.get(name, 0)
            ends.setdefault(last.get(name, index), []).append(name)
        peak = max(peak, alive)
        alive -= sum(sizes.get(name, 0) for name in ends.pop(index, ()))
    return peak


def chunks(names: Sequence[str], sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """``names`` in order, cut so that each part's bytes fit ``budget``; a tensor larger than that is a part of its own."""
    parts: list[list[str]] = []
    used = 0
    for name in names:
        size = sizes[name]
        if not parts or used + size > budget:
            parts.append([])
            used = 0
        parts[-1].append(name)
        used += size
    return parts
