"""``Space``: what the search decides over. A compiled network becomes units that are kept or not: tensors, layers or blocks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from probe.culprits.blocks import blocks
from probe.culprits.coupling import Coupled, couplings
from probe.culprits.keepable import Keepable, keepable_tensors
from probe.culprits.repeats import Repeats, repeats
from probe.engine.rounding import inner_nodes
from probe.errors import InputError
from probe.search.units import Unit, joined_name

if TYPE_CHECKING:
    from probe import ir
    from probe.culprits.costs import Costs, Objective
    from probe.culprits.suspicion import Suspicion
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

Granularity = Literal["tensor", "layer", "block"]
GRANULARITIES: tuple[Granularity, ...] = ("tensor", "layer", "block")


@dataclass(frozen=True, slots=True)
class Space:
    """What the search decides over.

    Attributes:
        units: in model order, no member in two of them.
        by_layer: members are names of layers; else of tensors.
        merged: tensors that share a unit because they cannot differ.
        alone: each member as a unit of its own, in model order.
        constants: single numbers (an epsilon, a mask's -1e9) -> the tensor that they serve.
    """

    granularity: Granularity
    units: tuple[Unit, ...]
    by_layer: bool = False
    merged: tuple[Coupled, ...] = ()
    alone: Mapping[str, Unit] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def members(self) -> frozenset[str]:
        """All of all units."""
        return frozenset().union(*(unit.members for unit in self.units))

    def assignment(self, base: Assignment, members: Iterable[str]) -> Assignment:
        """``base`` with these members kept as well."""
        return base.keeping(layers=members) if self.by_layer else base.keeping(tensors=members)

    def singletons(self, members: Iterable[str]) -> tuple[Unit, ...]:
        """One unit a member, in model order: for the last refinement of an answer. Constants have no suspicion of their own: where the
        tensor that they serve is enough, it is what stays."""
        wanted = frozenset(members)
        return tuple(
            replace(unit, score=0.0, flagged=False) if name in self.constants else unit
            for name, unit in self.alone.items()
            if name in wanted
        )


def search_space(
    engine: Engine,
    granularity: Granularity,
    suspicion: Suspicion,
    costs: Costs,
    objective: Objective = "count",
    *,
    already: Assignment | None = None,
) -> Space:
    """The units of a network.

    - ``tensor``: each tensor that a layer rounds. Views have no unit. A weight that one layer alone reads rides with the first tensor that
      this layer stores; what cannot differ is one unit.
    - ``layer``: each layer that rounds anything; kept, it runs in FP32.
    - ``block``: the tensors of a block (``probe.culprits.blocks``). Graph inputs and weights that several blocks read are units of their own.

    Args:
        suspicion: scores and flags of tensors. Scores of a unit add up as errors that know nothing of each other do.
        costs: of keeping things, under ``objective``.
        already: what is kept in any case, and so is no unit; the engine's own assignment when left out.

    Raises:
        InputError: an unknown granularity.
    """
    if granularity not in GRANULARITIES:
        raise InputError(f"unknown granularity {granularity!r}", where="--granularity", hint=", ".join(GRANULARITIES))
    assignment = already or engine.assignment
    found = keepable_tensors(engine, assignment)
    making = _Making(engine, assignment, found, suspicion, costs, objective, repeats(engine))
    if granularity == "layer":
        return making.by_layer()
    return making.by_tensor() if granularity == "tensor" else making.by_block()


@dataclass(slots=True)
class _Making:
    """What the granularities share."""

    engine: Engine
    assignment: Assignment
    found: Mapping[str, Keepable]
    suspicion: Suspicion
    costs: Costs
    objective: Objective
    repeats: Repeats

    def by_layer(self) -> Space:
        tensors: dict[str, list[str]] = {}
        for name, one in self.found.items():
            for layer in one.layers:
                tensors.setdefault(layer, []).append(name)
        rows = [
            (layer.name, (layer.name,), tuple(tensors.get(layer.name, ())), self.repeats.places.get(layer.name, ""))
            for layer in self.engine.layers
            if self._rounds(layer)
        ]
        units = tuple(self._units(rows, by_layer=True))
        return Space("layer", units, by_layer=True, alone={unit.id: unit for unit in units})

    def _rounds(self, layer: Layer) -> bool:
        """Whether a layer rounds anything, be it what another stored wide."""
        precision = self.assignment.of(layer.name).precision
        return precision != "fp32" and self.engine.rounding.sites(layer, precision).any

    def by_tensor(self) -> Space:
        merged = couplings(self.engine, self.found, self.engine.settings.precision)
        hosts = self._hosts()
        first_of = {name: one.names[0] for one in merged for name in one.names}
        parts: dict[str, list[str]] = {}
        for name in self.found:
            host = hosts.get(name, name)
            parts.setdefault(first_of.get(host, host), []).append(name)
        rows = []
        for names in parts.values():
            own = [name for name in names if name not in hosts]
            rows.append((joined_name(own), tuple(names), tuple(names), self._place(own)))
        return Space(
            "tensor", tuple(self._units(rows)), merged=merged, alone=self._alone(), constants=self._constants(hosts)
        )

    def by_block(self) -> Space:
        merged = couplings(self.engine, self.found, self.engine.settings.precision)
        hosts = self._hosts()
        first_of = {name: one.names[0] for one in merged for name in one.names}
        block_of = blocks(self.engine, self.repeats)
        parts: dict[tuple[str, str], list[str]] = {}
        for name in self.found:
            host = hosts.get(name, name)
            one = self.found[first_of.get(host, host)]
            reached = dict.fromkeys(block_of[layer] for layer in one.layers)
            block = next(iter(reached))
            parts.setdefault((block, "") if len(reached) == 1 else (block, one.name), []).append(name)
        rows = []
        for (block, alone), names in parts.items():
            layers = dict.fromkeys(self.found[name].layers[0] for name in names)
            places = sorted(place for layer in layers if (place := self.repeats.places.get(layer)))
            rows.append((alone or block, tuple(names), tuple(names), "" if alone else " ".join(places)))
        return Space(
            "block", tuple(self._units(rows)), merged=merged, alone=self._alone(), constants=self._constants(hosts)
        )

    # --- units -------------------------------------------------------------------------------------------------------

    def _units(
        self, rows: Sequence[tuple[str, tuple[str, ...], tuple[str, ...], str]], *, by_layer: bool = False
    ) -> list[Unit]:
        """Rows: id, members, the tensors it is suspected by, and its place in a repeated structure."""
        places = Counter(place for _, _, _, place in rows)
        first: dict[str, str] = {}
        taken: Counter[str] = Counter()
        units: list[Unit] = []
        for name, members, tensors, place in rows:
            taken[name] += 1
            unit = name if taken[name] == 1 else f"{name} #{taken[name]}"
            group = f"{first.setdefault(place, unit)} x {places[place]}" if place and places[place] > 1 else ""
            cost = self.costs.unit(members, self.objective, by_layer=by_layer)
            units.append(Unit(unit, frozenset(members), cost, group, self._score(tensors), self._flagged(tensors)))
        return units

    def _alone(self) -> dict[str, Unit]:
        return {
            name: Unit(
                name,
                frozenset({name}),
                self.costs.unit((name,), self.objective),
                "",
                self._score((name,)),
                self._flagged((name,)),
            )
            for name in self.found
        }

    def _score(self, tensors: Sequence[str]) -> float:
        scores = [self.suspicion.scores.get(name, 0.0) for name in tensors]
        return math.inf if any(map(math.isnan, scores)) else math.hypot(*scores)

    def _flagged(self, tensors: Sequence[str]) -> bool:
        return any(name in self.suspicion.flagged for name in tensors)

    # --- where tensors belong ----------------------------------------------------------------------------------------

    def _hosts(self) -> dict[str, str]:
        """Weights that ride: weight -> tensor. With what the node that reads it stores, or the first that its layer does; where nothing is
        rounded as it is stored, with the first tensor that the layer rounds to read it."""
        first: dict[str, str] = {}
        for role in ("stored", "read"):
            for name, one in self.found.items():
                if one.role == role:
                    for layer in one.layers:
                        first.setdefault(layer, name)
        stored = {id(value): one.name for one in self.found.values() if one.role == "stored" for value in one.values}
        hosts: dict[str, str] = {}
        for name, one in self.found.items():
            if one.role != "weight" or len(one.layers) > 1:
                continue
            layer = self.engine.layer(next(iter(one.layers)))
            here = {id(node) for node in inner_nodes(layer.nodes)}
            made = [
                stored[id(result)]
                for value in one.values
                for node, _ in value.uses()
                if id(node) in here
                for result in node.outputs
                if id(result) in stored
            ]
            host = made[0] if made else first.get(layer.name)
            if host is not None:
                hosts[name] = host
        return hosts

    def _constants(self, hosts: Mapping[str, str]) -> dict[str, str]:
        return {
            name: host
            for name, host in hosts.items()
            if all(_is_one_number(value) for value in self.found[name].values)
        }

    def _place(self, tensors: Sequence[str]) -> str:
        """Where the tensors of a unit stand in a repeated structure; "" if one of them stands alone."""
        places: list[str] = []
        for name in tensors:
            layer = self.engine.layer_of(name)
            place = self.repeats.places.get(layer.name) if layer is not None else None
            if layer is None or place is None:
                return ""
            made = [value.name for node in inner_nodes(layer.nodes) for value in node.outputs]
            places.append(f"{place} {made.index(name)}")
        return " ".join(places)


def _is_one_number(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1
