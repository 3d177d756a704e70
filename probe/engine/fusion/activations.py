"""Activation functions as exporters write them: single operators, and the formulas of GELU, SiLU, Mish and the hard ones.

GELU: Hendrycks and Gimpel, arXiv:1606.08415. SiLU: Elfwing et al., arXiv:1702.03118. Mish: Misra, arXiv:1908.08681. Hard swish: Howard et
al., arXiv:1905.02244.
"""

from __future__ import annotations

import math

from probe.engine.fusion.pattern import Either, Pattern, either, hole, let, op, scalar, scalar_value
from probe.engine.fusion.rule import Condition, Match, Step, Verdict, always, no, yes
from probe.engine.fusion.terms import Add, Clip, Div, Erf, Mul, Sigmoid, Softplus, Tanh, Transpose, cube, square

_Y = hole("y")

SINGLE = {
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "Elu": "elu",
    "Selu": "selu",
    "Celu": "celu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "ThresholdedRelu": "thresholded_relu",
    "Gelu": "gelu",
    "Mish": "mish",
    "Swish": "silu",
}


def _half(x: Pattern, factor: Pattern) -> Either:
    """0.5 * x * factor, in any order."""
    return either(
        Mul(Mul(x, scalar(0.5)), factor), Mul(x, Mul(factor, scalar(0.5))), Mul(Mul(x, factor), scalar(0.5)),
        Mul(Div(x, scalar(2)), factor),
    )  # fmt: skip


def _erf_factor(x: Pattern) -> Pattern:
    return Add(Erf(x), scalar(1))


def _over_root_two(x: Pattern) -> Either:
    return either(Div(x, scalar(math.sqrt(2))), Mul(x, scalar(math.sqrt(0.5))))


def gelu_erf(x: Pattern) -> Either:
    """0.5 x (1 + erf(x / sqrt(2)))"""
    return either(
        _half(x, _erf_factor(_over_root_two(x))),
        # the transposes that tf2onnx pushes through the formula; both arms carry one
        Mul(Transpose(Mul(x, scalar(0.5))), _erf_factor(Transpose(_over_root_two(x)))),
    )


def gelu_tanh(x: Pattern) -> Either:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3)))"""
    small, root = scalar(0.044715), scalar(math.sqrt(2 / math.pi))
    cubic = either(Mul(cube(x), small), Mul(x, Mul(x, Mul(x, small))), Mul(x, Mul(square(x), small)))
    inner = either(
        Mul(Add(x, cubic), root),
        Mul(x, Mul(Add(Mul(square(x), small), scalar(1)), root)),
        Mul(Mul(x, root), Add(Mul(square(x), small), scalar(1))),
        Mul(Mul(x, Add(Mul(square(x), small), scalar(1))), root),
    )
    return _half(x, Add(Tanh(inner), scalar(1)))


def silu(x: Pattern) -> Either:
    """x sigmoid(b x)"""
    return either(Mul(x, Sigmoid(x)), Mul(x, Sigmoid(Mul(x, scalar(name="beta")))))


def mish(x: Pattern) -> Pattern:
    """x tanh(log(1 + exp(x)))"""
    return Mul(x, Tanh(Softplus(x)))


def _hard_gate(x: Pattern) -> Either:
    """clip(x + 3, 0, 6) / 6; the 3 may have gone into the bias before."""
    six = let("six", either(Clip(Add(x, scalar(3))), Clip(x)))
    return either(Div(six, scalar(6)), Mul(six, scalar(1 / 6)))


def hard_swish(x: Pattern) -> Either:
    """x clip(x + 3, 0, 6) / 6"""
    six = let("six", Clip(Add(x, scalar(3))))
    return either(
        Mul(x, Div(six, scalar(6))), Mul(x, Mul(six, scalar(1 / 6))), Div(Mul(x, six), scalar(6)), Mul(Mul(x, six), scalar(1 / 6)),
        Mul(x, op("HardSigmoid")(x)),
    )  # fmt: skip


def clip_bounds(m: Match) -> Verdict:
    """Whether the bounds of a Clip are constants."""
    for node in m.all("Clip"):
        for bound in node.inputs[1:]:
            if bound is not None and scalar_value(bound) is None:
                return no(f"the bound {bound.name} of Clip is computed")
    return yes


def _zero_to_six(m: Match) -> Verdict:
    for node in m.all("Clip"):
        low, high = (
            node.attributes.get_float(name, math.nan) if len(node.inputs) == 1 else scalar_value(node.inputs[at])
            for at, name in ((1, "min"), (2, "max"))
        )
        if (low, high) != (0, 6):
            return no(f"Clip is from {low} to {high}, only 0 to 6 is the gate of hard_swish")
    return yes


def _slope_is_stored(m: Match) -> Verdict:
    slope = m.root.inputs[1]
    return yes if slope is not None and slope.is_initializer() else no("the slope of PRelu is computed")


def _same_permutation(m: Match) -> Verdict:
    orders = {tuple(node.attributes.get_ints("perm", ())) for node in m.all("Transpose")}
    return yes if len(orders) <= 1 else no(f"transposes in different orders: {sorted(orders)}")


def _forms(x: Pattern) -> tuple[tuple[str, Pattern, Condition], ...]:
    return (
        ("gelu_erf", gelu_erf(x), _same_permutation),
        ("gelu_tanh", gelu_tanh(x), always),
        ("mish", mish(x), always),
        ("silu", silu(x), always),
        ("hard_swish", hard_swish(x), _zero_to_six),
        ("hard_sigmoid", _hard_gate(x), _zero_to_six),
    )


COMPOSITE = tuple((name, pattern, when) for name, pattern, when in _forms(_Y))

ACTIVATION: tuple[Step, ...] = (
    *(Step(name, pattern, when) for name, pattern, when in COMPOSITE),
    Step("clip", Clip(_Y), clip_bounds),
    Step("prelu", op("PRelu")(_Y, hole()), _slope_is_stored),
    *(Step(name, op(operator)(_Y)) for operator, name in SINGLE.items()),
)
