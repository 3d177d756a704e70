"""Blocks of transformers as exporters write them: what is drawn from tokens [..., T, C]."""

from __future__ import annotations

import math

import numpy as np

from tests.engine.random_graphs.graph import PRODUCTS, Graph, Unfit, Value


def linear(g: Graph, x: Value, out: int, *, bias: bool = True) -> Value:
    """MatMul and Add, the bias on either side; Gemm where x is a matrix."""
    if x.rank < 2 or x.array.size * out > PRODUCTS:
        raise Unfit
    features = x.shape[-1]
    scale = 1 / math.sqrt(max(features, 1))
    if x.rank == 2 and g.chance(0.5):
        turned = g.chance(0.5)
        weight = g.weight(*((out, features) if turned else (features, out)), scale=scale)
        more = {"alpha": 0.5, "beta": 2.0} if g.chance(0.2) else {}
        return g.op("Gemm", x, weight, *([g.weight(out)] if bias else []), transB=int(turned), **more)
    y = g.op("MatMul", x, g.weight(features, out, scale=scale))
    if not bias:
        return y
    row = g.weight(out)
    return g.op("Add", *((y, row) if g.chance(0.5) else (row, y)))


def gelu(g: Graph, x: Value) -> Value:
    which = g.pick("erf", "erf", "tanh", "quick", "Gelu" if g.opset >= 20 else "erf")
    if which == "Gelu":
        return g.op("Gelu", x, approximate=g.pick("none", "tanh"))
    if which == "quick":
        return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.constant(1.702))))
    if which == "erf":
        inner = g.op("Erf", g.op("Div", x, g.constant(math.sqrt(2))))
    else:
        cube = g.op("Pow", x, g.constant(3.0)) if g.chance(0.5) else g.op("Mul", g.op("Mul", x, x), x)
        inner = g.op("Add", x, g.op("Mul", cube, g.constant(0.044715)))
        inner = g.op("Tanh", g.op("Mul", inner, g.constant(math.sqrt(2 / math.pi))))
    inner = g.op("Add", inner, g.constant(1.0))
    if g.chance(0.5):
        return g.op("Mul", g.op("Mul", x, inner), g.constant(0.5))
    return g.op("Mul", g.op("Mul", x, g.constant(0.5)), inner)


def layer_norm(g: Graph, x: Value) -> Value:
    width = x.shape[-1]
    scale, shift = g.weight(width), g.weight(width)
    if g.opset >= 17 and g.chance(0.5):
        return g.op("LayerNormalization", x, scale, *([shift] if g.chance(0.8) else []), axis=-1, epsilon=1e-5)
    centred = g.op("Sub", x, g.reduce("ReduceMean", x, [-1], keep=True))
    square = g.op("Pow", centred, g.constant(2.0)) if g.chance(0.7) else g.op("Mul", centred, centred)
    deviation = g.op("Sqrt", g.op("Add", g.reduce("ReduceMean", square, [-1], keep=True), g.constant(1e-5)))
    y = g.op("Div", centred, deviation)
    return g.op("Add", g.op("Mul", y, scale), shift)


def rms_norm(g: Graph, x: Value) -> Value:
    square = g.op("Pow", x, g.constant(2.0)) if g.chance(0.7) else g.op("Mul", x, x)
    root = g.op("Sqrt", g.op("Add", g.reduce("ReduceMean", square, [-1], keep=True), g.constant(1e-6)))
    y = g.op("Mul", x, g.op("Reciprocal", root)) if g.chance(0.6) else g.op("Div", x, root)
    return g.op("Mul", *((y, g.weight(x.shape[-1])) if g.chance(0.5) else (g.weight(x.shape[-1]), y)))


def norm(g: Graph, x: Value) -> Value:
    return layer_norm(g, x) if g.chance(0.6) else rms_norm(g, x)


def feed_forward(g: Graph, x: Value) -> Value:
    y = norm(g, x) if g.chance(0.7) else x
    hidden = g.size(129, 3)
    if g.chance(0.3):  # SwiGLU: two products of one tensor
        gate, up = linear(g, y, hidden, bias=False), linear(g, y, hidden, bias=False)
        y = g.op("Mul", g.op("Mul", gate, g.op("Sigmoid", gate)), up)
    else:
        y = linear(g, y, hidden)
        y = gelu(g, y) if g.chance(0.7) else g.op("Relu", y)
    y = linear(g, y, x.shape[-1])
    return g.op("Add", *((x, y) if g.chance(0.5) else (y, x)))


