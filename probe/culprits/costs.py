"""``Costs``: what keeping tensors or layers in FP32 costs on a nominal machine, by a roofline. Counted on the nodes of the graph, as an export runs.

A node that makes or reads a kept tensor runs in FP32; what else it reads is cast up, once a tensor however many read it, and what else it
makes is cast down. A kept layer runs in FP32 and stores so; who reads it low casts it down, once a tensor. Views of what is wide are wide.
Weights need no Cast: an export converts them. Time of a node (Williams et al., 2009): a launch, and the longer of its operations at the
machine's rate and its bytes at the machine's bandwidth; a Cast reads one width and writes the other. Bodies of Loop and Scan count once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from probe import ir
from probe.engine.costs import flops_of, shape_of
from probe.engine.fusion.kinds import VIEWS
from probe.engine.network import bodies_of
from probe.engine.rounding import data_inputs, inner_nodes, is_float
from probe.model.movement import TYPE_ONLY, is_movement, is_standard
from probe.precision import PRECISIONS
from probe.results.find import Cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probe.engine.engine import Engine

Objective = Literal["count", "latency", "bytes"]

# A small accelerator without tensor cores for FP32: 40 operations a byte in FP32, 80 in the low precision.
_FLOPS_FP32, _FLOPS_LOW, _BANDWIDTH, _LAUNCH = 20e12, 40e12, 500e9, 2e-6
MACHINE = "nominal: 20 TFLOP/s in FP32, 40 in the low precision, 500 GB/s, 2 us a launch"
_WIDE_BYTES = 4


@dataclass(slots=True)
class _Work:
    """One node.

    Attributes:
        moves: data movement: wide if anything it moves is.
        launches: takes time at all; views do not.
        casts: a Cast itself: reads and makes any type, so none is put beside it.
        flops: None: not known.
        reads, weights, makes: its float tensors, each once.
    """

    moves: bool
    launches: bool
    casts: bool
    flops: int | None
    reads: tuple[ir.Value, ...]
    weights: tuple[ir.Value, ...]
    makes: tuple[ir.Value, ...]


@dataclass(slots=True)
class _Change:
    """What a kept set changes. Casts by (tensor, direction)."""

    wide: dict[int, ir.Value] = field(default_factory=dict)
    lifted: dict[int, _Work] = field(default_factory=dict)
    added: set[tuple[int, str]] = field(default_factory=set)
    saved: set[tuple[int, str]] = field(default_factory=set)


class Costs:
    """What keeping things costs.

    Args:
        shapes: of tensors by name, as they were seen in a run; else the model's.
        precision: that everything else has.
    """

    def __init__(self, engine: Engine, shapes: Mapping[str, Sequence[int]], precision: str) -> None:
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._low_bytes = PRECISIONS[precision].bits // 8
        self._values: dict[str, list[ir.Value]] = {}
        self._by_id: dict[int, ir.Value] = {}
        self._elements: dict[int, int | None] = {}
        self._makers: dict[int, _Work] = {}
        self._readers: dict[int, list[_Work]] = {}
        self._works: list[_Work] = []
        self._of_layer: dict[str, list[_Work]] = {}
        for layer in engine.layers:
            nodes = () if layer.kind == "if" else inner_nodes(layer.nodes)
            works = [self._add(node) for node in nodes if not bodies_of(node)]
            self._of_layer[layer.name] = [work for work in works if work is not None]
        graph = engine.network.graph
        self._inputs = {id(value) for value in graph.inputs if is_float(value) and not value.is_initializer()}
        self._outputs = {id(value) for value in graph.outputs if is_float(value)}
        # All low: inputs are cast down, at the latest behind their views; outputs that are stored low are cast up.
        read = self._inputs & self._readers.keys()
        stored = {value for value in self._outputs if value in self._makers and not self._makers[value].moves}
        self._edges = {(value, "down") for value in read} | {(value, "up") for value in stored}
        self._base = self._seconds(_Change())

    def _add(self, node: ir.Node) -> _Work | None:
        """Note a node that floats concern; None for any other."""
        data = {id(value): value for value in data_inputs(node)}
        makes = tuple(value for value in node.outputs if value.name and is_float(value))
        if not (data or makes) or (node.op_type in TYPE_ONLY and is_standard(node)):
            return None
        work = _Work(
            moves=is_movement(node), launches=not (node.op_type in VIEWS and is_standard(node)),
            casts=node.op_type == "Cast" and is_standard(node), flops=flops_of(node, self._shapes),
            reads=tuple(value for value in data.values() if not value.is_initializer()),
            weights=tuple(value for value in data.values() if value.is_initializer()), makes=makes,
        )  # fmt: skip
        self._works.append(work)
        for value in (*data.values(), *makes):
            if id(value) not in self._by_id:
                self._by_id[id(value)] = value
                shape = shape_of(value, self._shapes)
                self._elements[id(value)] = None if shape is None else math.prod(shape)
                self._values.setdefault(value.name or "", []).append(value)
        for value in data.values():
            self._readers.setdefault(id(value), []).append(work)
        for value in makes:
            self._makers[id(value)] = work
        return work

    # --- what is asked -----------------------------------------------------------------------------------------------

    def unit(self, members: Iterable[str], objective: Objective = "count", *, by_layer: bool = False) -> float:
        """What it costs to keep these alone: 1, microseconds or bytes more. What is not known of it counts as nothing, and it is never free:
        at least a byte, or half a launch, so that a saving does not outrank every error.
        """
        if objective == "count":
            return 1.0
        change = self._change(members, by_layer=by_layer)
        if objective == "bytes":
            return max(1.0, float(sum(self._more_bytes(value) or 0 for value in change.wide.values())))
        return max(0.5e6 * _LAUNCH, 1e6 * self._difference(change)[0])

    def of(self, kept: Iterable[str], *, by_layer: bool = False) -> Cost:
        """What keeping a set costs. Casts are those that all-low does without.

        ``latency`` is relative to all-low; so is ``latency_fp32``, that of everything in FP32. None: it depends on a shape, or on an
        operator, that is not known; latency takes operators of unknown operations for bound by their bytes.
        """
        change = self._change(kept, by_layer=by_layer)
        seconds, unknown = self._difference(change)
        base, base_unknown = self._base
        fp32 = sum(self._time(work, _WIDE_BYTES, wide=True)[0] for work in self._works)
        cast_bytes = _total(self._cast_bytes(value) for value, _ in change.added)
        unknown = unknown or base_unknown or base == 0
        return Cost(
            flops=_total(work.flops for work in self._works),
            flops_fp32=_total(work.flops for work in change.lifted.values()),
            bytes_fp32=_total(map(self._more_bytes, change.wide.values())),
            casts=len(change.added), cast_bytes=cast_bytes,
            latency=None if unknown else (base + seconds) / base,
            latency_fp32=None if unknown else fp32 / base,
            model=MACHINE,
        )  # fmt: skip

    # --- what a set changes ------------------------------------------------------------------------------------------

    def _change(self, members: Iterable[str], *, by_layer: bool) -> _Change:
        change = _Change()
        if by_layer:
            for name in members:
                change.lifted.update((id(work), work) for work in self._of_layer.get(name, ()))
            stored = [value for work in change.lifted.values() for value in work.makes]
            self._widen(stored, change, lift=False)
        else:
            self._widen([value for name in members for value in self._values.get(name, ())], change, lift=True)
        self._cast(change, stored_wide=by_layer)
        return change

    def _widen(self, values: list[ir.Value], change: _Change, *, lift: bool) -> None:
        """Make values wide, with their views; ``lift``: and who makes or reads them run in FP32."""
        pending = list(values)
        while pending:
            value = pending.pop()
            if id(value) in change.wide:
                continue
            change.wide[id(value)] = value
            maker = self._makers.get(id(value))
            if lift and maker is not None and not maker.moves:
                change.lifted[id(maker)] = maker
            for work in self._readers.get(id(value), ()):
                if work.moves:
                    change.lifted[id(work)] = work
                    pending.extend(work.makes)
                elif lift:
                    change.lifted[id(work)] = work

    def _cast(self, change: _Change, *, stored_wide: bool) -> None:
        for work in change.lifted.values():
            if work.casts:
                continue
            for value in work.reads:
                if work.moves and id(value) in self._inputs:  # joined with what is wide as it comes
                    if all(id(one) in change.lifted and one.moves for one in self._readers[id(value)]):
                        change.saved.add((id(value), "down"))
                elif id(value) not in change.wide:
                    change.added.add((id(value), "up"))
            for value in work.makes:
                if id(value) not in change.wide:
                    change.added.add((id(value), "down"))
        for key in change.wide:
            change.saved |= {(key, "up"), *([] if stored_wide else [(key, "down")])} & self._edges
            if stored_wide and any(id(work) not in change.lifted for work in self._readers.get(key, ())):
                change.added.add((key, "down"))
        change.added -= self._edges

    # --- times and sizes ---------------------------------------------------------------------------------------------

    def _difference(self, change: _Change) -> tuple[float, bool]:
        """Seconds more than all-low, and whether something was not known."""
        seconds, unknown = 0.0, False
        for work in change.lifted.values():
            wide, one = self._time(work, _WIDE_BYTES, wide=True)
            low, _ = self._time(work, self._low_bytes, wide=False)
            seconds, unknown = seconds + wide - low, unknown or one
        for casts, sign in ((change.added, 1), (change.saved, -1)):
            for value, _ in casts:
                size = self._cast_bytes(value)
                seconds += sign * (_LAUNCH + (size or 0) / _BANDWIDTH)
                unknown = unknown or size is None
        return seconds, unknown

    def _seconds(self, change: _Change) -> tuple[float, bool]:
        """Of the whole network, all low."""
        times = [self._time(work, self._low_bytes, wide=False) for work in self._works]
        casts = [self._cast_bytes(value) for value, _ in self._edges - change.saved]
        seconds = sum(one for one, _ in times) + sum(_LAUNCH + (size or 0) / _BANDWIDTH for size in casts)
        return seconds, any(unknown for _, unknown in times) or None in casts

    def _time(self, work: _Work, width: int, *, wide: bool) -> tuple[float, bool]:
        """Seconds of one node, and whether a size was not known."""
        if not work.launches:
            return 0.0, False
        sizes = [self._elements[id(value)] for value in (*work.reads, *work.weights, *work.makes)]
        moved = width * sum(size or 0 for size in sizes) / _BANDWIDTH
        computed = (work.flops or 0) / (_FLOPS_FP32 if wide else _FLOPS_LOW)
        return _LAUNCH + max(moved, computed), None in sizes

    def _more_bytes(self, value: ir.Value) -> int | None:
        """That a wide tensor takes. A view takes none of its own."""
        maker = self._makers.get(id(value))
        if maker is not None and not maker.launches:
            return 0
        elements = self._elements[id(value)]
        return None if elements is None else (_WIDE_BYTES - self._low_bytes) * elements

    def _cast_bytes(self, value: int) -> int | None:
        elements = self._elements[value]
        return None if elements is None else (_WIDE_BYTES + self._low_bytes) * elements


def _total(parts: Iterable[int | None]) -> int | None:
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)
