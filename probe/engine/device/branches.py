"""Branches of an If that were not taken, as devices hand them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from probe.engine.device.protocol import Tapped
from probe.engine.layers import Layer, all_layers
from probe.engine.rounding import Plan


def not_run(layers: Sequence[Layer], body: str, ran: set[str | None], plans: Mapping[str, Plan]) -> Iterator[Tapped]:
    """The tensors of a branch that was not taken, but for names that the other branch made.

    Args:
        body: of the branch, as ``LAYER/ATTRIBUTE``.
        ran: those names.
    """
    for layer in all_layers(layers):
        for value in layer.tensors:
            if value.name not in ran:
                choice = plans[layer.name].choice
                yield Tapped(value.name or "", None, layer, choice, "not_run", f"{body} did not run")
