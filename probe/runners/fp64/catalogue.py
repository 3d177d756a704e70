"""Which kernel computes a node: one of ours, one of onnx.reference's, or none, and why."""

from __future__ import annotations

from typing import Any

from probe.errors import InputError
from probe.runners.fp64 import (
    convolution,
    elementwise,
    indexing,
    movement,
    normalisation,
    pooling,
    quantisation,
    recurrent,
    reductions,
    reference,
    sampling,
    sequences,
    signals,
)
from probe.runners.fp64.calls import Call, Kernel

_OURS: dict[str, Kernel] = {
    **elementwise.KERNELS,
    **reductions.KERNELS,
    **movement.KERNELS,
    **indexing.KERNELS,
    **normalisation.KERNELS,
    **convolution.KERNELS,
    **pooling.KERNELS,
    **recurrent.KERNELS,
    **sampling.KERNELS,
    **signals.KERNELS,
    **quantisation.KERNELS,
    **sequences.KERNELS,
}
_RANDOM = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial".split())
_OTHER_GOLDEN = "--golden ort"


def find_kernel(call: Call, domain: str) -> Kernel | None:
    """The kernel of a node; None where the operator is to be evaluated by the function its definition gives.

    Args:
        domain: "" for the standard operators.

    Raises:
        InputError: nothing evaluates the operator in float64.
    """
    if not domain and call.op in _OURS:
        return _OURS[call.op]
    if call.op in _RANDOM and not domain:
        raise InputError(f"{call.op} draws random numbers, which no golden can repeat", hint="feed them as an input")
    known = reference.STANDARD if not domain else reference.MACHINE_LEARNING if domain == "ai.onnx.ml" else ()
    if call.op in known:
        try:
            return reference.reference_kernel(call)
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            said = str(error).splitlines()[0]
            raise InputError(
                f"onnx.reference has no {call.op} of version {call.version}: {said}", hint=_OTHER_GOLDEN
            ) from error
    if not domain and _has_body(call):
        return None
    named = f"{domain}:{call.op}" if domain else call.op
    raise InputError(f"fp64 cannot evaluate the operator {named}", hint=_OTHER_GOLDEN)


def _has_body(call: Call) -> bool:
    import onnx

    if not onnx.defs.has(call.op, call.version, ""):
        return False
    schema: Any = onnx.defs.get_schema(call.op, call.version, "")  # its bindings are not described to type checkers
    return schema.has_function or schema.has_context_dependent_function