def heads_of(g: Graph, x: Value, heads: int, perm: list[int]) -> Value:
    batch, length, width = x.shape
    if width % heads:
        raise Unfit
    shape = (batch, length, heads, width // heads) if g.chance(0.5) else (0, -1, heads, width // heads)
    return g.op("Transpose", g.op("Reshape", x, g.ints(*shape)), perm=perm)


def rotated(g: Graph, x: Value) -> Value:
    """Rotary embedding by slices: [-x2, x1] * sin + x * cos."""
    length, width = x.shape[-2:]
    if width % 2:
        raise Unfit
    half, last = width // 2, g.ints(-1)
    first = g.op("Slice", x, g.ints(0), g.ints(half), last, g.ints(1))
    second = g.op("Slice", x, g.ints(half), g.ints(np.iinfo(np.int64).max), last, g.ints(1))
    turned = g.op("Concat", g.op("Neg", second), first, axis=-1)
    angles = np.outer(np.arange(length), 0.5 ** np.arange(half))
    both = np.concatenate((angles, angles), -1).astype(np.float32)
    cosine, sine = g.constant(np.cos(both)), g.constant(np.sin(both))
    return g.op("Add", g.op("Mul", x, cosine), g.op("Mul", turned, sine))


def masked(g: Graph, scores: Value) -> Value:
    rows, keys = scores.shape[-2:]
    which = g.pick("none", "none", "causal", "where", "given", "row")
    if which == "none":
        return scores
    if which == "causal":
        mask = np.triu(np.full((rows, keys), g.pick(-1e4, -np.inf, float(np.finfo(np.float32).min)), np.float32), 1)
        return g.op("Add", scores, g.constant(mask))
    if which == "row":  # of padding, as BERT has it
        alive = np.ones((scores.shape[0], 1, 1, keys), np.float32)
        alive[..., keys - keys // 3 :] = 0
        mask = g.op("Mul", g.op("Sub", g.constant(1.0), g.input(alive)), g.constant(-1e4))
        return g.op("Add", scores, mask)
    seen = np.tril(np.ones((rows, keys), bool))
    if which == "where":
        return g.op("Where", g.constant(seen[None, None]), scores, g.constant(-1e4))
    return g.op(
        "Add",
        *((scores, g.input(g.normal(rows, keys))) if g.chance(0.5) else (g.input(g.normal(1, 1, rows, keys)), scores)),
    )


def attention(g: Graph, x: Value) -> Value:
    if x.rank != 3 or not x.array.size:
        raise Unfit
    batch, length, width = x.shape
    heads = g.pick(1, 2, 4)
    inner = heads * g.pick(4, 8, 16, 32, 7)
    y = norm(g, x) if g.chance(0.6) else x
    keys_of = y
    if g.chance(0.2):  # what another value says
        keys_of = g.another(lambda one: one.is_float and one.rank == 3 and one.shape[0] == batch and one.array.size)
    if batch * heads * length * keys_of.shape[1] > 1 << 14:
        raise Unfit
    if keys_of is y and g.chance(0.4):  # one product, split
        joined = linear(g, y, 3 * inner)
        queries, keys, values = g.ops("Split", 3, joined, g.ints(inner, inner, inner), axis=-1)
    else:
        queries, keys, values = (linear(g, one, inner, bias=g.chance(0.7)) for one in (y, keys_of, keys_of))
    turned = g.chance(0.5)  # the keys, at once
    q = heads_of(g, queries, heads, [0, 2, 1, 3])
    k = heads_of(g, keys, heads, [0, 2, 3, 1] if turned and not (rotates := g.chance(0.2)) else [0, 2, 1, 3])
    v = heads_of(g, values, heads, [0, 2, 1, 3])
    if not turned or rotates:
        if g.chance(0.3):
            q, k = rotated(g, q), rotated(g, k)
        k = g.op("Transpose", k, perm=[0, 1, 3, 2])
    scale = 1 / math.sqrt(inner // heads)
    where = g.pick("before", "behind", "div", "both", "none")
    if where == "before":
        q = g.op("Mul", q, g.constant(scale))
    if where == "both":
        q, k = g.op("Mul", q, g.constant(math.sqrt(scale))), g.op("Mul", k, g.constant(math.sqrt(scale)))
    scores = g.op("MatMul", q, k)
    if where == "behind":
        scores = g.op("Mul", scores, g.constant(scale))
    if where == "div":
        scores = g.op("Div", scores, g.constant(1 / scale))
    weights = g.op("Softmax", masked(g, scores), axis=-1)
    y = g.op("Transpose", g.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    y = g.op("Reshape", y, g.ints(batch, length, inner))
    y = linear(g, y, width)
    return g.op("Add", x, y) if g.chance(0.8) else y


def siblings(g: Graph, x: Value) -> Value:
    """Products of one tensor, each with an end of its own; one of them may be read twice."""
    out = g.size(65)
    made = [linear(g, x, out if g.chance(0.7) else g.size(65), bias=g.chance(0.7)) for _ in range(g.pick(2, 3, 3))]
    if g.chance(0.4):
        made[0] = gelu(g, made[0])
    y = made[0]
    for one in made[1:]:
        if one.shape == y.shape and g.chance(0.5):
            y = g.op(g.pick("Add", "Mul", "Sub"), y, one)
    return y


def product(g: Graph, x: Value) -> Value:
    """Of two tensors that are no weights, either turned."""
    if x.rank < 2:
        raise Unfit
    perm = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    other = g.another(
        lambda one: one.is_float and one.rank >= 2 and x.shape[-1] in one.shape[-2:] and one.array.size < 5000
    )
    if x.array.size * max(other.shape[-2:]) > PRODUCTS:
        raise Unfit
    if other.shape[-2] != x.shape[-1]:
        other = g.op("Transpose", other, perm=[*range(other.rank - 2), other.rank - 1, other.rank - 2])
    y = g.op("MatMul", x, other)
    y = g.op("Mul", y, g.constant(1 / math.sqrt(max(x.shape[-1], 1))))
    return g.op("Transpose", y, perm=perm) if g.chance(0.2) and y.rank == x.rank else y


def embedded(g: Graph, x: Value) -> Value:
    """Rows of a table, of indices that are an input."""
    if x.rank != 3:
        raise Unfit
    rows = g.size(65)
    table = g.weight(rows, x.shape[-1])
    indices = g.input(g.noise.integers(0, rows, x.shape[:2]))
    return g.op("Add", g.op("Gather", table, indices, axis=0), x)


def recurrent(g: Graph, x: Value) -> Value:
    if x.rank != 3 or not x.array.size or x.shape[0] > 16:
        raise Unfit
    which, hidden = g.pick("LSTM", "GRU", "RNN"), g.size(17, 3)
    direction = g.pick("forward", "reverse", "bidirectional")
    count, many = 1 + (direction == "bidirectional"), {"LSTM": 4, "GRU": 3, "RNN": 1}[which]
    scale = 1 / math.sqrt(hidden)
    weights = [
        g.weight(count, many * hidden, x.shape[-1], scale=1 / math.sqrt(x.shape[-1])),
        g.weight(count, many * hidden, hidden, scale=scale), g.weight(count, 2 * many * hidden, scale=scale),
    ]  # fmt: skip
    more = {"linear_before_reset": g.pick(0, 1)} if which == "GRU" else {}
    y = g.ops(which, 3 if which == "LSTM" else 2, x, *weights, hidden_size=hidden, direction=direction, **more)[0]
    return g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))


def signal_of(g: Graph, x: Value) -> Value:
    """Tokens as channels of a signal, for convolutions along them."""
    return g.op("Transpose", x, perm=[0, 2, 1]) if x.rank == 3 else g.op("Unsqueeze", x, g.ints(0))


def any_linear(g: Graph, x: Value) -> Value:
    return linear(g, x, g.size(129), bias=g.chance(0.7))


TOKENS = (
    any_linear, any_linear, feed_forward, feed_forward, attention, attention, attention, norm, norm, gelu, siblings, siblings, product, embedded,
    recurrent, signal_of,
)  # fmt: skip
