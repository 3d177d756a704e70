"""The engine computes what the contract says: ``y = R(f(R(x), R(w)))``, each tensor rounded once, kept tensors never."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.model import load
from tests.engine.emulator import Emulator

MODELS = ("mnist", "dtln_1", "gtcrn_simple", "occ_image_classifier32", "ultraface_slim_320", "osf_landmarks")
EXPORTS = ("convtasnet_cln", "unet_attn_mini", "gpt2_mini", "llama_gqa_mini")


def prepared(path: Path, folder: Path) -> Path:
    """With Constant nodes as initialisers: the engine takes them so, and the emulator then needs no case for them."""
    model = onnx.load(path)
    rest = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            rest.append(node)
    del model.graph.node[:]
    model.graph.node.extend(rest)
    onnx.save(model, folder / path.name)
    return folder / path.name


def feeds_of(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(min((folder / "data").glob(f"{name}__*.npz"))) as stored:
        return {key[3:]: stored[key] for key in stored if key.startswith("in/")}


def check(folder: Path, name: str, tmp_path: Path, precision: str, assignments: int = 4) -> None:
    path = prepared(folder / "models" / f"{name}.onnx", tmp_path)
    feeds = feeds_of(folder, name)
    emulator = Emulator(onnx.load(path))
    engine = compile_model(load(path), precision=precision, passes="none", fusion="none")
    rng = random.Random(f"{name} {precision}")
    tensors = sorted({v.name for layer in engine.layers for v in (*layer.reads, *layer.weights, *layer.tensors)})
    nodes = sorted(identity for layer in engine.layers for identity in layer.origin)
    for attempt in range(assignments):
        wide = rng.sample(nodes, len(nodes) // 4) if attempt else []
        kept = rng.sample(tensors, len(tensors) // 4) if attempt > 1 else []
        assignment = engine.assignment.keeping(layers=[n for n in wide if not engine.layer(n).moves], tensors=kept)
        wanted = emulator.run(feeds, precision, fp32_nodes=wide, kept=frozenset(kept))
        got: dict[str, np.ndarray] = {}
        engine.run(feeds, assignment, tap=lambda t, got=got: got.update({t.name: t.array}))
        assert got
        for tensor, array in got.items():
            golden = wanted[tensor]
            same = np.array_equal(array, golden, equal_nan=array.dtype.kind == "f")
            assert same, (attempt, tensor, engine.layer_of(tensor), np.abs(array - golden).max())


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("name", MODELS)
def test_models_bit_for_bit(models, tmp_path, name, precision):
    if precision == "bf16" and name in ("mnist", "dtln_1"):
        pytest.skip("before opset 13 bfloat16 is emulated by splitting, which below 1e-30 keeps other bits")
    check(models, name, tmp_path, precision, 3)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("name", EXPORTS)
def test_exports_bit_for_bit(exports, tmp_path, name, precision):
    check(exports, name, tmp_path, precision)


# --- one rule at a time ----------------------------------------------------------------------------------------------

HUGE = np.float32(300.0)  # squares to 90000: beyond FP16


def engine_of(tmp_path: Path, text: str, precision: str = "fp16", **how):
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return compile_model(load(path), precision=precision, **{"passes": "none", "fusion": "none", **how})


SQUARE_ROOT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y) { square = Mul (x, x)  y = Sqrt (square) }"""


def test_an_overflow_is_stored_as_inf(tmp_path):
    engine = engine_of(tmp_path, SQUARE_ROOT)
    assert engine({"x": [HUGE, 2.0]})["y"].tolist() == [np.inf, 2.0]


def test_a_kept_tensor_cures_it_and_keeping_its_producer_does_not(tmp_path):
    engine = engine_of(tmp_path, SQUARE_ROOT)
    x = {"x": np.array([HUGE, 2.0], np.float32)}
    assert engine.run(x, engine.assignment.keeping(tensors=["square"]))["y"].tolist() == [300.0, 2.0]
    assert engine.run(x, engine.assignment.keeping(layers=["Mul(square)"]))["y"].tolist() == [np.inf, 2.0]
    both = engine.assignment.keeping(layers=["Mul(square)", "Sqrt(y)"])
    assert engine.run(x, both)["y"].tolist() == [300.0, 2.0]


