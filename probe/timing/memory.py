"""The memory timeline: what is alive at each layer, and the block that a plan needs for it. Nothing is run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from probe.engine.fusion.kinds import is_float
from probe.engine.layers import all_layers
from probe.engine.plan.memory import Lifetime, peak_bytes, plan_memory
from probe.results.bench import MemoryPlan

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.assignment import Assignment
    from probe.engine.device.timeline import Held
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

Shapes = Mapping[str, tuple[int, ...]]
LOW_BITS = 16  # of an element in fp16 or bf16


def stored_bits(value: ir.Value, precision: str, kept: frozenset[str]) -> int | None:
    """Bits of an element of a tensor as stored: 16 where a float is in a 16-bit precision and not kept, else its own type's."""
    if value.dtype is None or value.dtype.name in ("STRING", "UNDEFINED"):
        return None
    low = precision in ("fp16", "bf16") and is_float(value) and value.name not in kept
    return min(LOW_BITS, value.dtype.bitwidth) if low else value.dtype.bitwidth


def plan_of(
    engine: Engine, assignment: Assignment, shapes: Shapes, ran: frozenset[str], held: Held | None = None
) -> tuple[MemoryPlan | None, dict[str, int]]:
    """The plan, and bytes alive while each layer runs, by layer name; None where no layer ran.

    Args:
        shapes: actual ones of graph inputs and of what layers made.
        ran: names of layers that run: those of a branch that was not taken hold nothing.
        held: what the device took, which then stands in the plan; None: it does not say.
    """
    layers = [layer for layer in all_layers(engine.top_layers) if layer.name in ran or _has_run(layer, shapes)]
    if not layers:
        return None, {}
    sizes, unknown = _sizes(engine, layers, assignment, shapes)
    last = _last_uses(layers)
    for value in engine.network.graph.outputs:
        last[id(value)] = len(layers) - 1
    first = {id(value): at for at, layer in enumerate(layers) for value in layer.outputs}
    lifetimes = [
        Lifetime(size, first.get(key, 0), max(last.get(key, 0), first.get(key, 0))) for key, size in sizes.items()
    ]
    layout = plan_memory(lifetimes)
    live = [0] * (len(layers) + 1)
    for one in lifetimes:
        live[one.first] += one.nbytes
        live[one.last + 1] -= one.nbytes
    alive, by_layer = 0, {}
    for layer, change in zip(layers, live, strict=False):
        alive += change
        by_layer[layer.name] = alive
    peak = peak_bytes(lifetimes, [one.nbytes for one in lifetimes])
    weights = {
        id(value): _size(
            value, tuple(value.const_value.shape.numpy()), assignment.of(layer.name).precision, assignment.kept
        )
        for layer in layers
        for value in layer.weights
        if value.const_value is not None
    }
    if held is not None:
        told = held.live or by_layer
        made = MemoryPlan(
            arena=held.arena, peak_live=held.peak_live, peak_layer=max(told, key=lambda name: told[name]), weights=held.weights,
            tensors=len(lifetimes), unknown=unknown, pinned=held.pinned, workspace=held.workspace,
            note="As allocated: the block of one stream, workspace of kernels included; weights are shared by all streams",
        )  # fmt: skip
        return made, dict(held.live)
    note = (
        "ONNX Runtime allocates by itself on the CPU; this is the plan of a device with one block"
        if engine.settings.device == "cpu"
        else ""
    )
    plan = MemoryPlan(
        arena=layout.nbytes, peak_live=peak, peak_layer=max(by_layer, key=lambda name: by_layer[name]),
        weights=sum(size or 0 for size in weights.values()), tensors=len(lifetimes), unknown=unknown, note=note,
    )  # fmt: skip
    return plan, by_layer


def _has_run(layer: Layer, shapes: Shapes) -> bool:
    """Of an If, which has no time of its own."""
    return layer.kind == "if" and any(value.name in shapes for value in layer.outputs)


def _sizes(
    engine: Engine, layers: Sequence[Layer], assignment: Assignment, shapes: Shapes
) -> tuple[dict[int, int], int]:
    """Bytes of each graph input and each tensor between layers, by ``id``; and how many are not known."""
    sizes: dict[int, int] = {}
    unknown = 0
    found = [(value, "fp32") for value in engine.network.graph.inputs if not value.is_initializer()]
    found += [(value, assignment.of(layer.name).precision) for layer in layers for value in layer.outputs]
    for value, precision in found:
        size = _size(value, _shape(value, shapes), precision, assignment.kept)
        if size is None:
            unknown += 1
        else:
            sizes[id(value)] = size
    return sizes, unknown


def _size(value: ir.Value, shape: tuple[int, ...] | None, precision: str, kept: frozenset[str]) -> int | None:
    bits = stored_bits(value, precision, kept)
    return None if bits is None or shape is None else (math.prod(shape) * bits + 7) // 8


def _shape(value: ir.Value, shapes: Shapes) -> tuple[int, ...] | None:
    """Of a tensor; of a sequence, whose elements are ``NAME[i]``, the number of all their elements."""
    if (known := shapes.get(value.name or "")) is not None:
        return known
    elements = [shape for name, shape in shapes.items() if name.startswith(f"{value.name}[")]
    return (sum(map(math.prod, elements)),) if elements else None


def _last_uses(layers: Sequence[Layer]) -> dict[int, int]:
    """The last position at which each value is read. What a branch reads from around it, its If reads too."""
    return {id(value): at for at, layer in enumerate(layers) for value in layer.reads}
