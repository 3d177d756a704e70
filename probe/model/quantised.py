"""Quantisation steps: how far apart neighbouring values of a quantised tensor lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.model.names import TensorNames
from probe.model.scopes import stored_constant

if TYPE_CHECKING:
    from probe.model.model import Model

_SCALED = ("QuantizeLinear", "DequantizeLinear")


def steps(model: Model) -> dict[str, float]:
    """Step of each float tensor that a QuantizeLinear reads or a DequantizeLinear writes, by recorded name, in the tensor's units.

    Only scales known without running the model count: initialisers and Constant nodes. Per axis or per block the largest scale counts,
    as it does for a tensor that several nodes quantise.
    """
    if model.numerics != "qdq":
        return {}
    names = TensorNames(model.root)
    found: dict[str, float] = {}
    for step in model.root.in_execution_order():
        node = step.node
        if node.op_type not in _SCALED or len(node.input) < 2:
            continue
        scale = stored_constant(step.scope, node.input[1])
        tensor = node.input[0] if node.op_type == "QuantizeLinear" else next(iter(step.outputs), "")
        home = step.scope.find(tensor)
        if scale is None or home is None:
            continue
        largest = float(np.max(np.abs(model.tensor(scale).astype(np.float64)), initial=0.0))
        name = names.of(home, tensor)
        found[name] = max(found.get(name, 0.0), largest)
    return found
