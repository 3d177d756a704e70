"""Layers that ONNX Runtime has no kernel for: on onnx's reference implementation, rounded as any layer, and listed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.fallback import lacks_kernel
from probe.errors import InputError
from probe.model import load
from probe.precision import round_to

# ONNX Runtime has RoiAlign up to opset 21.
POOLED = """<ir_version: 8, opset_import: ["" : 22]>
g (float[1,2,6,6] x, float[n,4] rois, int64[n] item) => (float[n,2,2,2] y)
<float[1,2,1,1] w = {0.3, -1.7}>
{ a = Mul (x, w)  r = RoiAlign <output_height = 2, output_width = 2, sampling_ratio = 2> (a, rois, item)  y = Exp (r) }"""


def pooled_feeds():
    random = np.random.default_rng(0)
    rois = np.array([[0.0, 0.0, 3.0, 3.0], [1.0, 1.0, 5.0, 4.0]], np.float32)
    return {"x": random.standard_normal((1, 2, 6, 6), np.float32), "rois": rois, "item": np.zeros(2, np.int64)}


def compiled(tmp_path, model, **options):
    onnx.save(onnx.parser.parse_model(model) if isinstance(model, str) else model, tmp_path / "m.onnx")
    return compile_model(load(tmp_path / "m.onnx"), passes="none", fusion="none", **options)


def streamed(engine, feeds, assignment=None):
    taps = {}
    outputs = engine.run(feeds, assignment, tap=lambda one: taps.setdefault(one.name, one.array))
    return outputs, taps


def test_it_is_listed_with_operator_and_reason(tmp_path):
    (found,) = compiled(tmp_path, POOLED, precision="fp32").fallbacks
    assert (found.layer, found.op) == ("RoiAlign(r)", "RoiAlign")
    assert "no kernel for RoiAlign (since opset 22)" in found.reason


def test_nothing_is_listed_where_there_are_kernels(tmp_path):
    engine = compiled(tmp_path, POOLED.replace('"" : 22', '"" : 16'), precision="fp16")
    assert engine.fallbacks == ()


def test_fp32_is_what_the_reference_computes(tmp_path):
    engine = compiled(tmp_path, POOLED, precision="fp32")
    (expected,) = ReferenceEvaluator(onnx.parser.parse_model(POOLED)).run(None, pooled_feeds())
    for outputs in (engine.run(pooled_feeds()), streamed(engine, pooled_feeds())[0]):
        assert outputs["y"].dtype == np.float32
        np.testing.assert_allclose(outputs["y"], np.asarray(expected), rtol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_it_rounds_as_any_layer(tmp_path, precision):
    """Against ONNX Runtime's kernel of opset 16, the same function, in the same engine."""
    feeds = pooled_feeds()
    lacking, having = (
        compiled(tmp_path, POOLED.replace('"" : 22', f'"" : {opset}'), precision=precision) for opset in (22, 16)
    )
    _, taps = streamed(lacking, feeds)
    _, expected = streamed(having, feeds)
    assert lacking.fallbacks and not having.fallbacks
    for name, array in taps.items():
        assert np.array_equal(array, round_to(array, precision)), f"{name} is not stored in {precision}"
        spacing = 2.0 ** (-10 if precision == "fp16" else -7)
        np.testing.assert_allclose(
            array, expected[name], rtol=spacing, atol=1e-6, err_msg=name
        )  # one unit in the last place


def test_kept_tensors_stay_wide(tmp_path):
    engine = compiled(tmp_path, POOLED, precision="fp16")
    kept = engine.assignment.keeping(tensors=["r"])
    _, taps = streamed(engine, pooled_feeds(), kept)
    assert not np.array_equal(taps["r"], round_to(taps["r"], "fp16"))
    _, lifted = streamed(engine, pooled_feeds(), Assignment(Choice("fp16"), {"RoiAlign(r)": FP32}))
    assert np.array_equal(taps["a"], lifted["a"]) and np.array_equal(lifted["r"], taps["r"])


def test_run_stream_and_evaluate_agree(tmp_path):
    engine = compiled(tmp_path, POOLED, precision="fp16")
    feeds = pooled_feeds()
    outputs, taps = streamed(engine, feeds)
    assert outputs["y"].tobytes() == engine.run(feeds)["y"].tobytes()
    alone = engine.evaluate("RoiAlign(r)", {**feeds, "a": taps["a"]}, Choice("fp16"))
    assert alone["r"].tobytes() == taps["r"].tobytes()


def test_results_outlive_the_engine(tmp_path):
    outputs, taps = streamed(compiled(tmp_path, POOLED, precision="fp16"), pooled_feeds())
    copies = {name: array.copy() for name, array in taps.items()}
    _ = [np.full(10_000, 7.0) for _ in range(50)]  # whatever was freed is written over
    assert all(np.array_equal(copies[name], array) for name, array in taps.items()) and outputs["y"].size == 16


