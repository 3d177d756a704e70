"""The table of tactics: names that are promises, what each applies to, what it needs, and that a layer's other nodes do not notice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe import ir
from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.products import product
from probe.engine.tactics import TACTICS, candidates, concerns, supports, tactic_of
from probe.engine.tactics.problems import terms_of
from probe.errors import InputError
from probe.model import load

# What recorded files rely on. A row that changes here breaks them: give what changed a new name.
PROMISES = {
    "exact": ("fp32", "direct", "any", 0, 1, 0),
    "acc16": ("fp16", "direct", "blocks", 16, 1, 0),
    "splitk2": ("fp32", "direct", "splits", 0, 2, 0),
    "splitk4": ("fp32", "direct", "splits", 0, 4, 0),
    "splitk8": ("fp32", "direct", "splits", 0, 8, 0),
    "winograd_f4": ("fp32", "winograd", "any", 0, 1, 4),
    "winograd_f2": ("fp32", "winograd", "any", 0, 1, 2),
    "sum_sequential": ("fp32", "direct", "sequential", 0, 1, 0),
    "sum_pairwise": ("fp32", "direct", "pairwise", 0, 1, 0),
    "sum_acc16": ("fp16", "direct", "sequential", 0, 1, 0),
}
PRODUCTS = ("exact", "acc16", "splitk2", "splitk4", "splitk8")
ATTENTION = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,2,n,8] q, float[1,2,8,n] k, float[1,2,n,8] v) => (float[1,2,n,8] y) {
  s = MatMul (q, k)
  p = Softmax <axis = -1> (s)
  y = MatMul (p, v)
}"""


def engine_of(tmp_path, text: str, precision: str = "fp16", **weights: np.ndarray):
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(model, tmp_path / "m.onnx")
    return compile_model(load(tmp_path / "m.onnx"), precision=precision)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_names_are_promises():
    rows = {t.name: (t.accumulator, t.algorithm, t.order, t.block, t.splits, t.tile) for t in TACTICS}
    assert rows == PROMISES and next(iter(rows)) == "exact"
    for tactic in TACTICS:
        assert tactic.deterministic and tactic.numerics and tactic.error.startswith("|error| <= ")
        assert tactic_of(tactic.name) is tactic
    assert ("fp16",) == tactic_of("winograd_f4").precisions == tactic_of("acc16").precisions
    with pytest.raises(InputError, match="no tactic is called 'fastest'"):
        tactic_of("fastest")


def test_candidates_of_a_fused_layer(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,8,12,12] x) => (float[1,4,12,12] y) { a = Conv <pads = [1,1,1,1]> (x, w)  y = Relu (a) }"""
    engine = engine_of(tmp_path, text, w=normal(4, 8, 3, 3))
    (layer,) = engine.layers
    assert len(layer.nodes) == 2
    assert candidates(layer, "fp16") == engine.candidates(layer) == (*PRODUCTS, "winograd_f4", "winograd_f2")
    assert candidates(layer, "bf16") == candidates(layer, "fp32") == ("exact", "splitk2", "splitk4", "splitk8")
    assert "not for tf32" in (supports(layer, "tf32", "acc16") or "")
    assert supports(layer, "fp16", "sum_pairwise") == (
        "sum_pairwise is for ReduceSum, ReduceMean, ReduceL1, ReduceL2 and others; Conv(a) + Relu(y) has none"
    )
    assert concerns(layer, "acc16") and not concerns(layer, "sum_pairwise") and not concerns(layer, "exact")


def test_a_node_that_a_tactic_does_not_concern_is_never_computed_by_it():
    node = ir.node("MatMul", [ir.Value(name="a"), ir.Value(name="b")])
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(InputError, match="winograd_f4 does not compute MatMul"):
        product(node, [ones, ones], tactic_of("winograd_f4"))


def test_workspace_in_bytes(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n,8,12,14] x) => (float[n,4,12,14] y) { y = Conv <pads = [1,1,1,1]> (x, w) }"""
    (layer,) = engine_of(tmp_path, text, w=normal(4, 8, 3, 3)).layers
    shapes = {"x": (2, 8, 12, 14), "y": (2, 4, 12, 14)}
    need = {tactic.name: tactic.workspace(layer, shapes) for tactic in TACTICS}
    assert need["exact"] == need["acc16"] == 0
    assert need["splitk4"] == 4 * (2 * 4 * 12 * 14) * 4  # partial sums, FP32
    tiles = 2 * 3 * 4  # 12 and 14 in tiles of 4
    assert need["winograd_f4"] == 36 * (4 * 8 * 2 + 8 * tiles * 2 + 4 * tiles * 4)
    assert need["winograd_f2"] == 16 * (4 * 8 * 2 + 8 * (2 * 6 * 7) * 2 + 4 * (2 * 6 * 7) * 4)
    assert tactic_of("winograd_f4").workspace(layer) is None  # n is not known
    assert tactic_of("acc16").workspace(layer) == 0


