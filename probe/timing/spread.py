"""Statistics of measured times, and what makes a measurement one that others should not be compared with. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from probe.errors import InputError
from probe.results.bench import Spread

UNSTEADY = 0.10  # coefficient of variation above which times are called unstable
_DRIFT = 0.05  # of the median, between the first and the last third
_THIRDS = 30  # times it takes to speak of a drift
FEW = 10  # with fewer times, p90 and above are interpolated between the two slowest
# Other programs may keep so much busy before times notice: of all cores, or of one, whichever is more.
_BUSY_SHARE, _BUSY_CORES = 0.10, 0.25


def spread_of(seconds: Sequence[float]) -> Spread:
    """Of at least two times.

    Raises:
        InputError: fewer.
    """
    if len(seconds) < 2:
        raise InputError(
            f"{len(seconds)} measured times say nothing of how they vary",
            where="--iterations",
            hint="measure at least two",
        )
    times = np.asarray(seconds, np.float64)
    low, median, p90, p95, p99, high = (float(one) for one in np.percentile(times, (0, 50, 90, 95, 99, 100)))
    return Spread(len(times), low, float(times.mean()), median, p90, p95, p99, high, float(times.std(ddof=1)))


def unsteady(latencies: Sequence[float], other_load: float | None, cores: int) -> list[str]:
    """Why these times would not come out again; empty where nothing speaks against it.

    Args:
        latencies: in the order they were measured.
        other_load: cores that other programs kept busy meanwhile; None: not known.
        cores: of the machine.
    """
    spread = spread_of(latencies)
    found = []
    if spread.cv > UNSTEADY:
        found.append(
            f"times vary by {100 * spread.cv:.0f} % (coefficient of variation; up to {100 * UNSTEADY:.0f} % is stable): the median is what to compare, and "
            "a longer --duration steadies it"
        )
    third = len(latencies) // 3
    if len(latencies) >= _THIRDS:
        first, last = statistics.median(latencies[:third]), statistics.median(latencies[-third:])
        if abs(last - first) > max(_DRIFT, spread.cv / 2) * spread.median:
            way = "slower" if last > first else "faster"
            found.append(
                f"it got {way} while it was measured: the median of the last third is {last / first:.2f} times that of the first; a longer "
                "--warmup, or a cooler machine"
            )
    if other_load is not None and other_load > max(_BUSY_CORES, _BUSY_SHARE * cores):
        found.append(f"the machine was busy: other programs kept {other_load:.1f} of {cores} cores working meanwhile")
    return found


def few_runs(runs: int) -> str:
    """A warning of what percentiles of so few times are; "" where there are enough."""
    if runs >= FEW:
        return ""
    return f"of {runs} runs: p90, p95 and p99 lie between the two slowest of them"
