"""Which operators are evaluated at build time, and how: one node on constants, by ONNX's reference, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from probe import ir
from probe.engine.passes.weights import FLOATS, INTEGERS, exact, is_computed, round_to, stored

Array = np.ndarray[Any, Any]

# Values are handed on, not computed: evaluated in the type they are stored in, so that a large weight is not widened to be transposed.
MOVES = frozenset(
    "Transpose Reshape Flatten Squeeze Unsqueeze Concat Split Slice Gather GatherElements GatherND Expand Tile Pad "
    "DepthToSpace SpaceToDepth ReverseSequence Trilu Where Compress Identity ConstantOfShape Shape Size".split()
)
# A little more or less in makes a little more or less out: evaluated on float64 before rounding.
SMOOTH = frozenset(
    "Add Sub Mul Div Neg Abs Sqrt Reciprocal Exp Log Pow Erf Tanh Sigmoid Sin Cos Tan Asin Acos Atan Sinh Cosh "
    "Asinh Acosh Atanh Softsign Relu LeakyRelu Clip Min Max Sum Mean MatMul Gemm Softmax LogSoftmax "
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum ReduceLogSumExp "
    "CumSum".split()
)
# Here a rounding error decides: evaluated on the rounded values that the network would read, or a Floor that makes a length would
# come out one lower than at run time.
JUMPS = frozenset(
    "Floor Ceil Round Sign Equal Greater Less GreaterOrEqual LessOrEqual ArgMax ArgMin Mod IsNaN IsInf NonZero TopK Range "
    "Not And Or Xor BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot OneHot ScatterND ScatterElements Cast CastLike".split()
)
FOLDABLE = MOVES | SMOOTH | JUMPS
_SINCE = {"Softmax": 13, "LogSoftmax": 13}  # the reference knows the later meaning only
_PRODUCTS = frozenset(("MatMul", "Gemm"))


class NotFoldable(Exception):  # noqa: N818 - no error: a reason
    """Why a node with constant inputs stays: a sentence."""


def evaluate(node: ir.Node, opset: int, types: Sequence[ir.DataType]) -> list[Array]:
    """What a node makes of the constants it reads.

    Args:
        node: of an operator in ``FOLDABLE``; all its inputs are initialisers of types that ``weights.stored`` knows.
        opset: version of the standard operators.
        types: of its outputs.

    Returns:
        Per output float64 where the type is floating-point, else the values in that type.

    Raises:
        NotFoldable: the reference cannot tell, or not in float64.
    """
    if opset < _SINCE.get(node.op_type, 0):
        raise NotFoldable(f"before opset {_SINCE[node.op_type]} {node.op_type} was another function")
    inputs = [_read(node, value) for value in node.inputs]
    _beware(node, inputs)
    with np.errstate(all="ignore"):
        if node.op_type in ("Cast", "CastLike"):
            return [_cast(_need(inputs[0]), types[0])]
        if node.op_type == "Div" and types[0] in INTEGERS:
            return [_divide_integers(_need(inputs[0]), _need(inputs[1]))]
        results = _reference(node, inputs, opset)
    return [_checked(result, dtype, node) for result, dtype in zip(results, types, strict=True)]


def is_too_much_work(node: ir.Node, largest: int) -> bool:
    """Whether a matrix product takes more than ``largest`` multiplications."""
    if node.op_type not in _PRODUCTS:
        return False
    left, right = (stored(value) for value in node.inputs[:2])
    assert left is not None and right is not None
    return left.size * right.size > largest * max(min(left.shape[-1:] + right.shape[-2:-1], default=1), 1)


def _read(node: ir.Node, value: ir.Value | None) -> Array | None:
    if value is None:
        return None
    if value.dtype not in FLOATS or node.op_type in MOVES:
        computed = any(one is not None and is_computed(one) for one in node.inputs)
        return exact(value) if computed else stored(value)
    if node.op_type in SMOOTH:
        return exact(value)
    return _need(stored(value)).astype(np.float64)


def _beware(node: ir.Node, inputs: Sequence[Array | None]) -> None:
    """Cases in which runtimes and the reference differ.

    Raises:
        NotFoldable: it is one of them.
    """
    first = inputs[0] if inputs else None
    if first is None:
        return
    if node.op_type in ("Clip", "ReduceLogSumExp") and first.dtype.kind == "f" and not np.isfinite(first).all():
        raise NotFoldable("runtimes differ in what it makes of Inf and NaN")
    if node.op_type == "NonZero" and first.ndim == 0:
        raise NotFoldable("runtimes differ in the shape it makes of a scalar")
    if node.op_type.startswith("Reduce") and first.dtype.kind in "iu":
        wide = np.abs(first.astype(np.float64))
        if (wide.prod() if node.op_type == "ReduceProd" else (wide**2).sum()) > np.iinfo(first.dtype).max:
            raise NotFoldable("the integers may overflow")


def _need(values: Array | None) -> Array:
    assert values is not None
    return values


def _cast(values: Array, dtype: ir.DataType) -> Array:
    """Cast semantics: to nearest even between floats, towards zero to integers.

    Raises:
        NotFoldable: to integers that cannot hold a value; runtimes differ there.
    """
    if dtype in FLOATS:
        return round_to(values, dtype).astype(np.float64)
    wanted = dtype.numpy()
    if values.dtype.kind == "f" and dtype != ir.DataType.BOOL:
        limits = np.iinfo(wanted)
        whole = np.trunc(values)
        if not (np.isfinite(values).all() and (whole >= limits.min).all() and (whole <= limits.max).all()):
            raise NotFoldable(f"casts a value that {np.dtype(wanted).name} cannot hold")
        if np.abs(whole).max(initial=0) >= 2.0**63:
            raise NotFoldable("casts a value at the limit of 64 bits")
    return values.astype(wanted)


def _divide_integers(left: Array, right: Array) -> Array:
    """Division that truncates, as C does; numpy's goes down.

    Raises:
        NotFoldable: by zero.
    """
    if (right == 0).any():
        raise NotFoldable("divides integers by zero")
    down, rest = np.divmod(left, right)
    return (down + ((rest != 0) & ((left < 0) != (right < 0)))).astype(left.dtype)


def _reference(node: ir.Node, inputs: Sequence[Array | None], opset: int) -> list[Array]:
    """Run one node by ``onnx.reference``, on whatever types its inputs have."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = onnx.GraphProto(name="constant")
    graph.node.add().CopyFrom(ir.node_proto(node))
    graph.node[0].input[:] = ["" if values is None else f"i{at}" for at, values in enumerate(inputs)]
    graph.node[0].output[:] = [f"o{at}" for at in range(len(node.outputs))]
    feeds: Mapping[str, Array] = {f"i{at}": values for at, values in enumerate(inputs) if values is not None}
    for name in feeds:
        graph.input.add(name=name)
    for name in graph.node[0].output:
        graph.output.add(name=name)
    try:
        return cast(list[Array], ReferenceEvaluator(graph, opsets={"": opset}).run(None, dict(feeds)))
    except Exception as error:
        raise NotFoldable(f"the reference cannot evaluate it: {type(error).__name__}: {error}") from error


def _checked(result: Any, dtype: ir.DataType, node: ir.Node) -> Array:
    values = np.asarray(result)
    if dtype in FLOATS:
        if node.op_type in MOVES:  # as wide as what was moved
            return values
        if values.dtype != np.float64:
            raise NotFoldable(f"the reference computes in {values.dtype}, not in float64")
        return values
    wanted = dtype.numpy()
    if values.dtype != wanted:
        if not np.array_equal(values.astype(wanted), values):
            raise NotFoldable(f"the reference makes {values.dtype} of {np.dtype(wanted).name}")
        values = values.astype(wanted)
    return values
