"""Elementwise operators: arithmetic, comparison, logic, activations. numpy's broadcasting is ONNX's since opset 7."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from probe.runners.fp64.calls import Call, Kernel, plain
from probe.runners.protocol import Array

_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2 / math.pi)


def erf(x: Array) -> Array:
    """Gauss's error function, within an ulp or so. numpy has none; the C library's costs 0.1 us an element."""
    return np.fromiter(map(math.erf, x.reshape(-1).tolist()), np.float64, x.size).reshape(x.shape)


def erfc(x: Array) -> Array:
    """1 - erf(x), accurate where that is small."""
    return np.fromiter(map(math.erfc, x.reshape(-1).tolist()), np.float64, x.size).reshape(x.shape)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow at either end."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softplus(x: Array) -> Array:
    """log(1 + exp(x))."""
    return np.logaddexp(0.0, x)


def _gelu(call: Call, x: Array) -> Array:
    if call.get("approximate", "none") == "tanh":
        return 0.5 * x * (1.0 + np.tanh(_TANH_SCALE * (x + 0.044715 * x * x * x)))
    return 0.5 * x * erfc(-x * _SQRT_HALF)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _celu(x: Array, alpha: float) -> Array:
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(np.minimum(x, 0) / alpha))


def _shrink(x: Array, bias: float, lambd: float) -> Array:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)).astype(x.dtype)


def _is_inf(call: Call, x: Array) -> Array:
    return (np.isposinf(x) & bool(call["detect_positive"])) | (np.isneginf(x) & bool(call["detect_negative"]))


def _divide(x: Array, y: Array) -> Array:
    """Integers are divided towards zero, as in C."""
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    quotient, rest = np.divmod(x, y)
    return quotient + ((rest != 0) & ((x < 0) != (y < 0))).astype(x.dtype)


def _modulo(call: Call, x: Array, y: Array) -> Array:
    """The sign is the divisor's, with fmod=1 the dividend's."""
    return np.fmod(x, y) if call.get("fmod", 0) else np.mod(x, y)


def _power(x: Array, y: Array) -> Array:
    if x.dtype.kind in "iu" and (y.dtype.kind == "f" or bool((np.asarray(y) < 0).any())):
        return np.power(x.astype(np.float64), y).astype(x.dtype)
    return np.power(x, y).astype(x.dtype)


def _clip(call: Call, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Where low is above high, everything is high."""
    lowest, highest = (call.get("min"), call.get("max")) if call.version < 11 else (low, high)
    if lowest is not None:
        x = np.maximum(x, lowest)
    return x if highest is None else np.minimum(x, highest).astype(x.dtype)


def _bit_shift(call: Call, x: Array, y: Array) -> Array:
    return np.left_shift(x, y) if call["direction"] == "LEFT" else np.right_shift(x, y)


def _prelu(x: Array, slope: Array) -> Array:
    return np.where(x < 0, x * slope, x)


def _mean(*inputs: Array) -> Array:
    return reduce(np.add, inputs) / len(inputs)


def _folded(function: Callable[[Array, Array], Array]) -> Kernel:
    """A kernel of any number of inputs."""
    return lambda _call, *inputs: reduce(function, inputs)


def _with(function: Callable[..., Any], *names: str) -> Kernel:
    """A kernel of a function that takes attributes after its input."""
    return lambda call, x: function(x, *(call[name] for name in names))


KERNELS: dict[str, Kernel] = {
    **plain(
        {
            "Abs": np.abs, "Neg": np.negative, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt,
            "Reciprocal": lambda x: 1.0 / x,
            "Floor": np.floor, "Ceil": np.ceil, "Round": np.rint, "Sign": np.sign, "Erf": erf, "IsNaN": np.isnan,
            "Sin": np.sin, "Cos": np.cos, "Tan": np.tan, "Asin": np.arcsin, "Acos": np.arccos, "Atan": np.arctan,
            "Sinh": np.sinh, "Cosh": np.cosh, "Tanh": np.tanh, "Asinh": np.arcsinh, "Acosh": np.arccosh,
            "Atanh": np.arctanh,
            "Relu": lambda x: np.maximum(x, x.dtype.type(0)), "Sigmoid": sigmoid, "Softplus": softplus,
            "Softsign": lambda x: x / (1.0 + np.abs(x)), "HardSwish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
            "Mish": lambda x: x * np.tanh(softplus(x)), "Identity": lambda x: x,
            "Not": np.logical_not, "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor,
            "BitwiseNot": np.invert, "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or,
            "BitwiseXor": np.bitwise_xor,
            "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": _power, "PRelu": _prelu,
            "Equal": np.equal, "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater,
            "GreaterOrEqual": np.greater_equal, "Where": np.where, "Mean": _mean,
        }
    ),
    "Sum": _folded(np.add), "Max": _folded(np.maximum), "Min": _folded(np.minimum),
    "Gelu": _gelu, "IsInf": _is_inf, "Mod": _modulo, "Clip": _clip, "BitShift": _bit_shift,
    "LeakyRelu": _with(lambda x, alpha: np.where(x < 0, alpha * x, x), "alpha"),
    "Elu": _with(_elu, "alpha"), "Celu": _with(_celu, "alpha"), "Shrink": _with(_shrink, "bias", "lambd"),
    "Selu": _with(lambda x, alpha, gamma: gamma * _elu(x, alpha), "alpha", "gamma"),
    "ThresholdedRelu": _with(lambda x, alpha: np.where(x > alpha, x, 0.0), "alpha"),
    "HardSigmoid": _with(lambda x, alpha, beta: np.clip(alpha * x + beta, 0.0, 1.0), "alpha", "beta"),
    "Swish": _with(lambda x, alpha: x * sigmoid(alpha * x), "alpha"),
}  # fmt: skip
