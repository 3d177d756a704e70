"""What one instrumented all-low run makes suspect: a score a tensor, and those that something is known to break at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from probe.precision import PRECISIONS
from probe.search.ranking import score

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.results.run import LayerError, RunFinding
    from probe.results.tensors import TensorInfo

MOST_GAIN = 1e3  # of one layer, as an amplitude: measured on errors that saturate, a larger one says nothing
MOST_GAIN_ON_THE_WAY = 1e6


@dataclass(frozen=True, slots=True)
class Suspicion:
    """
    Attributes:
        scores: tensor -> its part of the error at the outputs, an amplitude, to first order: local error times the gain of what follows.
            What is not there was not measured, and counts as 0.
        flagged: tensors that a cause was found at: suspected before any score.
        why: tensor -> that cause in words.
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    flagged: frozenset[str] = frozenset()
    why: Mapping[str, str] = field(default_factory=dict)

    def with_flags(self, why: Mapping[str, str]) -> Suspicion:
        """More that is known to break: tensor -> cause in words. What was known before stays as it was told."""
        return replace(self, flagged=self.flagged | why.keys(), why={**why, **self.why})


def suspect(
    layers: Sequence[LayerError], causes: Iterable[RunFinding], weights: Mapping[str, Sequence[str]]
) -> Suspicion:
    """From the errors of layers and the causes that were found.

    A layer's local error goes to every tensor it stores. Its error with the rounding of what it reads (injected) goes to the weights
    that it alone reads, and to graph inputs: nobody else is charged with their rounding.

    Args:
        layers: in execution order, each measured by itself.
        causes: with the tensors that each would keep.
        weights: layer -> weights and graph inputs that it rounds itself.
    """
    onward = _gains(layers)
    scores: dict[str, float] = {}
    for layer in layers:
        for name in layer.outputs:
            if layer.local is not None:
                scores[name] = score(layer.local, onward.get(name, 1.0))
        reach = max((onward.get(name, 1.0) for name in layer.outputs), default=1.0)
        for name in weights.get(layer.name, ()):
            if layer.injected is not None:
                scores[name] = max(scores.get(name, 0.0), score(layer.injected, reach))
    flagged: dict[str, str] = {}
    for cause in causes:
        for name in cause.keep:
            flagged.setdefault(name, cause.message)
    return Suspicion(scores, frozenset(flagged), flagged)


# Operator -> the input that must not become zero.
_FEARS_ZERO = {"Log": 0, "Reciprocal": 0, "Div": 1, "Pow": 0, "Sqrt": 0}


def vanishing(engine: Engine, rows: Iterable[TensorInfo], precision: str) -> dict[str, str]:
    """Tensors with elements that become 0 in a precision, where what reads them makes much of a zero: a small error by itself, and no
    instrumented run sees it where an error before has hidden it.

    Args:
        rows: of the golden.

    Returns:
        Tensor -> what is known of it in words.
    """
    form = PRECISIONS[precision]
    least = form.smallest_subnormal / 2  # a tie goes to the even one, which is 0
    small = {
        row.name: row.min_abs_nonzero
        for row in rows
        if row.min_abs_nonzero is not None and row.min_abs_nonzero <= least
    }
    found: dict[str, str] = {}
    for layer in engine.layers:
        for node in layer.nodes:
            position = _FEARS_ZERO.get(node.op_type)
            value = node.inputs[position] if position is not None and position < len(node.inputs) else None
            if value is not None and value.name in small:
                found.setdefault(
                    value.name,
                    f"golden has {small[value.name]:.3g}, which is 0 in {form.name}, and {node.op_type} reads it",
                )
    return found


def _gains(layers: Sequence[LayerError]) -> dict[str, float]:
    """Tensor -> factor by which what reads it, and what reads that, multiplies its relative error on the way to an output.

    The largest over the ways, the square roots of the measured power gains multiplied along each; 1 where a gain is not known.
    """
    onward: dict[str, float] = {}
    for layer in reversed(layers):
        after = max((onward.get(name, 1.0) for name in layer.outputs), default=1.0)
        own = math.sqrt(layer.gain) if layer.gain is not None and layer.gain >= 0 else 1.0
        through = min(max(own, 1 / MOST_GAIN), MOST_GAIN) * after
        through = min(max(through, 1 / MOST_GAIN_ON_THE_WAY), MOST_GAIN_ON_THE_WAY)
        for name in layer.reads:
            onward[name] = max(onward.get(name, 0.0), through)
    return onward
