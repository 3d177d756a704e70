"""Which tensors of a network can be kept at all: those that some layer rounds, under the name by which keeping them reaches every reader.

A view (data movement) rounds nothing itself: keeping what it shows keeps it, so it is not in the list. What reaches a reader through views
alone without ever having been stored (a graph input, a weight) is rounded by that reader, and is kept under its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from probe.engine.network import bodies_of
from probe.engine.rounding import data_inputs, is_float
from probe.precision import round_to

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

_SMALL = 4096  # elements of a weight that is looked at, to see whether rounding changes it

Role = Literal["stored", "read", "weight"]


@dataclass(slots=True)
class Keepable:
    """A tensor that is rounded unless it is kept.

    Attributes:
        name: what ``Assignment.kept`` calls it.
        role: ``stored``: rounded by the layer that makes it; ``read``: by those that read it; ``weight``: an initialiser, by those that
            read it.
        values: in the graph; several where both branches of an If make a tensor of one name.
        sites: (value, layer): as what a layer rounds it, by ``id``: as itself, or as a view of it.
    """

    name: str
    role: Role
    values: list[ir.Value] = field(default_factory=list)
    sites: list[tuple[int, str]] = field(default_factory=list)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that round it, in execution order. The first gives its place in the model."""
        return tuple(dict.fromkeys(layer for _, layer in self.sites))


def keepable_tensors(engine: Engine, assignment: Assignment) -> dict[str, Keepable]:
    """The tensors that a layer rounds under ``assignment``, by name, in model order.

    Weights that rounding leaves as they are (a 2 or a 0.5; looked at up to 4096 elements) are left out, as are tensors kept already.
    """
    return _Walk(engine, assignment).run()


def executed(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Nodes and those of their bodies, in the order they end in: what a body holds before the node that holds it."""
    for node in nodes:
        for body in bodies_of(node).values():
            yield from executed(body)
        yield node


class _Walk:
    def __init__(self, engine: Engine, assignment: Assignment) -> None:
        self._engine, self._assignment = engine, assignment
        self._found: dict[str, Keepable] = {}
        # value -> the tensors that decide whether it reaches its reader rounded, where no layer stores it rounded
        self._unrounded: dict[int, tuple[ir.Value, ...]] = {}
        self._representable: dict[tuple[int, str], bool] = {}

    def run(self) -> dict[str, Keepable]:
        for layer in self._engine.layers:
            if layer.kind == "if":
                self._branches(layer)
            elif layer.moves:
                self._view(layer)
            else:
                self._compute(layer)
        return {name: one for name, one in self._found.items() if name not in self._assignment.kept}

    def _compute(self, layer: Layer) -> None:
        precision = self._assignment.of(layer.name).precision
        if precision == "fp32":
            self._unrounded.update((id(value), (value,)) for value in layer.tensors)
            return
        sites = self._engine.rounding.sites(layer, precision)
        for value in sites.reads:
            for root in self._roots(value):
                self._add(root, "weight" if root.is_initializer() else "read", (value, layer), precision)
        for value in sites.weights:
            self._add(value, "weight", (value, layer), precision)
        place = {id(value): at for at, node in enumerate(executed(layer.nodes)) for value in node.outputs}
        for value in sorted(sites.stores, key=lambda value: place[id(value)]):
            self._add(value, "stored", (value, layer), precision)
        stored = set(map(id, sites.stores))
        self._unrounded.update((id(v), () if id(v) in stored else (v,)) for v in layer.tensors)

    def _view(self, layer: Layer) -> None:
        own = {id(value) for value in layer.tensors}
        sources = [value for node in layer.nodes for value in data_inputs(node) if id(value) not in own]
        roots = tuple({id(root): root for value in sources for root in self._roots(value)}.values())
        for value in layer.tensors:
            # What comes out of a sequence is rounded by its reader, whatever went in.
            self._unrounded[id(value)] = roots if sources else (value,)

    def _branches(self, layer: Layer) -> None:
        node = layer.nodes[0]
        for at, value in enumerate(node.outputs):
            results = [body.outputs[at] for body in bodies_of(node).values()]
            self._unrounded[id(value)] = tuple({id(r): r for one in results for r in self._roots(one)}.values())

    def _roots(self, value: ir.Value) -> tuple[ir.Value, ...]:
        return self._unrounded.get(id(value), (value,))

    def _add(self, value: ir.Value, role: Role, site: tuple[ir.Value, Layer], precision: str) -> None:
        if not is_float(value) or not value.name or (role == "weight" and self._is_representable(value, precision)):
            return
        one = self._found.setdefault(value.name, Keepable(value.name, role))
        if not any(value is other for other in one.values):
            one.values.append(value)
        one.sites.append((id(site[0]), site[1].name))

    def _is_representable(self, value: ir.Value, precision: str) -> bool:
        key = id(value), precision
        if key not in self._representable:
            tensor = value.const_value
            self._representable[key] = tensor is not None and tensor.size <= _SMALL and _is_rounded(tensor, precision)
        return self._representable[key]


def _is_rounded(tensor: ir.Tensor, precision: str) -> bool:
    numbers = np.ravel(tensor.numpy())
    return bool(np.array_equal(round_to(numbers, precision), numbers))
