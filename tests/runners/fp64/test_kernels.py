"""Every kernel against ONNX Runtime in FP32 and, where it has one, its double kernel; and does it see what float32 cannot?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from probe.model import load
from probe.model.model import Port
from probe.ort.values import tensor_of, to_ort
from probe.runners.fp64 import catalogue, reference, sequences
from probe.runners.fp64.calls import widen
from probe.runners.fp64.evaluate import Evaluator
from probe.runners.fp64.runner import Fp64Runner
from tests.runners.fp64 import cases_elements, cases_layers, cases_windows
from tests.runners.fp64.cases import Array, Case
from tests.versions import ort_before

TABLES = {
    "unary": cases_elements.UNARY,
    "binary": cases_elements.BINARY,
    "reduction": cases_elements.REDUCTION,
    "move": cases_elements.MOVE,
    "quantised": cases_elements.QUANTISED,
    "signals": cases_elements.SIGNALS,
    "convolution": cases_windows.CONVOLUTION,
    "deformable": cases_windows.DEFORMABLE,
    "pooling": cases_windows.POOLING,
    "resampling": cases_windows.RESAMPLING,
    "recurrent": cases_layers.RECURRENT,
    "normalisation": cases_layers.NORMALISATION,
    "products": cases_layers.PRODUCTS,
}
CASES = [pytest.param(case, id=f"{table}: {case.id}") for table, cases in TABLES.items() for case in cases]

EXACT_SINCE = {"AffineGrid-20": "1.26", "Erf-21(12)": "1.29"}  # in doubles; and no NaN before


def fp64(
    case: Case, folder: Path, kind: int = TensorProto.FLOAT, feeds: dict[str, Array] | None = None
) -> dict[str, Array]:
    path = folder / f"m{kind}.onnx"
    path.write_bytes(case.model(kind).SerializeToString())
    made = Fp64Runner(load(path)).run(case.feeds(kind) if feeds is None else feeds, "one")
    return {tensor.info.name: tensor.array for tensor in made if tensor.array is not None}


def ort(case: Case, kind: int) -> dict[str, Array] | None:
    """Outputs of ONNX Runtime; None where it has no kernel for the type."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(case.model(kind).SerializeToString(), settings)
    except Exception as error:
        if kind == TensorProto.DOUBLE:
            return None
        if ort_before("1.26") and ("NOT_IMPLEMENTED" in str(error) or "only *guarantees* support" in str(error)):
            pytest.skip("this ONNX Runtime has no kernel for it")
        raise AssertionError(f"{case.id}: {error}") from error
    names = [output.name for output in session.get_outputs()]
    feeds = case.feeds(kind)
    ports = [Port(name, array.dtype.name, array.shape) for name, array in feeds.items()]
    try:
        values = session.run_with_ort_values(names, to_ort(ports, feeds))
    except Exception as error:
        if "does not support double" in str(error):
            return None
        raise
    return {name: tensor_of(value) for name, value in zip(names, values, strict=True)}


def assert_close(actual: dict[str, Array], golden: dict[str, Array], tolerance: float) -> None:
    assert actual.keys() == golden.keys()
    for name, expected in golden.items():
        got = actual[name]
        assert got.shape == expected.shape, name
        if expected.dtype not in (np.float32, np.float64):
            assert got.dtype == expected.dtype, name
            if expected.dtype.kind == "O":
                assert got.tolist() == expected.tolist(), name
            else:
                assert np.array_equal(got.astype(np.float64), expected.astype(np.float64), equal_nan=True), name
            continue
        assert got.dtype == np.float64, name
        wide = expected.astype(np.float64)
        finite = np.isfinite(wide)
        assert np.array_equal(np.where(finite, 0, got), np.where(finite, 0, wide), equal_nan=True), name
        span = max(float(np.abs(got[finite]).max(initial=0)), 1e-30)
        worst = float(np.abs(got[finite] - wide[finite]).max(initial=0)) / span
        assert worst <= tolerance, f"{name}: {worst:.3g}"


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_onnx_runtime(case: Case, tmp_path):
    made = fp64(case, tmp_path)
    if not case.ort:
        return  # its values are checked by hand in test_by_hand
    if any(case.id.startswith(name) and ort_before(version) for name, version in EXACT_SINCE.items()):
        pytest.skip("this ONNX Runtime computes something else")
    golden = ort(case, TensorProto.FLOAT)
    assert golden is not None
    assert_close(made, golden, case.tolerance)
    double = ort(case, TensorProto.DOUBLE) if case.double else None
    if double is not None:
        assert_close(fp64(case, tmp_path, TensorProto.DOUBLE), double, 1e-12)


SMOOTH = [
    param for param in CASES
    if not param.values[0].discrete and any(x is not None and x.dtype == np.float32 for x in param.values[0].inputs)
]  # fmt: skip


@pytest.mark.parametrize("case", SMOOTH)
def test_sees_what_float32_cannot(case: Case, tmp_path):
    """Inputs moved by 2^-36 of themselves give other outputs, and near ones: nothing inside is float32."""
    path = tmp_path / "m.onnx"
    path.write_bytes(case.model(TensorProto.FLOAT).SerializeToString())
    model = load(path)
    values = {name: widen(array) for name, array in case.feeds().items()}
    moved = {n: x * (1 + 2.0**-36) if x.dtype == np.float64 else x for n, x in values.items()}
    before, after = (
        {e.name: e.value for e in Evaluator(model, lambda _, name: name).run(v, ())} for v in (values, moved)
    )
    floats = [name for name, array in before.items() if array.dtype == np.float64]
    assert floats
    changed = False
    for name in floats:
        span = max(np.abs(before[name]).max(initial=0), 1e-30)
        difference = np.abs(after[name] - before[name]).max(initial=0) / span
        assert difference < 1e-8, name
        changed |= bool(difference)
    assert changed


ELSEWHERE = {
    *("Constant", *sequences.KERNELS),  # test_recording
    *("CumProd", "BitCast"),  # test_by_hand
    "SimplifiedLayerNormalization",  # RMSNormalization by another name
}


def test_every_operator_has_a_case():
    named = {param.values[0].op for param in CASES}
    known = {*catalogue._OURS, *reference.STANDARD}
    assert known - named - ELSEWHERE == set()
