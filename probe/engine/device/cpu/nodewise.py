"""A layer node by node, products or sums in numpy: how tactics run whose arithmetic ONNX Runtime's kernels do not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from probe import ir
from probe.engine.device.cpu.products import product
from probe.engine.device.cpu.reductions import reduction
from probe.engine.device.cpu.session import Weights
from probe.engine.layers import Layer
from probe.engine.rounding import Plan, Sites, data_inputs, multiplies
from probe.engine.tactics import Tactic, tactic_of
from probe.precision import round_to

Array = np.ndarray[Any, Any]
RunNode = Callable[[ir.Node, Sequence[Array | None]], list[Array]]


def run_nodewise(
    layer: Layer, reads: Mapping[int, Array], plan: Plan, sites: Sites, weights: Weights, run_node: RunNode
) -> dict[int, Array]:
    """All tensors a layer makes, stored form, by ``id`` of their value.

    Args:
        reads: what it reads, unrounded, by ``id``.
        run_node: runs one node as it stands, for those that the tactic does not concern.

    Raises:
        InputError: the tactic cannot compute the layer; says why.
    """
    precision = plan.choice.precision
    tactic = tactic_of(plan.choice.tactic)
    on = {
        (kind, id(value)): gate for (kind, value), gate in zip(sites.gates, plan.gates, strict=True)
    } if plan.gates else {}  # fmt: skip
    tf32 = precision == "tf32"
    stored: dict[int, Array] = dict(reads)
    rounded: dict[int, Array] = {}

    def used(node: ir.Node, value: ir.Value | None) -> Array | None:
        if value is None:
            return None
        key = id(value)
        if tf32 and not (multiplies(node) and any(value is one for one in data_inputs(node))):
            return weights.array(value) if value.is_initializer() else stored[key]
        if value.is_initializer():
            return weights.array(value, precision if on.get(("weight", key)) else "")
        if on.get(("read", key)):
            if key not in rounded:
                rounded[key] = round_to(stored[key], precision)
            return rounded[key]
        return stored[key]

    for node in layer.nodes:
        inputs = [used(node, value) for value in node.inputs]
        results = _computed(node, inputs, tactic) if tactic.concerns(node) else run_node(node, inputs)
        for value, array in zip((v for v in node.outputs if v.name), results, strict=True):
            stored[id(value)] = round_to(array, precision) if on.get(("store", id(value))) else array
    return {id(value): stored[id(value)] for value in layer.tensors}


def _computed(node: ir.Node, inputs: Sequence[Array | None], tactic: Tactic) -> list[Array]:
    return [product(node, inputs, tactic)] if multiplies(node) else reduction(node, inputs, tactic)