def test_shapes_that_are_symbolic_are_asked_for(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[m,k] a, float[k,n] b) => (float[m,n] y) { y = MatMul (a, b) }"""
    (layer,) = engine_of(tmp_path, text).layers
    assert supports(layer, "fp32", "splitk4") is None
    assert "cannot be cut into 4 ranges" in (supports(layer, "fp32", "splitk4", {"a": (5, 3)}) or "")
    assert "splitk2" in candidates(layer, "fp32", {"b": (3, 9)}) and "splitk4" not in candidates(
        layer, "fp32", {"b": (3, 9)}
    )


@pytest.mark.parametrize(
    ("text", "k"),
    [
        ("float[4,3] a, float[3,4] b) => (float y) { y = MatMul (a, b) }", 3),
        ("float[3] a, float[q,4] b) => (float y) { y = MatMul (a, b) }", 3),
        ("float[p,q] a, float[3] b) => (float y) { y = MatMul (a, b) }", 3),
        ("float[3,4] a, float[p,q] b) => (float y) { y = Gemm <transA = 1> (a, b) }", 3),
        ("float[p,q] a, float[4,3] b) => (float y) { y = Gemm <transB = 1> (a, b) }", 3),
        ("float[1,2,9] a, float[5,1,3] b) => (float y) { y = Conv <group = 2> (a, b) }", 3),
        ("float[1,2,9] a, float[2,5,3] b) => (float y) { y = ConvTranspose <group = 2> (a, b) }", 3),
        ("float[p,q] a, float[r,s] b) => (float y) { y = MatMul (a, b) }", None),
    ],
)
def test_the_terms_of_a_product(text, k):
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({text}')
    assert terms_of(next(iter(ir.read_model(model).graph))) == k


def test_a_layer_of_products_and_sums_takes_either(tmp_path):
    engine = engine_of(tmp_path, ATTENTION)
    feeds = {"q": normal(1, 2, 40, 8), "k": normal(1, 2, 8, 40, seed=1), "v": normal(1, 2, 40, 8, seed=2)}
    exact = engine.run(feeds)["y"]
    seen = []
    for name in ("acc16", "splitk2", "sum_sequential", "sum_acc16"):
        chosen = engine.assignment.with_tactics(
            {one.name: name for one in engine.layers if name in engine.candidates(one)}
        )
        assert chosen.layers
        streamed = engine.run(feeds, chosen, lambda _: None)["y"]
        made = engine.run(feeds, chosen)["y"]
        assert np.array_equal(made, streamed)
        assert np.abs(made - exact).max() < 0.02 * np.abs(exact).max()
        seen.append(not np.array_equal(made, exact))
    assert seen[0] and seen[3]  # FP16 sums are seen behind FP16 results


def test_tactics_compute_float32_alone(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (double[2,9] x, int32[2,9] i) => (double[2,2] y, int32[2,2] z, double[2] s) {
      t = Transpose (x)  y = MatMul (x, t)  u = Transpose (i)  z = MatMul (i, u)  s = ReduceMean <axes = [1], keepdims = 0> (x)
    }"""
    engine = engine_of(tmp_path, text)
    by_op = {layer.nodes[-1].outputs[0].name: layer for layer in engine.layers}
    assert engine.candidates(by_op["y"]) == engine.candidates(by_op["z"]) == engine.candidates(by_op["s"]) == ("exact",)
    assert "x is double" in (supports(by_op["y"], "fp16", "splitk2") or "")


