"""Repeated structure: which layers stand at the same place of the parts that a network repeats, so that their tensors are tried together.

A layer is described by its operators, their attributes, the shapes of its weights and the values of small constants, then three times by
the descriptions of its neighbours before and after (Weisfeiler and Lehman, 1968): equal descriptions, isomorphic neighbourhoods of radius 3
but for accidents. Inside a run of segments that repeat one after the other (``trunk``) a neighbourhood ends at its segment, so that the
first and the last repetition, which have other neighbours, count too; elsewhere it does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe import ir
from probe.culprits.trunk import Segments, flows, segments
from probe.engine.network import bodies_of
from probe.engine.rounding import is_float
from probe.model.movement import is_standard

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

_RADIUS = 3
_LONGEST_PERIOD = 64  # segments that repeat as one
_SMALL = 64  # elements of an integer constant whose values count


@dataclass(frozen=True, slots=True)
class Run:
    """Segments that repeat: ``count`` times ``period`` of them, from ``start``."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.period * self.count


@dataclass(frozen=True, slots=True)
class Repeats:
    """
    Attributes:
        places: layer -> place; layers of one place stand alike. A layer that stands alone has none.
        segments: of the network.
        runs: of segments, from the first to the last.
    """

    places: dict[str, str]
    segments: Segments
    runs: tuple[Run, ...]


def repeats(engine: Engine) -> Repeats:
    """Find repeated structure. Layers inside If branches and bodies belong to the layer that holds them and have no place of their own."""
    layers = engine.top_layers
    cut = segments(engine)
    joins, counts = _past_views(layers, cut.joins)
    first = [_digest(_described(layer)) for layer in layers]
    everywhere = _spread(first, joins, [0] * len(layers))
    inside = _spread(first, joins, [-1 - at if segment is None else segment for at, segment in enumerate(cut.of)])
    parts = [[at for at in segment if counts[at]] for segment in cut.layers]
    signatures = [_digest(repr(sorted(inside[at] for at in part))) for part in parts]
    sizes = [sum(_weight_elements(layers[at]) for at in part) for part in parts]
    runs = _runs(signatures, sizes, list(map(len, parts)))
    keys: dict[int, str] = {}
    for run in runs:
        for number in range(run.start, run.stop):
            seen: dict[str, int] = {}
            for at in parts[number]:
                # Twins inside one repetition are told apart by their order.
                seen[inside[at]] = twin = seen.get(inside[at], 0) + 1
                keys[at] = f"run {run.start}+{(number - run.start) % run.period} {inside[at]} {twin}"
    for at in filter(counts.__getitem__, range(len(layers))):
        keys.setdefault(at, f"radius {_RADIUS} {everywhere[at]}")
    members: dict[str, list[int]] = {}
    for at, key in keys.items():
        members.setdefault(key, []).append(at)
    return Repeats({layers[at].name: key for key, few in members.items() if len(few) > 1 for at in few}, cut, runs)


# --- descriptions --------------------------------------------------------------------------------------------------------------------


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def _described(layer: Layer) -> str:
    return repr([_node(node) for node in layer.nodes])


def _node(node: ir.Node) -> tuple[object, ...]:
    attributes = sorted(
        (name, _attribute(attribute)) for name, attribute in node.attributes.items() if attribute.type not in _GRAPHS
    )
    bodies = [[_node(inner) for inner in body] for body in bodies_of(node).values()]
    inputs = [_input(node, value) for value in node.inputs]
    return node.domain, node.op_type, attributes, inputs, len(node.outputs), bodies


_SHAPED_ANEW = frozenset("Reshape Transpose Squeeze Unsqueeze Flatten Expand Identity".split())
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _attribute(attribute: ir.Attr) -> str:
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = attribute.as_tensor()
        return f"{tensor.dtype} {tensor.shape} {tensor.numpy().tolist() if tensor.size <= _SMALL else ''}"
    return repr(attribute.value)


