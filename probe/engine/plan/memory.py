"""Offsets of buffers in one block of memory. Pure: lifetimes in, offsets out.

Two buffers that are alive at the same step must not overlap; what is never alive together may share bytes. The least that any layout
needs is the largest sum of what is alive at one step (the peak). Finding the smallest layout is NP-hard (dynamic storage allocation), so
several greedy orders are tried, the cheapest first, until one is near the peak; on networks nearly always the first or second is. After
them come orders of sizes that are shaken; then the best order is changed step by step: what lies at the top is placed earlier (hill
climbing, as in TVM's memory planner).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random

import numpy as np

ALIGNMENT = 256  # bytes: what CUDA's own allocator keeps to, and the widest access of any kernel
NEAR = 1.05  # times the peak at which no further order is tried
_PLACEMENTS = (
    10_000  # of single buffers while climbing: about 20 ms; four times as many of few, whose islands weigh more
)
_FEW = 64


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A buffer: its bytes, and the first and last step (inclusive) at which its contents matter."""

    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where buffers lie.

    Attributes:
        offsets: of each buffer, in the order given, multiples of the alignment.
        nbytes: of the whole block.
        peak_bytes: the largest sum of (aligned) buffers alive at one step: no layout is smaller.
    """

    offsets: tuple[int, ...]
    nbytes: int
    peak_bytes: int


def plan_memory(lifetimes: Sequence[Lifetime], alignment: int = ALIGNMENT) -> Layout:
    """Offsets for all of ``lifetimes``, the same for the same lifetimes; buffers of no bytes get offset 0."""
    sizes = [-(-one.nbytes // alignment) * alignment for one in lifetimes]
    held = [at for at, size in enumerate(sizes) if size]
    peak = peak_bytes(lifetimes, sizes)
    best = _by_time(lifetimes, sizes, held)
    least = _end(best, sizes)
    if least > NEAR * peak:
        beside = _alive_together(lifetimes, held)
        order, crowds = held, _crowds(lifetimes, sizes)
        by_key = (sorted(held, key=lambda at, key=key: key(lifetimes[at], crowds[at])) for key in _ORDERS)
        for tried in chain(by_key, _shaken(lifetimes, sizes, held)):
            found = _by_order(sizes, tried, beside)
            if (end := _end(found, sizes)) < least:
                best, least, order = found, end, tried
            if least <= NEAR * peak:
                break
        else:
            best, least = _climbed(sizes, order, beside, best, NEAR * peak)
    return Layout(tuple(best), least, peak)


def peak_bytes(lifetimes: Sequence[Lifetime], sizes: Sequence[int]) -> int:
    """The largest sum of sizes alive at one step."""
    changes: dict[int, int] = {}
    for one, size in zip(lifetimes, sizes, strict=True):
        changes[one.first] = changes.get(one.first, 0) + size
        changes[one.last + 1] = changes.get(one.last + 1, 0) - size
    peak = alive = 0
    for _, change in sorted(changes.items()):
        alive += change
        peak = max(peak, alive)
    return peak


def _crowds(lifetimes: Sequence[Lifetime], sizes: Sequence[int]) -> list[int]:
    """For each buffer the largest sum of sizes alive at one of its steps."""
    alive = np.zeros(max(one.last for one in lifetimes) + 2, np.int64)
    for one, size in zip(lifetimes, sizes, strict=True):
        alive[one.first] += size
        alive[one.last + 1] -= size
    alive = np.cumsum(alive)
    return [int(alive[one.first : one.last + 1].max()) for one in lifetimes]


def _end(offsets: Sequence[int], sizes: Sequence[int]) -> int:
    return max((offset + size for offset, size in zip(offsets, sizes, strict=True)), default=0)


def _by_time(lifetimes: Sequence[Lifetime], sizes: Sequence[int], held: Sequence[int]) -> list[int]:
    """As an allocator would that sees buffers come and go: each into the smallest hole that takes it, else behind everything alive."""
    offsets = [0] * len(sizes)
    alive: list[tuple[int, int, int]] = []  # offset, end, last step
    for at in sorted(held, key=lambda at: (lifetimes[at].first, -sizes[at])):
        first, size = lifetimes[at].first, sizes[at]
        alive = [one for one in alive if one[2] >= first]
        offsets[at] = _smallest_hole(((begin, end) for begin, end, _ in alive), size)
        insort(alive, (offsets[at], offsets[at] + size, lifetimes[at].last))
    return offsets


def _alive_together(lifetimes: Sequence[Lifetime], held: Sequence[int]) -> dict[int, list[int]]:
    """For every buffer those that are alive at one of its steps."""
    beside: dict[int, list[int]] = {at: [] for at in held}
    alive: list[int] = []
    for at in sorted(held, key=lambda at: lifetimes[at].first):
        alive = [other for other in alive if lifetimes[other].last >= lifetimes[at].first]
        for other in alive:
            beside[other].append(at)
        beside[at] += alive
        alive.append(at)
    return beside


def _by_order(sizes: Sequence[int], order: Sequence[int], beside: dict[int, list[int]]) -> list[int]:
    """In a given order, each into the smallest hole between those placed before it that are alive with it."""
    offsets = [-1] * len(sizes)
    for at in order:
        busy = [(offsets[other], offsets[other] + sizes[other]) for other in beside[at] if offsets[other] >= 0]
        offsets[at] = _smallest_hole(sorted(busy), sizes[at])
    return [max(offset, 0) for offset in offsets]


def _shaken(lifetimes: Sequence[Lifetime], sizes: Sequence[int], held: Sequence[int]) -> Iterator[list[int]]:
    """Orders like the one of the largest first, in which what is not much smaller, or lives longer, may come before."""
    random = Random(1)  # noqa: S311 - not for secrets; the same layout for the same lifetimes
    for at in range(_PLACEMENTS // (2 * max(len(held), 1))):
        weights = {
            one: sizes[one]
            * random.uniform(0.3, 1)
            * (lifetimes[one].last - lifetimes[one].first + 1) ** (0.5 * (at % 2))
            for one in held
        }
        yield sorted(held, key=weights.__getitem__, reverse=True)


def _climbed(
    sizes: Sequence[int], order: Sequence[int], beside: dict[int, list[int]], best: list[int], enough: float
) -> tuple[list[int], int]:
    """Orders beside ``order``: a buffer that reaches to the top, or one alive with it, changes places with one before it. What is no worse is
    gone on from."""
    random = Random(0)  # noqa: S311 - not for secrets; the same layout for the same lifetimes
    order, current = list(order), _end(best, sizes)
    offsets, least = best, current
    placements = _PLACEMENTS if len(order) > _FEW else 4 * _PLACEMENTS
    for _ in range(placements // max(len(order), 1)):
        if least <= enough:
            break
        top = next(at for at in order if offsets[at] + sizes[at] == current)
        one = random.choice([top, *beside[top]])
        tried = list(order)
        here = tried.index(one)
        there = random.randrange(here) if here else random.randrange(len(tried))
        tried[here], tried[there] = tried[there], tried[here]
        found = _by_order(sizes, tried, beside)
        end = _end(found, sizes)
        if end <= current:
            order, offsets, current = tried, found, end
            if end < least:
                best, least = found, end
    return best, least


def _smallest_hole(busy: Iterable[tuple[int, int]], size: int) -> int:
    """Where ``size`` bytes fit most closely between pairs (begin, end) in order; behind them all when there is no hole."""
    least, found, reached = 0, -1, 0
    for begin, end in busy:
        gap = begin - reached
        if gap >= size and (found < 0 or gap < least):
            least, found = gap, reached
        reached = max(reached, end)
    return reached if found < 0 else found


# Orders to try: those that live through the worst step first, the long-lived first among them, since they leave islands otherwise, or in the order of
# time; from the end to the beginning; then the largest first, which is what most compilers do.
_ORDERS: tuple[Callable[[Lifetime, int], tuple[int, ...]], ...] = (
    lambda one, crowd: (-crowd, one.first - one.last, -one.nbytes),
    lambda one, crowd: (-crowd, one.first, -one.nbytes),
    lambda one, _: (-one.last, -one.nbytes),
    lambda one, _: (-one.nbytes, one.first),
    lambda one, _: (one.first - one.last, -one.nbytes),
    lambda one, _: (-one.nbytes * (one.last - one.first + 1), one.first),
)
