"""What kind of work a node is, whether it only moves data, and whether it launches anything at all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

from probe import ir
from probe.model.movement import is_movement, is_standard

Kind = Literal[
    "conv", "matmul", "gemm", "pointwise", "reduce", "norm", "softmax", "attention", "pool", "recurrent",
    "move", "shape", "if", "loop", "quantise", "other",
]  # fmt: skip

VIEWS = frozenset("Reshape Squeeze Unsqueeze Flatten Identity Dropout".split())  # the same bytes under another shape

UNARY = frozenset(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Exp Floor Log Neg Reciprocal Round Sign Sin Sinh Sqrt Tan Tanh
    """.split()
)

ACTIVATIONS = frozenset(
    """
    Relu LeakyRelu Clip Sigmoid Tanh HardSigmoid HardSwish Elu Selu Celu PRelu Softplus Softsign ThresholdedRelu Gelu Mish Swish Shrink
    """.split()
)

BINARY = frozenset("Add Sub Mul Div Pow Min Max Mean Sum Mod".split())

COMPARISONS = frozenset(
    "Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not IsNaN IsInf BitwiseAnd BitwiseOr BitwiseXor BitwiseNot".split()
)

POINTWISE = UNARY | ACTIVATIONS | BINARY | COMPARISONS | {"Cast", "CastLike", "Where", "BitShift", "BitCast"}

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(POINTWISE, "pointwise"),
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv"), "conv"),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "Einsum"), "matmul"),
    "Gemm": "gemm",
    **dict.fromkeys(
        (
            "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
            "ReduceSumSquare", "ArgMax", "ArgMin", "CumSum", "CumProd", "TopK",
        ),
        "reduce",
    ),
    **dict.fromkeys(
        (
            "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "LRN",
            "LpNormalization", "MeanVarianceNormalization",
        ),
        "norm",
    ),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), "softmax"),
    **dict.fromkeys(("Attention", "LinearAttention"), "attention"),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool", "MaxRoiPool", "RoiAlign"), "pool"
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "recurrent"),
    **dict.fromkeys(("Shape", "Size"), "shape"),
    "If": "if",
    **dict.fromkeys(("Loop", "Scan", "SequenceMap"), "loop"),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"), "quantise"),
}  # fmt: skip

_FLOATS = frozenset(
    (
        ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE, ir.DataType.COMPLEX64, ir.DataType.COMPLEX128,
        ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ,
    )
)  # fmt: skip


def kind_of(node: ir.Node) -> Kind:
    """The kind of a node alone. ``shape``: it neither reads nor makes a floating-point tensor; ``other``: an operator not in the table."""
    if not is_standard(node):
        return "other"
    kind = "move" if is_movement(node) else _KINDS.get(node.op_type, "other")
    if kind in {"pointwise", "move", "reduce", "other"} and _integers_only(node):
        return "shape"
    return kind


def is_float(value: ir.Value | None) -> bool | None:
    """Whether a tensor holds floating-point numbers; None where its type is unknown."""
    if value is None or value.dtype is None:
        return None
    return value.dtype in _FLOATS


def _integers_only(node: ir.Node) -> bool:
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    return bool(values) and all(is_float(value) is False for value in values)


def launches(nodes: ir.Node | Iterable[ir.Node], in_place: Collection[ir.Node] = ()) -> bool:
    """Whether computing these nodes together launches work.

    What does not: views (the same bytes under another shape); arithmetic on integers of rank 0 or 1, which is shape arithmetic and done
    on the host; a Concat whose inputs are written where its output lies, which ``in_place`` lists (``concat.written_in_place``).

    Args:
        nodes: a node, or the nodes of a layer.
    """
    nodes = (nodes,) if isinstance(nodes, ir.Node) else nodes
    silent = {id(node) for node in in_place}
    return any(not (_is_view(node) or _on_host(node) or id(node) in silent) for node in nodes)


def _is_view(node: ir.Node) -> bool:
    if not is_standard(node):
        return False
    if node.op_type == "Cast":
        before, after = node.inputs[0], node.outputs[0]
        return before is not None and before.dtype is not None and before.dtype == after.dtype
    return node.op_type in VIEWS


def _on_host(node: ir.Node) -> bool:
    kind = kind_of(node)
    if kind != "shape":
        return False
    return node.op_type in {"Shape", "Size"} or all(
        value.shape is not None and value.shape.rank() <= 1 for value in node.outputs
    )