def test_a_weight_too_large_to_be_written_into_the_graph(tmp_path):
    text = POOLED.replace(
        "float[1,2,1,1] w = {0.3, -1.7}", "float[1,2,1,1] w = {0.3, -1.7}, float[2,4] boxes = {0,0,3,3, 1,1,5,4}"
    )
    model = onnx.parser.parse_model(text.replace("(a, rois, item)", "(a, many, item)").replace("float[n,4] rois, ", ""))
    rois = np.repeat(pooled_feeds()["rois"], 200, axis=0)
    model.graph.initializer.append(onnx.numpy_helper.from_array(rois, "many"))
    feeds = {"x": pooled_feeds()["x"], "item": np.zeros(400, np.int64)}
    outputs = compiled(tmp_path, model, precision="fp32").run(feeds)
    expected = compiled(tmp_path, POOLED, precision="fp32").run(pooled_feeds())
    np.testing.assert_array_equal(outputs["y"][[0, 399]], expected["y"])


LOOP = """<ir_version: 8, opset_import: ["" : 17]> g (uint16[1] n0, float[2] x) => (uint16[1] n_end, float[2] y)
<int64 times = {3}, uint16[1] one = {1}>
{ n_end, y = Loop <body = b (int64 i, bool go, uint16[1] n, float[2] v) => (bool on, uint16[1] m, float[2] w)
  { on = Identity (go)  m = BitShift <direction = "LEFT"> (n, one)  w = Add (v, v) }> (times, , n0, x) }"""


def test_a_loop_is_not_run_on_the_reference(tmp_path):
    """There a loop without a condition does nothing: y would be x."""
    engine = compiled(tmp_path, LOOP, precision="fp16")  # no kernel of BitShift shifts 16 bits
    with pytest.raises(InputError, match=r"BitShift.*does not run loops") as caught:
        engine.run({"n0": np.array([5], np.uint16), "x": np.array([0.3, -2.7], np.float32)})
    assert "Loop(n_end)" in caught.value.where


def test_a_tactic_runs_the_product_in_numpy_and_the_rest_on_the_reference(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,32] x, uint16[2] n) => (float[2,3] y, uint16[2] m)
              { m = Max (n, n)  y = MatMul (x, w) }"""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(random.standard_normal((32, 3), np.float32), "w"))
    engine = compiled(tmp_path, model, precision="fp16")
    feeds = {"x": random.standard_normal((2, 32), np.float32), "n": np.array([1, 9], np.uint16)}
    outputs = engine.run(feeds, engine.assignment.with_tactics({"MatMul(y)": "acc16"}))
    assert outputs["m"].tolist() == [1, 9] and not np.array_equal(outputs["y"], engine.run(feeds)["y"])


def test_no_reference_either_is_an_error_with_both_reasons(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17, "my.domain" : 1]> g (float[2] x) => (float[2] y)
              { a = Abs (x)  y = my.domain.Foo (a) }"""
    engine = compiled(tmp_path, text, precision="fp16")
    for run in (engine.run, lambda feeds: streamed(engine, feeds)):
        with pytest.raises(InputError, match=r"does not know the operator my\.domain:Foo") as caught:
            run({"x": np.ones(2, np.float32)})
        assert "reference implementation does not either" in caught.value.what and "'Foo'" in caught.value.what
        assert "Foo(y)" in caught.value.where and "--custom-op-lib" in caught.value.hint
    (found,) = engine.fallbacks
    assert (found.layer, found.op, found.by, found.reason) == ("Foo(y)", "Foo", "nothing", caught.value.what)


def test_what_fails_on_the_reference_is_an_error_that_names_the_layer(tmp_path):
    """Item 3 of a batch of one."""
    engine = compiled(tmp_path, POOLED, precision="fp32")
    with pytest.raises(InputError, match=r"reference implementation cannot run layer RoiAlign\(r\)"):
        engine.run(pooled_feeds() | {"item": np.array([0, 3])})


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        (
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Max(13) node with name ''",
            True,
        ),
        ("[ONNXRuntimeError] : 1 : FAIL : Fatal error: my.domain:Foo(-1) is not a registered function/op", True),
        ("Exception during initialization: Batchwise recurrent operations (layout == 1) are not supported", True),
        ("Error Unrecognized attribute: left_window_size for operator Attention", True),
        ("Opset 28 is under development and support for this is limited. ... till opset 26", False),
        ("Failed to allocate memory for requested buffer of size 1024", False),
        ("This is an invalid model. Model input (a) does not have type information.", False),
    ],
)
def test_which_refusals_are_a_lack_of_a_kernel(text, lacking):
    assert lacks_kernel(RuntimeError(text)) is lacking


def test_a_graph_of_ours_that_is_refused_is_no_fallback(tmp_path, monkeypatch):
    """A cast that ONNX Runtime does not have would be a fault of the compiler, not a missing kernel of the layer."""
    from probe.engine.device.cpu import emit

    def broken(name, target, element, precision, opset, fresh):
        return [
            helper.make_node("Cast", [name], [fresh()], to=element, nonsense=1),
            helper.make_node("Identity", [name], [target]),
        ]

    monkeypatch.setattr(emit, "rounding_nodes", broken)
    engine = compiled(tmp_path, POOLED.replace('"" : 22', '"" : 16'), precision="fp16")
    with pytest.raises(InputError, match="nonsense"):
        streamed(engine, pooled_feeds())
