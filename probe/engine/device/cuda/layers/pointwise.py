"""Pointwise nodes of one output shape as one launch."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe import ir
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import (
    THREADS,
    Operand,
    Step,
    chain_source,
    plan_walk,
    same_as_output,
    walk_of,
)
from probe.engine.device.cuda.layers.expressions import expression_of
from probe.engine.device.cuda.tensors.copies import placed
from probe.engine.device.cuda.tensors.course import course_of
from probe.engine.device.cuda.tensors.formats import Format, format_of
from probe.engine.device.cuda.tensors.layout import Shape, broadcast, collapse, contiguous
from probe.engine.device.cuda.tensors.lying import Lying

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """A tensor as a node reads it: ``rounding`` names the format it is rounded to on the way, "" for none."""

    tensor: Tensor
    rounding: str = ""


def run_chain(
    queue: Queue,
    nodes: Sequence[ir.Node],
    readings: Mapping[int, Reading],
    roundings: Mapping[int, str],
    stores: Mapping[int, Format],
) -> dict[int, Tensor]:
    """Compute nodes whose outputs all have one shape.

    Args:
        readings: what they read from outside, by ``id`` of the value.
        roundings: format name that a tensor they make is rounded to, where it is.
        stores: format of every tensor that is written to memory.

    Returns:
        What was stored, by ``id``.
    """
    made = {id(node.outputs[0]) for node in nodes}
    outside = list(dict.fromkeys(id(v) for node in nodes for v in node.inputs if v is not None and id(v) not in made))
    shape = broadcast(*(readings[key].tensor.shape for key in outside))
    names = {key: f"x{at}" for at, key in enumerate(outside)}
    steps = steps_of(nodes, names, roundings, stores)
    made_here = run_steps(queue, shape, [(names[key], readings[key]) for key in outside], steps)
    stored = [id(node.outputs[0]) for node in nodes if id(node.outputs[0]) in stores]
    return dict(zip(stored, made_here, strict=True))


def steps_of(
    nodes: Sequence[ir.Node], names: Mapping[int, str], roundings: Mapping[int, str], stores: Mapping[int, Format]
) -> list[Step]:
    """Nodes as steps of a kernel.

    Args:
        names: what is read from outside is called, by ``id`` of the value.
        roundings: as in ``run_chain``.
        stores: as in ``run_chain``.

    Raises:
        Unsupported: no kernel computes one of them.
    """
    known, steps = dict(names), []
    for at, node in enumerate(nodes):
        value = node.outputs[0]
        text = expression_of(node, [known[id(v)] if v is not None else None for v in node.inputs])
        found = format_of(value)
        if text is None or found is None:
            raise Unsupported(f"no kernel computes {node.op_type}")
        known[id(value)] = f"v{at}"
        steps.append(Step(f"v{at}", found.register, text, roundings.get(id(value), ""), stores.get(id(value))))
    return steps


def run_steps(
    queue: Queue, shape: Shape, readings: Sequence[tuple[str, Reading]], steps: Sequence[Step]
) -> list[Tensor]:
    """Compute ``steps`` for every element of ``shape``, in the order in which what is read lies.

    Args:
        readings: what is read, by the name that steps call it; broadcast to ``shape``.

    Returns:
        What was stored, in order.
    """
    stores = [step.store for step in steps if step.store is not None]
    if 0 in shape:
        return [queue.empty(shape, store) for store in stores]
    course = course_of(queue, shape, [reading.tensor for _, reading in readings])
    outputs = [queue.empty(course.extents, store) for store in stores]
    extents, strides = collapse(course.extents, [contiguous(course.extents), *course.strides])
    bases = [lies.base for lies in course.read]
    formats = [one.format for one in (*bases, *outputs) if one.format is not None]
    firsts = [lies.first for lies, steps_of in zip(course.read, strides[1:], strict=True) if steps_of[-1] == 1]
    size = max([1, *(one.size for one in (*bases, *outputs))])
    walk = plan_walk(extents, strides[1:], max(one.bytes for one in formats), size, firsts)
    operands, straight = [], []
    for (name, reading), steps_of in zip(readings, strides[1:], strict=True):
        if reading.tensor.format is None:
            raise Unsupported("a tensor of a type that kernels do not know")
        operands.append(Operand(name, reading.tensor.format, reading.rounding, walk_of(steps_of)))
        straight.append(same_as_output(steps_of, extents) and walk_of(steps_of) == "dense")
    source = chain_source(tuple(operands), tuple(steps), walk, tuple(straight))
    index = ctypes.c_longlong if walk.wide else ctypes.c_uint
    lanes_of_last = -(-extents[-1] // walk.lanes)
    numbers = [walk.vectors, extents[-1], *extents[1:-1], *([lanes_of_last] if walk.rank > 1 else [])]
    for steps_of, lies in zip(strides[1:], straight, strict=True):
        numbers += [] if lies else steps_of
    pointers = [ctypes.c_void_p(lies.base.address(queue.backend) + lies.shifted_bytes) for lies in course.read]
    pointers += [queue.at(one) for one in outputs]
    queue.launch(source, -(-walk.vectors // THREADS), THREADS, *pointers, *map(index, numbers))
    return [placed(queue, Lying(one, 0, course.axes)) for one in outputs]
