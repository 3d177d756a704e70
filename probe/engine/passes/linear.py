"""What is folded into: nodes that multiply by constant weights. Where their channels lie, and how weights and bias take a factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from probe import ir
from probe.engine.network import constant
from probe.engine.passes.edit import Edit
from probe.engine.passes.reading import dims, integer, is_op, real
from probe.engine.passes.weights import FLOATS, exact, exact_times, finite

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Linear:
    """A Conv, ConvTranspose, Gemm or MatMul with constant weights, and a constant bias or none.

    Attributes:
        outputs: channels of what it makes.
        axis: where they lie in what it makes.
        rank: dimensions of what it makes, and of what it reads.
    """

    node: ir.Node
    outputs: int
    axis: int
    rank: int

    @property
    def has_bias(self) -> bool:
        """Whether it can add something: MatMul cannot."""
        return self.node.op_type != "MatMul"

    @property
    def bias(self) -> Array:
        """[outputs], float64: what it adds now; zeros for nothing."""
        if not self.has_bias or len(self.node.inputs) < 3 or self.node.inputs[2] is None:
            return np.zeros(self.outputs)
        values = exact(self.node.inputs[2])
        assert values is not None
        return np.broadcast_to(values.reshape(-1), (self.outputs,)) * (_beta(self.node))

    @property
    def weights(self) -> Array:
        """As the node has them, float64."""
        values = exact(self.node.inputs[1])
        assert values is not None
        return values

    def weights_times(self, factors: Array) -> Array:
        """The weights times what ``per_output`` or ``per_input`` laid out."""
        values = exact_times(self.node.inputs[1], factors)
        assert values is not None
        return values

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights, which are not read for it."""
        tensor = constant(self.node.inputs[1])
        assert tensor is not None
        return tensor.shape.numpy()

    def per_output(self, factors: Array) -> Array:
        """[outputs] laid out so that it multiplies the weights of each output."""
        shape, group = self.shape, integer(self.node, "group", 1)
        if self.node.op_type == "Conv":
            return factors.reshape(-1, *[1] * (len(shape) - 1))
        if self.node.op_type == "ConvTranspose":  # weights [inputs, outputs / group, ...]
            blocks = np.repeat(factors.reshape(group, -1), shape[0] // group, axis=0)
            return blocks.reshape(*shape[:2], *[1] * (len(shape) - 2))
        return factors.reshape(-1, 1) if integer(self.node, "transB", 0) else factors

    def per_input(self, factors: Array) -> Array:
        """[inputs] laid out so that it multiplies the weights of each input; Conv, Gemm and MatMul."""
        shape, group = self.shape, integer(self.node, "group", 1)
        if self.node.op_type == "Conv":  # weights [outputs, inputs / group, ...]
            blocks = np.repeat(factors.reshape(group, -1), shape[0] // group, axis=0)
            return blocks.reshape(*shape[:2], *[1] * (len(shape) - 2))
        return factors if integer(self.node, "transB", 0) else factors.reshape(-1, 1)

    def takes(self, weights: Array, bias: Array | None) -> bool:
        """Whether new weights and bias are finite in the type that stores them."""
        value = self.node.inputs[1]
        assert value is not None and value.dtype is not None
        return finite(weights, value.dtype) and (bias is None or finite(bias, value.dtype))

    def give(self, edit: Edit, weights: Array | None, bias: Array | None) -> None:
        """Change weights and bias [outputs]; None leaves them."""
        if weights is not None:
            edit.reweigh(self.node, 1, weights)
        if bias is None:
            return
        assert self.has_bias
        if self.node.op_type == "Gemm" and _beta(self.node) != 1:
            self.node.attributes["beta"] = ir.attribute("beta", 1.0)
        if len(self.node.inputs) > 2 and self.node.inputs[2] is not None:
            edit.reweigh(self.node, 2, bias)
            return
        dtype = self.node.inputs[1].dtype if self.node.inputs[1] is not None else None
        assert dtype is not None
        self.node.resize_inputs(3)
        self.node.replace_input_with(2, edit.weight(f"{self.node.name}/bias", bias, dtype))


def linear(node: ir.Node) -> Linear | None:
    """A node as something to fold into; None where its weights or bias are computed, quantised, or not laid out for it."""
    if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    value = node.inputs[1]
    shape = dims(value) if value is not None and value.is_initializer() and value.dtype in FLOATS else None
    if shape is None or None in shape:
        return None
    sizes = [size or 0 for size in shape]
    if min(sizes, default=0) < 1:
        return None
    if node.op_type in ("Conv", "ConvTranspose"):
        outputs = sizes[0] if node.op_type == "Conv" else sizes[1] * integer(node, "group", 1)
        found = Linear(node, outputs, 1, len(sizes))
    elif node.op_type == "Gemm":
        found = Linear(node, sizes[0] if integer(node, "transB", 0) else sizes[1], 1, 2)
    else:
        read = dims(node.inputs[0])
        if len(sizes) < 2 or read is None or len(read) < 2:  # one-dimensional operands lose their axis
            return None
        rank = max(len(read), len(sizes))
        found = Linear(node, sizes[-1], rank - 1, rank)
    return found if _bias_fits(found) else None


def _bias_fits(found: Linear) -> bool:
    if not found.has_bias or len(found.node.inputs) < 3 or found.node.inputs[2] is None:
        return True
    value = found.node.inputs[2]
    shape = dims(value) if value.is_initializer() else None
    return shape is not None and shape[-1:] in ((), (1,), (found.outputs,)) and all(size == 1 for size in shape[:-1])


def _beta(node: ir.Node) -> float:
    return real(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
