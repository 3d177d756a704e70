"""The ways to compute a layer. A tactic's name is a promise to recorded files: what it stands for never changes.

The accumulator, the order of a sum, the algorithm and its approximations belong to the tactic; what tensors are stored in belongs to the
precision. Adding a tactic is a row in ``table`` and its arithmetic in the device that runs it. A device's own tactics, of which there are
many, are read from their names (``families``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.tactics.families import named
from probe.engine.tactics.table import PRODUCTS, SUMS, TACTICS
from probe.engine.tactics.tactic import Tactic
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.costs import Shapes
    from probe.engine.layers import Layer

__all__ = ["PRODUCTS", "SUMS", "TACTICS", "Tactic", "candidates", "concerns", "is_known", "supports", "tactic_of"]

_BY_NAME = {tactic.name: tactic for tactic in TACTICS}


def tactic_of(name: str) -> Tactic:
    """The tactic of a name.

    Raises:
        InputError: there is none.
    """
    found = _BY_NAME.get(name) or named(name)
    if found is None:
        listed = ", ".join(_BY_NAME)
        raise InputError(f"no tactic is called {name!r}", hint=f"tactics: {listed}; a GPU's own: wgmma_128x256, ...")
    return found


def is_known(name: str) -> bool:
    """Whether a tactic is called so, whatever device has it."""
    return name in _BY_NAME or named(name) is not None


def supports(layer: Layer, precision: str, tactic: str, shapes: Shapes | None = None) -> str | None:
    """Why a tactic cannot compute a layer in a precision; None when it can. As ``Tactic.supports``.

    Raises:
        InputError: there is no such tactic.
    """
    return tactic_of(tactic).supports(layer, precision, shapes)


def concerns(layer: Layer, tactic: str) -> bool:
    """Whether a tactic computes any of a layer otherwise than exact does.

    Raises:
        InputError: there is no such tactic.
    """
    found = tactic_of(tactic)
    return tactic != EXACT and any(found.concerns(node) for node in layer.nodes)


def candidates(layer: Layer, precision: str, shapes: Shapes | None = None) -> tuple[str, ...]:
    """Names of the tactics of every device that can compute a layer in a precision, exact first."""
    return tuple(tactic.name for tactic in TACTICS if tactic.supports(layer, precision, shapes) is None)
