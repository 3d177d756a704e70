"""Products of uint8 and int8 that ONNX Runtime adds in pairs in 16 bits, which saturate, on x86 processors without VNNI or AMX.

A pair reaches 2 * 255 * 127, twice what 16 bits hold. Of the four mixes of signs only uint8 on the left of int8 is computed so, with constant
weights and without. ConvInteger has its weight on the left, QLinearConv its image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from probe.model.carriers import byte_product_model
from probe.ort.session import small_session

_UINT8, _INT8 = 2, 3  # ONNX type numbers


@dataclass(frozen=True, slots=True)
class Factors:
    """Inputs of a product of 8-bit integers, by position."""

    left: int | None  # saturates where uint8; None: made inside, always uint8
    right: int  # saturates where int8
    zero: int | None  # zero point of the right one, of its type, 0 where omitted; None: not known here how to change it


_FACTORS = {
    ("", "MatMulInteger"): Factors(0, 1, 3),
    ("", "QLinearMatMul"): Factors(0, 3, 5),
    ("", "ConvInteger"): Factors(1, 0, 2),
    ("", "QLinearConv"): Factors(0, 3, 5),
    ("com.microsoft", "QLinearConv"): Factors(0, 3, 5),
    ("com.microsoft", "QGemm"): Factors(0, 3, 5),
    ("com.microsoft", "MatMulIntegerToFloat"): Factors(0, 1, 5),
    ("com.microsoft", "DynamicQuantizeMatMul"): Factors(None, 1, 3),
    ("com.microsoft", "DynamicQuantizeLSTM"): Factors(None, 1, None),
    ("com.microsoft", "QAttention"): Factors(0, 1, None),
}


def mixed_factors(
    domain: str, op: str, element: Callable[[int], int | None], *, unknown: bool = False
) -> Factors | None:
    """The factors of a node that multiplies uint8 by int8; None for every other node.

    Args:
        element: ONNX type number of the input at a position, None where it is not known.
        unknown: whether a type that is not known counts as one that saturates.
    """
    factors = _FACTORS.get(("" if domain == "ai.onnx" else domain, op))
    if factors is None:
        return None
    asked = [(factors.right, _INT8)] + ([(factors.left, _UINT8)] if factors.left is not None else [])
    return factors if all(element(at) in ((kind, None) if unknown else (kind,)) for at, kind in asked) else None


@cache
def saturates() -> bool:
    """Whether this ONNX Runtime, on this processor, saturates such products. Asked once a process, by the smallest of them."""
    a, b = np.full((1, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    made = small_session(byte_product_model()).run(None, {"a": a, "b": b})[0]
    return not np.array_equal(np.asarray(made), a.astype(np.int32) @ b.astype(np.int32))