def _input(node: ir.Node, value: ir.Value | None) -> str:
    if value is None:
        return ""
    tensor = value.const_value if value.is_initializer() else None
    if tensor is None:
        return f"{value.dtype}"
    # A slope is trained even where there is only one; other single numbers are part of a formula.
    constant = node.op_type != "PRelu" and tensor.size == 1 if is_float(value) else tensor.size <= _SMALL
    return f"{value.dtype} {tensor.shape} {tensor.numpy().tolist() if constant else 'weight'}"


def _past_views(
    layers: Sequence[Layer], joins: Sequence[Sequence[tuple[int, int]]]
) -> tuple[list[list[tuple[int, int]]], list[bool]]:
    """Who makes what each layer reads, looking through what only shapes it anew: exporters write that differently from block to block.
    And which layers are left: those of floats that do more.
    """
    behind: dict[int, tuple[int, int]] = {}
    found: list[list[tuple[int, int]]] = []
    for at, layer in enumerate(layers):
        found.append([behind.get(one, (one, which)) for one, which in joins[at]])
        if len(found[at]) == 1 and all(node.op_type in _SHAPED_ANEW and is_standard(node) for node in layer.nodes):
            behind[at] = found[at].pop()
    return found, [at not in behind and any(map(flows, layer.tensors)) for at, layer in enumerate(layers)]


def _spread(labels: Sequence[str], reads: Sequence[Sequence[tuple[int, int]]], region: Sequence[int]) -> list[str]:
    """Labels of layers and their neighbourhoods; a neighbour in another region counts as one, and that is all that is known of it."""
    now = list(labels)
    for _ in range(_RADIUS):
        before: list[list[str]] = [[] for _ in now]
        after: list[list[str]] = [[] for _ in now]
        for at, sources in enumerate(reads):
            for slot, (one, which) in enumerate(sources):
                near = region[one] == region[at]
                before[at].append(f"{slot} {which} {now[one] if near else 'outside'}")
                if near:
                    after[one].append(f"{which} {slot} {now[at]}")
        now = [_digest(repr((now[at], before[at], sorted(after[at])))) for at in range(len(now))]
    return now


def _weight_elements(layer: Layer) -> int:
    return sum(value.const_value.size for value in layer.weights if is_float(value) and value.const_value is not None)


# --- segments that repeat --------------------------------------------------------------------------------------------------------------


def _runs(signatures: Sequence[str], weights: Sequence[int], sizes: Sequence[int]) -> tuple[Run, ...]:
    """Runs that do not overlap, the one over most layers first; of periods over the same the shortest. A run without weights is none."""
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(text, len(numbers)) for text in signatures], np.int64)
    chosen: list[Run] = []
    pending = [(0, len(ids))]
    while pending:
        start, stop = pending.pop()
        best: tuple[int, int, Run, int] | None = None
        for run, spare in _tandems(ids, start, stop):
            covered = sum(sizes[run.start : run.stop])
            if any(weights[run.start : run.stop]) and (best is None or (covered, -run.period) > best[:2]):
                best = covered, -run.period, run, spare
        if best is not None:
            run = _in_phase(best[2], best[3], weights)
            chosen.append(run)
            pending += [(start, run.start), (run.stop, stop)]
    return tuple(sorted(chosen, key=lambda run: run.start))


def _tandems(ids: np.ndarray[Any, Any], start: int, stop: int) -> Iterator[tuple[Run, int]]:
    """Longest stretches in which each segment equals the one a period before it, and how many segments are over."""
    here = ids[start:stop]
    for period in range(1, min(_LONGEST_PERIOD, len(here) // 2) + 1):
        equal = np.concatenate(([0], (here[period:] == here[:-period]).astype(np.int8), [0]))
        edges = np.flatnonzero(np.diff(equal))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            length = last - first + period
            if length >= 2 * period:
                yield Run(start + first, period, length // period), length % period


def _in_phase(run: Run, spare: int, weights: Sequence[int]) -> Run:
    """The run begun where a repetition begins with its heaviest segment, as far as none is lost: a norm that closes each block closes, too,
    what comes before the first."""
    shift = max(range(spare + 1), key=lambda one: (weights[run.start + one], -one))
    return Run(run.start + shift, run.period, run.count)
