"""``Hit``: what a rule noticed on one input, before it is followed downstream and joined with the same of other inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from probe.debug.causes import largest
from probe.results.check import Level

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Range:
    """Finite extremes of a golden tensor."""

    low: float | None = None
    high: float | None = None
    absmax: float | None = None

    @classmethod
    def of(cls, x: Array) -> Range:
        """Of an array; all None where nothing in it is finite."""
        finite = x[np.isfinite(x)] if x.dtype.kind == "f" else x
        return cls(float(finite.min()), float(finite.max()), largest(finite)) if finite.size else cls()


@dataclass(slots=True)
class Hit:
    """One thing a rule noticed.

    Attributes:
        rule: its name; with ``tensor`` (and ``node``, where that is None) what it is the same as on another input.
        level: the highest it can have. An ``error`` stays one only where following it shows a wrong result.
        severity: to choose the worst of several inputs; larger is worse.
        changed: what to follow: tensor (a name, or a constant's key) -> its values once rounded, or made from rounded ones.
        alike: names the same kind of thing elsewhere; "" where it stands alone.
    """

    rule: str
    level: Level
    message: str
    cure: str
    tensor: str | None = None
    node: str | None = None
    op: str = ""
    position: int = 0
    range: Range | None = None
    margin: float | None = None
    where: Array | None = None  # which elements
    keep: tuple[str, ...] = ()
    severity: float = 0.0
    changed: dict[Any, Array] | None = None
    alike: str = ""
    doubtful: bool = False  # harmless more often than not: no error unless it could be followed
    least: float = 0.0  # dropped where following it shows no larger error than this
    # what following it gave
    downstream: str = ""
    output: str | None = None
    output_error: float | None = None
    input_id: str = ""
    inputs: int = 1
    elements: int = 0
    index: tuple[int, ...] | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.rule, self.tensor or self.node or ""

    def settle(self, input_id: str) -> None:
        """Keep of the arrays what a finding says: how many elements, and the first."""
        self.input_id, self.changed = input_id, None
        if self.where is not None:
            self.elements = int(self.where.sum())
            if self.elements:
                first = np.unravel_index(int(np.argmax(self.where)), self.where.shape) if self.where.ndim else ()
                self.index = tuple(int(i) for i in first)
            self.where = None


def alike(op: str, name: str) -> str:
    """What repeated blocks have in common: the operator, and the name without its numbers."""
    return f"{op} {re.sub(r'[0-9]+', '#', name)}"
