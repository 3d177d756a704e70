"""The Python API: compile, call, run with an assignment, tap, evaluate a layer; and what it says when asked wrongly."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.errors import InputError
from probe.model import load
from tests.engine.test_arithmetic import feeds_of

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n,4] x) => (float[n,3] probabilities)
<float[4,3] w = {1.0, -1.0, 0.5, 0.3, 0.7, -0.2, 2.0, 0.1, -0.4, 0.6, 0.9, -1.1}, float[3] b = {0.1, 0.2, 0.3}>
{ scores = MatMul (x, w)  logits = Add (scores, b)  probabilities = Softmax (logits) }"""
X = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, -1.0, 3.0, 0.5]], np.float32)


@pytest.fixture
def engine(tmp_path):
    onnx.save(onnx.parser.parse_model(TEXT), tmp_path / "m.onnx")
    return compile_model(load(tmp_path / "m.onnx"), precision="fp16", fusion="none")


def test_call_run_and_tap(engine):
    outputs = engine({"x": X})
    assert list(outputs) == ["probabilities"] and outputs["probabilities"].shape == (2, 3)
    taps = []
    tapped = engine.run({"x": X}, tap=taps.append)
    assert np.array_equal(tapped["probabilities"], outputs["probabilities"])
    assert [t.name for t in taps] == ["scores", "logits", "probabilities"]
    assert [t.layer.name for t in taps] == [layer.name for layer in engine.layers]
    assert {str(t.choice) for t in taps} == {"fp16"}
    assert all(np.array_equal(t.array, t.array.astype(np.float16).astype(np.float32)) for t in taps)


def test_streaming_hands_out_one_tensor_at_a_time_and_returns_the_outputs(engine):
    running = engine.stream({"x": X})
    assert next(running).name == "scores"
    rest = []
    while True:
        try:
            rest.append(next(running).name)
        except StopIteration as done:
            assert np.array_equal(done.value["probabilities"], engine({"x": X})["probabilities"])
            break
    assert rest == ["logits", "probabilities"]


def test_shapes_are_dynamic(engine):
    for rows in (1, 5, 2):
        x = np.repeat(X[:1], rows, axis=0)
        assert engine({"x": x})["probabilities"].shape == (rows, 3)
        assert engine.run({"x": x}, tap=lambda _: None)["probabilities"].shape == (rows, 3)


def test_lists_are_inputs_too(engine):
    assert np.array_equal(engine({"x": X.tolist()})["probabilities"], engine({"x": X})["probabilities"])


def test_local_error_is_the_difference_of_two_evaluations(engine):
    golden = engine.run({"x": X}, Assignment(FP32))["probabilities"]
    layer = engine.layers[0]
    low = engine.evaluate(layer, {"x": X}, Choice("fp16"))["scores"]
    wide = engine.evaluate(layer, {"x": X}, FP32, read_as="fp16")["scores"]
    exact = engine.evaluate(layer, {"x": X}, FP32)["scores"]
    assert np.array_equal(low, wide.astype(np.float16).astype(np.float32))  # only the store rounds between the two
    assert not np.array_equal(wide, exact)  # 0.1 and 0.3 are no FP16 numbers
    assert engine.evaluate(layer.name, {"x": X}, FP32)["scores"].dtype == golden.dtype


def test_a_kept_weight_is_not_rounded(engine):
    one = engine.evaluate(engine.layers[0], {"x": X}, FP32, read_as="fp16", kept=frozenset({"w"}))["scores"]
    x16 = X.astype(np.float16).astype(np.float32)
    w = engine.layers[0].weights[0].const_value.numpy()
    assert np.allclose(one, x16 @ w, rtol=1e-6, atol=0)


