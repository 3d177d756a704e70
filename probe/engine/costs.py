"""What nodes cost: floating-point operations and bytes moved, from shapes alone.

One multiplication or addition is one operation, a multiplication with its addition two; a comparison, and one evaluation of exp, erf,
tanh or a square root count one each, as in the roofline model (Williams et al., 2009), whatever the machine spends on them. The
formulas for convolutions, matrix products and recurrent cells are the sums of the ONNX operator definitions; those for normalisations and
softmax count the passes of the textbook formula. Data movement costs no operation. What is not known is None and never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from probe import ir
from probe.engine.fusion.kinds import COMPARISONS, UNARY, is_float, is_movement, is_standard, kind_of
from probe.engine.network import bodies_of

Shape = tuple[int, ...]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What computing some nodes together costs. None: not known, because a shape is not, or the operator.

    Attributes:
        flops: floating-point operations.
        bytes_read: of activations that come from outside, each read once.
        bytes_written: of activations that are read outside.
        weights_bytes: of initialisers, each read once.
    """

    flops: int | None
    bytes_read: int | None
    bytes_written: int | None
    weights_bytes: int | None

    @property
    def bytes(self) -> int | None:
        """Everything that crosses the layer's edge."""
        parts = (self.bytes_read, self.bytes_written, self.weights_bytes)
        return None if None in parts else sum(part for part in parts if part is not None)


def cost_of(
    nodes: Iterable[ir.Node],
    *,
    reads: Iterable[ir.Value],
    weights: Iterable[ir.Value],
    outputs: Iterable[ir.Value],
    shapes: Shapes | None = None,
    float_bytes: int | None = None,
) -> Cost:
    """The cost of a layer. Tensors between its nodes are free, as in a fused kernel.

    Args:
        nodes: what it computes.
        reads: activations from outside.
        weights: initialisers.
        outputs: activations read outside.
        shapes: actual shapes by tensor name, where the model's are symbolic or wrong.
        float_bytes: size that floating-point elements are stored in; None: their own.
    """

    def size(values: Iterable[ir.Value]) -> int | None:
        return _total(_bytes(value, shapes, float_bytes) for value in values)

    return Cost(_total(flops_of(node, shapes) for node in nodes), size(reads), size(outputs), size(weights))


def flops_of(node: ir.Node, shapes: Shapes | None = None) -> int | None:
    """Floating-point operations of one node; None where they are not known, which includes every Loop."""
    if kind_of(node) == "shape" or is_movement(node):
        return 0
    rule = _RULES.get(node.op_type) if is_standard(node) else None
    if rule is None or bodies_of(node):
        return None
    try:
        return rule(_Problem(node, shapes))
    except _UnknownError:
        return None


