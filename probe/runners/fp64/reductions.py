"""Reductions along axes, running sums, selections along an axis, matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probe.runners.fp64.calls import Call, Kernel, plain
from probe.runners.protocol import Array

Axes = tuple[int, ...] | None


def _axes(call: Call, given: Array | None) -> Axes:
    """Axes to reduce, from the input (newer operator sets) or the attribute; None: all of them."""
    axes = call.get("axes") if given is None else given.reshape(-1).tolist()
    if axes:
        return tuple(axes)
    return () if call.get("noop_with_empty_axes", 0) else None


def log_sum_exp(x: Array, axes: Axes, *, keep: bool) -> Array:
    """log(sum(exp(x))) without overflow."""
    top = x.max(axis=axes, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.log(np.exp(x - top).sum(axis=axes, keepdims=True)) + top
    return total if keep else total.sum(axis=axes)  # one element an axis: dropping them is all that is left


def _extreme(function: Callable[..., Any], *, top: bool) -> Callable[[Array, Axes, bool], Array]:
    def reduced(x: Array, axes: Axes, keep: bool) -> Array:
        if x.dtype.kind == "f" and not x.size:
            return function(x, axis=axes, keepdims=keep, initial=-np.inf if top else np.inf)
        return function(x, axis=axes, keepdims=keep)

    return reduced


_REDUCTIONS: dict[str, Callable[[Array, Axes, bool], Array]] = {
    "ReduceSum": lambda x, axes, keep: x.sum(axis=axes, keepdims=keep),
    "ReduceMean": lambda x, axes, keep: x.mean(axis=axes, keepdims=keep),
    "ReduceProd": lambda x, axes, keep: x.prod(axis=axes, keepdims=keep),
    "ReduceMax": _extreme(np.max, top=True),
    "ReduceMin": _extreme(np.min, top=False),
    "ReduceL1": lambda x, axes, keep: np.abs(x).sum(axis=axes, keepdims=keep),
    "ReduceL2": lambda x, axes, keep: np.sqrt(np.square(x).sum(axis=axes, keepdims=keep)),
    "ReduceSumSquare": lambda x, axes, keep: np.square(x).sum(axis=axes, keepdims=keep),
    "ReduceLogSum": lambda x, axes, keep: np.log(x.sum(axis=axes, keepdims=keep)),
    "ReduceLogSumExp": lambda x, axes, keep: log_sum_exp(x, axes, keep=keep),
}


def _reduction(function: Callable[[Array, Axes, bool], Array]) -> Kernel:
    def kernel(call: Call, x: Array, axes: Array | None = None) -> Array:
        return np.asarray(function(x, _axes(call, axes), bool(call["keepdims"]))).astype(x.dtype)

    return kernel


def _arg_extreme(function: Callable[..., Any]) -> Kernel:
    def kernel(call: Call, x: Array) -> Array:
        axis = call["axis"]
        if call.get("select_last_index", 0):
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=True)
        else:
            found = function(x, axis=axis, keepdims=True)
        return found.astype(np.int64) if call["keepdims"] else np.squeeze(found, axis).astype(np.int64)

    return kernel


def _top_k(call: Call, x: Array, k: Array | None = None) -> tuple[Array, Array]:
    """Equal elements keep their order, the lower index first."""
    count = call["k"] if k is None else int(k.reshape(-1)[0])
    axis = call["axis"] % x.ndim
    if call.get("largest", 1):
        # Sorting the reversed axis upwards and reading it backwards: negating would overflow integers.
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    if count > x.shape[axis]:
        raise ValueError(f"k is {count}, axis {axis} has {x.shape[axis]} elements")
    order = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _running(function: Callable[..., Any], neutral: int) -> Kernel:
    def kernel(call: Call, x: Array, axis: Array) -> Array:
        along = int(axis.reshape(-1)[0])
        x = np.flip(x, along) if call["reverse"] else x
        total = function(x, axis=along, dtype=x.dtype)
        if call["exclusive"]:
            first = np.full_like(np.take(x, [0], along), neutral)
            total = np.concatenate([first, np.take(total, np.arange(x.shape[along] - 1), along)], along)
        return np.flip(total, along) if call["reverse"] else total

    return kernel


def _gemm(call: Call, a: Array, b: Array, c: Array | None = None) -> Array:
    product = call["alpha"] * np.matmul(a.T if call["transA"] else a, b.T if call["transB"] else b)
    total = product if c is None else product + call["beta"] * c
    return total.astype(a.dtype)


def _einsum(call: Call, *operands: Array) -> Array:
    return np.einsum(call["equation"].strip(), *operands, optimize=len(operands) > 1)


KERNELS: dict[str, Kernel] = {
    **{name: _reduction(function) for name, function in _REDUCTIONS.items()},
    "ArgMax": _arg_extreme(np.argmax),
    "ArgMin": _arg_extreme(np.argmin),
    "TopK": _top_k,
    "CumSum": _running(np.cumsum, 0),
    "CumProd": _running(np.cumprod, 1),
    "Gemm": _gemm,
    "Einsum": _einsum,
    **plain({"MatMul": np.matmul, "Det": np.linalg.det}),
}