def test_a_view_of_a_kept_tensor_is_kept(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[1,2] y) <int64[2] shape = {1, 2}>
    { square = Mul (x, x)  view = Reshape (square, shape)  y = Sqrt (view) }"""
    engine = engine_of(tmp_path, text)
    got = engine.run({"x": np.array([HUGE, 2.0], np.float32)}, engine.assignment.keeping(tensors=["square"]))
    assert got["y"].tolist() == [[300.0, 2.0]]


def test_interior_fp32_rounds_only_what_leaves_a_fused_layer(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) { square = Mul (x, x)  root = Sqrt (square)  y = Neg (root) }"""
    x = {"x": np.array([HUGE, 2.0], np.float32)}
    stored = engine_of(tmp_path, text, fusion="safe")
    wide = engine_of(tmp_path, text, fusion="safe", interior="fp32")
    assert len(stored.layers) == len(wide.layers) == 1, [layer.name for layer in stored.layers]
    assert stored(x)["y"].tolist() == [-np.inf, -2.0]
    assert wide(x)["y"].tolist() == [-300.0, -2.0]
    assert stored.fate("square") == ("made", stored.layers[0].name)
    assert wide.fate("square") == ("interior", wide.layers[0].name)


def test_tf32_rounds_what_products_read_and_no_mask_overflows(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,2] x) => (float[1,1] y, float[1,2] z) <float[2,1] w = {1.0, 1.0}>
    { y = MatMul (x, w)  z = Add (x, x) }"""
    engine = engine_of(tmp_path, text, "tf32")
    x = np.array([[1.0 + 2.0**-12, 0.0]], np.float32)
    assert engine({"x": x})["y"].item() == 1.0
    assert np.array_equal(engine({"x": x})["z"], x + x)
    mask = np.array([[np.finfo(np.float32).min, 0.0]], np.float32)
    assert np.isfinite(engine({"x": mask})["y"]).all()


def test_shapes_indices_and_integers_are_never_rounded(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (int64[2] n, float[1,1,3] x) => (int64[2] m, float[1,1,k] y) <float[3] scales = {1.0, 1.0, 1.3335}, int64 one = {1}>
    { m = Add (n, one)  y = Resize <mode = "linear"> (x, , scales) }"""
    engine = engine_of(tmp_path, text, "bf16")
    got = engine({"n": np.array([100_001, 2]), "x": np.ones((1, 1, 3), np.float32)})
    assert got["m"].tolist() == [100_002, 3]
    assert got["y"].shape == (1, 1, 4)  # 1.3335 in BF16 is 1.336


def test_an_assignment_of_single_layers(tmp_path):
    engine = engine_of(tmp_path, SQUARE_ROOT)
    x = {"x": np.array([HUGE, 2.0], np.float32)}
    low = Assignment(Choice("fp32"), {"Sqrt(y)": Choice("fp16")})
    assert engine.run(x, low)["y"].tolist() == [np.inf, 2.0]  # rounded where it is read
    assert engine.run(x, Assignment(Choice("fp32")))["y"].tolist() == [300.0, 2.0]


def test_what_a_loop_takes_from_a_sequence_is_rounded(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1] x) => (float[2,1] y) <int64 two = {2}, bool yes = {1}, float three = {3.0}>
    { s = SequenceConstruct (x, x)
      y = Loop (two, yes) <body = b (int64 i, bool c) => (bool d, float[1] p)
        { d = Identity (c)  e = SequenceAt (s, i)  p = Mul (e, three) }> }"""
    engine = engine_of(tmp_path, text)
    x = np.array([0.1], np.float32)
    for tap in (None, lambda _: None):
        assert engine.run({"x": x}, tap=tap)["y"].tolist() == [[float(np.float16(3 * np.float16(x[0])))]] * 2


DESTROYED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x) => (float[2] y, float[2] z) <float tiny = {1e-12}, float[2] huge = {1000000.0, 1.0}, float third = {0.33333334}>
{ a = Max (x, tiny)  y = Log (a)  b = Mul (x, huge)  c = Mul (b, third)  z = Div (c, huge) }"""


