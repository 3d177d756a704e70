"""Every operator that has a kernel, beside the pointwise ones (expressions.py)."""

from __future__ import annotations

from probe import ir
from probe.engine.device.cuda.layers.expressions import is_pointwise
from probe.engine.device.cuda.ops.attention.attention_op import ATTENTION
from probe.engine.device.cuda.ops.call import Op
from probe.engine.device.cuda.ops.convolutions.conv import CONVOLUTIONS
from probe.engine.device.cuda.ops.determinant import DETERMINANTS
from probe.engine.device.cuda.ops.extreme import EXTREMES
from probe.engine.device.cuda.ops.functions import FUNCTIONS
from probe.engine.device.cuda.ops.generate import GENERATED
from probe.engine.device.cuda.ops.indexed import INDEXED
from probe.engine.device.cuda.ops.integer import INTEGERS
from probe.engine.device.cuda.ops.losses import LOSSES
from probe.engine.device.cuda.ops.move import MOVES
from probe.engine.device.cuda.ops.norm import NORMS
from probe.engine.device.cuda.ops.normalise import NORMALISATIONS
from probe.engine.device.cuda.ops.pad import PADS
from probe.engine.device.cuda.ops.pool import POOLS
from probe.engine.device.cuda.ops.products.matmul import PRODUCTS
from probe.engine.device.cuda.ops.quantise import QUANTISED
from probe.engine.device.cuda.ops.recurrent import RECURRENT
from probe.engine.device.cuda.ops.reduce import REDUCTIONS
from probe.engine.device.cuda.ops.regions import REGIONS
from probe.engine.device.cuda.ops.resize import RESIZES
from probe.engine.device.cuda.ops.rotary import ROTARY
from probe.engine.device.cuda.ops.sample import SAMPLES
from probe.engine.device.cuda.ops.scan import SCANS
from probe.engine.device.cuda.ops.selected import SELECTED
from probe.engine.device.cuda.ops.shape import SHAPES
from probe.engine.device.cuda.ops.softmax import SOFTMAX
from probe.engine.device.cuda.ops.topk import TOP_K
from probe.engine.device.cuda.tensors.formats import format_of
from probe.engine.fusion.kinds import is_standard

_FAMILIES = (
    MOVES, SOFTMAX, NORMS, REDUCTIONS, EXTREMES, PRODUCTS, CONVOLUTIONS, POOLS, RESIZES, SHAPES, INDEXED, GENERATED, RECURRENT, SCANS, QUANTISED, PADS, ATTENTION, ROTARY, FUNCTIONS, LOSSES,
    TOP_K, SAMPLES, REGIONS, NORMALISATIONS, INTEGERS, SELECTED, DETERMINANTS,
)  # fmt: skip
OPS: dict[str, Op] = {name: op for family in _FAMILIES for op in family for name in op.names}


def refusal(node: ir.Node) -> str | None:
    """Why no kernel computes a node; None when one does."""
    if not is_standard(node):
        return f"{node.op_type} of {node.domain}"
    if node.op_type not in OPS and not is_pointwise(node):
        return f"no kernel for {node.op_type}"
    for value in (*node.inputs, *node.outputs):
        if value is not None and value.name and format_of(value) is None:
            known = "an unknown type" if value.dtype is None else value.dtype.name
            return f"{node.op_type} of {known}"
    return None
