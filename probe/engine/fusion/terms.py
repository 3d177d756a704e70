"""Parts that many patterns share: operators as formulas, means and squares, views, casts, softmax."""

from __future__ import annotations

from probe import ir
from probe.engine.fusion.kinds import is_float
from probe.engine.fusion.pattern import ANY, Either, Op, Pattern, either, let, op, scalar

Add, Sub, Mul, Div, Pow = op("Add"), op("Sub"), op("Mul"), op("Div"), op("Pow")
Sqrt, Reciprocal, Exp, Log, Erf, Tanh, Abs = (
    op("Sqrt"), op("Reciprocal"), op("Exp"), op("Log"), op("Erf"), op("Tanh"), op("Abs"),
)  # fmt: skip
Sigmoid, Softplus = op("Sigmoid"), op("Softplus")
Max, Min, Clip = op("Max"), op("Min"), op("Clip", rest=ANY)
MatMul = op("MatMul")
Transpose = op("Transpose")
Reshape = op("Reshape", rest=ANY)
CumSum = op("CumSum", rest=ANY)

# the axes of a reduction are an attribute or a second input
ReduceMean, ReduceSum, ReduceMax = op("ReduceMean", rest=ANY), op("ReduceSum", rest=ANY), op("ReduceMax", rest=ANY)
ReduceSumSquare, ReduceL2 = op("ReduceSumSquare", rest=ANY), op("ReduceL2", rest=ANY)
ReduceLogSum = op("ReduceLogSum", rest=ANY)

_View = op("Reshape", "Unsqueeze", "Squeeze", "Expand", rest=ANY)


def _between_floats(node: ir.Node) -> bool:
    return is_float(node.inputs[0]) is True and is_float(node.outputs[0]) is True


_Cast = op("Cast", when=_between_floats)


def cast(inner: Pattern) -> Either:
    """``inner``, or ``inner`` cast from one floating-point type to another."""
    return either(_Cast(inner), inner)


def view(inner: Pattern) -> Either:
    """``inner``, or ``inner`` under another shape: statistics that lost an axis and get it back."""
    return either(_View(_View(inner)), _View(inner), inner)


def transposed(inner: Pattern) -> Either:
    """``inner``, or ``inner`` with its axes in another order."""
    return either(Transpose(inner), inner)


def square(x: Pattern) -> Either:
    """x**2"""
    return either(Pow(x, scalar(2)), Mul(x, x))


def cube(x: Pattern) -> Either:
    """x**3"""
    return either(Pow(x, scalar(3)), Mul(x, Mul(x, x)))


def mean(x: Pattern) -> Either:
    """A mean, or a sum times one over the count."""
    return either(ReduceMean(x), Mul(ReduceSum(x), scalar()), Div(ReduceSum(x), scalar()))


def mean_square(x: Pattern) -> Either:
    """mean(x**2)"""
    return either(mean(square(x)), Mul(ReduceSumSquare(x), scalar()), Div(ReduceSumSquare(x), scalar()))


def sum_square(x: Pattern) -> Either:
    """sum(x**2)"""
    return either(ReduceSumSquare(x), ReduceSum(square(x)))


def rsqrt(v: Pattern) -> Either:
    """v**-0.5"""
    return either(Reciprocal(Sqrt(v)), Div(scalar(1), Sqrt(v)), Pow(v, scalar(-0.5)))


def over_root(x: Pattern, v: Pattern) -> Either:
    """x / sqrt(v)"""
    return either(Div(x, view(Sqrt(v))), Mul(x, view(rsqrt(v))))


def shifted(x: Pattern) -> Op:
    """x - max(x); jax takes the maximum of that and -Inf, for rows without elements."""
    most = ReduceMax(x)
    return Sub(x, view(let("max", either(Max(most, scalar()), most))))


def softmax(x: Pattern) -> Either:
    """exp(x - max(x)) / sum(exp(x - max(x))) in single nodes. ``x`` is read twice: a hole or a let."""
    return either(*(_over_its_sum(let("exp", Exp(power))) for power in (shifted(x), x)))


def _over_its_sum(e: Pattern) -> Either:
    total = view(ReduceSum(e))
    return either(Div(e, total), Mul(e, view(Reciprocal(total))))
