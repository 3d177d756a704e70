"""A loaded engine is the engine that was saved: bits, layers, fates, assignment."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import probe
from probe import ir
from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.device import CpuDevice
from probe.engine.engine import Engine
from probe.engine.saved.identity import layers_sha256
from probe.engine.saved.load import load_engine, read_header
from probe.engine.saved.original import widened
from probe.errors import InputError
from probe.model import load
from probe.model.inputs import make_inputs
from probe.model.upcast import upcast
from probe.results.json import dumps
from tests.engine.saved.small import X
from tests.engine.test_arithmetic import feeds_of
from tests.model import builders

REAL = (
    ("models", "silero_vad"), ("models", "squeezenet_fp16"), ("models", "ultraface_slim_320_qdq"), ("models", "mnist"),
    ("models", "magika_standard_v3_3"), ("exports", "gpt2_mini"), ("exports", "bert_mini"), ("exports", "scripted_loop_if"),
    ("exports", "lstm_gru_tagger"), ("exports", "nonzero_boxes"),
)  # fmt: skip
OTHERWISE = {"passes": "all", "fusion": "full", "precision": "bf16", "interior": "fp32"}
MADE = (
    "mlp", "old_ir", "omitted_inputs", "sequence", "optional_input", "map_output", "strings", "local_function", "qdq", "if_else",
    "nested_if", "loop", "growing_loop", "if_in_loop", "loop_in_if", "scan", "half",
)  # fmt: skip


def reloaded(engine: Engine, folder: Path) -> Engine:
    engine.save(folder / "e.probe", overwrite=True)
    return load_engine(folder / "e.probe")


def assert_same_program(loaded: Engine, engine: Engine) -> None:
    assert layers_sha256(loaded.network, loaded.top_layers) == layers_sha256(engine.network, engine.top_layers)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in engine.layers]
    assert loaded.settings == engine.settings and loaded.assignment == engine.assignment
    assert loaded.report == engine.report and loaded.refusals == engine.refusals
    named = {value.name or "" for layer in engine.layers for value in (*layer.tensors, *layer.weights)}
    for name in named | set(engine.network.fates):
        assert loaded.fate(name) == engine.fate(name), name
    weights = {value.name: value.const_value for value in loaded.network.graph.initializers.values()}
    for value in engine.network.graph.initializers.values():
        there = weights[value.name]
        assert there is not None and value.const_value is not None
        assert _bytes(there) == _bytes(value.const_value), value.name
    assert loaded.model.sha256 == engine.model.sha256
    assert (loaded.model.inputs, loaded.model.outputs) == (engine.model.inputs, engine.model.outputs)
    assert [node.identity for node in loaded.model.nodes] == [node.identity for node in engine.model.nodes]


def _bytes(tensor: Any) -> Any:
    return ir.strings_of(tensor) if tensor.dtype == ir.DataType.STRING else tensor.tobytes()


def assert_same_bits(actual: dict[str, Any], golden: dict[str, Any]) -> None:
    assert list(actual) == list(golden)
    for name, array in golden.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape), name
        assert actual[name].tobytes() == array.tobytes() if array.dtype != object else (actual[name] == array).all(), (
            name
        )


def taps_of(engine: Engine, feeds: Any, assignment: Assignment | None = None) -> dict[str, Any]:
    taps: dict[str, Any] = {}
    engine.run(feeds, assignment, lambda one: taps.setdefault(f"{one.layer.name}: {one.name}", one.array))
    return {name: array for name, array in taps.items() if array is not None}


@pytest.mark.parametrize(
    ("where", "name", "options"), [*((*one, {}) for one in REAL), *((*one, OTHERWISE) for one in REAL[-4:])]
)
def test_real_networks(where: str, name: str, options: dict[str, Any], tmp_path: Path, request: Any) -> None:
    folder = request.getfixturevalue(where)
    engine = compile_model(load(folder / "models" / f"{name}.onnx"), **options)
    loaded, feeds = reloaded(engine, tmp_path), feeds_of(folder, name)
    assert_same_program(loaded, engine)
    assert_same_bits(loaded(feeds), engine(feeds))
    assert_same_bits(taps_of(loaded, feeds), taps_of(engine, feeds))


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("passes", ["none", "safe"])
def test_everything_a_graph_may_hold(name: str, passes: Any, tmp_path: Path) -> None:
    path = builders.save(getattr(builders, name)(), tmp_path / "m.onnx")
    engine = compile_model(load(path), passes=passes)
    loaded = reloaded(engine, tmp_path)
    assert_same_program(loaded, engine)
    if name in ("optional_input", "map_output"):
        return  # what made-up inputs cannot feed
    feeds, _ = make_inputs(engine.model, seed=3)
    assert_same_bits(loaded(feeds), engine(feeds))


def test_external_data_comes_along(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    engine = compile_model(load(builders.external(tmp_path / "away")))
    feeds, _ = make_inputs(engine.model, seed=3)
    golden = engine(feeds)
    engine.save(tmp_path / "e.probe")
    for file in (tmp_path / "away").iterdir():
        file.unlink()
    loaded = load_engine(tmp_path / "e.probe")
    assert_same_bits(loaded(feeds), golden)
    assert loaded.model.external_files == ((tmp_path / "e.probe").resolve(),)


def test_large_weights_of_any_storage(tmp_path: Path) -> None:
    """Four-bit integers, which numpy lacks, and floats in a field of their own instead of raw bytes; a constant inside a node."""
    rng = np.random.default_rng(3)
    packed = onnx.TensorProto(
        name="q",
        data_type=onnx.TensorProto.INT4,
        dims=[256, 128],
        raw_data=rng.integers(0, 256, 16384, np.uint8).tobytes(),
    )
    plain = onnx.TensorProto(name="p", data_type=onnx.TensorProto.FLOAT, dims=[256, 128])
    plain.float_data.extend(rng.standard_normal(256 * 128))
    inside = builders.weight("k", rng.standard_normal((256, 128)).astype(np.float32))
    nodes = [
        builders.node("DequantizeLinear", ["q", "s"], ["w"], "dq"),
        builders.node("Constant", [], ["k"], "constant", value=inside),
        builders.node("Add", ["w", "p"], ["v"], "sum"),
        builders.node("Mul", ["v", "x"], ["u"], "product"),
        builders.node("Add", ["u", "k"], ["y"], "last"),
    ]
    shape = (256, 128)
    model = builders.model(
        nodes, [builders.value("x", shape)], [builders.value("y", shape)],
        [packed, plain, builders.weight("s", np.float32(0.1))], opset=21, ir=10,
    )  # fmt: skip
    engine = compile_model(load(builders.save(model, tmp_path / "m.onnx")), passes="none")
    loaded, feeds = reloaded(engine, tmp_path), {"x": rng.standard_normal(shape, np.float32)}
    assert_same_program(loaded, engine)
    assert_same_bits(loaded(feeds), engine(feeds))
    with loaded.model.data(), engine.model.data():
        for old, new in zip(engine.model.proto.graph.initializer, loaded.model.proto.graph.initializer, strict=True):
            assert loaded.model.tensor(new).tobytes() == engine.model.tensor(old).tobytes(), new.name
    assert len([one for one in read_header(tmp_path / "e.probe").sections if one.name.startswith("weight/")]) == 3


def test_unnamed_outputs_at_the_end_stay(tmp_path: Path) -> None:
    """onnx-ir leaves them out of what it writes, in bodies too; passes count a node's outputs."""
    branch = builders.graph(
        [builders.node("Dropout", ["x"], ["inner", ""], "drop")], [], [builders.value("inner")], name="b"
    )
    nodes = [
        builders.node("Dropout", ["x"], ["h", ""], "outer"),
        builders.node("If", ["c"], ["z"], "if", then_branch=branch, else_branch=branch),
        builders.node("Add", ["h", "z"], ["y"], "sum"),
    ]
    inputs = [builders.value("x"), builders.value("c", (), builders.BOOL)]
    engine = compile_model(
        load(builders.save(builders.model(nodes, inputs, [builders.value("y")]), tmp_path / "m.onnx")), passes="none"
    )
    loaded = reloaded(engine, tmp_path)
    assert_same_program(loaded, engine)
    assert len(next(iter(loaded.network.graph)).outputs) == 2