@pytest.mark.parametrize("name", ["acc16", "splitk2", "winograd_f4", "winograd_f2"])
def test_special_values_pass_without_a_warning(tmp_path, name):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,8,12,12] x) => (float[1,4,12,12] y) { y = Conv <pads = [1,1,1,1]> (x, w, b) }"""
    engine = engine_of(tmp_path, text, w=normal(4, 8, 3, 3), b=np.array([0, np.inf, -np.inf, 1], np.float32))
    x = normal(1, 8, 12, 12)
    x[0, 0, 1, 1], x[0, 0, 9, 9] = np.inf, np.nan
    made = engine.run({"x": x}, engine.assignment.with_tactics({engine.layers[0].name: name}))["y"]
    assert np.isnan(made[0, :, 9, 9]).all() and not np.isfinite(made[0, 0, 1, 1])
    assert np.isfinite(made[0, 0, 1, 8:11]).all()  # other tiles
    assert np.isposinf(made[0, 1, 1, 8:11]).all() and np.isneginf(made[0, 2, 1, 8:11]).all()


def test_softmax_of_a_branch_is_refused(tmp_path):
    """Before opset 13 it sums over other axes, and a branch does not say which opset it is of."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,9] x, bool c) => (float[2,9] y) {
      y = If (c) <then_branch = t () => (float[2,9] a) { a = Softmax (x) }, else_branch = e () => (float[2,1] b) { b = ReduceSum (x, one) }>
    }"""
    engine = engine_of(tmp_path, text, one=np.array([1], np.int64))
    soft = next(layer for layer in engine.layers if layer.kind == "softmax")
    assert engine.candidates(soft) == ("exact",)
    assert "not known inside a branch" in (supports(soft, "fp16", "sum_pairwise") or "")
    other = next(layer for layer in engine.layers if layer.kind == "reduce")
    chosen = engine.assignment.with_tactics({other.name: "sum_acc16"})
    x = {"x": np.full((2, 9), 1000.0, np.float32)}
    assert engine.run({**x, "c": np.array(False)}, chosen)["y"].tolist() == [[9000.0]] * 2


def test_a_default_tactic_applies_where_it_can(tmp_path):
    """Layers that it does not concern run exactly; run and stream agree."""
    engine = engine_of(tmp_path, ATTENTION)
    feeds = {"q": normal(1, 2, 40, 8), "k": normal(1, 2, 8, 40, seed=1), "v": normal(1, 2, 40, 8, seed=2)}
    for name in ("splitk4", "sum_acc16"):
        default = Assignment(Choice("fp16", name))
        named = engine.assignment.with_tactics(
            {one.name: name for one in engine.layers if name in engine.candidates(one)}
        )
        assert np.array_equal(engine.run(feeds, default)["y"], engine.run(feeds, named)["y"])
        assert np.array_equal(engine.run(feeds, default)["y"], engine.run(feeds, default, lambda _: None)["y"])


def test_a_default_tactic_leaves_loops_alone(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,4] x, int64 n, bool c) => (float[2,4] y) {
      z = Relu (x)
      y = Loop (n, c, x) <body = b (int64 i, bool ci, float[2,4] s) => (bool co, float[2,4] so) { co = Identity (ci)  so = Add (s, z) }>
    }"""
    feeds = {"x": np.ones((2, 4), np.float32), "n": np.array(3), "c": np.array(True)}
    assert (engine_of(tmp_path, text).run(feeds, Assignment(Choice("fp16", "acc16")))["y"] == 4).all()


def test_a_default_tactic_of_a_layer_that_rounds_nothing_is_no_exact_run(tmp_path):
    """TF32 has nothing to round in a mean, so its plan is plain; the tactic counts all the same."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,4096] x) => (float[2,1] y) { y = ReduceMean <axes = [1]> (x) }"""
    engine = engine_of(tmp_path, text, precision="tf32")
    feeds, chosen = {"x": normal(2, 4096)}, Assignment(Choice("tf32", "sum_sequential"))
    assert np.array_equal(engine.run(feeds, chosen)["y"], engine.run(feeds, chosen, lambda _: None)["y"])
    assert not np.array_equal(engine.run(feeds, chosen)["y"], engine.run(feeds)["y"])
