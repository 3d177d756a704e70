"""Small pieces that stand anywhere: pointwise nodes, what moves data, reductions, integers, comparisons, what is quantised."""

from __future__ import annotations

import math

import numpy as np

from tests.engine.random_graphs.graph import Graph, Unfit, Value

UNARY = (
    "Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Softplus", "Sign", "Floor", "Ceil", "Sin", "Cos", "Exp", "Atan", "Identity", "LeakyRelu",
    "Softsign", "HardSigmoid", "Selu",
)  # fmt: skip


def unary(g: Graph, x: Value) -> Value:
    which = g.pick(*UNARY, "Sqrt", "Log", "Reciprocal", "Pow", "Round", "Clip")
    if which in ("Sqrt", "Log"):
        return g.op(which, g.op("Add", g.op("Abs", x), g.constant(0.125)))
    if which == "Reciprocal":
        return g.op(which, g.op("Add", g.op("Abs", x), g.constant(0.5)))
    if which == "Exp":
        return g.op(which, g.op("Min", x, g.constant(3.0)))
    if which == "Pow":
        return g.op(which, x, g.constant(g.pick(2.0, 3.0, 1.0)))
    if which == "Clip":
        bounds = g.pick((-1.0, 1.0), (0.0, 6.0), (None, 0.5), (-0.25, None))
        return g.op(which, x, *[None if one is None else g.constant(one) for one in bounds])
    return g.op(which, x)


def fits(x: Value, other: Value) -> bool:
    try:
        return math.prod(np.broadcast_shapes(x.shape, other.shape)) <= max(2 * x.array.size, 4096)
    except ValueError:
        return False


def binary(g: Graph, x: Value) -> Value:
    """With another value, a constant of any shape that fits, or with itself."""
    which = g.pick("Add", "Add", "Mul", "Mul", "Sub", "Div", "Max", "Min", "Mean", "Sum")
    how = g.random.random()
    if how < 0.5:
        other = g.another(lambda one: one.is_float and fits(x, one))
    elif how < 0.6:
        other = x
    else:
        axes = g.random.randrange(x.rank + 1)
        other = g.weight(*[one if g.chance(0.7) else 1 for one in x.shape[axes:]])
    if which == "Div":
        other = g.op("Add", g.op("Abs", other), g.constant(0.5))
    return g.op(which, *((x, other) if g.chance(0.6) else (other, x)))


def sliced(g: Graph, x: Value) -> Value:
    axes = sorted(g.random.sample(range(x.rank), g.random.randint(1, x.rank)) if x.rank else [])
    if not axes or not x.array.size:
        raise Unfit
    starts, ends, steps = [], [], []
    for axis in axes:
        extent, step = x.shape[axis], g.pick(1, 1, 1, 2, -1)
        begin, end = sorted((g.random.randint(0, extent), g.random.randint(0, extent)))
        if begin == end and not g.chance(0.02):
            begin, end = 0, extent
        if step < 0:
            starts, ends = [*starts, end - 1], [*ends, begin - 1 if begin else np.iinfo(np.int64).min]
        else:
            starts, ends = [*starts, begin], [*ends, end if g.chance(0.7) or end < extent else np.iinfo(np.int64).max]
        steps.append(step)
    named = [one - x.rank if g.chance(0.3) else one for one in axes]
    return g.op("Slice", x, g.ints(*starts), g.ints(*ends), g.ints(*named), g.ints(*steps))


def split_and_joined(g: Graph, x: Value) -> Value:
    """Parts of a tensor: some changed, in another order, put together again."""
    axis = g.random.randrange(x.rank) if x.rank else 0
    if not x.rank or x.shape[axis] < 2:
        raise Unfit
    at = g.random.randint(1, x.shape[axis] - 1)
    parts = list(g.ops("Split", 2, x, g.ints(at, x.shape[axis] - at), axis=axis))
    at = g.random.randrange(2)
    parts[at] = unary(g, parts[at])
    if g.chance(0.4):
        parts.reverse()
    if g.chance(0.3):
        parts.append(parts[0])
    return g.op("Concat", *parts, axis=axis - x.rank if g.chance(0.3) else axis)


def joined(g: Graph, x: Value) -> Value:
    """With others of the same rank along an axis; now and then with itself."""
    if not x.rank:
        raise Unfit
    axis = g.random.randrange(x.rank)
    rest = lambda one: (*one.shape[:axis], *one.shape[axis + 1 :])
    others = [
        g.another(lambda one: one.is_float and one.rank == x.rank and rest(one) == rest(x))
        for _ in range(g.pick(1, 1, 2))
    ]
    both = [x, *others]
    g.random.shuffle(both)
    return g.op("Concat", *both, axis=axis)


