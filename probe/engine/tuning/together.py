"""``Together``: the selector that takes the tactics of least total, what turning images between layers costs included."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT, Assignment, Choice
from probe.engine.rounding import is_float
from probe.engine.tuning.context import Candidate, LayerContext
from probe.engine.tuning.orders import Carried, Least, Pair, Part, least
from probe.engine.tuning.selector import Allow, Deny, Fastest, Selector

if TYPE_CHECKING:
    from probe.engine.costs import Shapes
    from probe.engine.device.protocol import Tuner
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

_AXES = 4
_OUTSIDE = None
_WORTH = 1.02  # times as fast as exact that another tactic must be: less is noise, and would flip from build to build
Turning = Callable[[tuple[int, ...], str], float]  # microseconds for an image of a shape, in a precision


class Together(Fastest):
    """As ``Fastest``, but for layers of which another tactic makes the whole network faster: it comes first there. Layers that exact computes
    together with others are left to it, and so is what no other tactic computes by a fiftieth faster.

    Attributes:
        found: the orders of all layers, and their total in microseconds; None before ``begin``.
    """

    def __init__(
        self,
        engine: Engine,
        tuner: Tuner,
        shapes: Shapes,
        base: Assignment,
        turning: Turning,
        others: Sequence[Selector] = (),
    ) -> None:
        """
        Args:
            base: precisions.
            others: selectors that are asked later; what ``Allow`` and ``Deny`` leave out is not counted on.
        """
        self._engine, self._tuner, self._shapes, self._base, self._turning = engine, tuner, shapes, base, turning
        self._limits = [one for one in others if isinstance(one, (Allow, Deny))]
        self._best: dict[str, str] = {}
        self.found: Least | None = None

    def begin(self, layers: Sequence[tuple[LayerContext, Sequence[Candidate]]]) -> None:
        """As ``Begins.begin``."""
        asked = {context.layer: (context, candidates) for context, candidates in layers}
        top = [layer for layer in self._engine.top_layers if layer.kind != "if"]
        ways = [self._ways(layer, *asked.get(layer.name, (None, ()))) for layer in top]
        costs = [Part({pair: time for pair, (time, _) in way.items()}) for way in ways]
        self.found = least(costs, self._tensors(top))
        for layer, way, pair in zip(top, ways, self.found.orders, strict=True):
            if layer.name in asked and (tactic := way[pair][1]):
                self._best[layer.name] = tactic

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``: all of them."""
        ordered = super().select(context, candidates)
        return sorted(ordered, key=lambda one: one.tactic != self._best.get(context.layer))

    def _ways(
        self, layer: Layer, context: LayerContext | None, candidates: Sequence[Candidate]
    ) -> dict[Pair, tuple[float, str]]:
        """Of each pair of orders the least time and its tactic; all pairs at no cost where nothing is known."""
        precision = self._base.of(layer.name).precision
        found: dict[Pair, tuple[float, str]] = {}
        left = [one for one in candidates if not one.wrong and one.median_us is not None]
        if context is not None:
            for limit in self._limits:
                left = list(limit.select(context, left))
        if layer.name in self._tuner.joined and any(one.tactic == EXACT for one in left):
            left = [one for one in left if one.tactic == EXACT]
        timed = [(one.tactic, (one.median_us or 0.0) * (1 if one.tactic == EXACT else _WORTH)) for one in left] or [
            ("", 0.0)
        ]
        for tactic, time in timed:
            for pair in self._tuner.orders(layer, Choice(precision, tactic or EXACT), self._shapes):
                if time < found.get(pair, (math.inf, ""))[0]:
                    found[pair] = (time, tactic)
        fastest = min(timed, key=lambda one: one[1])
        return found or {(read, made): (fastest[1], fastest[0]) for read in (0, 1) for made in (0, 1)}

    def _tensors(self, layers: Sequence[Layer]) -> list[Carried]:
        """Images between layers, from outside and to it."""
        makers = {id(value): at for at, layer in enumerate(layers) for value in layer.outputs}
        readers: dict[int, list[int | None]] = {}
        values = {id(value): value for layer in layers for value in layer.reads}
        for at, layer in enumerate(layers):
            for value in layer.reads:
                readers.setdefault(id(value), []).append(at)
        for value in self._engine.network.graph.outputs:
            values[id(value)] = value
            readers.setdefault(id(value), []).append(_OUTSIDE)
        found = []
        for key, of in readers.items():
            value = values[key]
            shape = tuple(self._shapes.get(value.name or "", ()))
            maker = makers.get(key)
            if len(shape) == _AXES and is_float(value) and 0 not in shape:
                made = self._base.of(layers[maker].name).precision if maker is not None else "fp32"
                found.append(Carried(maker, tuple(of), self._turning(shape, made)))
        return found
