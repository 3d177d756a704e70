"""How layers are evaluated by themselves, and what they make compared: on the host, or on a device without leaving it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probe.debug.causes import is_float
from probe.debug.device_sums import Reference, asked_of, sums_of
from probe.debug.resident import ResidentTape
from probe.engine.device.pairs import Asked, Measure, Rows
from probe.engine.device.protocol import Compares, Resident
from probe.metrics.measure import InMemory, Spec, Workspace, measure
from probe.metrics.plain import plain_sums
from probe.metrics.sentinels import LEAST, Sentinels
from probe.metrics.sums import Sums

if TYPE_CHECKING:
    from probe.debug.evidence import Evidence
    from probe.engine.assignment import Choice
    from probe.engine.layers import Layer

Array = np.ndarray[Any, Any]
Value = Any  # an array, or a tensor on the device
Tensors = Mapping[str, Value]
_NOISE = frozenset(("power",))  # beside the largest error all that range_rel and nmse are made of
_SPEC = Spec(worst=0)


class Means(Protocol):
    """Golden tensors, layers run on them, sums of pairs of what comes out."""

    def golden_reads(self, layer: Layer, input_id: str) -> Tensors | str:
        """As ``Evidence.golden_reads``."""
        ...

    def golden(self, names: Sequence[str], input_id: str) -> Tensors:
        """Those of the golden that it has."""
        ...

    def actual_reads(self, layer: Layer, input_id: str) -> Tensors | None:
        """As ``Evidence.actual_reads``."""
        ...

    def evaluate(
        self,
        layer: Layer,
        reads: Tensors,
        choice: Choice,
        *,
        read_as: str | None = None,
        kept: frozenset[str] = frozenset(),
    ) -> Tensors:
        """As ``Engine.evaluate``, of what the layer hands to others at least."""
        ...

    def sums(self, names: Sequence[str], pairs: Sequence[tuple[Tensors, Tensors]]) -> list[dict[str, Sums]]:
        """Of each pair of (actual, golden), by name; without names whose tensors cannot be subtracted."""
        ...

    def noise(self, names: Sequence[str], arrived: Tensors, reads: Tensors) -> dict[str, Sums] | None:
        """Sums of what arrives at a layer against what should; None where both are the same, or NaN or Inf arrive."""
        ...


def means_of(evidence: Evidence) -> Means:
    """Where the tensors are."""
    if isinstance(evidence.actual, ResidentTape) and isinstance(evidence.engine.device, Compares):
        return OnDevice(evidence, evidence.actual, evidence.engine.device)
    return OnHost(evidence)


class OnHost:
    """By ``Engine.evaluate`` and numpy."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence, self._space = evidence, Workspace()
        self.golden_reads, self.actual_reads = evidence.golden_reads, evidence.actual_reads

    def evaluate(
        self,
        layer: Layer,
        reads: Tensors,
        choice: Choice,
        *,
        read_as: str | None = None,
        kept: frozenset[str] = frozenset(),
    ) -> Tensors:
        """As ``Means.evaluate``."""
        return self._evidence.engine.evaluate(layer, reads, choice, read_as=read_as, kept=kept)

    def golden(self, names: Sequence[str], input_id: str) -> Tensors:
        """As ``Means.golden``."""
        found = ((name, self._evidence.golden_array(name, input_id)) for name in names)
        return {name: array for name, array in found if array is not None}

    def sums(self, names: Sequence[str], pairs: Sequence[tuple[Tensors, Tensors]]) -> list[dict[str, Sums]]:
        """As ``Means.sums``."""
        return [dict(self._sums(names, actual, golden)) for actual, golden in pairs]

    def noise(self, names: Sequence[str], arrived: Tensors, reads: Tensors) -> dict[str, Sums] | None:
        """As ``Means.noise``."""
        if all(np.array_equal(arrived[name], reads[name]) for name in names):
            return None
        if not all(np.isfinite(arrived[name]).all() for name in names):
            return None
        return dict(self._sums(names, arrived, reads))

    def _sums(self, names: Sequence[str], actual: Tensors, golden: Tensors) -> Iterator[tuple[str, Sums]]:
        for name in names:
            if subtractable(actual.get(name), golden.get(name)):
                yield name, host_sums(actual[name], golden[name], self._space)


