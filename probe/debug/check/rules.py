"""The rules, in the order they are tried. A new one is a row here and a function that yields ``Hit``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from probe.debug.check import advice, constants, operands, ranges, sums
from probe.debug.check.hits import Hit

_STORED = ("fp16", "bf16")
_MULTIPLIED = (*_STORED, "tf32")
_ALL = (*_MULTIPLIED, "int8")


@dataclass(frozen=True, slots=True)
class Rule:
    """``find`` is called as ``find(look, tensor's name)``, ``find(look, constant)``, ``find(look, node)`` on each input, or once as
    ``find(sites, precision)`` for the whole graph."""

    name: str
    of: Literal["tensor", "constant", "node", "graph"]
    precisions: tuple[str, ...]
    find: Callable[..., Iterator[Hit]]


RULES: tuple[Rule, ...] = (
    Rule("overflow", "tensor", _STORED, ranges.overflow),
    Rule("near_overflow", "tensor", _STORED, ranges.near_overflow),
    Rule("underflow", "tensor", _STORED, ranges.underflow),
    Rule("golden_nonfinite", "tensor", _MULTIPLIED, ranges.golden_nonfinite),
    Rule("constant_vanishes", "constant", _STORED, constants.constant_vanishes),
    Rule("constant_overflow", "constant", _STORED, constants.constant_overflow),
    Rule("pole", "node", _STORED, operands.pole),
    Rule("coarse_argument", "node", _STORED, operands.steep),
    Rule("cancellation", "node", _STORED, operands.cancellation),
    Rule("product_cancellation", "node", _MULTIPLIED, sums.product),
    Rule("discrete_step", "node", _STORED, operands.discrete),
    Rule("sum_inside", "node", _STORED, sums.sum_inside),
    Rule("inner_range", "node", _STORED, sums.inner_range),
    Rule("long_sum", "node", _STORED, sums.long_sum),
    Rule("channels", "graph", _ALL, advice.channels),
    Rule("sparse", "graph", _ALL, advice.sparsity),
    Rule("unknown_operator", "graph", _ALL, advice.unknown_operators),
)
