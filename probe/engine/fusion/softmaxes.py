"""Softmax, log-softmax, log-sum-exp and sums of powers in single nodes."""

from __future__ import annotations

from probe.engine.fusion.norms import same_axes
from probe.engine.fusion.pattern import either, hole, let
from probe.engine.fusion.rule import Fusion, Match, Verdict, no, yes
from probe.engine.fusion.shapes import extents, reduced_axes
from probe.engine.fusion.terms import (
    Abs,
    Add,
    Exp,
    Log,
    ReduceLogSum,
    ReduceMax,
    ReduceMean,
    ReduceSum,
    Sqrt,
    Sub,
    shifted,
    softmax,
    square,
    sum_square,
    view,
)

_x = hole("x")
_safe = let("shifted", shifted(_x))
_most = let("most", ReduceMax(_x))

SOFTMAXES = (
    Fusion("softmax", "softmax", softmax(_x), same_axes),
    Fusion("log_softmax", "softmax", Sub(_safe, view(Log(ReduceSum(Exp(_safe))))), same_axes),
    Fusion(
        "log_sum_exp", "reduce",
        either(
            Add(view(Log(ReduceSum(Exp(Sub(_x, view(_most)))))), view(_most)), Log(ReduceSum(Exp(_x))), ReduceLogSum(Exp(_x))
        ),
        same_axes,
    ),
)  # fmt: skip

SUMS = (
    Fusion("l2_length", "reduce", Sqrt(sum_square(_x)), same_axes),
    Fusion("sum_of_squares", "reduce", ReduceSum(square(_x))),
    Fusion("mean_of_squares", "reduce", ReduceMean(square(_x))),
    Fusion("sum_of_magnitudes", "reduce", ReduceSum(Abs(_x))),
    Fusion("log_sum", "reduce", Log(ReduceSum(_x))),
)


def _height_and_width(m: Match) -> Verdict:
    axes: list[int] = []
    for node in m.all("ReduceMean"):
        shape, found = extents(node.inputs[0]), reduced_axes(node)
        if shape is None or len(shape) != 4:
            return no(f"the input of {node.name} is not known to have four axes")
        if found is None:
            return no(f"the axes of {node.name} are computed")
        axes += found
    return yes if sorted(axes) == [2, 3] else no(f"the mean is over axes {sorted(axes)}; only 2 and 3 are a pooling")


MEAN_OVER_IMAGE = Fusion(
    "mean_over_image", "pool", either(ReduceMean(ReduceMean(_x)), ReduceMean(_x)), _height_and_width, alone=True
)
