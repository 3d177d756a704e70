"""Siblings: layers that multiply the same tensor by weights of their own, as queries, keys and values are made, computed as one product with a
batch of matrices. Each keeps its bits: sums run along k in the same order as in a product of its own."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.layer_run import LayerRun, Tail, Weigh
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.products import wgmma
from probe.engine.device.cuda.ops.products.ending import through
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.ops.row_order import row_order
from probe.engine.device.cuda.runs.tape import Tape
from probe.engine.device.cuda.tensors.copies import copy
from probe.engine.device.cuda.tensors.formats import storage_of
from probe.engine.device.cuda.tensors.layout import contiguous
from probe.engine.network import constant

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.runs.one_run import OneRun, Values
    from probe.engine.device.cuda.tensors.tensor import Tensor
    from probe.engine.layers import Layer
    from probe.engine.rounding import Rounding

_MOST = 4  # siblings in a product
_ALIGNED = 16  # bytes


def families(layers: Sequence[Layer]) -> dict[str, tuple[Layer, ...]]:
    """Siblings that nothing in the graph keeps apart: the first one's name -> all, in order."""
    found: defaultdict[Hashable, list[Layer]] = defaultdict(list)
    for layer in layers:
        first = layer.nodes[0]
        weight = constant(first.inputs[1]) if first.op_type == "MatMul" else None
        if weight is None or len(weight.shape) != 2 or first.inputs[0] is None or first.inputs[0].is_initializer():
            continue
        beside = [
            value
            for node in layer.nodes[1:]
            for value in node.inputs
            if value is not None and value not in layer.tensors
        ]
        if all(value.is_initializer() for value in beside):
            kinds = tuple(
                (node.op_type, *(v is None or v.is_initializer() for v in node.inputs)) for node in layer.nodes
            )
            found[id(first.inputs[0]), tuple(weight.shape.numpy()), kinds, first.graph].append(layer)
    groups = [all_of[at : at + _MOST] for all_of in found.values() for at in range(0, len(all_of), _MOST)]
    return {group[0].name: tuple(group) for group in groups if len(group) > 1}


class Siblings:
    """Of a network.

    Args:
        weigh: as of ``LayerRun``.
    """

    def __init__(self, layers: Sequence[Layer], rounding: Rounding, weigh: Weigh) -> None:
        self._families, self._rounding, self._weigh = families(layers), rounding, weigh

    def made(self, layer: Layer, run: OneRun, value_of: Callable[[ir.Value, Values], Tensor]) -> Values | None:
        """What a layer makes, if its siblings are computed with it or were with one of them: None where it is computed alone."""
        if layer.name in run.ahead:
            return run.ahead.pop(layer.name)
        family = self._families.get(layer.name)
        if family is None or run.queue.backend.arch != wgmma.ARCH:
            return None
        if len({run.plans[one.name].choice for one in family}) > 1:
            return None
        runs = []
        for one in family:
            plan = run.plans[one.name]
            reads = {id(value): value_of(value, run.values) for value in one.reads}
            shared = one.nodes[0].inputs[0]
            if shared is None or reads[id(shared)].format is not storage_of(plan.choice.precision):
                return None  # each would round it for itself
            sites = self._rounding.sites(one, plan.choice.precision)
            wants_interior = run.tapped and run.interior
            runs.append(LayerRun(run.queue, one, plan, sites, reads, self._weigh, wants_interior=wants_interior))
            if isinstance(run.queue.backend, Tape) and run.queue.backend.fixed(reads.values()):
                return None
        if isinstance(run.queue.backend, Tape):
            run.queue.backend.begin()
        try:
            found = together(run.queue, runs, layer.name)
        except Unsupported:
            return None
        run.ahead.update(zip((one.name for one in family), found, strict=True))
        return run.ahead.pop(layer.name)


def together(queue: Queue, runs: Sequence[LayerRun], layer: str) -> list[Values]:
    """What siblings make, each by ``id`` of the value.

    Args:
        layer: name of the one that launches.

    Raises:
        Unsupported: one product would not give their bits, or they are none. Nothing was launched but what is kept of weights.
    """
    tails = [one.product() for one in runs]
    queue.layer = layer
    first, *others = tails
    x, w = first.call.data(0), first.call.data(1)
    if queue.offers is not None or any(not _alike(first, one) for one in others):
        raise Unsupported("siblings that are not alike")
    rows = row_order(x)
    left = rows.dense if rows is not None else x.view((math.prod(x.shape[:-1]), x.shape[-1]))
    (m, k), n = left.shape, w.shape[-1]
    deep = k * (w.format.bytes if w.format else 2) // 2  # as wgmma counts it
    if any(wgmma.choose(m, n, deep, many, queue.backend.multiprocessors).splits > 1 for many in (1, len(tails))):
        raise Unsupported("sums of which each block has a part of k")
    if (m * n * min(one.store.bytes for one in first.steps if one.store)) % _ALIGNED:
        raise Unsupported("results that do not begin on 16 bytes")
    readings = []
    for at, (name, reading) in enumerate(first.readings):
        own = [one.readings[at][1].tensor for one in tails]
        if any(math.prod(one.shape[:-1]) != 1 or one.format is not own[0].format for one in own):
            raise Unsupported("something beside the products that differs from row to row")
        width = own[0].shape[-1] if own[0].shape else 1
        readings.append((name, Reading(_stacked(queue, own, (len(own), 1, width)), reading.rounding)))
    shape = (len(tails), m, n)
    ending = through(queue, shape, readings, first.steps)
    weights = [one.call.data(1) for one in tails]
    right = Matrices(_stacked(queue, weights, (len(tails), k, n)), (k * n,), n, 1, fixed=True)
    whole = describe(Matrices(left, (0,), k, 1), right, None, shape, k, ending, tf32=first.call.tf32)
    if wgmma.refusal(whole, queue.backend.arch) is not None or w.format is not left.format:
        raise Unsupported("a product that wgmma does not compute")
    wgmma.launch(queue, whole)
    found = []
    for at, tail in enumerate(tails):
        own = [one.part((m, n), at * m * n * one.format.bytes) for one in ending.stored if one.format is not None]
        made = [rows.back(queue, one) if rows is not None else one.view((*x.shape[:-1], n)) for one in own]
        found.append(tail.seen(queue, made))
    return found


def _alike(one: Tail, other: Tail) -> bool:
    """Whether two products differ in their weights and what is read beside them alone."""
    same = one.call.tactic == other.call.tactic == EXACT and one.call.tf32 == other.call.tf32
    shapes = [(tail.call.data(1).shape, tail.call.data(1).format) for tail in (one, other)]
    beside = [
        [(name, reading.tensor.shape, reading.rounding) for name, reading in tail.readings] for tail in (one, other)
    ]
    return (
        same
        and shapes[0] == shapes[1]
        and beside[0] == beside[1]
        and one.steps == other.steps
        and _read_alike(one.call.data(0), other.call.data(0))
    )


def _read_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two runs read the same tensor, as it is or rounded."""
    return one is other or (one.unrounded is not None and one.unrounded is other.unrounded)


def _stacked(queue: Queue, parts: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Weights one behind the other; made once."""
    first, key = parts[0], "stacked " + " ".join(str(id(one)) for one in parts)
    if first.kept is None or key not in first.kept:
        aside = queue.aside
        assert first.format is not None
        made = aside.empty(shape, first.format)
        size = first.size
        for at, one in enumerate(parts):
            copy(aside, (size,), (one, 0, contiguous((size,))), (made, at * size, contiguous((size,))))
        first.kept = {**(first.kept or {}), key: made}
    return first.kept[key]
