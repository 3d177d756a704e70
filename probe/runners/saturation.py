"""What to say of models with products of uint8 and int8 where ONNX Runtime saturates them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from probe.ort.saturation import mixed_factors, saturates

if TYPE_CHECKING:
    from probe.model.model import Model
    from probe.model.scopes import Step

_SHOWN = 3  # names in the note


def saturation_note(model: Model) -> str:
    """What to know about numbers that ONNX Runtime makes of a model here; "" where no product saturates."""
    nodes = [
        step.identity for step in model.root.in_execution_order()
        if mixed_factors(step.node.domain, step.node.op_type, _types(step), unknown=True)
    ]  # fmt: skip
    # Types inside a local function depend on the call.
    nodes += [
        f"{node.op_type} in function {function.name}" for function in model.proto.functions for node in function.node
        if mixed_factors(node.domain, node.op_type, lambda _: None, unknown=True)
    ]  # fmt: skip
    if not nodes or not saturates():
        return ""
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return (
        "ONNX Runtime on this processor, which has neither VNNI nor AMX, saturates sums of uint8 x int8 products: "
        f"{', '.join(nodes[:_SHOWN])}{more} may be wrong by more than a step; the runner fp64 computes them exactly, "
        "so do processors with VNNI or AMX, and models quantised with reduce_range do not saturate"
    )


def _types(step: Step) -> Callable[[int], int | None]:
    def element(at: int) -> int | None:
        name = step.node.input[at] if at < len(step.node.input) else ""
        home = step.scope.find(name)
        if home is None:
            return None
        if name in home.initialisers:
            return home.initialisers[name].data_type
        return home.types[name].tensor_type.elem_type or None if name in home.types else None

    return element