class OnDevice:
    """By kernels, all pairs of a layer together; what the device does not compare is copied to the host."""

    def __init__(self, evidence: Evidence, tape: ResidentTape, device: Compares) -> None:
        self._evidence, self._tape, self._device = evidence, tape, device
        self._space = Workspace()
        self._known: dict[int, tuple[Resident, Reference]] = {}  # goldens of the recording, which stay where they are

    def golden_reads(self, layer: Layer, input_id: str) -> Tensors | str:
        """As ``Means.golden_reads``."""
        names = [
            value.name or "" for value in layer.reads if value.dtype is not None and value.dtype.numpy() == np.float32
        ]
        held = {name: one for name in names if (one := self._golden(name, input_id)) is not None}
        if len(held) == len(layer.reads):
            return held
        rest = self._evidence.golden_reads(layer, input_id)
        return rest if isinstance(rest, str) else {**rest, **held}

    def golden(self, names: Sequence[str], input_id: str) -> Tensors:
        """As ``Means.golden``."""
        found = ((name, self._golden(name, input_id)) for name in names)
        held = {name: one for name, one in found if one is not None}
        rest = ((name, self._evidence.golden_array(name, input_id)) for name in names if name not in held)
        return held | {name: array for name, array in rest if array is not None}

    def actual_reads(self, layer: Layer, input_id: str) -> Tensors | None:
        """As ``Means.actual_reads``."""
        names = [value.name or "" for value in layer.reads]
        held = {name: one for name in names if (one := self._tape.resident(name, input_id)) is not None}
        if len(held) == len(names):
            return held
        rest = self._evidence.actual_reads(layer, input_id)
        return None if rest is None else {**rest, **held}

    def evaluate(
        self,
        layer: Layer,
        reads: Tensors,
        choice: Choice,
        *,
        read_as: str | None = None,
        kept: frozenset[str] = frozenset(),
    ) -> Tensors:
        """As ``Means.evaluate``."""
        plan = self._evidence.engine.plan_of(layer, choice, read_as=read_as, kept=kept)
        return self._device.evaluate_held(layer, reads, plan)

    def sums(self, names: Sequence[str], pairs: Sequence[tuple[Tensors, Tensors]]) -> list[dict[str, Sums]]:
        """As ``Means.sums``."""
        wanted = [
            (at, name, actual[name], golden[name])
            for at, (actual, golden) in enumerate(pairs)
            for name in names
            if subtractable(actual.get(name), golden.get(name))
        ]
        references = self._references([golden for *_, golden in wanted])
        comparing, tickets = self._device.comparing(), list[tuple[int | None, Reference | None]]()
        for (_, _, actual, golden), reference in zip(wanted, references, strict=True):
            asked = asked_of(reference, _SPEC) if reference is not None and on_device(actual) else None
            ticket = comparing.add(actual, golden, _plainly(asked)) if asked is not None else None
            tickets.append((ticket, reference))
        answers = comparing.answers()
        found: list[dict[str, Sums]] = [{} for _ in pairs]
        for (at, name, actual, golden), (ticket, reference) in zip(wanted, tickets, strict=True):
            made = sums_of(answers[ticket], reference, _SPEC) if ticket is not None and reference is not None else None
            found[at][name] = made or host_sums(on_host(actual), on_host(golden), self._space)
        return found

    def noise(self, names: Sequence[str], arrived: Tensors, reads: Tensors) -> dict[str, Sums] | None:
        """As ``Means.noise``."""
        (found,) = self.sums(names, [(arrived, reads)])
        if any(one.nan_actual or one.inf_actual for one in found.values()):
            return None
        same = all(one.max_abs == 0 and not (one.nonfinite_mismatch or one.sentinels) for one in found.values())
        return None if same else found

    def _golden(self, name: str, input_id: str) -> Resident | None:
        row = self._evidence.golden_row(name, input_id)
        if row is None or row.status != "recorded" or row.dtype != "float32":
            return None
        held, reference = self._tape.golden_of(self._evidence.golden, row)
        if held is not None and reference is not None:
            self._known[id(held)] = held, reference
        return held

    def _references(self, goldens: Sequence[Value]) -> list[Reference | None]:
        """What must be known of each; None for what is not on the device, holds NaN, Inf or numbers so large that they may be masks."""
        comparing, tickets = self._device.comparing(), dict[int, int | None]()
        for one in goldens:
            if on_device(one) and id(one) not in self._known and id(one) not in tickets:
                tickets[id(one)] = comparing.add(one, one, Asked(Measure(floor=1.0), Rows()))
        answers = comparing.answers()
        found: list[Reference | None] = []
        for one in goldens:
            known, ticket = self._known.get(id(one)), tickets.get(id(one))
            if known is not None:
                found.append(known[1])
                continue
            sums = answers[ticket].sums if ticket is not None else None
            range_ = max(abs(sums.golden_min), abs(sums.golden_max)) if sums is not None and sums.compared else 0.0
            plain = sums is not None and sums.compared == sums.count and range_ < LEAST
            found.append(
                Reference(tuple(one.shape), range_, Sentinels(), 0.0, distributions=False, by_class=False)
                if plain
                else None
            )
        return found


def on_device(value: Value) -> bool:
    """Whether it is a tensor on the device."""
    return value is not None and not isinstance(value, np.ndarray)


def on_host(value: Value) -> Array:
    """Its values."""
    return value.array() if on_device(value) else value


def subtractable(a: Value, g: Value) -> bool:
    """Whether both are there, numbers, and of one shape: shapes that depend on data may differ."""
    return a is not None and g is not None and tuple(a.shape) == tuple(g.shape) and a.dtype.kind not in "OSUT"


def host_sums(a: Array, g: Array, space: Workspace) -> Sums:
    """Those that range_rel and nmse are made of."""
    return plain_sums(a, g, _NOISE) or measure(InMemory(a), InMemory(g), Spec(worst=1), space)


def _plainly(asked: Asked) -> Asked:
    """Nothing but sums."""
    return replace(asked, rows=Rows(), columns=0, ulps=None, agreement=None, worst=False)


def floats_of(tensors: Tensors) -> list[str]:
    """Names of those that hold floats."""
    return [name for name, one in tensors.items() if (one.dtype.kind == "f" if on_device(one) else is_float(one))]
