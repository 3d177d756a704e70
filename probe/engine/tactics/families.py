"""Tactics that are read from their names, beside those listed in ``table``: a file that names one opens on every machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from probe.engine.tactics.kernels import kernel_tactic
from probe.engine.tactics.library import library_tactic
from probe.engine.tactics.tactic import Tactic

FAMILIES: tuple[Callable[[str], Tactic | None], ...] = (kernel_tactic, library_tactic)


@lru_cache(maxsize=4096)
def named(name: str) -> Tactic | None:
    """The tactic that a name of a family stands for; None when no family knows it."""
    return next((found for family in FAMILIES if (found := family(name)) is not None), None)
