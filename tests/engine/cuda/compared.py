"""Kernels against the CPU device, node by node; on the host and on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load
from tests.engine.cuda.cases import Case
from tests.versions import ort_before

PRECISIONS = ("fp32", "fp16", "bf16", "tf32")


def table(*cases: Case, precisions: Sequence[str] = PRECISIONS) -> list:
    """Every case in every precision on a GPU; on the host, where compiling takes longest, in one each."""
    rows = []
    for at, case in enumerate(cases):
        for precision in precisions:
            if precision == "tf32" and case.op not in ("MatMul", "Gemm", "Conv", "ConvTranspose", "Attention"):
                continue
            rows.append(pytest.param("gpu", case, precision, id=f"{case}-{precision}-gpu", marks=pytest.mark.gpu))
        first = PRECISIONS[at % 3]
        rows.append(pytest.param("host", case, first, id=f"{case}-{first}-host"))
    return rows


def check(backend, case: Case, precision: str, folder) -> None:
    if case.runtime and ort_before(case.runtime):
        pytest.skip(f"ONNX Runtime before {case.runtime} does not compute it")
    path, feeds = case.save(folder)
    engine = compile_model(load(path), precision=precision, passes="none", fusion="none")
    expected = engine(feeds)
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    engine.device = device
    actual = engine(feeds)
    assert not device.fallen, device.fallen
    assert actual.keys() == expected.keys()
    for name, golden in expected.items():
        array = actual[name]
        assert array.shape == golden.shape and array.dtype == golden.dtype
        if golden.dtype.kind != "f":
            assert np.array_equal(array, golden), name
            continue
        both = np.isfinite(golden) & np.isfinite(array)
        assert np.array_equal(array[~both], golden[~both], equal_nan=True), (name, array[~both], golden[~both])
        with np.errstate(invalid="ignore"):  # Inf - Inf, where both are Inf
            off = np.abs(array.astype(np.float64) - golden)
        allowed = case.allowed(golden, precision)
        bad = both & ~(off <= allowed)
        assert not bad.any(), (
            f"{name}: {bad.sum()} of {bad.size} too far off, first at {np.argwhere(bad)[0]}: {array[bad][0]!r} for {golden[bad][0]!r}, "
            f"{(off / np.maximum(allowed, 1e-300))[bad].max():.3g} times what is allowed"
        )
    again = engine(feeds)
    assert all(np.array_equal(again[name], actual[name], equal_nan=actual[name].dtype.kind == "f") for name in actual)
