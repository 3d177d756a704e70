"""Sums, means, norms and softmax in numpy, with the order of their sums as an argument: the nodes that the tactics ``sum_*`` concern.

The terms are float32, computed from inputs as given; each sum (of a mean, of a variance, of a softmax's denominator) is the tactic's, and
what comes after it is float32: the division of a mean, roots, logarithms, scale and bias. A variance is the mean of squared distances from
the mean (two passes), as in the ONNX definitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from probe import ir
from probe.engine.device.cpu.sums import total
from probe.engine.tactics import Tactic
from probe.engine.tactics.problems import opset_of
from probe.errors import InputError

Array = np.ndarray[Any, Any]
_Given = Sequence[Array | None]
_FLATTENS = 13  # softmax of earlier opsets takes all axes from ``axis`` on as one
_GROUP_SCALES = 21  # scale and bias of GroupNormalization are one a channel from here on, one a group before


def reduction(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    """Outputs of a node that sums, on inputs as given (already rounded to what they are stored in); those without a name are left out.

    Raises:
        InputError: the tactic cannot compute this node; says why.
    """
    if (reason := tactic.refuses(node)) is not None:
        raise InputError(reason)
    with np.errstate(all="ignore"):  # Inf and NaN are results here, as they are in the session's kernels
        made = _RULES[node.op_type](node, inputs, tactic)
    kept = [array for array, value in zip(made, node.outputs, strict=False) if value.name]
    return [np.ascontiguousarray(array, np.float32) for array in kept]


def _over(x: Array, axes: Sequence[int], tactic: Tactic) -> Array:
    """Sums over axes, in the order of the tensor; the axes stay, with one element."""
    axes = sorted(axis % x.ndim for axis in axes)
    if not axes:
        return x
    others = [axis for axis in range(x.ndim) if axis not in axes]
    rows = np.ascontiguousarray(x.transpose(*others, *axes))
    sums = total(rows.reshape(*(x.shape[axis] for axis in others), math.prod(x.shape[axis] for axis in axes)), tactic)
    return sums.reshape([1 if axis in axes else x.shape[axis] for axis in range(x.ndim)])


def _mean(x: Array, axes: Sequence[int], tactic: Tactic) -> Array:
    count = math.prod(x.shape[axis] for axis in axes)
    return _over(x, axes, tactic) / np.float32(count)


def _normalised(x: Array, axes: Sequence[int], epsilon: float, tactic: Tactic) -> tuple[Array, Array, Array]:
    """Distances from the mean over the deviation, the mean, and one over the deviation."""
    mean = _mean(x, axes, tactic)
    centred = x - mean
    inverse = 1 / np.sqrt(_mean(centred * centred, axes, tactic) + np.float32(epsilon))
    return centred * inverse, mean, inverse


# --- reductions ------------------------------------------------------------------------------------------------------


def _reduce(before: Callable[[Array], Array], after: Callable[[Array], Array], *, mean: bool = False):  # noqa: ANN202 - a rule
    def rule(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
        x = _data(inputs, 0)
        axes = _reduced_axes(node, inputs, x.ndim)
        made = after((_mean if mean else _over)(before(x), axes, tactic))
        return [made if node.attributes.get_int("keepdims", 1) else made.squeeze(tuple(axes))]

    return rule


def _log_sum_exp(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x = _data(inputs, 0)
    axes = _reduced_axes(node, inputs, x.ndim)
    largest = x.max(axis=tuple(axes), keepdims=True, initial=-np.inf)
    largest = np.where(np.isfinite(largest), largest, np.float32(0))
    made = np.log(_over(np.exp(x - largest), axes, tactic)) + largest
    return [made if node.attributes.get_int("keepdims", 1) else made.squeeze(tuple(axes))]


def _reduced_axes(node: ir.Node, inputs: _Given, rank: int) -> list[int]:
    """From the attribute, or from the input of later opsets; all of them where none is named."""
    given = inputs[1] if len(inputs) > 1 else None
    axes = [int(axis) for axis in (given if given is not None else node.attributes.get_ints("axes", ()))]
    if axes:
        return [axis % rank for axis in axes]
    if node.attributes.get_int("noop_with_empty_axes", 0):
        raise InputError(
            f"{node.op_type} sums nothing: no axes, and noop_with_empty_axes",
            where=node.name or "",
            hint="run this layer by exact",
        )
    return list(range(rank))


def _global_average(_: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x = _data(inputs, 0)
    return [_mean(x, range(2, x.ndim), tactic)]


# --- softmax ---------------------------------------------------------------------------------------------------------


def _softmax(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x, shape, axis = _softmax_axis(node, inputs)
    powers = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    return [(powers / _over(powers, [axis], tactic)).reshape(shape)]


def _log_softmax(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x, shape, axis = _softmax_axis(node, inputs)
    less = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    return [(less - np.log(_over(np.exp(less), [axis], tactic))).reshape(shape)]


def _softmax_axis(node: ir.Node, inputs: _Given) -> tuple[Array, tuple[int, ...], int]:
    """The input, its shape, and the axis; before opset 13 the input as a matrix."""
    x = _data(inputs, 0)
    axis = node.attributes.get_int("axis", 1 if _opset(node) < _FLATTENS else -1) % x.ndim
    if _opset(node) < _FLATTENS:
        return x.reshape(math.prod(x.shape[:axis]), -1), x.shape, 1
    return x, x.shape, axis


# --- norms -----------------------------------------------------------------------------------------------------------


def _layer_norm(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x, scale, bias = _data(inputs, 0), _data(inputs, 1), inputs[2] if len(inputs) > 2 else None
    axes = range(node.attributes.get_int("axis", -1) % x.ndim, x.ndim)
    made, mean, inverse = _normalised(x, axes, node.attributes.get_float("epsilon", 1e-5), tactic)
    made = made * scale
    return [made if bias is None else made + bias, mean, inverse]


def _rms_norm(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x, scale = _data(inputs, 0), _data(inputs, 1)
    axes = range(node.attributes.get_int("axis", -1) % x.ndim, x.ndim)
    square = _mean(x * x, axes, tactic) + np.float32(node.attributes.get_float("epsilon", 1e-5))
    return [x / np.sqrt(square) * scale]


def _instance_norm(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x, scale, bias = (_data(inputs, at) for at in range(3))
    made = _normalised(x, range(2, x.ndim), node.attributes.get_float("epsilon", 1e-5), tactic)[0]
    channels = (-1, *(1,) * (x.ndim - 2))
    return [made * scale.reshape(channels) + bias.reshape(channels)]


def _group_norm(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x, scale, bias = (_data(inputs, at) for at in range(3))
    groups = node.attributes.get_int("num_groups", 1)
    grouped = x.reshape(x.shape[0], groups, -1)
    made = _normalised(grouped, [2], node.attributes.get_float("epsilon", 1e-5), tactic)[0]
    each = groups if _opset(node) < _GROUP_SCALES else x.shape[1]
    made = made.reshape(x.shape[0], each, -1) * scale.reshape(each, 1) + bias.reshape(each, 1)
    return [made.reshape(x.shape)]


def _mean_variance(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x = _data(inputs, 0)
    axes = [axis % x.ndim for axis in node.attributes.get_ints("axes", (0, 2, 3))]
    mean = _mean(x, axes, tactic)
    centred = x - mean
    return [centred / (np.sqrt(_mean(centred * centred, axes, tactic)) + np.float32(1e-9))]


def _lp_norm(node: ir.Node, inputs: _Given, tactic: Tactic) -> list[Array]:
    x = _data(inputs, 0)
    axis = node.attributes.get_int("axis", -1)
    absolute = node.attributes.get_int("p", 2) == 1
    size = _over(np.abs(x), [axis], tactic) if absolute else np.sqrt(_over(x * x, [axis], tactic))
    return [np.divide(x, size, out=np.zeros_like(x), where=size != 0)]  # a row of zeros stays one


# --- the table -------------------------------------------------------------------------------------------------------


def _data(inputs: _Given, at: int) -> Array:
    array = inputs[at]
    assert array is not None
    return array


def _opset(node: ir.Node) -> int:
    found = opset_of(node)
    assert found is not None, "a node outside any graph: refused before"
    return found


def _same(x: Array) -> Array:
    return x


_RULES: dict[str, Callable[[ir.Node, _Given, Tactic], list[Array]]] = {
    "ReduceSum": _reduce(_same, _same),
    "ReduceMean": _reduce(_same, _same, mean=True),
    "ReduceL1": _reduce(np.abs, _same),
    "ReduceL2": _reduce(np.square, np.sqrt),
    "ReduceSumSquare": _reduce(np.square, _same),
    "ReduceLogSum": _reduce(_same, np.log),
    "ReduceLogSumExp": _log_sum_exp,
    "GlobalAveragePool": _global_average,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance,
    "LpNormalization": _lp_norm,
}
