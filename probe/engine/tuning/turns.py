"""In what order candidates are measured."""

from __future__ import annotations

from collections.abc import Sequence


def turn_order(names: Sequence[str], turn: int) -> list[str]:
    """All names, forwards and backwards from each in turn, so that what runs before one is not always the same."""
    if not names:
        return []
    first = turn // 2 % len(names)
    ordered = [*names[first:], *names[:first]]
    return ordered[::-1] if turn % 2 else ordered
