"""Normalisations in single nodes, as torch, tf2onnx and jax2tf write them.

LayerNorm: Ba et al., arXiv:1607.06450. RMSNorm: Zhang and Sennrich, arXiv:1910.07467. GroupNorm: Wu and He, arXiv:1803.08494. Cumulative
layer norm: Luo and Mesgarani, arXiv:1809.07454.
"""

from __future__ import annotations

from probe.engine.fusion.pattern import Either, Pattern, either, hole, let, op, scalar, stored
from probe.engine.fusion.rule import Fusion, Match, Verdict, no, yes
from probe.engine.fusion.shapes import reduced_axes, show
from probe.engine.fusion.terms import (
    Add,
    Clip,
    CumSum,
    Div,
    Max,
    Mul,
    Reciprocal,
    ReduceL2,
    ReduceSum,
    ReduceSumSquare,
    Reshape,
    Sqrt,
    Sub,
    cast,
    mean,
    mean_square,
    over_root,
    rsqrt,
    square,
    sum_square,
    view,
)

_x = hole("x")
_epsilon = scalar(name="epsilon")
_scale, _shift = stored("scale"), stored("shift")


def _scaled(normalised: Pattern) -> Either:
    """With a stored scale and a stored shift, either of which may be missing."""
    inner = cast(normalised)
    return either(Add(cast(Mul(inner, _scale)), _shift), Mul(inner, _scale), Add(inner, _shift), normalised)


def _layer_norm() -> Either:
    mu = let("mean", mean(_x))
    deviation = let("deviation", Sub(_x, view(mu)))
    spread = Sub(mean_square(_x), square(mu))  # cancels when the mean is large beside the deviation
    variance = view(either(mean_square(deviation), Max(spread, scalar(0)), spread))
    guarded = Add(variance, _epsilon)
    centred = either(deviation, Sub(_x, view(mu)))
    gain = let("gain", either(Mul(rsqrt(guarded), _scale), rsqrt(guarded)))
    return either(
        Add(Mul(_x, gain), Sub(_shift, Mul(mu, gain))),  # tf.nn.batch_normalization
        Add(Mul(centred, Mul(rsqrt(guarded), _scale)), _shift),
        Mul(centred, Mul(rsqrt(guarded), _scale)),
        _scaled(over_root(centred, guarded)),
    )


def _through_batch_norm() -> Either:
    """Keras computes LayerNorm as a batch normalisation over rows, with the statistics of the rows."""
    mu = let("mean", mean(_x))
    variance = Div(ReduceSumSquare(Sub(_x, mu)), hole("count"))
    return _scaled(view(op("BatchNormalization")(_x, hole(), hole(), view(mu), view(variance))))


def _rms_norm() -> Either:
    guarded = Add(mean_square(_x), _epsilon)
    return either(
        Mul(_x, Mul(rsqrt(guarded), _scale)), Mul(cast(over_root(_x, guarded)), _scale), over_root(_x, guarded)
    )


def _group_norm() -> Either:
    """torch: groups are rows of an instance normalisation."""
    rows = op("InstanceNormalization")(Reshape(_x), stored(), stored())
    return _scaled(Reshape(rows))


def _cumulative_layer_norm() -> Either:
    running = let("sum", CumSum(ReduceSum(_x)))
    count = hole("count")
    mu = let("mean", Div(running, count))
    squares = CumSum(ReduceSum(square(_x)))
    twice = either(Mul(Mul(mu, scalar(2)), running), Mul(mu, Mul(running, scalar(2))), Mul(Mul(mu, running), scalar(2)))
    variance = either(
        Add(Div(Sub(squares, twice), count), square(mu)),
        Sub(Div(squares, count), square(mu)),
    )
    return _scaled(over_root(Sub(_x, view(mu)), Add(variance, _epsilon)))


def _l2_norm() -> Either:
    total = sum_square(_x)
    length = either(ReduceL2(_x), Sqrt(total))
    guarded = either(
        Max(length, scalar()),
        Clip(length),
        Add(length, scalar()),
        Sqrt(Add(total, scalar())),
        Sqrt(Max(total, scalar())),
    )
    divisor = view(either(guarded, length))
    return either(
        Div(_x, divisor),
        Mul(_x, Reciprocal(divisor)),
        Mul(_x, view(rsqrt(either(Add(total, scalar()), Max(total, scalar()), total)))),
    )


_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceMax", "CumSum")


def same_axes(m: Match) -> Verdict:
    """Whether all reductions of the match are over the same axes."""
    first: tuple[int, ...] | None = None
    for node in m.all(*_REDUCTIONS):
        if node.op_type == "CumSum":
            continue
        axes = reduced_axes(node)
        if axes is None:
            return no(f"the axes of {node.name} are computed")
        if first is not None and axes != first:
            return no(f"one reduction is over axes {show(first)}, another over {show(axes)}")
        first = axes
    return yes


def _positive_epsilon(m: Match) -> Verdict:
    from probe.engine.fusion.pattern import scalar_value

    found = scalar_value(m.bound.get("epsilon"))
    if found is not None and not 0 < found < 1:
        return no(f"{found:g} is added to the variance, which is no epsilon")
    return same_axes(m)


NORMS = (
    Fusion("layer_norm", "norm", _layer_norm(), _positive_epsilon),
    Fusion("layer_norm", "norm", _through_batch_norm(), same_axes),
    Fusion("cumulative_layer_norm", "norm", _cumulative_layer_norm(), _positive_epsilon),
    Fusion("rms_norm", "norm", _rms_norm(), _positive_epsilon),
    Fusion("group_norm", "norm", _group_norm()),
    Fusion("l2_norm", "norm", _l2_norm(), same_axes),
)