def test_keep_names_tensors_layers_and_nodes(tmp_path):
    onnx.save(onnx.parser.parse_model(TEXT), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    tensor = compile_model(model, fusion="none", keep=["logits"]).assignment
    assert tensor.kept == {"logits"} and not tensor.layers
    node = compile_model(model, fusion="none", keep=["Add(logits)"]).assignment
    assert node.layers == {"Add(logits)": FP32} and not node.kept
    fused = compile_model(model, fusion="safe", keep=["Add(logits)"])
    assert list(fused.assignment.layers) == [fused.layer_of("logits").name]
    with pytest.raises(InputError, match="nothing to keep") as caught:
        compile_model(model, keep=["logit"])
    assert "'logits'" in caught.value.hint


def test_keeping_what_a_pass_removed(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) <float[2] one = {1.0, 1.0}, float[2] two = {2.0, 2.0}>
    { same = Identity (x)  three = Add (one, two)  root = Sqrt (same)  y = Mul (root, three) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    assert compile_model(model, keep=["same"]).assignment.kept == {"x"}
    assert compile_model(model, passes="none", keep=["same"]).assignment.kept == {"same"}


def test_keeping_what_was_computed_away_says_so(models):
    model = load(models / "models" / "ultraface_slim_320.onnx")
    engine = compile_model(model)
    folded = next(n for info in model.nodes if info.op == "Conv" for n in info.outputs if engine.fate(n)[0] == "folded")
    with pytest.raises(InputError, match="computed it away") as caught:
        compile_model(model, keep=[folded])
    assert "--passes none" in caught.value.hint


def test_what_became_of_a_tensor(models):
    engine = compile_model(load(models / "models" / "ultraface_slim_320.onnx"), passes="safe", fusion="safe")
    assert engine.fate("no such tensor") == ("unknown", "")
    fates = {
        v.name: engine.fate(v.name or "")
        for v in compile_model(engine.model, passes="none", fusion="none").layers[0].tensors
    }
    assert all(status in ("folded", "made") for status, _ in fates.values())
    statuses = {engine.fate(name)[0] for info in engine.model.nodes for name in info.outputs}
    assert statuses <= {"made", "interior", "folded", "equivalent", "unknown"}
    unknown = [
        n
        for info in engine.model.nodes
        if info.op != "Constant"
        for n in info.outputs
        if engine.fate(n)[0] == "unknown"
    ]
    assert not unknown


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"precision": "fp8"}, "unknown precision"),
        ({"precision": "fp64"}, "does not store"),
        ({"device": "tpu"}, "unknown device"),
        ({"passes": "most"}, "--passes most"),
        ({"fusion": "some"}, "--fusion some"),
        ({"interior": "fp16"}, "--interior fp16"),
    ],
)
def test_what_compile_refuses(tmp_path, how, says):
    onnx.save(onnx.parser.parse_model(TEXT), tmp_path / "m.onnx")
    with pytest.raises(InputError) as caught:
        compile_model(load(tmp_path / "m.onnx"), **how)
    assert says in caught.value.what


def test_what_run_refuses(engine):
    with pytest.raises(InputError, match="'x'"):
        engine({})
    with pytest.raises(InputError):
        engine({"x": np.ones((2, 5), np.float32)})
    with pytest.raises(InputError, match="not there"):
        engine.run({"x": X}, Assignment(FP32, {"nothing": FP32}))
    with pytest.raises(InputError, match="keeps a tensor that is not there: 'nope'"):
        engine.run({"x": X}, engine.assignment.keeping(tensors=["nope"]))
    with pytest.raises(InputError, match="no layer"):
        engine.layer("MatMul")
    with pytest.raises(InputError, match="no data for 'x'"):
        engine.evaluate(engine.layers[0], {}, FP32)


def test_a_layer_that_fails_is_named(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n] x, int64[2] shape) => (float[a,b] y) { h = Relu (x)  y = Reshape (h, shape) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), fusion="none")
    feeds = {"x": np.ones(5, np.float32), "shape": np.array([2, 3])}
    for tap in (None, lambda _: None):
        with pytest.raises(InputError) as caught:
            engine.run(feeds, tap=tap)
        assert "Reshape(y)" in f"{caught.value.what} {caught.value.where}"


