"""An answer of the search in the words of the model: which tensor, which layer, which nodes, which failing evaluation shows that it is needed."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probe.culprits.keepable import executed
from probe.engine.network import origin
from probe.model.movement import is_movement
from probe.precision import PRECISIONS
from probe.results.find import Evaluated, Keep, Need, SearchStep

if TYPE_CHECKING:
    from probe import ir
    from probe.culprits.suspicion import Suspicion
    from probe.engine.engine import Engine
    from probe.search.minimal_set import Certificate
    from probe.search.oracle import Entry, Evaluation, Verdict

Members = frozenset[str]


@dataclass
class Notebook:
    """Every evaluation of one search, in order, and where they go as they come.

    Attributes:
        entries: those that a log answered included.
        before: of them, those that a log of an earlier search answered.
    """

    entries: list[Entry] = field(default_factory=list)
    before: int = 0

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def counts(self) -> dict[str, int]:
        """Evaluations by kind."""
        counted = Counter(entry.kind for entry in self.entries)
        return {kind: counted[kind] for kind in ("search", "probes", "proof")}

    def last(self, members: Members) -> Evaluation | None:
        """The newest evaluation of a set."""
        return next((entry.evaluation for entry in reversed(self.entries) if entry.kept == members), None)

    def steps(self) -> tuple[SearchStep, ...]:
        """As the result tells them."""
        return tuple(
            SearchStep(number, one.kind, one.why, len(one.kept), one.evaluation.passed, _known(one.evaluation.margin))
            for number, one in enumerate(self.entries)
        )

    def place(self, members: Members) -> int:
        """Where the newest evaluation of a set stands; -1 where there is none."""
        return next((i for i in range(len(self.entries) - 1, -1, -1) if self.entries[i].kept == members), -1)


def evaluated(verdict: Verdict | None, measured: Mapping[str, Any]) -> Evaluated | None:
    """A verdict of the search with what its newest evaluation measured."""
    if verdict is None:
        return None
    votes = (verdict.passes, verdict.fails) if verdict.passes + verdict.fails > 1 else None
    return Evaluated(
        verdict.passed, _known(verdict.margin), measured.get("range_rel"), tuple(measured.get("reasons", ())),
        tuple(measured.get("failing_inputs", ())), votes,
    )  # fmt: skip


def need(certificate: Certificate, place: int, measured: Mapping[str, Any]) -> Need:
    """A certificate of the search."""
    verdict = certificate.verdict
    return Need(
        place, _known(verdict.margin), measured.get("range_rel"), tuple(measured.get("failing_inputs", ())),
        verdict.decided,
    )  # fmt: skip


def _known(margin: float) -> float | None:
    return None if math.isnan(margin) else margin


class Readers:
    """Who makes and who reads each tensor of a network, views looked through."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._makers: dict[str, ir.Node] = {}
        self._readers: dict[str, list[ir.Node]] = {}
        for layer in engine.layers:
            for node in executed(layer.nodes):
                for value in node.outputs:
                    if value.name:
                        self._makers[value.name] = node
                for name in dict.fromkeys(value.name for value in node.inputs if value is not None and value.name):
                    self._readers.setdefault(name, []).append(node)

    def nodes(self, tensor: str) -> tuple[str, ...]:
        """The node that makes a tensor and those that read it, by identity: what runs in FP32 when it is kept."""
        found: dict[str, None] = {}
        if tensor in self._makers:
            found.update(dict.fromkeys(origin(self._makers[tensor])))
        pending, seen = deque([tensor]), {tensor}
        while pending:
            for node in self._readers.get(pending.popleft(), ()):
                found.update(dict.fromkeys(origin(node)))
                if is_movement(node):
                    views = [value.name for value in node.outputs if value.name and value.name not in seen]
                    seen.update(views)
                    pending.extend(views)
        return tuple(found)

    def layer_of(self, tensor: str) -> str:
        """The layer that makes a tensor; of a weight or a graph input, the first that reads it."""
        layer = self._engine.layer_of(tensor)
        if layer is not None:
            return layer.name
        reading = (one for one in self._engine.layers if any(v.name == tensor for v in (*one.reads, *one.weights)))
        return next((one.name for one in reading), "")

    def kind_of(self, tensor: str) -> str:
        """activation, weight or input."""
        if tensor in self._makers:
            return "activation"
        return "input" if any(port.name == tensor for port in self._engine.network.model.inputs) else "weight"


def describe(
    engine: Engine,
    kept: Sequence[str],
    *,
    by_layer: bool,
    unit_of: Mapping[str, str],
    needs: Mapping[str, Need],
    suspicion: Suspicion,
    shapes: Mapping[str, tuple[int, ...]],
    reaches: Mapping[str, float],
) -> tuple[Keep, ...]:
    """What is kept, a row each.

    Args:
        kept: members, in model order.
        unit_of: member -> unit it was decided with.
        needs: unit -> certificate.
    """
    if by_layer:
        return tuple(
            Keep(
                "",
                name,
                engine.layer(name).origin,
                unit_of.get(name, name),
                needs.get(unit_of.get(name, name)),
                kind="layer",
                why=_of_layer(engine, name, suspicion, reaches),
            )
            for name in kept
        )
    readers = Readers(engine)
    rows: list[Keep] = []
    for name in kept:
        unit = unit_of.get(name, name)
        kind: Any = readers.kind_of(name)
        rows.append(
            Keep(
                name, readers.layer_of(name), readers.nodes(name), unit, needs.get(unit), shapes.get(name), kind,
                suspicion.why.get(name) or _by_numbers(name, engine.settings.precision, suspicion, reaches), reaches.get(name),
            )
        )  # fmt: skip
    return tuple(rows)


def _of_layer(engine: Engine, name: str, suspicion: Suspicion, reaches: Mapping[str, float]) -> str:
    """What was found at what it stores or reads; else what the numbers of its outputs say."""
    layer, precision = engine.layer(name), engine.settings.precision
    tensors = [value.name or "" for value in (*layer.tensors, *layer.reads, *layer.weights)]
    found = (suspicion.why.get(tensor) for tensor in tensors)
    measured = (_by_numbers(value.name or "", precision, suspicion, reaches) for value in layer.outputs)
    return next(filter(None, (*found, *measured)), "")


def _by_numbers(name: str, precision: str, suspicion: Suspicion, reaches: Mapping[str, float]) -> str:
    """What is measured of a tensor that no cause was found at: one before it hid what it does."""
    form = PRECISIONS[precision]
    reach = reaches.get(name)
    if reach is not None and reach > form.max:
        return f"golden reaches {reach:.4g}, {form.name} ends at {form.max:.5g}"
    score = suspicion.scores.get(name)
    if score is None:
        return ""
    if math.isinf(score):
        return "its layer makes NaN or Inf of golden inputs"
    return f"by itself it adds {score:.2g} at the outputs, to first order"


def in_model_order(engine: Engine, members: Iterable[str]) -> list[str]:
    """Tensors (or layers) as they come up when the network runs."""
    order: dict[str, None] = {}
    for layer in engine.layers:
        order.update(dict.fromkeys(v.name or "" for v in (*layer.reads, *layer.weights)))
        order.setdefault(layer.name, None)
        order.update(dict.fromkeys(v.name or "" for v in layer.tensors))
    place = {name: index for index, name in enumerate(order)}
    return sorted(members, key=lambda name: place.get(name, len(place)))
