"""A failing model made small: what the failure does not need is cut away, tensors at the cuts become inputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import onnx

from tests.engine.random_graphs.graph import Array, needed, port
from tests.engine.random_graphs.runtime import values_of

Fails = Callable[[onnx.ModelProto, Mapping[str, Array]], bool]


def shrunk(
    model: onnx.ModelProto, feeds: Mapping[str, Array], fails: Fails, *, tries: int = 200, until: float = math.inf
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The smallest model found that still fails, and its feeds.

    Args:
        fails: whether a model fails in the same way.
        tries: models to look at, at most; none is begun ``until`` a time of ``perf_counter``.
    """
    values = {**feeds, **values_of(model, feeds)}
    nodes, outputs = list(model.graph.node), [one.name for one in model.graph.output]
    left = tries

    def attempt(some: list[onnx.NodeProto], ends: list[str]) -> bool:
        nonlocal nodes, outputs, left
        some = needed(some, ends)
        if (
            left <= 0
            or time.perf_counter() > until
            or not some
            or (len(some) == len(nodes) and len(ends) == len(outputs))
        ):
            return False
        left -= 1
        if not fails(*_cut(model, some, ends, values)):
            return False
        nodes, outputs = some, ends
        return True

    changed = True
    while changed and left > 0:
        changed = False
        for name in list(outputs):  # one output is often enough
            changed |= len(outputs) > 1 and name in outputs and attempt(nodes, [name])
        for name in list(outputs):
            changed |= len(outputs) > 1 and attempt(nodes, [one for one in outputs if one != name])
        for step in (16, 8, 4, 2, 1):  # from the beginning and from the end
            at = 0
            while at < len(nodes):
                kept = nodes[:at] + nodes[at + step :]
                made = {name for node in kept for name in node.output}
                ends = [one for one in outputs if one in made]
                if not ends and kept:
                    ends = [name for name in kept[-1].output if name][:1]
                if kept and ends and attempt(kept, ends):
                    changed = True
                else:
                    at += step
    return _cut(model, nodes, outputs, values)


def _cut(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], outputs: list[str], values: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """These nodes, with what they lack as inputs."""
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    weights = [one for one in model.graph.initializer if one.name in read]
    constants = [
        one
        for one in model.graph.node
        if one.op_type == "Constant" and one.output[0] in read and one.output[0] not in made
    ]
    there = made | {one.name for one in weights} | {one.output[0] for one in constants}
    inputs = [name for name in read if name not in there]
    small = onnx.ModelProto()
    small.CopyFrom(model)
    del (
        small.graph.node[:],
        small.graph.input[:],
        small.graph.output[:],
        small.graph.initializer[:],
        small.graph.value_info[:],
    )
    small.graph.node.extend([*constants, *nodes])
    small.graph.initializer.extend(weights)
    small.graph.input.extend(port(name, values[name]) for name in inputs)
    small.graph.output.extend(port(name, values[name]) for name in outputs if name in values)
    return onnx.shape_inference.infer_shapes(small), {name: values[name] for name in inputs}
