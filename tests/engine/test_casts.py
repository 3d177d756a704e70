"""Rounding as ONNX nodes equals the definition, at every opset the engine takes."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.device.cpu.casts import rounding_nodes
from probe.engine.device.cpu.session import build
from probe.precision import round_to

SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, 65519.99, 65520.0, -65520.0, 6e-8, 2.9e-8, 3.4028235e38, -3.4028235e38,
     3.39e38, 1.0 + 2**-11, 1.0 + 3 * 2**-11, 1.0 + 2**-8, 1.0 + 3 * 2**-8, 1e9, -1e9, 1e-12],
    np.float32,
)  # fmt: skip


def rounder(precision: str, opset: int, element: int = onnx.TensorProto.FLOAT):
    counter = itertools.count()
    nodes = rounding_nodes("x", "y", element, precision, opset, lambda: f"t{next(counter)}")
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [info("x", element, [None])], [info("y", element, [None])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    session = build(model.SerializeToString(), {}, threads=1)
    return lambda x: session.run(None, {"x": x})[0]


def patterns(count: int, seed: int = 0) -> np.ndarray:
    """Random bit patterns, and the ties of both formats."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32)
    ties = (rng.integers(0, 2**16, count, dtype=np.uint64).astype(np.uint32) << 16) | 0x8000
    half = (rng.integers(0, 2**19, count, dtype=np.uint64).astype(np.uint32) << 13) | 0x1000
    return np.concatenate([SPECIAL, bits.view(np.float32), ties.view(np.float32), half.view(np.float32)])


def wanted(x: np.ndarray, precision: str) -> np.ndarray:
    low = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(low[precision]).astype(x.dtype) if precision in low else round_to(x, precision)


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 17, 21])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_rounding_bit_for_bit(precision, opset):
    x = patterns(200_000)
    got, golden = rounder(precision, opset)(x), wanted(x, precision)
    same = (got == golden) | (np.isnan(got) & np.isnan(golden))
    if precision == "bf16" and opset < 13:
        same |= np.abs(x) < 2.0**-100  # the documented limit of splitting
    if precision == "tf32":
        beyond = np.abs(x) >= 2.0**100
        left = beyond & np.isfinite(x)
        assert (np.abs(got[left] / x[left] - 1) <= 2.0**-11).all()  # not rounded to TF32's bits, and never Inf
        assert np.array_equal(got[np.isinf(x)], x[np.isinf(x)])
        same |= beyond | (np.abs(x) < np.finfo(np.float32).smallest_normal * 2)
    assert same.all(), list(zip(x[~same][:5], got[~same][:5], golden[~same][:5], strict=True))


@pytest.mark.parametrize("opset", [7, 17])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_rounding_twice_changes_nothing(precision, opset):
    once = rounder(precision, opset)(patterns(20_000, seed=1))
    assert np.array_equal(rounder(precision, opset)(once), once, equal_nan=True)


def test_an_empty_tensor_rounds_to_an_empty_tensor():
    for precision, opset in itertools.product(("fp16", "bf16", "tf32"), (7, 17)):
        assert rounder(precision, opset)(np.empty(0, np.float32)).shape == (0,)


@given(st.floats(width=32, allow_nan=False))
def test_tf32_keeps_eleven_bits(value):
    x = np.array([value], np.float32)
    (got,) = TF32(x)
    if 2.0**-120 < abs(value) < 2.0**100:
        assert abs(got - x[0]) <= abs(x[0]) * 2.0**-11
        assert got.view(np.uint32) & 0x1FFF == 0


TF32 = rounder("tf32", 17)