def test_a_half_model_looks_as_its_upcast(tmp_path: Path) -> None:
    model = load(builders.save(builders.half(), tmp_path / "m.onnx"))
    wide, known = widened(model), upcast(model)
    assert (wide.inputs, wide.outputs, wide.sha256) == (known.inputs, known.outputs, known.sha256)
    assert widened(load(builders.save(builders.mlp(), tmp_path / "n.onnx"))).origin == ""


# --- one small network from here on


def test_any_assignment_runs_as_before(engine: Engine, tmp_path: Path) -> None:
    sums = next(layer.name for layer in engine.layers if "MatMul" in layer.name)
    engine.assignment = engine.assignment.with_tactics({sums: "acc16"}).keeping(tensors=["y"])
    loaded = reloaded(engine, tmp_path)
    assert loaded.assignment == engine.assignment and loaded.assignment.of(sums).tactic == "acc16"
    for assignment in (
        None,
        Assignment(FP32),
        Assignment(Choice("tf32")),
        Assignment(Choice("fp16"), {}, frozenset("b")),
    ):
        assert_same_bits(taps_of(loaded, X, assignment), taps_of(engine, X, assignment))
    for interior in ("fp32", "storage"):
        assert_same_bits(loaded.with_interior(interior)(X), engine.with_interior(interior)(X))


def test_an_engine_of_another_interior(engine: Engine, tmp_path: Path) -> None:
    wide = engine.with_interior("fp32")
    loaded = reloaded(wide, tmp_path)
    assert loaded.settings.interior == "fp32"
    assert_same_bits(taps_of(loaded, X), taps_of(wide, X))
    assert_same_bits(loaded.with_interior("storage")(X), engine(X))


