"""What else the machine does while something is timed on it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LOOKED = 0.2  # seconds below which the kernel's clock ticks are too coarse to tell


@dataclass(frozen=True, slots=True)
class Busy:
    """Seconds of all cores together since some moment.

    Attributes:
        wall: of the clock.
        machine: that all cores worked for whatever program; None where the system does not say.
        own: that they worked for this process.
    """

    wall: float
    machine: float | None
    own: float


def look() -> Busy:
    """As of now."""
    own = os.times()
    return Busy(time.perf_counter(), _machine_seconds(), own.user + own.system)


def other_load(before: Busy, after: Busy) -> float | None:
    """Cores that other programs kept busy on average between two looks; None where the system does not say, or too little time passed."""
    wall = after.wall - before.wall
    if before.machine is None or after.machine is None or wall < _LOOKED:
        return None
    machine, own = after.machine - before.machine, after.own - before.own
    if machine <= 0:
        return None  # a sandbox that shows a file which does not move
    return max(0.0, (machine - own) / wall)


def cores() -> int:
    """Of the machine, those included that this process may not use: what other programs do is counted over all."""
    return os.cpu_count() or 1


def _machine_seconds(read: Callable[[], str] = lambda: Path("/proc/stat").read_text(encoding="ascii")) -> float | None:
    """Linux counts ticks a core spends on user, nice, system, idle, iowait, irq, softirq, steal."""
    try:
        words = read().split("\n", 1)[0].split()
        ticks = [int(word) for word in words[1:9]]
        rate = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    if words[:1] != ["cpu"] or len(ticks) < 4:
        return None
    return (sum(ticks) - sum(ticks[3:5])) / rate