def turned(g: Graph, x: Value) -> Value:
    if x.rank < 2:
        raise Unfit
    perm = list(range(x.rank))
    g.random.shuffle(perm)
    y = g.op("Transpose", x, perm=perm)
    if g.chance(0.4):  # and back, with something between
        y = unary(g, y)
        y = g.op("Transpose", y, perm=[int(one) for one in np.argsort(perm)])
    return y


def reshaped(g: Graph, x: Value) -> Value:
    """The same elements, in other dims: joined, cut, flattened; by numbers, or by what Shape says."""
    shape, size = list(x.shape), x.array.size
    how = g.pick("join", "cut", "flat", "ask", "one", "Flatten", "Squeeze")
    if how == "join" and len(shape) > 1:
        at = g.random.randrange(len(shape) - 1)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    elif how == "cut" and shape:
        at = g.random.randrange(len(shape))
        factors = [one for one in range(2, 17) if shape[at] % one == 0 and shape[at]]
        if not factors:
            raise Unfit
        first = g.random.choice(factors)
        shape[at : at + 1] = [first, shape[at] // first]
    elif how == "flat":
        shape = [size]
    elif how == "ask" and len(shape) > 1 and size:
        dim = g.op("Gather", g.op("Shape", x), g.constant(0, np.int64), axis=0)
        dim = g.op("Unsqueeze", dim, g.ints(0))
        return g.op("Reshape", x, g.op("Concat", dim, g.ints(-1), axis=0))
    elif how == "one":
        return g.op("Unsqueeze", x, g.ints(g.random.randint(0, x.rank)))
    elif how == "Flatten":
        return g.op(how, x, axis=g.random.randint(0, x.rank))
    elif how == "Squeeze" and 1 in shape:
        return g.op(how, x, g.ints(shape.index(1)))
    else:
        raise Unfit
    if shape and size and g.chance(0.4):
        shape[g.random.randrange(len(shape))] = -1
    return g.op("Reshape", x, g.ints(*shape))


def spread(g: Graph, x: Value) -> Value:
    """Expand or Tile."""
    if not x.rank or x.array.size > 2048:
        raise Unfit
    if g.chance(0.5):
        return g.op("Tile", x, g.ints(*[g.pick(1, 1, 2, 3) for _ in x.shape]))
    return g.op(
        "Expand",
        x,
        g.ints(*([g.pick(2, 3)] if g.chance(0.5) else []), *[g.pick(1, 3) if one == 1 else one for one in x.shape]),
    )


def bordered(g: Graph, x: Value) -> Value:
    if not x.rank:
        raise Unfit
    pads = [g.pick(0, 0, 1, 2) for _ in range(2 * x.rank)]
    return g.op("Pad", x, g.ints(*pads), g.constant(g.pick(0.0, 0.0, 1.5)), mode="constant")


def gathered(g: Graph, x: Value) -> Value:
    if not x.rank or not x.array.size:
        raise Unfit
    axis = g.random.randrange(x.rank)
    extent = x.shape[axis]
    shape = g.pick((), (1,), (3,), (extent,), (2, 2))
    picked = g.noise.integers(-extent if g.chance(0.3) else 0, extent, shape)
    indices = g.input(picked) if g.chance(0.3) else g.constant(picked, np.int64)
    return g.op("Gather", x, indices, axis=axis)


def reduced(g: Graph, x: Value) -> Value:
    if not x.rank or not x.array.size:
        raise Unfit
    which = g.pick(
        "ReduceMean",
        "ReduceSum",
        "ReduceMax",
        "ReduceMin",
        "ReduceL2",
        "ReduceL1",
        "ReduceSumSquare",
        "ReduceLogSumExp",
        "ReduceProd",
    )
    axes = sorted(g.random.sample(range(x.rank), g.random.randint(1, min(x.rank, 3))))
    if which == "ReduceProd":
        x = g.op("Add", g.constant(1.0), g.op("Mul", x, g.constant(0.01)))
    y = g.reduce(which, x, [one - x.rank if g.chance(0.3) else one for one in axes], keep=g.chance(0.6))
    return g.op("Mul", y, x) if g.chance(0.3) and fits(x, y) else y


def softmax(g: Graph, x: Value) -> Value:
    if not x.rank:
        raise Unfit
    return g.op(g.pick("Softmax", "Softmax", "LogSoftmax"), x, axis=g.random.randrange(-x.rank, x.rank))


def chosen(g: Graph, x: Value) -> Value:
    """A comparison, and Where or Cast behind it."""
    other = g.constant(0.1) if g.chance(0.5) else g.another(lambda one: one.is_float and fits(x, one))
    which = g.op(g.pick("Greater", "Less", "GreaterOrEqual", "LessOrEqual"), x, other)
    if g.chance(0.2):
        which = g.op("Not", which)
    if g.chance(0.3):
        return g.op("Mul", x, g.op("Cast", which, to=1))
    return g.op("Where", which, *((x, g.constant(-1.0)) if g.chance(0.5) else (g.op("Neg", x), x)))


def largest(g: Graph, x: Value) -> Value:
    """ArgMax as a number, or what TopK picks."""
    if not x.rank or not x.array.size:
        raise Unfit
    axis = g.random.randrange(x.rank)
    if g.chance(0.5):
        y = g.op(g.pick("ArgMax", "ArgMin"), x, axis=axis, keepdims=g.pick(0, 1))
        return g.op("Mul", g.op("Cast", y, to=1), g.constant(0.125))
    count = g.random.randint(1, x.shape[axis])
    return g.ops("TopK", 2, x, g.ints(count), axis=axis, largest=g.pick(0, 1))[0]


def quantised(g: Graph, x: Value) -> Value:
    """QuantizeLinear and back, of the tensor or of each channel."""
    kind = g.pick(np.uint8, np.int8)
    if x.rank > 1 and g.chance(0.3):
        channels = x.shape[1]
        scale, zero = g.constant(abs(g.normal(channels)) * 0.01 + 0.02), g.constant(np.zeros(channels), kind)
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, scale, zero, axis=1), scale, zero, axis=1)
    scale, zero = g.constant(g.pick(0.02, 0.05, 0.03125)), g.constant(g.pick(0, 3), kind)
    return g.op("DequantizeLinear", g.op("QuantizeLinear", x, scale, zero), scale, zero)


