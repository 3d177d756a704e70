"""Chains: a product with its bias, activation and residual; what is quantised with its Q and DQ; softmax and reductions with what follows."""

from __future__ import annotations

from collections.abc import Callable

from probe import ir
from probe.engine.fusion.activations import ACTIVATION, COMPOSITE
from probe.engine.fusion.kinds import ACTIVATIONS, BINARY, UNARY, is_float
from probe.engine.fusion.pattern import ANY, either, hole, let, op, scalar_value, stored
from probe.engine.fusion.rule import Fusion, Match, Step, Verdict, no, yes
from probe.engine.fusion.shapes import channel_constant, extents, grows, show
from probe.engine.fusion.terms import Add, Div, Mul, Sub
from probe.engine.network import constant

_y = hole("y")
_Dequantise = op("DequantizeLinear", rest=ANY)
_BatchNorm = op("BatchNormalization", when=lambda node: len(node.outputs) == 1)


def _channel_axis(m: Match) -> int | None:
    """Where a product has its output channels, counted from the end; None if its rank is unknown."""
    if m.anchor.op_type in {"MatMul", "Gemm"}:
        return -1
    shape = extents(m["y"]) or extents(m.anchor.inputs[1])
    return None if shape is None else 1 - len(shape)


def _per_channel(m: Match) -> Verdict:
    axis = _channel_axis(m)
    if axis is None:
        return no(f"the rank of {m['y'].name} is unknown")
    return Verdict(channel_constant(m["constant"], m["y"], axis))


def _no_growth(m: Match) -> Verdict:
    whole, other = extents(m["y"]), extents(m["residual"])
    if whole is None or other is None:
        return no(f"the shape of {m['y' if whole is None else 'residual'].name} is unknown")
    if len(whole) != len(other) or grows(other, whole) or grows(whole, other):
        return no(f"{m['residual'].name} {show(other)} is not of the shape {show(whole)} of {m['y'].name}")
    return yes


def _tiles(m: Match) -> Verdict:
    """Whether the windows of a pooling lie side by side, so that no element of the product is needed twice."""
    pool = m.root
    kernel = tuple(pool.attributes.get_ints("kernel_shape", ()))
    strides = tuple(pool.attributes.get_ints("strides", ())) or (1,) * len(kernel)
    if kernel != strides:
        return no(f"windows of {show(kernel)} every {show(strides)} overlap or leave gaps")
    if any(pool.attributes.get_ints("pads", ())) or pool.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return no(f"{pool.name} pads")
    if any(extent != 1 for extent in pool.attributes.get_ints("dilations", ())):
        return no(f"{pool.name} is dilated")
    return yes


BATCH_NORM = Step("bn", _BatchNorm(_y, stored(), stored(), stored(), stored()))
BIAS = Step("bias", either(Add(_y, stored("constant")), Sub(_y, stored("constant"))), _per_channel)
SCALE = Step("scale", either(Mul(_y, stored("constant")), Div(_y, stored("constant"))), _per_channel)
RESIDUAL = Step("residual", Add(_y, let("residual", either(_Dequantise(ANY), ANY))), _no_growth)
QUANTISE = Step("q", op("QuantizeLinear", rest=ANY)(_y))
POOL = Step("pool", op("MaxPool", "AveragePool")(_y), _tiles, level="full")

# A formula that begins by adding or multiplying a number must not lose that to a bias or a scale.
_GATE = next(step for step in ACTIVATION if step.name == "hard_sigmoid")


def _keeps_rows(node: ir.Node) -> bool:
    before, after = extents(node.inputs[0]), extents(node.outputs[0])
    if not before or not after:
        return False
    return isinstance(before[-1], int) and before[-1] == after[-1]


def _keeps_channels(node: ir.Node) -> bool:
    before, after = extents(node.inputs[0]), extents(node.outputs[0])
    return before is not None and after is not None and len(after) > 1 and before[:2] == after[:2]


def _moves_rows(node: ir.Node) -> bool:
    """Whether the last axis stays where it is, so that rows are moved whole."""
    order = tuple(node.attributes.get_ints("perm", ()))
    return bool(order) and order[-1] == len(order) - 1


ROWS = Step("rows", op("Transpose", when=_moves_rows)(_y), passing=True)


