"""``Tactic``: one named way to compute a layer, what it promises, and where it applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from probe.engine.assignment import EXACT
from probe.engine.costs import Shapes
from probe.engine.tactics.problems import (
    element_type_refusal,
    opset_refusal,
    split_refusal,
    splits_workspace,
    winograd_refusal,
    winograd_workspace,
)
from probe.model.movement import is_standard

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.layers import Layer

Algorithm = Literal["direct", "winograd"]
Order = Literal["any", "blocks", "splits", "sequential", "pairwise"]
Layout = Literal["", "first", "last"]
_LISTED = 4  # operators that a refusal names


@dataclass(frozen=True, slots=True)
class Tactic:
    """One named way to compute a layer. It concerns the layer's products, or its sums; what else the layer computes stays exact.

    Attributes:
        name: stable; what it stands for never changes.
        numerics: what it promises, in a sentence: where it rounds, and in what order it adds.
        error: the model of its error: a bound to first order, with u16 = 2^-11, u32 = 2^-24, k the terms of a sum, S the sum of their absolute
            values; without overflow and underflow.
        accumulator: what partial sums are held in: fp32 or fp16.
        algorithm: direct: each result is the sum it is defined by; winograd: of transformed tiles.
        order: of a sum: any; blocks of ``block`` terms, one after the other; ``splits`` ranges, then their sums in pairs; sequential: one
            term after the other; pairwise: neighbours first, then neighbouring sums.
        operators: standard operators whose arithmetic it states.
        precisions: storage it exists for.
        block: terms summed in FP32 before the sum is rounded into the accumulator; 0: all of them.
        splits: contiguous ranges that a sum is cut into.
        tile: outputs along each side of a Winograd tile; 0: no Winograd.
        deterministic: whether the same inputs give the same bits, run for run.
        device: the only one that has it; "": any may.
        layout: order of channels in which it has convolutions read and write: ``first``, ``last``; "": it says nothing of it.
    """

    name: str
    numerics: str
    error: str
    accumulator: Literal["fp32", "fp16"]
    order: Order
    operators: tuple[str, ...]
    precisions: tuple[str, ...]
    algorithm: Algorithm = "direct"
    block: int = 0
    splits: int = 1
    tile: int = 0
    deterministic: bool = True
    device: str = ""
    layout: Layout = ""

    def concerns(self, node: ir.Node) -> bool:
        """Whether it states how a node is computed."""
        return is_standard(node) and node.op_type in self.operators

    def supports(self, layer: Layer, precision: str, shapes: Shapes | None = None) -> str | None:
        """Why it cannot compute a layer in a precision; None when it can. What is not known (a shape that is symbolic, say) is no reason to
        refuse: a run that meets a shape it cannot compute raises ``InputError``.

        Args:
            shapes: actual shapes by tensor name, where the model's are symbolic.
        """
        if precision not in self.precisions:
            return f"{self.name} exists for {', '.join(self.precisions)}, not for {precision}"
        if self.name == EXACT:
            return None
        nodes = [node for node in layer.nodes if self.concerns(node)]
        if not nodes:
            return f"{self.name} is for {_listed(self.operators)}; {layer.name} has none"
        return next((reason for node in nodes if (reason := self.refuses(node, shapes))), None)

    def elsewhere(self, device: str) -> str | None:
        """Why a device does not have it; None when it may."""
        return f"{self.name} is a tactic of the {self.device} device" if self.device not in ("", device) else None

    def refuses(self, node: ir.Node, shapes: Shapes | None = None) -> str | None:
        """Why it cannot compute a node; None when it can, or when too little is known to say."""
        if not self.concerns(node):
            return f"{self.name} does not compute {node.op_type}"
        reason = element_type_refusal(node) or opset_refusal(node)
        if (
            reason is None and self.splits > 1 and not self.device
        ):  # a device's own ranges may be empty, or it says so itself
            reason = split_refusal(node, self.splits, shapes)
        if reason is None and self.algorithm == "winograd":
            reason = winograd_refusal(node, shapes)
        return f"{self.name}: {reason}" if reason else None

    def workspace(self, layer: Layer, shapes: Shapes | None = None) -> int | None:
        """Bytes that it needs beside what the layer reads and makes, on a device that holds partial sums and transforms in memory: those of
        the node that needs most. None: a shape is not known. A device's own tactics keep them on the chip.

        Args:
            shapes: actual shapes by tensor name, where the model's are symbolic.
        """
        needs = [self._workspace(node, shapes) for node in layer.nodes if self.concerns(node)]
        known = [need for need in needs if need is not None]
        return max(known, default=0) if len(known) == len(needs) else None

    def _workspace(self, node: ir.Node, shapes: Shapes | None) -> int | None:
        if self.algorithm == "winograd":
            return winograd_workspace(node, self.tile, shapes)
        return splits_workspace(node, self.splits, shapes) if self.splits > 1 and not self.device else 0


def _listed(names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return names[0]
    return (
        f"{', '.join(names[:-1])} and {names[-1]}"
        if len(names) <= _LISTED
        else f"{', '.join(names[:_LISTED])} and others"
    )