def cast(g: Graph, x: Value) -> Value:
    """There and back: integers, doubles, truths. Not halves: the engine reads a model with its halves made wide."""
    return g.op("Cast", g.op("Cast", x, to=g.pick(6, 7, 7, 11, 9)), to=1)


def scanned(g: Graph, x: Value) -> Value:
    if not x.rank:
        raise Unfit
    y = g.op(
        "CumSum", x, g.constant(g.random.randrange(x.rank), np.int64), exclusive=g.pick(0, 0, 1), reverse=g.pick(0, 1)
    )
    return g.op("Mul", y, g.constant(0.1))


def of_shapes(g: Graph, x: Value) -> Value:
    """Integers computed of a shape, which then are numbers: positions, lengths, a tensor of them."""
    if not x.rank or not x.array.size:
        raise Unfit
    shape = g.op("Shape", x)
    if g.chance(0.4):
        filled = g.op("ConstantOfShape", shape)
        return g.op("Add", g.op("Add", filled, g.constant(0.5)), x)
    last = g.op("Gather", shape, g.constant(x.rank - 1, np.int64), axis=0)
    if g.chance(0.5):
        places = g.op("Range", g.constant(0, np.int64), last, g.constant(1, np.int64))
        return g.op("Add", x, g.op("Mul", g.op("Cast", places, to=1), g.constant(0.01)))
    return g.op("Div", x, g.op("Cast", last, to=1))


def wired(g: Graph, x: Value) -> Value:
    """Elements gathered or scattered by places of their own."""
    if not x.rank or not x.array.size:
        raise Unfit
    axis = g.random.randrange(x.rank)
    places = g.constant(g.noise.integers(0, x.shape[axis], x.shape), np.int64)
    if g.chance(0.5):
        return g.op("GatherElements", x, places, axis=axis)
    rows = np.argsort(g.noise.random(x.shape[axis]))[: max(1, x.shape[axis] // 2)]
    updates = g.op("Gather", g.op("Neg", x), g.constant(rows, np.int64), axis=axis)
    if axis == 0:
        return g.op("ScatterND", x, g.constant(rows[:, None], np.int64), updates)
    where = np.broadcast_to(rows.reshape([-1 if one == axis else 1 for one in range(x.rank)]), updates.shape)
    return g.op("ScatterElements", x, g.constant(where, np.int64), updates, axis=axis)


PIECES = (
    unary, unary, unary, unary, binary, binary, binary, binary, binary, sliced, sliced, sliced, split_and_joined, split_and_joined, joined, turned,
    turned, reshaped, reshaped, reshaped, spread, bordered, gathered, reduced, reduced, softmax, chosen, largest, quantised, cast, scanned, of_shapes,
    wired,
)  # fmt: skip