def _epilogue(keeps: Callable[[ir.Node], bool], *moved: Step) -> tuple[tuple[Step, ...], ...]:
    """What may follow a product; a view between must keep its channels in their place, and so must what moves it (``moved``)."""
    view = Step("view", op("Reshape", "Squeeze", "Unsqueeze", "Flatten", when=keeps, rest=ANY)(_y), passing=True)
    affine = (_GATE, BIAS, SCALE)
    return ((BATCH_NORM,), (view,), affine, affine, ACTIVATION, moved, (RESIDUAL,), ACTIVATION, (POOL,), (QUANTISE,))


_input = either(_Dequantise(ANY), ANY)
_PARTS = (("Pad", "pad"), ("DequantizeLinear", "dq"))


def _pads_with_zeros(m: Match) -> Verdict:
    for node in m.all("Pad"):
        mode = node.attributes.get_string("mode", "constant")
        if mode != "constant":
            return no(f"{node.name} pads by {mode}, a convolution pads with zeros")
        amounts = node.attributes.get_ints("pads", ())
        if len(node.inputs) > 1:
            tensor = constant(node.inputs[1])
            if tensor is None:
                return no(f"the padding of {node.name} is computed")
            amounts = tuple(int(amount) for amount in tensor.numpy())
        if any(amount < 0 for amount in amounts):
            return no(f"{node.name} crops")
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            return no(f"{node.name} pads chosen axes")
        rank = len(amounts) // 2
        if any(amounts[at] for at in (0, 1, rank, rank + 1) if at < len(amounts)):
            return no(f"{node.name} pads batch or channels")
        value = node.attributes.get_float("value", 0.0)
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            value = scalar_value(node.inputs[2])
        if value != 0:
            return no(f"{node.name} pads with {'a computed value' if value is None else f'{value:g}'}, not with zeros")
    return yes


_Padded = op("Pad", rest=ANY)

_QUANTISED_OPS = (
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Div", "GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization",
    "LayerNormalization", "LeakyRelu", "MaxPool", "Mul", "PRelu", "Pad", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice",
    "Softmax", "Split", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Flatten", "HardSwish", "HardSigmoid", "Gelu", "Gather",
)  # fmt: skip

PRODUCTS = (
    Fusion(
        "conv", "conv",
        op("Conv", "ConvTranspose", rest=_input)(either(_Padded(ANY), _input), _input),
        _pads_with_zeros, then=_epilogue(_keeps_channels), parts=_PARTS,
    ),
    Fusion("gemm", "gemm", op("Gemm", rest=_input)(_input, _input), then=_epilogue(_keeps_rows, ROWS), parts=_PARTS),
    Fusion("matmul", "matmul", op("MatMul")(_input, _input), then=_epilogue(_keeps_rows, ROWS), parts=_PARTS),
)  # fmt: skip

QUANTISED = Fusion(
    "quantised", None, op(*_QUANTISED_OPS, rest=_input)(_Dequantise(ANY)),
    then=(ACTIVATION, (QUANTISE,)), parts=_PARTS,
)  # fmt: skip

ACTIVATIONS_ALONE = tuple(Fusion(name, "pointwise", pattern, when) for name, pattern, when in COMPOSITE)


def _floats(node: ir.Node) -> bool:
    return is_float(node.outputs[0]) is not False


def _one_number(m: Match) -> Verdict:
    if scalar_value(m["constant"]) is None:
        return no(f"{m['constant'].name} is more than one number")
    return yes


_POINTWISE_STEP = (
    *ACTIVATION,
    Step("scalar", op(*sorted(BINARY), when=_floats)(_y, stored("constant")), _one_number),
    Step("unary", op(*sorted(UNARY | ACTIVATIONS - {"PRelu"}), when=_floats)(_y)),
)


_REDUCE = op(
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
    "ReduceLogSumExp", rest=ANY, when=_floats,
)(ANY)  # fmt: skip

FOLLOWED = (
    Fusion(
        "softmax", "softmax", op("Softmax")(ANY), level="full",
        then=((Step("topk", op("TopK")(_y, ANY), level="full"), Step("log", op("Log")(_y), level="full")),),
    ),
    Fusion("reduce", "reduce", _REDUCE, level="full", then=(_POINTWISE_STEP,) * 3),
)  # fmt: skip
