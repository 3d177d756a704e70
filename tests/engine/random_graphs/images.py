"""Blocks of convolutional networks as exporters write them: what is drawn from an image [N, C, H, W] or a signal [N, C, L]."""

from __future__ import annotations

import math

from tests.engine.random_graphs.graph import PRODUCTS, Graph, Unfit, Value


def conv(
    g: Graph, x: Value, out: int, kernel: int, *, stride: int = 1, group: int = 1, dilation: int = 1, pad: int | None = None, bias: bool = True
) -> Value:  # fmt: skip
    axes = x.rank - 2
    if axes < 1 or x.shape[1] % group or out % group:
        raise Unfit
    pad = dilation * (kernel // 2) if pad is None else pad
    taps = x.shape[1] // group * kernel**axes
    if x.array.size // max(x.shape[1], 1) * out * taps > PRODUCTS * stride**axes:
        raise Unfit
    weight = g.weight(out, x.shape[1] // group, *[kernel] * axes, scale=1 / math.sqrt(taps))
    inputs = [x, weight, *([g.weight(out, scale=0.3)] if bias else [])]
    return g.op(
        "Conv", *inputs, kernel_shape=[kernel] * axes, strides=[stride] * axes, pads=[pad] * (2 * axes), group=group, dilations=[dilation] * axes
    )  # fmt: skip


def batch_norm(g: Graph, x: Value) -> Value:
    channels = x.shape[1]
    scale, shift, mean = (g.weight(channels, scale=0.4) for _ in range(3))
    variance = g.constant(abs(g.normal(channels)) + 0.5)
    return g.op("BatchNormalization", x, scale, shift, mean, variance, epsilon=1e-5)


def activation(g: Graph, x: Value) -> Value:
    which = g.pick("Relu", "Relu", "Relu6", "LeakyRelu", "HardSwish", "Silu", "PRelu", "Elu", "Mish", "none")
    if which == "Relu6":
        return g.op("Clip", x, g.constant(0.0), g.constant(6.0))
    if which == "Silu":
        return g.op("Mul", x, g.op("Sigmoid", x))
    if which == "Mish":
        return g.op("Mul", x, g.op("Tanh", g.op("Softplus", x)))
    if which == "PRelu":
        return g.op("PRelu", x, g.constant(abs(g.normal(x.shape[1], *[1] * (x.rank - 2))) * 0.2))
    if which == "HardSwish" and g.opset < 14:
        return g.op("Mul", x, g.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    if which == "LeakyRelu":
        return g.op(which, x, alpha=0.1)
    return x if which == "none" else g.op(which, x)


def stage(g: Graph, x: Value) -> Value:
    """conv, norm, activation, and what was there before added now and then."""
    channels = x.shape[1]
    out = channels if g.chance(0.5) else g.size(65)
    stride = g.pick(1, 1, 1, 2)
    y = conv(g, x, out, g.pick(1, 3, 3, 5, 7), stride=stride, dilation=g.pick(1, 1, 1, 2), bias=g.chance(0.5))
    if g.chance(0.7):
        y = batch_norm(g, y)
    if y.shape == x.shape and g.chance(0.6):
        y = g.op("Add", *((y, x) if g.chance(0.5) else (x, y)))
    return activation(g, y)


def bottleneck(g: Graph, x: Value) -> Value:
    """Inverted: pointwise, depthwise, pointwise, and the residual."""
    hidden = min(x.shape[1] * g.pick(1, 2, 4), 96)
    y = activation(g, conv(g, x, hidden, 1))
    y = activation(g, conv(g, y, hidden, g.pick(3, 3, 5), stride=g.pick(1, 1, 2), group=hidden))
    if g.chance(0.5):
        y = squeeze(g, y)
    y = conv(g, y, x.shape[1], 1, bias=g.chance(0.5))
    return g.op("Add", x, y) if y.shape == x.shape else y


def grouped(g: Graph, x: Value) -> Value:
    group = g.pick(*[one for one in (2, 3, 4, 8) if x.shape[1] % one == 0] or [1])
    return activation(g, conv(g, x, group * g.size(12), g.pick(1, 3), group=group))


def squeeze(g: Graph, x: Value) -> Value:
    """Squeeze and excitation: channels weighed by what all of the image says."""
    axes = tuple(range(2, x.rank))
    small = g.op("GlobalAveragePool", x) if g.chance(0.5) else g.reduce("ReduceMean", x, axes, keep=True)
    weights = g.op("Relu", conv(g, small, max(1, x.shape[1] // 4), 1))
    weights = conv(g, weights, x.shape[1], 1)
    weights = g.op("Sigmoid", weights) if g.chance(0.6) else g.op("HardSigmoid", weights)
    return g.op("Mul", *((x, weights) if g.chance(0.5) else (weights, x)))


def pool(g: Graph, x: Value) -> Value:
    axes = x.rank - 2
    if axes < 1:
        raise Unfit
    which = g.pick("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
    if which.startswith("Global"):
        return g.op(which, x)
    kernel = g.pick(2, 3)
    pad = g.pick(0, kernel // 2)
    more = {"count_include_pad": g.pick(0, 1)} if which == "AveragePool" else {}
    return g.op(
        which, x, kernel_shape=[kernel] * axes, strides=[g.pick(1, 2)] * axes, pads=[pad] * (2 * axes), ceil_mode=g.pick(0, 0, 1), **more
    )  # fmt: skip


def branches(g: Graph, x: Value) -> Value:
    """Siblings of one input, concatenated: inception, fire, dense connections."""
    made = [activation(g, conv(g, x, g.size(33), g.pick(1, 1, 3))) for _ in range(g.pick(2, 3))]
    if g.chance(0.4):
        made.insert(g.random.randrange(len(made)), x)
    y = g.op("Concat", *made, axis=1)
    return conv(g, y, g.size(33), 1) if g.chance(0.5) else y


def shuffled(g: Graph, x: Value) -> Value:
    """Channels split, one half convolved, and both shuffled: by way of Reshape and Transpose."""
    channels = x.shape[1]
    if channels % 2 or x.rank != 4:
        raise Unfit
    left, right = split(g, x, 1, 2)
    y = g.op("Concat", left, activation(g, conv(g, right, channels // 2, 3)), axis=1)
    batch, _, height, width = x.shape
    y = g.op("Reshape", y, g.ints(batch, 2, channels // 2, height, width))
    y = g.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return g.op("Reshape", y, g.ints(batch, -1 if y.array.size else channels, height, width))


def split(g: Graph, x: Value, axis: int, parts: int) -> list[Value]:
    if x.shape[axis] % parts:
        raise Unfit
    each = g.ints(*[x.shape[axis] // parts] * parts)
    return g.ops("Split", parts, x, each, axis=axis)


def resized(g: Graph, x: Value) -> Value:
    if x.rank != 4 or not x.array.size:
        raise Unfit
    mode = g.pick("nearest", "linear", "cubic")
    coordinates = g.pick("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")
    more = {"nearest_mode": "floor"} if mode == "nearest" else {}
    if g.chance(0.5):
        scales = g.constant([1.0, 1.0, 2.0, g.pick(2.0, 1.5)])
        return g.op("Resize", x, None, scales, mode=mode, coordinate_transformation_mode=coordinates, **more)
    sizes = g.ints(*x.shape[:2], g.size(24), g.size(24))
    return g.op("Resize", x, None, None, sizes, mode=mode, coordinate_transformation_mode=coordinates, **more)


def transposed(g: Graph, x: Value) -> Value:
    axes, kernel, stride = x.rank - 2, g.pick(2, 3, 4), g.pick(1, 2, 2)
    out, group = g.size(33), g.pick(1, 1, 1, 2)
    if axes < 1 or x.shape[1] % group or x.array.size * out * kernel**axes > PRODUCTS:
        raise Unfit
    weight = g.weight(x.shape[1], out, *[kernel] * axes, scale=1 / math.sqrt(x.shape[1] * kernel))
    bias = [g.weight(out * group)] if g.chance(0.6) else []
    pad = g.pick(0, 1)
    return g.op(
        "ConvTranspose", x, weight, *bias, kernel_shape=[kernel] * axes, strides=[stride] * axes, pads=[pad] * (2 * axes), group=group
    )  # fmt: skip


def normalised(g: Graph, x: Value) -> Value:
    """Instance norm, or group norm as it is written before opset 18."""
    channels = x.shape[1]
    if g.chance(0.4):
        return g.op("InstanceNormalization", x, g.weight(channels), g.weight(channels), epsilon=1e-5)
    groups = g.pick(*[one for one in (1, 2, 4, 8) if channels % one == 0])
    y = g.op("Reshape", x, g.ints(0, groups, -1))
    y = g.op("InstanceNormalization", y, g.constant([1.0] * groups), g.constant([0.0] * groups), epsilon=1e-5)
    y = g.op("Reshape", y, g.ints(*x.shape))
    ones = [1] * (x.rank - 2)
    y = g.op("Mul", y, g.weight(channels, *ones))
    return g.op("Add", y, g.weight(channels, *ones))


def next_block(g: Graph, x: Value) -> Value:
    """ConvNeXt: depthwise, channels moved last for a norm and two products, moved back, added."""
    if x.rank != 4:
        raise Unfit
    from tests.engine.random_graphs.tokens import gelu, layer_norm, linear

    y = conv(g, x, x.shape[1], g.pick(3, 7), group=x.shape[1])
    y = g.op("Transpose", y, perm=[0, 2, 3, 1])
    y = linear(g, gelu(g, linear(g, layer_norm(g, y), g.size(64))), x.shape[1])
    if g.chance(0.6):
        y = g.op("Mul", g.weight(x.shape[1]), y)
    return g.op("Add", x, g.op("Transpose", y, perm=[0, 3, 1, 2]))


def padded(g: Graph, x: Value) -> Value:
    axes = x.rank - 2
    if axes < 1 or min(x.shape[2:], default=0) < 2:
        raise Unfit
    mode = g.pick("constant", "constant", "reflect", "edge")
    pads = [0, 0, *[g.pick(0, 1) for _ in range(axes)], 0, 0, *[g.pick(0, 1) for _ in range(axes)]]
    y = g.op("Pad", x, g.ints(*pads), *([g.constant(0.0)] if mode == "constant" else []), mode=mode)
    return conv(g, y, g.size(17), 3, pad=0) if g.chance(0.6) and min(y.shape[2:]) >= 3 else y


def blocks_of_pixels(g: Graph, x: Value) -> Value:
    if x.rank != 4:
        raise Unfit
    if x.shape[1] % 4 == 0 and g.chance(0.5):
        return g.op("DepthToSpace", x, blocksize=2, mode=g.pick("DCR", "CRD"))
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise Unfit
    return g.op("SpaceToDepth", x, blocksize=2)


def head(g: Graph, x: Value) -> Value:
    """Of a classifier: an image averaged, flattened and multiplied."""
    y = g.op("GlobalAveragePool", x) if g.chance(0.7) else x
    y = g.op("Flatten", y, axis=1)
    if y.shape[1] > 4096:
        raise Unfit
    out = g.size(33)
    return g.op("Gemm", y, g.weight(out, y.shape[1], scale=1 / math.sqrt(y.shape[1] + 1)), g.weight(out), transB=1)


def tokens_of(g: Graph, x: Value) -> Value:
    """Patches of an image as tokens."""
    batch, channels = x.shape[:2]
    return g.op("Transpose", g.op("Reshape", x, g.ints(batch, channels, -1)), perm=[0, 2, 1])


IMAGES = (
    stage, stage, stage, bottleneck, bottleneck, grouped, squeeze, pool, pool, branches, shuffled, resized, transposed, normalised, next_block,
    padded, blocks_of_pixels, head, tokens_of,
)  # fmt: skip
