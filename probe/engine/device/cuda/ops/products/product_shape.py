"""The shape of what MatMul, Gemm and Conv make, before they are computed: which pointwise nodes one kernel can take along depends on it."""

from __future__ import annotations

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions.window import window_of
from probe.engine.device.cuda.tensors.layout import Shape, broadcast


def product_shape(call: Call) -> Shape:
    """The shape of a product's output.

    Raises:
        Unsupported: inputs that do not fit together, or another operator.
    """
    a, b = call.data(0).shape, call.data(1).shape
    if call.node.op_type == "MatMul":
        if not a or not b:
            raise Unsupported("MatMul of a scalar")
        batch = broadcast(a[:-2], b[:-2])
        return (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ()))
    if call.node.op_type == "Gemm":
        return (a[1] if call.int("transA", 0) else a[0], b[0] if call.int("transB", 0) else b[1])
    if call.node.op_type == "Conv":
        return (a[0], b[0], *window_of(call, a[2:], b[2:]).shape)
    raise Unsupported(f"{call.node.op_type} is no product")
