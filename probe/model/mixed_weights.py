"""Weights and constants in the types a mixed-precision model needs them in, and what becomes of their values on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from probe.errors import InputError
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
        array = _numbers(tensor, name)
        if widened:
            return ir.tensor(round_to(array, precision), name=name)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return ir.tensor(array.astype(numpy_dtype(PRECISIONS[precision].dtype)), name=name)

    return compute


def lost_in(tensor: ir.TensorProtocol, precision: str, name: str) -> str:
    """What rounding does to a tensor beyond its last digits, in words: finite numbers that become Inf, a scalar that becomes 0; "" for neither."""
    array = _numbers(tensor, name)
    with np.errstate(invalid="ignore"):
        magnitude = np.abs(array)
    low = PRECISIONS[precision]
    # Half a step above the largest number rounds up to Inf.
    overflows = np.isfinite(magnitude) & (magnitude >= low.max * (1 + low.roundoff / 2))
    count = int(np.count_nonzero(overflows))
    if count:
        largest = float(array.reshape(-1)[int(np.argmax(np.where(overflows, magnitude, 0)))])
        became = "-Inf" if largest < 0 else "Inf"
        of = "" if array.size == 1 else f"{count} of {array.size} elements, "
        return f"{of}{largest:.6g} becomes {became}"
    if array.size == 1 and np.all(magnitude > 0) and np.all(round_to(array, precision) == 0):
        return f"{float(array.reshape(-1)[0]):.6g} becomes 0"
    return ""


def _numbers(tensor: ir.TensorProtocol, name: str) -> Array:
    try:
        return tensor.numpy()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read a weight: {error}", where=f"weight {name}") from None
