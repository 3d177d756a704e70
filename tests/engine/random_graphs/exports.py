"""What exporters make of less common models: channels last, caches of keys, windows, products of odd ranks, weights that are computed."""

from __future__ import annotations

import math

import numpy as np

from tests.engine.random_graphs.graph import PRODUCTS, Graph, Unfit, Value
from tests.engine.random_graphs.images import activation, conv
from tests.engine.random_graphs.tokens import linear


def channels_last_conv(g: Graph, x: Value) -> Value:
    """As TensorFlow's converter writes it: there and back around every convolution, everything else on the last axis."""
    if x.rank != 4:
        raise Unfit
    y = x
    for _ in range(g.pick(1, 2, 2)):
        out = g.size(33)
        inner = conv(
            g, g.op("Transpose", y, perm=[0, 3, 1, 2]), out, g.pick(1, 3), stride=g.pick(1, 1, 2), bias=g.chance(0.3)
        )
        z = g.op("Transpose", inner, perm=[0, 2, 3, 1])
        z = g.op("Add", z, g.weight(out)) if g.chance(0.6) else z
        z = g.op("Relu", z) if g.chance(0.6) else g.op("Clip", z, g.constant(0.0), g.constant(6.0))
        if z.shape == y.shape and g.chance(0.6):
            z = g.op("Add", y, z)
        elif g.chance(0.2) and z.shape[:3] == y.shape[:3]:
            z = g.op("Concat", y, z, axis=3)
        y = z
    return y


def odd_conv(g: Graph, x: Value) -> Value:
    """Pads, strides and dilations that differ by axis, auto_pad, weights that were computed, a bias that is an input."""
    axes = x.rank - 2
    if axes < 1 or x.array.size > 4096:
        raise Unfit
    kernel, out = [g.pick(1, 2, 3, 4) for _ in range(axes)], g.size(17)
    weight = g.weight(out, x.shape[1], *kernel, scale=1 / math.sqrt(x.shape[1] * math.prod(kernel)))
    if g.chance(0.3):
        weight = g.op("Mul", g.input(weight.array), g.constant(1.5)) if g.chance(0.5) else g.op("Tanh", weight)
    bias = [g.pick(g.weight, lambda *shape: g.input(g.normal(*shape)))(out)] if g.chance(0.5) else []
    strides, dilations = [g.pick(1, 2, 3) for _ in range(axes)], [g.pick(1, 1, 2) for _ in range(axes)]
    if g.chance(0.3):
        y = g.op("Conv", x, weight, *bias, strides=strides, auto_pad=g.pick("SAME_UPPER", "SAME_LOWER", "VALID"))
    else:
        pads = [g.pick(0, 1, 2) for _ in range(2 * axes)]
        y = g.op("Conv", x, weight, *bias, strides=strides, dilations=dilations, pads=pads)
    return activation(g, y)


def cached(g: Graph, x: Value) -> Value:
    """A decoder's step: keys and values of before come as inputs, with the new ones behind they are outputs; few key heads serve many queries."""
    if x.rank != 3 or not x.array.size:
        raise Unfit
    batch, length, width = x.shape
    groups, shared, size, past = g.pick(1, 2), g.pick(1, 2, 3), g.pick(4, 8, 16), g.size(33)
    heads = groups * shared
    if batch * heads * length * (past + length) > 1 << 13:
        raise Unfit
    made = []
    for many in (heads, groups, groups):
        y = linear(g, x, many * size, bias=g.chance(0.5))
        made.append(g.op("Transpose", g.op("Reshape", y, g.ints(batch, length, many, size)), perm=[0, 2, 1, 3]))
    queries, keys, values = made
    keys = g.op("Concat", g.input(g.normal(batch, groups, past, size)), keys, axis=2)
    values = g.op("Concat", g.input(g.normal(batch, groups, past, size)), values, axis=2)
    if g.chance(0.5):
        values = g.op("Identity", values)
    if shared > 1:
        keys, values = (_repeated(g, one, shared) for one in (keys, values))
    scores = g.op("MatMul", queries, g.op("Transpose", keys, perm=[0, 1, 3, 2]))
    scores = g.op("Mul", scores, g.constant(1 / math.sqrt(size)))
    if g.chance(0.6):
        seen = np.tril(np.ones((length, past + length), bool), past)
        scores = g.op("Where", g.constant(seen), scores, g.constant(float(g.pick(-1e4, np.finfo(np.float32).min))))
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), values)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(batch, length, -1))
    return g.op("Add", x, linear(g, y, width, bias=False))


