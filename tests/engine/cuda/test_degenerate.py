"""Axes of no element and of one, tensors without axes: every case of the table, on both devices; what ONNX Runtime refuses or gets wrong; networks whose
batches come and go."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load
from tests.engine.cuda.cases import Case
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.degenerate_cases import DEGENERATE


@pytest.mark.parametrize(("place", "case", "precision"), table(*DEGENERATE, precisions=("fp32", "fp16")))
def test_hardly_there(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


def alone(backend, case: Case, folder) -> tuple[dict[str, Any], dict[str, str]]:
    """What kernels make of a case, the CPU device never asked; and what fell to it."""
    path, feeds = case.save(folder)
    engine = compile_model(load(path), precision="fp32", passes="none", fusion="none")
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine(feeds), device.fallen


_BIAS = np.array([1.0, -2.0, 3.0, 0.5], np.float32)
_AFFINE = {"s": ("w", (4,)), "b": ("w", (4,))}
# ONNX Runtime forgets beta, leaves memory as it is, or refuses what is empty
BY_FORMULA = {
    "Gemm": (Case("Gemm", {"a": (3, 0), "b": (0, 4), "c": ("w", _BIAS)}, {"beta": 2.0}), np.tile(2 * _BIAS, (3, 1))),
    "MatMulInteger": (Case("MatMulInteger", {"a": np.zeros((2, 0), np.uint8), "b": np.zeros((0, 3), np.uint8)}), np.zeros((2, 3), np.int32)),
    "MatMul": (Case("MatMul", {"a": (0, 2, 3, 4), "b": (2, 4, 5)}), np.zeros((0, 2, 3, 5))),
    "TopK": (Case("TopK", {"x": (0, 5), "k": ("w", np.array([2]))}, {}, 2), np.zeros((0, 2))),  # ONNX Runtime 1.31 divides by 0 on many cores
    "MatMul by a vector": (Case("MatMul", {"a": (3, 0), "b": (0,)}), np.zeros(3)),
    "LayerNormalization": (Case("LayerNormalization", {"x": (3, 0), "s": ("w", (0,)), "b": ("w", (0,))}), np.zeros((3, 0))),
    "GroupNormalization": (Case("GroupNormalization", {"x": (2, 4, 0), **_AFFINE}, {"num_groups": 2}, opset=21), np.zeros((2, 4, 0))),
    "GroupNormalization of no image": (Case("GroupNormalization", {"x": (0, 4, 3), **_AFFINE}, {"num_groups": 2}, opset=21), np.zeros((0, 4, 3))),
    "InstanceNormalization": (Case("InstanceNormalization", {"x": (2, 4, 0, 3), **_AFFINE}), np.zeros((2, 4, 0, 3))),  # ONNX Runtime 1.31 crashes
    "Conv": (Case("Conv", {"x": (1, 8, 0, 4), "w": ("w", (8, 8, 1, 1))}), np.zeros((1, 8, 0, 4))),
    "Conv of 3 x 3": (Case("Conv", {"x": (2, 8, 4, 0), "w": ("w", (8, 8, 3, 3))}, {"pads": [1, 1, 1, 1]}), np.zeros((2, 8, 4, 0))),
    "GlobalMaxPool": (Case("GlobalMaxPool", {"x": (1, 0, 4, 4)}), np.zeros((1, 0, 1, 1))),
    "MaxPool": (Case("MaxPool", {"x": (1, 0, 4, 4)}, {"kernel_shape": [2, 2]}), np.zeros((1, 0, 3, 3))),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_FORMULA)
def test_what_follows_from_the_formula(backend, tmp_path, name):
    case, wanted = BY_FORMULA[name]
    made, fallen = alone(backend, case, tmp_path)
    assert not fallen
    np.testing.assert_array_equal(made["y0"], wanted)


@pytest.mark.parametrize(("shape", "axis"), [((0, 4), 1), ((4, 0, 3), 0)])
def test_the_place_of_the_largest_of_nothing_is_the_cpus(backend, tmp_path, shape, axis):
    made, fallen = alone(backend, Case("ArgMax", {"x": shape}, {"axis": axis}), tmp_path)
    assert made["y0"].size == 0 and [*fallen.values()] == ["ArgMax of nothing"]


_HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
NETWORKS = {
    "images": (
        """g (float[n,3,h,w] x) => (float[n,5] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, v) b = Relu (a) c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b) d = Conv (c, u, bias) e = Add (d, c) f = Relu (e)
            i = GlobalAveragePool (f) j = Flatten (i) k = Gemm <transB = 1> (j, l, m) y = Softmax (k) }""",
        {"v": (8, 3, 3, 3), "u": (8, 8, 1, 1), "bias": (8,), "l": (5, 8), "m": (5,)},
        [{"x": (n, 3, 8, 10)} for n in (0, 1, 3, 0)],
    ),
    "tokens": (
        """g (float[b,s,16] x) => (float[b,s,16] y) {
            n = LayerNormalization (x, s1, b1) q = MatMul (n, wq) k = MatMul (n, wk) v = MatMul (n, wv)
            q4 = Reshape (q, heads) k4 = Reshape (k, heads) v4 = Reshape (v, heads) qt = Transpose <perm = [0, 2, 1, 3]> (q4) kt = Transpose <perm = [0, 2, 3, 1]> (k4)
            vt = Transpose <perm = [0, 2, 1, 3]> (v4) p = MatMul (qt, kt) w = Softmax (p) o = MatMul (w, vt) t = Transpose <perm = [0, 2, 1, 3]> (o) r = Reshape (t, back)
            z = MatMul (r, wo) e = Add (z, x) f = MatMul (e, wf) g1 = Sigmoid (f) g2 = Mul (f, g1) y = MatMul (g2, wg) }""",
        {"s1": (16,), "b1": (16,), "wq": (16, 16), "wk": (16, 16), "wv": (16, 16), "wo": (16, 16), "wf": (16, 24), "wg": (24, 16), "heads": np.array([0, 0, 2, 8]), "back": np.array([0, 0, 16])},
        [{"x": (b, s, 16)} for b, s in ((0, 5), (1, 1), (2, 3), (0, 3), (3, 1))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_batches_come_and_go(backend, tmp_path, name, precision):
    """Recorded and repeated, each shape twice."""
    text, weights, given = NETWORKS[name]
    made = onnx.parser.parse_model(_HEAD + text)
    random = np.random.default_rng(5)
    for key, one in weights.items():
        array = one if isinstance(one, np.ndarray) else (random.standard_normal(one) * 0.3).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    onnx.save(made, tmp_path / "net.onnx")
    engine = compile_model(load(tmp_path / "net.onnx"), precision=precision)
    feeds = [{key: random.standard_normal(shape).astype(np.float32) for key, shape in one.items()} for one in given]
    golden = [engine(one)["y"] for one in feeds]
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    for one, wanted in [*zip(feeds, golden, strict=True)] * 2:
        actual = engine(one)["y"]
        assert actual.shape == wanted.shape
        np.testing.assert_allclose(actual, wanted, atol=1e-5 if precision == "fp32" else 1e-2)
    assert not device.fallen
