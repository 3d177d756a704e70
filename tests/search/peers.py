"""The searches that ours is held against: ddmin and prefix bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def ddmin(passes: Callable[[frozenset[str]], bool], items: Sequence[str]) -> list[str]:
    """Zeller and Hildebrandt (2002), for a smallest set that passes: all items pass, none do not.

    Evaluations are cached by the caller's ``passes``.
    """
    now, parts = list(items), 2
    while len(now) >= 2:
        step = -(-len(now) // parts)
        chunks = [now[i : i + step] for i in range(0, len(now), step)]
        for chunk in chunks:
            if passes(frozenset(chunk)):
                now, parts = chunk, 2
                break
        else:
            for chunk in chunks if len(chunks) > 2 else ():
                rest = [one for one in now if one not in set(chunk)]
                if passes(frozenset(rest)):
                    now, parts = rest, max(len(chunks) - 1, 2)
                    break
            else:
                if parts >= len(now):
                    return now
                parts = min(2 * parts, len(now))
    return now


def prefix_bisection(passes: Callable[[frozenset[str]], bool], items: Sequence[str]) -> list[str]:
    """Polygraphy's ``debug precision``, with its two wrong answers mended: the shortest passing prefix in model order, if more is better."""
    low, high = 0, len(items)
    while high - low > 1:
        middle = (low + high) // 2
        if passes(frozenset(items[:middle])):
            high = middle
        else:
            low = middle
    return list(items[:high])


class Counted:
    """``passes`` with a memory: counts what was evaluated."""

    def __init__(self, passes: Callable[[frozenset[str]], bool]) -> None:
        self._passes = passes
        self._known: dict[frozenset[str], bool] = {}

    def __call__(self, kept: frozenset[str]) -> bool:
        if kept not in self._known:
            self._known[kept] = self._passes(kept)
        return self._known[kept]

    @property
    def evaluations(self) -> int:
        return len(self._known)