def test_a_device_keeps_parts_of_its_own(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, bytes] = {}
    monkeypatch.setattr(CpuDevice, "saved_parts", lambda _: {"kernels": b"cubin" * 2000, "plan": b""}, raising=False)
    monkeypatch.setattr(
        CpuDevice, "take_parts", lambda _, parts: taken.update({n: bytes(p) for n, p in parts.items()}), raising=False
    )
    loaded = reloaded(engine, tmp_path)
    assert taken == {"kernels": b"cubin" * 2000, "plan": b""}
    assert_same_bits(loaded(X), engine(X))


def test_weights_are_stored_once_and_mapped(engine: Engine, tmp_path: Path) -> None:
    loaded = reloaded(engine, tmp_path)
    named = {one.name for one in read_header(tmp_path / "e.probe").sections if one.name.startswith("weight/")}
    held = {id(value.const_value) for value in loaded.network.graph.initializers.values()}
    assert (
        1 <= len(named) < len(held)
    )  # what the passes left alone is shared by model and network; small ones are in the graph
    large = [
        v.const_value
        for v in loaded.network.graph.initializers.values()
        if v.const_value and v.const_value.nbytes > 8192
    ]
    assert large and all(not tensor.numpy().flags.owndata and not tensor.numpy().flags.writeable for tensor in large)


def test_nothing_is_compiled_again(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.save(tmp_path / "e.probe")

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("compiled again")

    for name in ("run_passes", "group", "read_network", "complete_types"):
        for module in (
            "probe.engine.build",
            "probe.engine.network",
            "probe.engine.fusion.fuse",
            "probe.engine.device.cpu.types",
        ):
            monkeypatch.setattr(f"{module}.{name}", never, raising=False)
    assert_same_bits(load_engine(tmp_path / "e.probe")(X), engine(X))


def test_the_model_it_came_from_is_no_longer_needed_nor_is_its_place(engine: Engine, tmp_path: Path) -> None:
    engine.save(tmp_path / "e.probe")
    golden = engine(X)
    (tmp_path / "m.onnx").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "e.probe").rename(tmp_path / "elsewhere" / "with spaces ü.onnx")
    loaded = load_engine(tmp_path / "elsewhere" / "with spaces ü.onnx")
    assert_same_bits(loaded(X), golden)
    again = compile_model(loaded.model, keep=["d"])  # the model inside is a model as any
    assert_same_bits(again(X), golden)
    loaded.save(tmp_path / "again.probe")
    assert_same_bits(load_engine(tmp_path / "again.probe")(X), golden)


def test_a_loaded_engine_outlives_its_file(engine: Engine, tmp_path: Path) -> None:
    loaded = reloaded(engine, tmp_path)
    compile_model(engine.model, precision="bf16").save(tmp_path / "e.probe", overwrite=True)
    assert_same_bits(loaded(X), engine(X))
    (tmp_path / "e.probe").unlink()
    assert_same_bits(taps_of(loaded, X), taps_of(engine, X))


def test_from_python(engine: Engine, tmp_path: Path) -> None:
    engine.save(tmp_path / "e.probe")
    loaded = probe.compile(tmp_path / "e.probe")
    assert loaded.settings == engine.settings
    assert probe.compile(str(tmp_path / "e.probe"), keep=["y"]).assignment.kept == {"d", "y"}
    with pytest.raises(InputError, match="was built with --precision fp16, not bf16"):
        probe.compile(tmp_path / "e.probe", precision="bf16")
    with pytest.raises(InputError, match="--passes-limit is about building"):
        probe.compile(tmp_path / "e.probe", passes_limit=3)


def test_run_judges_it_as_it_judges_the_network(engine: Engine, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X["x"])
    engine.save(tmp_path / "e.probe")
    of_engine = probe.run(tmp_path / "e.probe", inputs=tmp_path / "x.npz", observe=True)
    of_model = probe.run(tmp_path / "m.onnx", inputs=tmp_path / "x.npz", keep=["^d$"], observe=True)
    assert of_engine.verdict == of_model.verdict == "passed"
    assert dumps(replace(of_engine, model="", seconds={}, golden=of_model.golden)) == dumps(
        replace(of_model, model="", seconds={})
    )
    assert of_engine.keep == ("d",) and of_engine.golden.noise_floor == of_model.golden.noise_floor


@pytest.mark.slow
@pytest.mark.parametrize("where", ["models", "exports"])
def test_every_real_network(where: str, tmp_path: Path, request: Any) -> None:
    folder = request.getfixturevalue(where)
    for path in sorted((folder / "models").glob("*.onnx")):
        options: Any = random.Random(path.name).choice([{}, OTHERWISE, {"passes": "none", "fusion": "none"}])
        engine = compile_model(load(path), **options)
        loaded, feeds = reloaded(engine, tmp_path), feeds_of(folder, path.stem)
        assert_same_program(loaded, engine)
        assert_same_bits(loaded(feeds), engine(feeds))
