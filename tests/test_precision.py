"""The number formats: rounding, whatever the shape."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from probe.precision import round_to

THIRDS = {"fp16": np.float16(1 / 3), "bf16": ml_dtypes.bfloat16(1 / 3), "tf32": 0.33325195, "fp32": np.float32(1 / 3)}


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3)])
@pytest.mark.parametrize("precision", THIRDS)
def test_rounding_keeps_shape_and_type(precision, shape):
    for dtype in (np.float32, np.float64):
        x = np.full(shape, np.float32(1 / 3), dtype)
        got = round_to(x, precision)
        assert isinstance(got, np.ndarray) and (got.shape, got.dtype) == (shape, x.dtype)
        assert np.all(got == np.float32(THIRDS[precision]))
        assert np.all(x == np.float32(1 / 3))


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, np.finfo(np.float32).min])
def test_tf32_of_a_scalar_that_is_not_rounded(x):
    got = round_to(np.array(x, np.float32), "tf32")
    assert np.isfinite(got) == np.isfinite(x) and np.isnan(got) == np.isnan(x)


@pytest.mark.parametrize("x", [np.array(3), np.array([True]), np.array(7, np.uint8)])
def test_integers_are_not_rounded(x):
    assert round_to(x, "tf32") is x
