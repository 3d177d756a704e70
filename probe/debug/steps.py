"""``Step``: a tensor of a compiled network by name, with the node and the layer that make it and what that node reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.layers import captured
from probe.engine.network import bodies_of, constant, origin

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.layers import Layer


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor. ``position`` counts in execution order; ``reads`` are activations and network inputs, no weights."""

    name: str
    node: ir.Node
    layer: Layer
    position: int
    reads: tuple[str, ...]

    @property
    def op(self) -> str:
        return self.node.op_type

    @property
    def nodes(self) -> tuple[str, ...]:
        """Identities of the ONNX nodes it comes from."""
        return origin(self.node)

    @property
    def identity(self) -> str:
        """The first of them, to name in a sentence."""
        return next(iter(self.nodes), self.node.name or self.node.op_type)


def steps_of(layers: Sequence[Layer]) -> dict[str, Step]:
    """Every tensor that the layers make, in execution order. An If reads what its branches return: that is what it hands on."""
    steps: dict[str, Step] = {}
    for layer in layers:
        for node in layer.nodes:
            bodies = bodies_of(node).values()
            around = [value for body in bodies for value in captured(body)]
            if layer.kind == "if":
                around += [value for body in bodies for value in body.outputs]
            reads = [value for value in (*node.inputs, *around) if value is not None and constant(value) is None]
            names = tuple(dict.fromkeys(value.name for value in reads if value.name))
            for value in node.outputs:
                if value.name:
                    steps[value.name] = Step(value.name, node, layer, len(steps), names)
    return steps


def operator_of(node: ir.Node) -> str:
    """The operator; a power with a constant exponent by what it is: ``Sqrt``, ``Rsqrt``, ``Reciprocal``."""
    if node.op_type != "Pow" or len(node.inputs) < 2 or (held := constant(node.inputs[1])) is None:
        return node.op_type
    exponent = np.asarray(held.numpy())
    named = {0.5: "Sqrt", -0.5: "Rsqrt", -1.0: "Reciprocal"}
    return named.get(float(exponent.reshape(-1)[0]), "Pow") if exponent.size == 1 else "Pow"
