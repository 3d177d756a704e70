"""Weights and constants in the types a mixed-precision model needs them in, and what becomes of their values on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from probe.model.lost import numbers
from probe.precision import PRECISIONS, numpy_dtype, round_to

Array = np.ndarray[Any, Any]

_EAGER = 1 << 20  # bytes of a weight that is converted at once; larger ones when they are written


def tensor_of(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initialiser or of what a Constant makes; None for anything else."""
    node = value.producer()
    if node is None:
        return value.const_value if value.is_initializer() else None
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor()
        if name == "value_float":
            return ir.tensor(np.float32(attribute.as_float()))
        if name == "value_floats":
            return ir.tensor(np.array(attribute.as_floats(), np.float32))
    return None


def converted(tensor: ir.TensorProtocol, precision: str, *, widened: bool, name: str) -> ir.TensorProtocol:
    """A tensor rounded to ``precision``; ``widened``: held in its own type again. Large ones are computed when they are written."""
    dtype = tensor.dtype if widened else ir.DataType.FLOAT16 if precision == "fp16" else ir.DataType.BFLOAT16
    compute = _rounding(tensor, precision, widened=widened, name=name)
    if tensor.nbytes <= _EAGER:
        return compute()
    return ir.LazyTensor(compute, dtype=dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


def _rounding(
    tensor: ir.TensorProtocol, precision: str, *, widened: bool, name: str
) -> Callable[[], ir.TensorProtocol]:
    def compute() -> ir.TensorProtocol:
        array = numbers(tensor, name)
        if widened:
            return ir.tensor(round_to(array, precision), name=name)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return ir.tensor(array.astype(numpy_dtype(PRECISIONS[precision].dtype)), name=name)

    return compute
