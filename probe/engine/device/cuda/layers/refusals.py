"""Which layers kernels compute, and why not the others."""

from __future__ import annotations

from dataclasses import replace

from probe.engine import tactics
from probe.engine.assignment import Choice
from probe.engine.device.cuda.ops.products.matmul import ACC16
from probe.engine.device.cuda.ops.table import refusal
from probe.engine.layers import Layer
from probe.engine.rounding import Plan, Rounding, inner_nodes, multiplies
from probe.errors import InputError
from probe.model.movement import is_standard

ON_HOST = "integers: computed on the host"
_RANDOM = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli".split())


def layer_refusal(layer: Layer) -> str | None:
    """Why a layer never runs on the device."""
    if layer.kind == "if":
        return None
    if layer.kind == "shape" and any(node.op_type not in ("Shape", "Size") for node in layer.nodes):
        return ON_HOST
    return next((reason for node in layer.nodes if (reason := refusal(node)) is not None), None)


def tactic_refusal(layer: Layer, tactic: str) -> str | None:
    """Why a layer whose nodes all have kernels is not computed so on the device, as far as shapes do not decide."""
    known = tactics.tactic_of(tactic)
    if tactic != ACC16 and not known.device:
        return f"no kernel computes {tactic}" if tactics.concerns(layer, tactic) else None
    able = known.operators if known.device else ("MatMul", "Gemm", "Conv")
    others = [node.op_type for node in layer.nodes if multiplies(node) and node.op_type not in able]
    return f"no kernel computes {others[0]} with {tactic}" if others else None


def as_spoken_of(layer: Layer, plan: Plan, rounding: Rounding) -> Plan:
    """A plan under which a tactic of this device says how products are computed: exact's, where the layer makes, or multiplies by, a tensor that
    is kept."""
    if not plan.gates or not tactics.tactic_of(plan.choice.tactic).device:
        return plan
    precision = plan.choice.precision
    reads = len(rounding.sites(layer, precision).reads)
    if plan.gates[reads:] == rounding.gates(layer, precision, frozenset())[reads:]:
        return plan
    return replace(plan, choice=Choice(precision))


def refused_by_name(layer: Layer, choice: Choice, reason: str) -> InputError:
    """What is said of a layer that a tactic of this device was named for and cannot compute: nothing takes its place."""
    return InputError(f"layer {layer.name}: {choice.tactic} in {choice.precision}: {reason}", hint="exact computes it")


def is_repeatable(layer: Layer) -> bool:
    """Whether a layer makes the same of the same reads: standard operators that draw no random numbers."""
    return all(is_standard(node) and node.op_type not in _RANDOM for node in inner_nodes(layer.nodes))
