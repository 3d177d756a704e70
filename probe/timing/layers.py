"""Time by layer, in a pass of its own, and what it is of what the machine could do (the roofline model, Williams et al., 2009)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from probe.engine.costs import cost_of
from probe.engine.fusion.kinds import is_float
from probe.model.elements import element_name
from probe.results.bench import Ceilings, LayerTime
from probe.results.inspect import PortReport
from probe.timing.memory import LOW_BITS

if TYPE_CHECKING:
    from probe.engine.assignment import Assignment
    from probe.engine.device.timeline import Clock, Timeline
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer
    from probe.timing.loop import Amount

Shapes = Mapping[str, tuple[int, ...]]
Feeds = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """What a pass over the layers measured, in seconds.

    Attributes:
        layers: of every layer that ran, a value a pass, by name.
        whole: compute of the whole network, run once after each pass: what the layers' sum is to be compared with, since the machine was as
            busy with other things for both.
    """

    layers: Mapping[str, Sequence[float]]
    whole: Sequence[float]


def time_layers(
    timeline: Timeline,
    sets: Sequence[Feeds],
    amount: Amount,
    clock: Clock,
    tell: Callable[[str], None] = lambda _: None,
) -> LayerTimes:
    """Run layers one by one, and the whole network after each pass; the input sets take turns. A pass over each set before does not count.

    Args:
        amount: passes (``iterations``) and seconds, both at least.

    Raises:
        InputError: a layer fails.
    """
    context = timeline.context()
    for feeds in sets:
        timeline.layers(feeds)
    spent: dict[str, list[float]] = {}
    whole: list[float] = []
    begin = clock()
    while len(whole) < max(amount.iterations, len(sets)) or clock() - begin < amount.duration:
        tell(f"pass {len(whole) + 1}")
        feeds = sets[len(whole) % len(sets)]
        for name, taken in timeline.layers(feeds).items():
            spent.setdefault(name, []).append(taken)
        moments = context.run(feeds)
        whole.append(moments.computed - moments.fed)
    return LayerTimes(spent, whole)


def rows_of(
    engine: Engine,
    assignment: Assignment,
    spent: Mapping[str, Sequence[float]],
    shapes: Shapes,
    *,
    live: Mapping[str, int],
    ceilings: Ceilings | None,
) -> tuple[LayerTime, ...]:
    """Every layer with its times and what they are of the ceilings, in execution order. Ifs have no time of their own.

    Args:
        spent: seconds by layer; what is not in it did not run.
        shapes: of graph inputs and everything made.
        live: bytes alive while a layer runs.
        ceilings: None: times say nothing of the machine, as where a precision is emulated.
    """
    total = sum(statistics.median(times) for times in spent.values())
    return tuple(
        with_roofline(_row(layer, assignment, spent.get(layer.name, ()), shapes, live.get(layer.name), total), ceilings)
        for layer in engine.layers
        if layer.kind != "if"
    )


def _row(
    layer: Layer, assignment: Assignment, times: Sequence[float], shapes: Shapes, live: int | None, total: float
) -> LayerTime:
    choice = assignment.of(layer.name)
    low = choice.precision in ("fp16", "bf16")
    cost = cost_of(
        layer.nodes, reads=layer.reads, weights=layer.weights, outputs=layer.outputs, shapes=shapes,
        float_bytes=LOW_BITS // 8 if low else None,
    )  # fmt: skip
    row = LayerTime(
        name=layer.name, kind=layer.kind, pattern=layer.pattern, nodes=layer.origin, outputs=tuple(v.name or "" for v in layer.outputs),
        precision=choice.precision, tactic=choice.tactic, runs=len(times), flops=cost.flops, bytes=cost.bytes, live_bytes=live,
        reads=tuple(v.name or "" for v in layer.reads), scope=layer.scope,
    )  # fmt: skip
    if not times:
        return row
    median = statistics.median(times)
    return replace(
        row, min=min(times), mean=statistics.fmean(times), median=median, share=median / total if total > 0 else None,
        flops_per_second=_rate(row.flops, median), bytes_per_second=_rate(row.bytes, median),
    )  # fmt: skip


def with_roofline(row: LayerTime, ceilings: Ceilings | None) -> LayerTime:
    """A layer with its floor, what its time is of it, and which ceiling sets it; unchanged where costs, time or ceilings are not known."""
    if ceilings is None or row.median is None or row.flops is None or row.bytes is None:
        return row
    compute, memory = row.flops / ceilings.flops_in(row.precision), row.bytes / ceilings.bytes_per_second
    floor = max(compute, memory)
    bound: Literal["compute", "memory", ""] = "" if not floor else "compute" if compute >= memory else "memory"
    return replace(row, floor=floor, roofline=floor / row.median if row.median > 0 else None, bound=bound)


def ports_of(engine: Engine, assignment: Assignment, shapes: Shapes) -> tuple[PortReport, ...]:
    """Graph inputs and what layers make, each with its type as stored and its actual shape; tensors that nothing made are left out."""
    low = {"fp16": "float16", "bf16": "bfloat16"}
    found: dict[str, PortReport] = {}
    made = [
        (value, low.get(assignment.of(layer.name).precision, "")) for layer in engine.layers for value in layer.outputs
    ]
    for value, stored in [*((value, "") for value in engine.network.graph.inputs), *made]:
        name = value.name or ""
        own = element_name(value.dtype.value) if value.dtype is not None else None
        if name not in shapes or own is None:
            continue
        rounded = stored and is_float(value) and name not in assignment.kept
        found.setdefault(name, PortReport(name, stored if rounded else own, shapes[name]))
    return tuple(found.values())


def _rate(amount: int | None, seconds: float) -> float | None:
    return amount / seconds if amount is not None and seconds > 0 else None