def test_graph_outputs_that_no_layer_makes(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y, float[2] x, float[2] w) <float[2] w = {1.0, 2.0}> { y = Add (x, w) }"""
    model = onnx.parser.parse_model(text)
    onnx.save(model, tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"))
    x = np.array([0.1, 0.2], np.float32)
    for tap in (None, lambda _: None):
        got = engine.run({"x": x}, tap=tap)
        assert np.array_equal(got["x"], x) and got["w"].tolist() == [1.0, 2.0]


def test_fp32_agrees_with_the_stored_outputs(models, exports):
    for folder in (models, exports):
        for data in sorted((folder / "data").glob("*.npz")):
            name = data.stem.split("__")[0]
            engine = compile_model(load(folder / "models" / f"{name}.onnx"), precision="fp32")
            with np.load(data) as stored:
                got = engine({key[3:]: stored[key] for key in stored if key.startswith("in/")})
                for key in (key for key in stored if key.startswith("out/")):
                    golden, actual = stored[key].astype(np.float64), got[key[4:]].astype(np.float64)
                    assert actual.shape == golden.shape
                    assert np.abs(actual - golden).max(initial=0) <= 1e-3 * max(np.abs(golden).max(initial=0), 1e-30), (
                        data.stem,
                        key,
                    )


def test_the_gated_session_is_built_once_and_only_when_needed(engine):
    engine.run({"x": X}, tap=lambda _: None)
    assert engine.device.sessions_built == 0
    for keep in ([], ["logits"], ["scores"]):
        engine.run({"x": X}, engine.assignment.keeping(tensors=keep))
    assert engine.device.sessions_built == 1
    assert "gated session" in engine.device.seconds


def test_the_runner_records_what_the_engine_stores(models, tmp_path):
    import probe

    data = models / "data" / "mnist__main.npz"
    recording = probe.dump(models / "models" / "mnist.onnx", tmp_path / "low", inputs=data, runner="engine")
    engine = compile_model(load(models / "models" / "mnist.onnx"), precision="fp16")
    outputs = engine(feeds_of(models, "mnist"))
    assert np.array_equal(recording["Plus214_Output_0"], outputs["Plus214_Output_0"])
    rows = {row.name: row for row in recording.rows() if row.role != "input"}
    assert {row.precision for row in rows.values()} == {"fp16"}
    assert rows["Plus214_Output_0"].role == "output" and rows["Plus214_Output_0"].layer
    assert (
        recording.header.runner == "engine"
        and recording.header.precision == "fp16"
        and recording.header.passes == "safe"
    )


def test_silero_s_other_branch_is_listed_as_not_run(models, tmp_path):
    import probe

    recording = probe.dump(
        models / "models" / "silero_vad.onnx",
        tmp_path / "low",
        inputs=models / "data" / "silero_vad__main.npz",
        runner="engine",
    )
    statuses = {row.status for row in recording.rows()}
    assert statuses == {"recorded", "not_run"}
    assert all("did not run" in row.note for row in recording.rows() if row.status == "not_run")


# --- the other interior ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "name", "precision", "fusion"),
    [
        ("exports", "llama_gqa_mini", "fp16", "full"),
        ("exports", "convtasnet_cln", "bf16", "safe"),
        ("models", "silero_vad", "fp16", "full"),
        ("models", "gtcrn_simple", "tf32", "safe"),
    ],
)
def test_the_other_interior_is_what_compiling_for_it_gives(request, folder, name, precision, fusion):
    folder = request.getfixturevalue(folder)
    model, feeds = load(folder / "models" / f"{name}.onnx"), feeds_of(folder, name)
    engines = {
        interior: compile_model(model, precision=precision, fusion=fusion, interior=interior)
        for interior in ("storage", "fp32")
    }
    for here, there in (("storage", "fp32"), ("fp32", "storage")):
        other, compiled = engines[here].with_interior(there), engines[there]
        assert other.settings == compiled.settings
        assert engines[here].with_interior(here) is engines[here]
        tensors = [value.name for layer in compiled.layers for value in layer.tensors]
        for assignment in (
            compiled.assignment,
            compiled.assignment.keeping(tensors=tensors[::9], layers=[layer.name for layer in compiled.layers[::7]]),
        ):
            taps: dict[str, list[np.ndarray]] = {}
            for one in (other, compiled):
                for tapped in one.stream(feeds, assignment):
                    if tapped.array is not None:
                        taps.setdefault(tapped.name, []).append(tapped.array)
                taps["the gated session"] = [*taps.get("the gated session", []), *one.run(feeds, assignment).values()]
            outputs = taps.pop("the gated session")
            half = len(outputs) // 2
            pairs = [*taps.values(), *zip(outputs[:half], outputs[half:], strict=True)]
            assert all(np.array_equal(*pair, equal_nan=pair[0].dtype.kind == "f") for pair in pairs)
        for layer in compiled.layers[:: max(1, len(compiled.layers) // 20)]:
            assert other.fate(layer.tensors[0].name) == compiled.fate(layer.tensors[0].name)


def test_from_storage_to_fp32_nothing_is_built(exports):
    engine = compile_model(load(exports / "models" / "llama_gqa_mini.onnx"), fusion="safe")
    feeds = feeds_of(exports, "llama_gqa_mini")
    stored = engine(feeds)
    wide = engine.with_interior("fp32")
    apart = wide(feeds)
    assert wide.device is engine.device and engine.device.sessions_built == 1
    assert any(not np.array_equal(stored[name], apart[name]) for name in stored)
    assert all(np.array_equal(stored[name], again) for name, again in engine(feeds).items())
    back = wide.with_interior("storage")
    assert back.device.weights is engine.device.weights
    assert all(np.array_equal(stored[name], again) for name, again in back(feeds).items())


def test_a_layer_by_itself_with_the_other_interior(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) { square = Mul (x, x)  root = Sqrt (square)  y = Neg (root) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), fusion="safe")
    x = {"x": np.array([300.0, 2.0], np.float32)}
    (layer,) = engine.layers
    assert engine.evaluate(layer, x, Choice("fp16"))["y"].tolist() == [-np.inf, -2.0]
    assert engine.with_interior("fp32").evaluate(layer, x, Choice("fp16"))["y"].tolist() == [-300.0, -2.0]
