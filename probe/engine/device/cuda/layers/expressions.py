"""Pointwise ONNX operators as expressions of kernels/pointwise.cuh."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from probe import ir
from probe.engine.device.cuda.tensors.formats import format_of
from probe.engine.fusion.kinds import is_standard
from probe.engine.network import constant

Arguments = Sequence[str | None]
_INTEGERS = ("i64", "i32", "u8", "i8")
_POWERS = {2.0: 2, 3.0: 3}  # exponents that are multiplications


_LAST = 3.4028234663852886e38  # of float32


def literal(value: float) -> str:
    """A float32 literal, exact."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return f"__uint_as_float({bits:#x}u)"


def _attribute(node: ir.Node, name: str, default: float) -> str:
    return literal(node.attributes[name].as_float() if name in node.attributes else default)


# operators of floats alone: name -> function, attributes with their defaults
_FLOAT: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    **{
        op: (f"op_{op.lower()}", ())
        for op in (
            "Reciprocal Sqrt Exp Log Floor Ceil Round Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Sigmoid "
            "Softsign Softplus Mish"
        ).split()
    },
    "HardSwish": ("op_hard_swish", ()),
    "Swish": ("op_swish", (("alpha", 1.0),)),
    "LeakyRelu": ("op_leaky_relu", (("alpha", 0.01),)),
    "Elu": ("op_elu", (("alpha", 1.0),)),
    "Selu": ("op_selu", (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875))),
    "Celu": ("op_celu", (("alpha", 1.0),)),
    "ThresholdedRelu": ("op_thresholded_relu", (("alpha", 1.0),)),
    "HardSigmoid": ("op_hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "Shrink": ("op_shrink", (("bias", 0.0), ("lambd", 0.5))),
}
# operators of any number
_ANY = {"Abs": "op_abs", "Neg": "op_neg", "Sign": "op_sign", "Relu": "op_relu"}
_BINARY = {"Add": "op_add", "Sub": "op_sub", "Mul": "op_mul", "Div": "op_div"}
_COMPARE = {
    "Equal": "op_equal", "Less": "op_less", "LessOrEqual": "op_less_equal", "Greater": "op_greater",
    "GreaterOrEqual": "op_greater_equal",
}  # fmt: skip
_LOGIC = {"And": "op_and", "Or": "op_or", "Xor": "op_xor", "Not": "op_not"}
_FOLDED = {"Max": "op_max", "Min": "op_min", "Sum": "op_add", "Mean": "op_add"}


def _register(value: ir.Value | None) -> str:
    found = format_of(value) if value is not None else None
    return found.register if found else ""


def expression_of(node: ir.Node, arguments: Arguments) -> str | None:
    """The value of a node's output in terms of its inputs; None for what no kernel computes.

    Args:
        arguments: the register of each input, of the C type its tensor has; None where it is omitted.
    """
    if not is_standard(node) or len([v for v in node.outputs if v.name]) != 1:
        return None
    types = [_register(v) for v in node.inputs if v is not None]
    if not all(types) or not _register(node.outputs[0]):
        return None
    op, given = node.op_type, [one for one in arguments if one is not None]
    kind = types[0] if types else ""
    if op in _FLOAT and kind == "float":
        function, extra = _FLOAT[op]
        return f"{function}({', '.join([given[0], *(_attribute(node, *one) for one in extra)])})"
    if op in _ANY and kind in ("float", "i64", "i32", "i8"):
        return f"{_ANY[op]}({given[0]})"
    if op in _LOGIC and all(one == "bool" for one in types):
        return f"{_LOGIC[op]}({', '.join(given)})"
    if len(set(types)) == 1:
        if op in _BINARY and kind in ("float", *_INTEGERS):
            return f"{kind}({_BINARY[op]}({', '.join(given)}))"
        if op in _COMPARE:
            return f"{_COMPARE[op]}({', '.join(given)})"
        if op in _FOLDED and kind == "float":
            return _folded(op, given)
        if op in _FOLDED and op in ("Max", "Min"):
            return _folded(op, given)
    special = _SPECIAL.get(op)
    return special(node, arguments, types) if special else None


def _folded(op: str, given: Sequence[str]) -> str:
    value = given[0]
    for one in given[1:]:
        value = f"{_FOLDED[op]}({value}, {one})"
    return f"({value} / {literal(len(given))})" if op == "Mean" else value


def _cast(node: ir.Node, given: Arguments, types: Sequence[str]) -> str:  # noqa: ARG001 - a row of _SPECIAL
    kind = _register(node.outputs[0])
    return f"op_to_bool({given[0]})" if kind == "bool" else f"{kind}({given[0]})"


def _where(node: ir.Node, given: Arguments, types: Sequence[str]) -> str | None:  # noqa: ARG001 - a row of _SPECIAL
    if types[0] != "bool" or types[1] != types[2]:
        return None
    return f"op_where<{types[1]}>({', '.join(str(one) for one in given)})"


def _clip(node: ir.Node, given: Arguments, types: Sequence[str]) -> str | None:
    if len(set(types)) != 1 or types[0] == "bool":
        return None
    value = str(given[0])
    bounds = [given[at] if len(given) > at else None for at in (1, 2)]
    for at, name in enumerate(("min", "max")):
        if name in node.attributes:
            bounds[at] = _attribute(node, name, 0.0)
    low, high = bounds
    if types[0] == "float":  # a bound that is left out is the last number: Inf is none
        low, high = low or literal(-_LAST), high or literal(_LAST)
    if low is not None and high is not None:
        return f"op_clip<{types[0]}>({value}, {low}, {high})"
    if low is not None:
        return f"({value} < {low} ? {low} : {value})"
    return f"({value} > {high} ? {high} : {value})" if high is not None else value


def _pow(node: ir.Node, given: Arguments, types: Sequence[str]) -> str | None:
    if types[0] != "float" or types[1] == "bool":
        return None
    exponent = constant(node.inputs[1])
    known = float(exponent.numpy().reshape(-1)[0]) if exponent is not None and exponent.size == 1 else 0.0
    if known in _POWERS:  # what op_pow computes, without the function that it may call
        return f"({' * '.join([str(given[0])] * _POWERS[known])})"
    return f"op_pow({given[0]}, float({given[1]}))"


def _mod(node: ir.Node, given: Arguments, types: Sequence[str]) -> str | None:
    c_like = bool(node.attributes.get_int("fmod", 0))
    if len(set(types)) != 1 or types[0] == "bool" or (types[0] == "float" and not c_like):
        return None
    return f"{types[0]}({'op_fmod' if c_like else 'op_mod'}({given[0]}, {given[1]}))"


def _gelu(node: ir.Node, given: Arguments, types: Sequence[str]) -> str | None:
    if types[0] != "float":
        return None
    tanh = node.attributes.get_string("approximate", "none") == "tanh"
    return f"{'op_gelu_tanh' if tanh else 'op_gelu'}({given[0]})"


def _prelu(node: ir.Node, given: Arguments, types: Sequence[str]) -> str | None:  # noqa: ARG001 - a row of _SPECIAL
    return f"op_leaky_relu({given[0]}, {given[1]})" if set(types) == {"float"} else None


def _is_inf(node: ir.Node, given: Arguments, types: Sequence[str]) -> str | None:
    signs = [node.attributes.get_int(f"detect_{sign}", 1) for sign in ("negative", "positive")]
    return (
        f"op_is_inf({given[0]}, {', '.join('true' if s else 'false' for s in signs)})" if types[0] == "float" else None
    )


_SPECIAL: dict[str, Callable[[ir.Node, Arguments, Sequence[str]], str | None]] = {
    "Cast": _cast, "Where": _where, "Clip": _clip, "Pow": _pow, "Mod": _mod, "Gelu": _gelu, "PRelu": _prelu,
    "IsInf": _is_inf, "IsNaN": lambda _, given, types: f"op_is_nan({given[0]})" if types[0] == "float" else None,
}  # fmt: skip


def is_pointwise(node: ir.Node) -> bool:
    """Whether a chain can compute a node."""
    return expression_of(node, [None if v is None else "x" for v in node.inputs]) is not None