class _UnknownError(Exception):
    """A shape that a formula needs is not known."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """A node with the shapes of its tensors."""

    node: ir.Node
    shapes: Shapes | None

    def shape(self, at: int) -> Shape:
        """Of an input."""
        value = self.node.inputs[at] if at < len(self.node.inputs) else None
        return _known(value, self.shapes)

    def elements(self) -> int:
        """Of the first input."""
        return math.prod(self.shape(0))

    @property
    def made(self) -> Shape:
        """Shape of the first output that is there."""
        return _known(next((value for value in self.node.outputs if value.name), None), self.shapes)

    @property
    def out(self) -> int:
        """Elements of the first output."""
        return math.prod(self.made)

    def has(self, at: int) -> bool:
        """Whether an optional input is given."""
        return at < len(self.node.inputs) and self.node.inputs[at] is not None


def shape_of(value: ir.Value | None, shapes: Shapes | None = None) -> Shape | None:
    """The shape of a tensor if all its extents are known."""
    if value is None:
        return None
    if shapes is not None and value.name is not None and value.name in shapes:
        return tuple(shapes[value.name])
    if value.const_value is not None and value.is_initializer():
        return tuple(int(extent) for extent in value.const_value.shape.numpy())
    if value.shape is None or not all(isinstance(extent, int) for extent in value.shape):
        return None
    return tuple(int(extent) for extent in value.shape.numpy())


def _known(value: ir.Value | None, shapes: Shapes | None) -> Shape:
    found = shape_of(value, shapes)
    if found is None:
        raise _UnknownError
    return found


def _bytes(value: ir.Value, shapes: Shapes | None, float_bytes: int | None) -> int | None:
    shape = shape_of(value, shapes)
    if shape is None or value.dtype in (None, ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    bits = value.dtype.bitwidth
    if float_bytes is not None and is_float(value):
        bits = 8 * float_bytes
    return (math.prod(shape) * bits + 7) // 8


def _total(parts: Iterable[int | None]) -> int | None:
    total = 0
    for part in parts:
        if part is None:
            return None
        total += part
    return total


# --- formulas ------------------------------------------------------------------------------------------------------------------------


def _conv(p: _Problem) -> int:
    """2 MAC per output element, input channel of its group and tap; a bias adds one an element."""
    _, per_group, *taps = p.shape(1)
    return p.out * (2 * per_group * math.prod(taps) + p.has(2))


def _conv_transpose(p: _Problem) -> int:
    """2 MAC per input element, output channel of its group and tap; a bias adds one an output element."""
    _, per_group, *taps = p.shape(1)
    return p.elements() * 2 * per_group * math.prod(taps) + p.has(2) * p.out


def _matmul(p: _Problem) -> int:
    """[.., m, k] x [.., k, n]: 2 MAC per output element and k."""
    return 2 * p.out * p.shape(0)[-1]


def _gemm(p: _Problem) -> int:
    """alpha A B + beta C: 2 MAC per output element and k; C adds one an element, factors other than 1 one each."""
    inner = p.shape(0)[0 if p.node.attributes.get_int("transA", 0) else 1]
    factors = sum(
        p.node.attributes.get_float(name, 1.0) != 1.0 for name in (("alpha", "beta") if p.has(2) else ("alpha",))
    )
    return p.out * (2 * inner + p.has(2) + factors)


def _recurrent(gates: int, pointwise: int) -> Callable[[_Problem], int]:
    """A step: products of W [gates h, x] and R [gates h, h] with the input and the state, two biases, and the cell's own formulas.

    Args:
        pointwise: operations on each element of the state, activation functions included.
    """

    def cost(p: _Problem) -> int:
        steps, batch, inputs = p.shape(0)
        directions, rows, _ = p.shape(1)
        hidden = rows // gates
        step = 2 * rows * (inputs + hidden) + (2 * rows if p.has(3) else 0) + pointwise * hidden
        return steps * batch * directions * step

    return cost


def _pool(p: _Problem) -> int:
    """A comparison or an addition a tap; an average divides once more."""
    taps = math.prod(p.node.attributes.get_ints("kernel_shape", ()))
    return p.out * (taps + (p.node.op_type != "MaxPool"))


def _attention(p: _Problem) -> int:
    """Of q [batch, heads, m, k], k [.., n, k], v [.., n, v], or of rows that hold all heads: two products, a scale, and a softmax. Keys of the past,
    [.., past, k], come before k's."""
    query, key, value = p.shape(0), p.shape(1), p.shape(2)
    heads, groups = (p.node.attributes.get_int(name, 1) for name in ("q_num_heads", "kv_num_heads"))
    if len(query) == 4:
        heads, groups = query[1], 1
    keys = key[-2] + (p.shape(4)[-2] if p.has(4) else 0)
    scores = query[0] * heads * query[-2] * keys
    depth = query[-1] if len(query) == 4 else query[-1] // heads
    return scores * (2 * depth + 2 * (value[-1] // groups) + 1 + 5 + p.has(3))


def _an_input_element(count: int) -> Callable[[_Problem], int]:
    return lambda p: count * p.elements()


def _an_output_element(count: int) -> Callable[[_Problem], int]:
    return lambda p: count * p.out


def _variadic(p: _Problem) -> int:
    """Sum, Mean, Max and Min of n tensors: n - 1 an element, and the division of a mean."""
    return p.out * max(len(p.node.inputs) - 1 + (p.node.op_type == "Mean"), 0)


_RULES: dict[str, Callable[[_Problem], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
    # gates, and per element of the state: three sigmoids, two tanh, f c + i g, o tanh(c)
    "LSTM": _recurrent(4, 3 * 3 + 2 + 3 + 1),
    # two sigmoids, a tanh, r h, (1 - z) n + z h
    "GRU": _recurrent(3, 2 * 3 + 1 + 1 + 4),
    "RNN": _recurrent(1, 1),
    "Attention": _attention,
    "RotaryEmbedding": _an_output_element(3),  # a pair: four multiplications, two sums
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _an_input_element(1)),
    # a product and a sum: scale and shift put together beforehand
    "BatchNormalization": _an_output_element(2),
    # mean 1, deviation 1, its square and sum 2, division by the root 1, scale and shift 2; the root is one a row
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), _an_output_element(7)),
    "MeanVarianceNormalization": _an_output_element(5),
    "RMSNormalization": _an_output_element(4),  # square and sum 2, division 1, scale 1
    "LpNormalization": _an_output_element(3),
    # maximum 1, difference 1, exp 1, sum 1, division 1
    "Softmax": _an_output_element(5),
    "LogSoftmax": _an_output_element(5),
    "Hardmax": _an_input_element(1),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceMean", "ArgMax", "ArgMin"), _an_input_element(1)),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare"), _an_input_element(2)),
    "ReduceLogSum": _an_input_element(1),
    "ReduceLogSumExp": _an_input_element(4),
    **dict.fromkeys(("CumSum", "CumProd"), _an_input_element(1)),
    # a difference and a product, a rounding and a clip on the way in
    "DequantizeLinear": _an_output_element(2),
    "QuantizeLinear": _an_input_element(4),
    **dict.fromkeys((*UNARY, *COMPARISONS, "Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Cast", "CastLike", "Where"), _an_output_element(1)),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Mod"), _an_output_element(1)),
    **dict.fromkeys(("Sum", "Mean", "Max", "Min"), _variadic),
    "Clip": _an_output_element(2),
    "Sigmoid": _an_output_element(3),  # exp, sum, division
    "HardSigmoid": _an_output_element(4),
    "HardSwish": _an_output_element(5),
    "Softplus": _an_output_element(3),
    "Softsign": _an_output_element(3),
    **dict.fromkeys(("Elu", "Selu", "Celu", "Shrink"), _an_output_element(3)),
    "Swish": _an_output_element(4),
    "Mish": _an_output_element(5),
    "Gelu": _an_output_element(5),  # scaling, erf, sum, two products
}  # fmt: skip
