"""A network cut where everything passes through one tensor: the segments between those cuts, in order.

A layer lies on the trunk if every way from the start of the network to its main output leads through it; it post-dominates what comes
before. Masks, position tables and other side inputs that several segments read start elsewhere, and do not keep a trunk from being one.
Post-dominators by intersection in reverse order (Cooper, Harvey, Kennedy, 2001), one pass, for a network has no cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe import ir
from probe.engine.rounding import is_float
from probe.model.movement import TYPE_ONLY, is_standard

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer


_BYTES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2)


@dataclass(frozen=True, slots=True)
class Segments:
    """Top-level layers by segment; layers by their place in ``Engine.top_layers``.

    Attributes:
        layers: segments from the start of the trunk to the main output, each with its layers in execution order; the last is on the trunk.
        of: layer -> segment; None for side layers that several segments read.
        joins: layer -> what it reads of float tensors: (layer that makes it, which of its tensors).
    """

    layers: tuple[tuple[int, ...], ...]
    of: tuple[int | None, ...]
    joins: tuple[tuple[tuple[int, int], ...], ...]


def segments(engine: Engine) -> Segments:
    """Cut a network into segments. Only what floats flow through makes a way: shape arithmetic goes with whoever reads it."""
    layers = engine.top_layers
    joins, sources = _joins(layers)
    feeds: list[list[int]] = [[] for _ in layers]
    for at, before in enumerate(joins):
        for one in dict.fromkeys(maker for maker, _ in before):
            feeds[one].append(at)
    end = _main_output(engine, joins)
    above, depth = _post_dominators(feeds, end)
    trunk: list[int] = []
    if end is not None:
        at = _start(feeds, depth)
        trunk = [at]
        while at != end:
            at = above[at]
            trunk.append(at)
    of = _assign(joins, sources, above, depth, trunk)
    grouped: list[list[int]] = [[] for _ in trunk]
    for at, segment in enumerate(of):
        if segment is not None:
            grouped[segment].append(at)
    return Segments(tuple(map(tuple, grouped)), tuple(of), tuple(map(tuple, joins)))


def _joins(layers: Sequence[Layer]) -> tuple[list[list[tuple[int, int]]], list[list[int]]]:
    """Layer -> makers of the floats (and sequences) it reads, and makers of everything it reads."""
    maker: dict[int, tuple[int, int]] = {}
    joins: list[list[tuple[int, int]]] = []
    sources: list[list[int]] = []
    for at, layer in enumerate(layers):
        looks_only = all(node.op_type in TYPE_ONLY and is_standard(node) for node in layer.nodes)
        reads = [value for value in layer.reads if id(value) in maker and not looks_only]
        joins.append([maker[id(value)] for value in reads if flows(value)])
        sources.append([maker[id(value)][0] for value in reads])
        maker.update((id(value), (at, which)) for which, value in enumerate(layer.tensors))
    return joins, sources


def flows(value: ir.Value) -> bool:
    """Whether numbers that precision concerns are in a value: a float tensor, one quantised to bytes, a sequence."""
    return is_float(value) or not isinstance(value.type, ir.TensorType) or value.dtype in _BYTES


def _main_output(engine: Engine, joins: Sequence[Sequence[tuple[int, int]]]) -> int | None:
    """The layer that makes the output with most layers before it, one after the other."""
    length = [0] * len(joins)
    for at, before in enumerate(joins):
        length[at] = 1 + max((length[one] for one, _ in before), default=0)
    outputs = {id(value) for value in engine.network.graph.outputs}
    ends = [at for at, layer in enumerate(engine.top_layers) if any(id(value) in outputs for value in layer.tensors)]
    return max(ends, key=lambda at: (length[at], -at), default=None)


def _start(feeds: Sequence[Sequence[int]], depth: Sequence[int]) -> int:
    """The layer that most others on ways to the end depend on; of several the one with most cuts behind it."""
    below = [0] * len(feeds)  # bits: the layer and those that depend on it
    for at in range(len(feeds) - 1, -1, -1):
        if depth[at] >= 0:
            below[at] = 1 << at
            for one in feeds[at]:
                below[at] |= below[one]
    return max(
        (at for at in range(len(feeds)) if depth[at] >= 0), key=lambda at: (below[at].bit_count(), depth[at], -at)
    )


def _post_dominators(feeds: Sequence[Sequence[int]], end: int | None) -> tuple[list[int], list[int]]:
    """For each layer the next one that everything it does goes through, and how many follow it so; depth -1: it does not reach the end."""
    above, depth = list(range(len(feeds))), [-1] * len(feeds)
    if end is not None:
        depth[end] = 0
    for at in range((end if end is not None else 0) - 1, -1, -1):
        meeting = -1
        for reader in feeds[at]:
            if depth[reader] < 0:
                continue
            one = reader
            while meeting >= 0 and one != meeting:
                if depth[one] >= depth[meeting]:
                    one = above[one]
                else:
                    meeting = above[meeting]
            meeting = one
        if meeting >= 0:
            above[at], depth[at] = meeting, depth[meeting] + 1
    return above, depth


def _assign(
    joins: Sequence[Sequence[tuple[int, int]]],
    sources: Sequence[Sequence[int]],
    above: Sequence[int],
    depth: Sequence[int],
    trunk: Sequence[int],
) -> list[int | None]:
    """Layer -> segment."""
    of: list[int | None] = [None] * len(joins)
    if not trunk:
        return of
    place = {at: segment for segment, at in enumerate(trunk)}
    below = [False] * len(joins)  # reached from the start of the trunk
    below[trunk[0]] = True
    for at, before in enumerate(joins):
        below[at] = below[at] or any(below[one] for one, _ in before)
    readers: list[set[int | None]] = [set() for _ in joins]
    for at in range(len(joins) - 1, -1, -1):
        if at in place:
            of[at] = place[at]
        elif below[at] and depth[at] >= 0:
            of[at] = of[above[at]]
        elif not below[at] and len(readers[at]) == 1:
            of[at] = next(iter(readers[at]))
        if depth[at] >= 0 or not below[at]:
            for one in sources[at]:
                readers[one].add(of[at])
    for at, before in enumerate(joins):  # ways to the other outputs go with what they start from
        if below[at] and depth[at] < 0:
            of[at] = max((segment for one, _ in before if (segment := of[one]) is not None), default=None)
    return of
