"""``OneRun``: what is known in the middle of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.tensor import Tensor
from probe.engine.layers import Layer, all_layers
from probe.engine.rounding import Plan

if TYPE_CHECKING:
    from probe.engine.device.cuda.runs.watched import Noted

Values = dict[int, Tensor]


@dataclass(slots=True)
class OneRun:
    """Tensors so far, by ``id`` of the value, and how often each value will still be read.

    Attributes:
        shapes: where those of tapped tensors go, whose values nobody wants then.
        noted: where it is noted what is handed out, while that is recorded.
        ahead: what layers make that were computed with a sibling before them.
    """

    queue: Queue
    plans: Mapping[str, Plan]
    values: Values
    left: Counter[int]
    tapped: bool = False
    interior: bool = False
    shapes: dict[str, tuple[int, ...]] | None = None
    ahead: dict[str, Values] = field(default_factory=dict)
    noted: Noted | None = None


def with_interiors(layers: Sequence[Layer], made: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]] | None:
    """Shapes of what layers made, and of what stays inside those that ran, as far as the network declares it; None where it does not."""
    found = dict(made)
    for layer in all_layers(layers):
        for value in layer.interior if any(one.name in made for one in layer.outputs) else ():
            extents = [None] if value.shape is None else list(value.shape)
            if not all(isinstance(one, int) for one in extents):
                return None
            found.setdefault(value.name or "", tuple(int(one) for one in extents if isinstance(one, int)))
    return found


def is_constant(reads: Values) -> bool:
    """Whether what a layer reads lies on the host and is the same in every run with inputs of these shapes."""
    return all(tensor.origin is None and (tensor.on_host or tensor.opaque is not None) for tensor in reads.values())
