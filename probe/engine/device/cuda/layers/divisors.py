"""Divisors that are the same for all elements of a loop: what is made of them once, before it, and divisions by it."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.chain import Operand, Step

_DIVISION = re.compile(r"(?<=float\()op_div\((\w+), (\w+)\)")


def divided_by(expression: str, fixed: Container[str]) -> str:
    """An expression whose divisors that are the same for all elements of a loop are divided by as such: ``NAME_by``, of ``divisors``.

    Args:
        fixed: their names.
    """
    return _DIVISION.sub(lambda one: f"op_div_by({one[1]}, {one[2]}_by)" if one[2] in fixed else one[0], expression)


def divisors(operands: Sequence[Operand], steps: Sequence[Step], low: str = "") -> list[tuple[str, str, str]]:
    """What is made once of what is divided by in all elements of a loop: its type, its name, and its value in terms of ``NAME_in``.

    Args:
        low: a 16-bit format: ``NAME_near`` too, of divisors that it holds, for quotients of two such that are rounded to it (kernels/narrow.cuh).
    """
    divisors = {one[2] for step in steps for one in _DIVISION.finditer(step.expression)}
    found = []
    for one in operands:
        if one.walk != "fixed" or one.name not in divisors:
            continue
        value = rounded(f"read({one.name}_in)", one.rounding)
        found.append(("Divisor", f"{one.name}_by", f"divisor({value})"))
        if low and low == one.values:
            found.append((f"Narrow<{low}>", f"{one.name}_near", f"divisor({value}, {low}())"))
    return found


def rounded(value: str, rounding: str) -> str:
    """A value as the plan rounds it; "": not."""
    return f"round_{rounding}({value})" if rounding else value
