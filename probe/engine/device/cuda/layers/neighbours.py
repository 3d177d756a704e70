"""Code for two neighbours at once in chains whose tensors are rounded to 16 bits: sums on both in one register, cheaper functions (kernels/narrow.cuh),
one conversion for two. The bits are those of one element after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.layers.divisors import divided_by, rounded
from probe.engine.device.cuda.tensors.formats import BF16, F16

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.chain import Operand, Step

_NAME = re.compile(r"\b[a-z]\w*\b")
_BINARY = re.compile(r"float\(op_(add|sub|mul|div)\((\w+), (\w+)\)\)")
_CALL = re.compile(r"op_(\w+?)(?:<float>)?\((\w+(?:, \w+)*)\)")
_ALONE = {"erf": "pair_erf", "relu": "pair_relu", "clip": "pair_clip"}
_PAIRS = {"add": "pair_plus", "sub": "pair_minus", "mul": "pair_times"}


@dataclass(frozen=True, slots=True)
class _Known:
    """Something two neighbours have: ``NAME_a`` and ``NAME_b``; ``NAME_2`` too where it is ``low``, a value of the format that tensors have."""

    type: str
    low: bool = False
    fixed: bool = False


def format_of_all(steps: Iterable[Step]) -> str:
    """The 16-bit format that tensors of a chain are rounded to; "" where there is none or more than one."""
    found = {step.rounding for step in steps} & {F16.name, BF16.name}
    return found.pop() if len(found) == 1 else ""


def both_lines(operands: Sequence[Operand], steps: Sequence[Step], given: Sequence[str] = ()) -> list[str]:
    """The code of elements ``n`` and ``n + 1``, of a chain that ``format_of_all`` knows.

    Args:
        given: floats that lie in arrays ``NAMEs``.
    """
    kind = format_of_all(steps)
    known = {name: _Known("float") for name in given}
    lines = [f"float {name}_a = {name}s[n], {name}_b = {name}s[n + 1];" for name in given]
    for one in operands:
        known[one.name] = _Known(one.format.register, low=one.values == kind, fixed=one.walk == "fixed")
        lines += _read(one, kind)
    for step in steps:
        value, made = _value(step, known, kind)
        known[step.name] = value
        lines += made
        if step.store is not None and value.low and step.store.name == kind:
            lines.append(f"*(unsigned*)&{step.name}_out.lane[n] = {step.name}_2;")
        elif step.store is not None:
            lines += [f"write({step.name}_out.lane[n{more}], {step.name}_{of});" for of, more in _LANES]
    return lines


_LANES = (("a", ""), ("b", " + 1"))


def _read(one: Operand, kind: str) -> list[str]:
    """What two neighbours read of an operand."""
    name, register = one.name, one.format.register
    if one.walk == "fixed":
        at = [f"{name}_in"] * 2
    elif one.walk == "dense":
        at = [f"{name}_in.lane[n{more}]" for _, more in _LANES]
    else:
        at = [f"{name}_at[{name}_o + (n{more}) * {name}_step]" for _, more in _LANES]
    if one.format.name == one.values == kind:
        return [f"unsigned {name}_2 = side_by_side({at[0]}, {at[1]});", _lanes(name, kind)]
    if one.values == kind:
        return [f"unsigned {name}_2 = side_by_side(read({at[0]}), read({at[1]}), {kind}());", _lanes(name, kind)]
    values = [
        f"{name}_{of} = {rounded(f'read({place})', one.rounding)}" for (of, _), place in zip(_LANES, at, strict=True)
    ]
    return [f"{register} {', '.join(values)};"]


def _value(step: Step, known: Mapping[str, _Known], kind: str) -> tuple[_Known, list[str]]:
    """A step, and the code that makes it."""
    name = step.name
    low = step.rounding == kind
    both = low and _in_one_register(step.expression, known, kind)
    if both:
        return _Known("float", low=True), [f"unsigned {name}_2 = {both};", _lanes(name, kind)]
    text = divided_by(
        _cheaper(step.expression, known) if low else step.expression,
        {key for key, one in known.items() if one.fixed},
    )
    lanes = [_NAME.sub(lambda one, of=of: f"{one[0]}_{of}" if one[0] in known else one[0], text) for of, _ in _LANES]
    if low:
        return _Known("float", low=True), [
            f"unsigned {name}_2 = side_by_side({', '.join(lanes)}, {kind}());",
            _lanes(name, kind),
        ]
    values = [f"{name}_{of} = {rounded(text, step.rounding)}" for (of, _), text in zip(_LANES, lanes, strict=True)]
    return _Known(step.type), [f"{step.type} {', '.join(values)};"]


def _in_one_register(expression: str, known: Mapping[str, _Known], kind: str) -> str:
    """A step on both neighbours in one register; "" where no instruction rounds as float and once more does: products of bf16 that are no normal
    numbers of float are rounded twice there."""
    if expression in known:
        return f"{expression}_2" if known[expression].low else ""
    function, names = "", ()
    if (match := _BINARY.fullmatch(expression)) is not None:
        function = "" if match[1] == "mul" and kind == BF16.name else _PAIRS.get(match[1], "")
        names = match.group(2, 3)
    elif (match := _CALL.fullmatch(expression)) is not None:
        function, names = _ALONE.get(match[1], ""), tuple(match[2].split(", "))
    if not function or not all(name in known and known[name].low for name in names):
        return ""
    return f"{function}({', '.join(f'{name}_2' for name in names)}, {kind}())"


def _cheaper(expression: str, known: Mapping[str, _Known]) -> str:
    """The same of low values, rounded low: a quotient by kernels/narrow.cuh."""

    def low(name: str) -> bool:
        return name in known and known[name].low

    match = _BINARY.fullmatch(expression)
    if match is not None and match[1] == "div" and low(match[2]) and low(match[3]) and known[match[3]].fixed:
        return f"op_div_by({match[2]}, {match[3]}_near)"
    return expression


def _lanes(name: str, kind: str) -> str:
    return f"float {name}_a = lower({name}_2, {kind}()), {name}_b = higher({name}_2, {kind}());"