def _repeated(g: Graph, x: Value, times: int) -> Value:
    batch, heads, length, size = x.shape
    y = g.op("Expand", g.op("Unsqueeze", x, g.ints(2)), g.ints(batch, heads, times, length, size))
    return g.op("Reshape", y, g.ints(batch, heads * times, length, size))


def windows(g: Graph, x: Value) -> Value:
    """Swin: an image of tokens rolled, cut into windows, multiplied inside them, put together, rolled back."""
    if x.rank != 4 or x.shape[1] % 2 or x.shape[2] % 2:
        raise Unfit
    batch, height, width, channels = x.shape
    y = x
    if rolls := g.chance(0.5) and height > 2:
        y = _rolled(g, y, height // 2)
    y = g.op("Reshape", y, g.ints(batch, height // 2, 2, width // 2, 2, channels))
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 1, 3, 2, 4, 5]), g.ints(-1, 4, channels))
    scores = g.op("MatMul", y, g.op("Transpose", y, perm=[0, 2, 1]))
    scores = g.op("Add", g.op("Mul", scores, g.constant(1 / channels)), g.weight(1, 4, 4))
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), y)
    y = g.op("Reshape", y, g.ints(batch, height // 2, width // 2, 2, 2, channels))
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 1, 3, 2, 4, 5]), g.ints(batch, height, width, channels))
    return g.op("Add", x, _rolled(g, y, height - height // 2) if rolls else y)


def _rolled(g: Graph, x: Value, by: int) -> Value:
    axis = g.ints(1)
    first = g.op("Slice", x, g.ints(by), g.ints(x.shape[1]), axis)
    return g.op("Concat", first, g.op("Slice", x, g.ints(0), g.ints(by), axis), axis=1)


def odd_product(g: Graph, x: Value) -> Value:
    """A vector on either side, a batch on one side only, a Gemm of turned or sliced operands, a long sum."""
    how = g.pick("vector", "batch", "left", "Gemm", "long", "sliced", "Einsum")
    if not x.rank or not x.array.size:
        raise Unfit
    width = x.shape[-1]
    scale = 1 / math.sqrt(width)
    if how == "vector":
        return (
            g.op("MatMul", x, g.weight(width, scale=scale))
            if g.chance(0.5)
            else g.op("MatMul", g.weight(x.shape[-2 if x.rank > 1 else -1]), x)
        )
    if how == "batch" and x.rank == 2:
        return g.op("MatMul", x, g.weight(g.pick(2, 3), width, g.size(17), scale=scale))
    if how == "left" and x.rank >= 2 and x.array.size * 33 < PRODUCTS:
        return g.op("MatMul", g.weight(g.size(33), x.shape[-2], scale=1 / math.sqrt(x.shape[-2])), x)
    if how == "Gemm" and x.rank == 2:
        out, turned = g.size(65), g.chance(0.5)
        rows = x.shape[1] if turned else x.shape[0]
        depth = x.shape[0] if turned else x.shape[1]
        added = g.weight(*g.pick((out,), (1, out), (rows, 1), (rows, out), (), (1,)))
        return g.op(
            "Gemm",
            x,
            g.weight(depth, out, scale=1 / math.sqrt(depth)),
            added,
            transA=int(turned),
            alpha=g.pick(1.0, 0.5),
            beta=g.pick(1.0, 2.0, 0.0),
        )
    if how == "long" and x.rank >= 2 and x.array.size >= 512:
        rows = x.shape[0]
        y = g.op("Reshape", x, g.ints(rows, -1))
        return linear(g, y, g.size(17))
    if how == "sliced" and width >= 2 and x.rank >= 2:
        cut = g.op("Slice", x, g.ints(1), g.ints(width), g.ints(-1))
        return linear(g, cut, g.size(33))
    if how == "Einsum" and x.rank == 3:
        return g.op("Einsum", x, g.weight(width, g.size(17), scale=scale), equation="abc,cd->adb")
    raise Unfit


def counted(g: Graph, x: Value) -> Value:
    """Integers that are computed of an input: ids compared, masks made of them, positions."""
    if x.rank < 2:
        raise Unfit
    ids = g.input(g.noise.integers(0, 5, x.shape[:2]))
    how = g.pick("mask", "arithmetic", "positions", "OneHot", "Trilu")
    if how == "mask":
        there = g.op("Not", g.op("Equal", ids, g.constant(0, np.int64)))
        there = g.op("Cast", there, to=1)
        return g.op("Mul", x, g.op("Reshape", there, g.ints(*x.shape[:2], *[1] * (x.rank - 2))))
    if how == "arithmetic":
        y = g.op(g.pick("Add", "Mul", "Sub"), ids, g.op("Div", ids, g.constant(2, np.int64)))
        y = g.op("Mod", y, g.constant(3, np.int64)) if g.chance(0.5) else g.op("Max", y, ids)
        return g.op("Add", x, g.op("Cast", g.op("Reshape", y, g.ints(*x.shape[:2], *[1] * (x.rank - 2))), to=1))
    if how == "positions":
        there = g.op("Cast", g.op("Greater", ids, g.constant(1, np.int64)), to=7)
        places = g.op("Mul", g.op("CumSum", there, g.constant(1, np.int64)), there)
        rows = g.op("Gather", g.weight(x.shape[1] + 1, 3), places)
        return (
            g.op("ReduceMean", rows, axes=[2], keepdims=0)
            if g.opset < 18
            else g.op("ReduceMean", rows, g.ints(2), keepdims=0)
        )
    if how == "OneHot":
        return g.op("OneHot", ids, g.constant(5, np.int64), g.constant([0.0, 1.0]), axis=g.pick(-1, 0, 1))
    if g.opset < 14:
        raise Unfit
    return g.op("Trilu", x, g.constant(g.pick(-1, 0, 1), np.int64), upper=g.pick(0, 1))


def read_twice(g: Graph, x: Value) -> Value:
    """One weight in two places, one value on both sides, and a chain whose middle is read from far behind."""
    if x.rank < 2 or not x.array.size:
        raise Unfit
    weight = g.weight(x.shape[-1], scale=0.5)
    first = g.op("Add", x, weight)
    second = g.op("Sigmoid", g.op("Mul", first, weight))
    third = g.op("Concat", first, second, first, axis=g.random.randrange(x.rank))
    parts = g.op("Slice", third, g.ints(0), g.ints(max(1, third.shape[-1] - 1)), g.ints(-1))
    y = g.op("Mul", parts, g.op("Tanh", parts))
    return g.op("Sub", y, g.reduce("ReduceMean", y, [-1], keep=True)) if g.chance(0.5) else y


def standard_norm(g: Graph, x: Value) -> Value:
    """Norms by the names of later opsets."""
    if x.rank < 3 or not x.array.size:
        raise Unfit
    if g.opset >= 23 and g.chance(0.4):
        return g.op("RMSNormalization", x, g.weight(x.shape[-1]), axis=-1)
    if g.opset >= 21:
        groups = g.pick(*[one for one in (1, 2, 4) if x.shape[1] % one == 0])
        return g.op("GroupNormalization", x, g.weight(x.shape[1]), g.weight(x.shape[1]), num_groups=groups)
    return (
        g.op("MeanVarianceNormalization", x, axes=[0, *range(2, x.rank)])
        if x.rank == 4
        else g.op("LpNormalization", x, axis=-1)
    )


EXPORTS = (
    channels_last_conv, channels_last_conv, odd_conv, odd_conv, cached, cached, windows, odd_product, odd_product, counted, counted, read_twice,
    read_twice, standard_norm,
)  # fmt: skip
