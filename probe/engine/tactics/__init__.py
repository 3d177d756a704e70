"""The ways to compute a layer. A tactic's name is a promise to recorded files: what it stands for never changes.

The accumulator, the order of a sum, the algorithm and its approximations belong to the tactic; what tensors are stored in belongs to the
precision. Adding a tactic is a row here and its arithmetic in the device that runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from probe.engine.assignment import EXACT
from probe.engine.layers import Layer
from probe.engine.rounding import multiplies
from probe.errors import InputError


@dataclass(frozen=True, slots=True)
class Tactic:
    """One named way to compute a layer.

    Attributes:
        name: stable.
        numerics: what it promises, in a sentence.
        accumulator: what partial sums are held in: fp32 or fp16.
        block: products summed in FP32 before the sum is rounded into the accumulator; 0: all of them.
        precisions: storage it exists for.
    """

    name: str
    numerics: str
    accumulator: str
    block: int
    precisions: tuple[str, ...]


TACTICS = (
    Tactic(EXACT, "products and sums in FP32", "fp32", 0, ("fp32", "tf32", "fp16", "bf16")),
    Tactic(
        "acc16",
        "sums of 16 products in FP32, rounded and added in FP16, as tensor cores that accumulate in FP16 do",
        "fp16",
        16,
        ("fp16",),
    ),
)
_BY_NAME = {tactic.name: tactic for tactic in TACTICS}


def tactic_of(name: str) -> Tactic:
    """The tactic of a name.

    Raises:
        InputError: there is none.
    """
    if name not in _BY_NAME:
        raise InputError(f"no tactic is called {name!r}", hint=f"tactics: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def supports(layer: Layer, precision: str, tactic: str) -> str | None:
    """Why a tactic cannot compute a layer in a precision; None when it can.

    Raises:
        InputError: there is no such tactic.
    """
    found = tactic_of(tactic)
    if precision not in found.precisions:
        return f"{tactic} exists for {', '.join(found.precisions)}, not for {precision}"
    if tactic == EXACT:
        return None
    if not any(multiplies(node) for node in layer.nodes):
        return f"{tactic} is for matmul, gemm and conv; {layer.name} has none"
    return None


def candidates(layer: Layer, precision: str) -> tuple[str, ...]:
    """Names of the tactics that can compute a layer in a precision, exact first."""
    return tuple(tactic.name for tactic in TACTICS if supports(layer, precision, tactic.name) is None)