@pytest.mark.parametrize(
    ("kept", "wide"),
    [
        ((), set()),
        (("a",), {"tiny"}),  # stored
        (("x",), {"tiny", "Mul(b)"}),  # read
        (("b",), {"Mul(b)"}),
        (("c",), {"Div(z)"}),
        (("c", "z"), {"Div(z)"}),
        (("y",), set()),
    ],
)
def test_a_constant_that_rounding_destroys_stays_where_a_node_runs_in_fp32(tmp_path, kept, wide):
    engine = engine_of(tmp_path, DESTROYED)
    x = np.array([0.0, 3.0], np.float32)
    plans = engine.rounding.plan(engine.assignment.keeping(tensors=kept))

    def gate(layer: str, weight: str) -> bool:
        sites = engine.rounding.sites(engine.layer(layer), "fp16").gates
        (at,) = [at for at, (_, value) in enumerate(sites) if value.name == weight]
        return plans[layer].gates[at]

    assert gate("Max(a)", "tiny") == ("tiny" not in wide)
    assert gate("Mul(b)", "huge") == ("Mul(b)" not in wide)
    assert gate("Div(z)", "huge") == ("Div(z)" not in wide)
    assert gate("Mul(c)", "third")  # it loses digits, as any number does
    got = engine.run({"x": x}, engine.assignment.keeping(tensors=kept))
    expected = np.log(np.float32(1e-12)) if "a" in kept else -np.inf  # elsewhere it is lost as it is stored
    assert got["y"][0] == pytest.approx(expected, rel=1e-3)


def test_a_kept_layer_or_constant_needs_no_such_rule(tmp_path):
    engine = engine_of(tmp_path, DESTROYED)
    x = {"x": np.array([0.0, 3.0], np.float32)}
    for kept in ({"layers": ["Max(a)"]}, {"tensors": ["tiny"]}):
        plan = engine.rounding.plan(engine.assignment.keeping(**kept))["Max(a)"]
        assert (
            plan.form == "wide"
            or not plan.gates[
                [k for k, _ in engine.rounding.sites(engine.layer("Max(a)"), "fp16").gates].index("weight")
            ]
        )
    assert engine.run(x, engine.assignment.keeping(tensors=["a"]))["y"][0] == pytest.approx(np.log(1e-12), rel=1e-3)


@pytest.mark.parametrize(
    ("precision", "rounded"), [("fp16", np.float32(np.float16(0.1))), ("bf16", np.float32(0.10009765625))]
)
def test_what_pad_puts_around_by_an_attribute_is_rounded_by_its_reader(tmp_path, precision, rounded):
    text = """<ir_version: 8, opset_import: ["" : 10]>
    g (float[2] x) => (float[3] y) { a = Relu (x)  b = Pad <pads = [0, 1], value = 0.1> (a)  y = Neg (b) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision=precision, passes="none", fusion="none")
    assert engine({"x": np.ones(2, np.float32)})["y"].tolist() == [-1.0, -1.0, -rounded]


@pytest.mark.xfail(
    strict=True,
    reason="a view inside a fused layer is rounded whatever it shows: find keeps both, --keep must name both",
)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_a_view_of_a_kept_tensor_is_kept_inside_a_layer_too(tmp_path, precision):
    """Keys, kept, are transposed by the layer that computes attention."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,2,8,16] q, float[1,2,8,16] f, float[1,2,8,16] v) => (float[1,2,8,16] y) {
        keys = Mul (f, f)
        turned = Transpose <perm = [0, 1, 3, 2]> (keys)
        scores = MatMul (q, turned)
        weights = Softmax <axis = -1> (scores)
        y = MatMul (weights, v)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision=precision, passes="none")
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal((1, 2, 8, 16)).astype(np.float32) for name in "qfv"}
    alone, both = (
        engine.run(feeds, engine.assignment.keeping(tensors=names)) for names in (["keys"], ["keys", "turned"])
    )
    np.testing.assert_array_equal(alone["y"], both["y"])
