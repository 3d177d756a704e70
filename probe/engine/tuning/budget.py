"""How far a tactic may be from ``exact`` on the same reads before it is taken for wrong. Wide enough for what a tactic's numerics state and a few
cancellations, and far below what a kernel makes that skips a tile or a term."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from probe.engine.tactics.problems import terms_of

if TYPE_CHECKING:
    from probe.engine.costs import Shapes
    from probe.engine.layers import Layer
    from probe.engine.tactics import Tactic

_STORED = {"fp16": 2.0**-11, "bf16": 2.0**-8, "fp32": 2.0**-24, "tf32": 2.0**-24}
_U16, _U32 = 2.0**-11, 2.0**-24
_SLACK = 4.0  # tails amplify (an activation's slope), and sums cancel
_MOST = 0.5


def budget(tactic: Tactic, layer: Layer, precision: str, shapes: Shapes | None = None) -> float:
    """Allowed distance over the largest magnitude of exact's result, for the largest error; and over its root mean square, for errors' own.

    Two roundings where results are stored; the bound that the tactic states, with S twice the largest result; for Winograd ten times its
    stated typical error, for FP16 sums the stated bound, too.
    """
    terms = max((terms_of(node, shapes) or 1 for node in layer.nodes if tactic.concerns(node)), default=1)
    found = 2 * _STORED[precision] + 6 * terms * _U32
    if tactic.accumulator == "fp16":
        found += 2 * math.ceil(terms / max(tactic.block, 1)) * _U16
    if tactic.algorithm == "winograd":
        found += 60 * _U16
    return min(_SLACK * found, _MOST)
