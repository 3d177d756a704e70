"""The units of real networks reach everything that is rounded, and nothing twice."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from probe.culprits.space import Space
from probe.culprits.suspicion import Suspicion
from probe.engine.assignment import FP32, Assignment
from probe.engine.engine import Engine
from probe.engine.layers import Layer
from probe.engine.network import bodies_of
from probe.engine.rounding import inner_nodes
from probe.errors import InputError
from tests.culprits.spaces import engine_of, members_of, parsed, recorded, runs_of, same, space_of
from tests.thorough import longest

NUMBERS = np.array([0.3, 1.2345678, 2.7654321, 3.3007], np.float32)
VECTOR = "float[4] x -> float[4] y"

# body, signature, weights -> members of each unit in model order
UNITS = {
    "a weight rides with what its only reader stores": (
        "a = Add(x, w) y = Exp(a)", VECTOR, "float w = {1.1}", [{"x"}, {"a", "w"}, {"y"}]),
    "a shared weight is a unit of its own": (
        "a = Add(x, w) y = Mul(a, w)", VECTOR, "float w = {1.1}", [{"x"}, {"w"}, {"a"}, {"y"}]),
    "a weight that rounding leaves alone is none": ("a = Add(x, w) y = Exp(a)", VECTOR, "float w = {0.5}", [{"x"}, {"a"}, {"y"}]),
    "a view is none, and a weight behind one rides": (
        "v = Transpose(w) a = MatMul(x, v) y = Exp(a)", "float[1,2] x -> float[1,2] y", "float[2,2] w = {1.1, 1.2, 1.3, 1.4}",
        [{"x"}, {"a", "w"}, {"y"}]),
    "an embedding rides with the first that computes on what was looked up": (
        "e = Gather(table, at) y = Exp(e)", "int64[2] at -> float[2] y", "float[3] table = {1.1, 1.2, 1.3}", [{"y", "table"}]),
    "what an exact operator hands on is one with it": ("a = Exp(x) b = Relu(a) y = Exp(b)", VECTOR, "", [{"x"}, {"a", "b"}, {"y"}]),
    "inputs of one Concat are kept as soon as one is": (
        "c = Concat<axis=0>(x, z) y = Exp(c)", "float[4] x, float[4] z -> float[8] y", "", [{"x", "z"}, {"y"}]),
    "unless one of them is read by others, too": (
        "c = Concat<axis=0>(x, z) y = Exp(c) u = Exp(x)", "float[4] x, float[4] z -> float[8] y, float[4] u", "",
        [{"x"}, {"z"}, {"y"}, {"u"}]),
    "what comes out of a sequence is rounded by who reads it": (
        "a = Exp(x) b = Neg(a) s = SequenceConstruct(a, b) v = SequenceAt(s, at) y = Exp(v)", VECTOR, "int64 at = {0}",
        [{"x"}, {"a", "b", "v"}, {"y"}]),
    "integers are none": (
        "f = Cast<to=1>(n) y = Mul(x, f)", "float[4] x, int64[4] n -> float[4] y", "", [{"f"}, {"x"}, {"y"}]),
}  # fmt: skip


@pytest.mark.parametrize("case", UNITS)
def test_units_of_a_small_network(tmp_path: Path, case: str) -> None:
    body, signature, weights, wanted = UNITS[case]
    engine = engine_of(parsed(body, signature, weights), tmp_path)
    space = space_of(engine)
    assert [set(unit.members) for unit in space.units] == wanted
    feeds = {"x": NUMBERS, "z": NUMBERS[::-1], "n": np.array([1, 2049, 4099, 70000]), "at": np.array([2, 1])}
    if signature.startswith("float[1,2]"):
        feeds["x"] = NUMBERS[None, :2]
    fed = {port.name: feeds[port.name] for port in engine.model.inputs}
    wide, low = engine.run(fed, Assignment(FP32)), engine.run(fed)
    assert same(runs_of(engine, fed, space, members_of(space)), wide)
    for unit in space.units:
        without = runs_of(engine, fed, space, members_of(space) - unit.members)
        assert not same(without, wide) or not same(runs_of(engine, fed, space, unit.members), low), "it changes nothing"


def test_units_have_scores_flags_and_names(tmp_path: Path) -> None:
    engine = engine_of(parsed("a = Add(x, w) b = Relu(a) y = Exp(b)", VECTOR, "float w = {1.1}"), tmp_path)
    space = space_of(engine, suspicion=Suspicion({"a": 3.0, "w": 4.0, "y": float("nan")}, frozenset({"w"})))
    assert [(unit.id, unit.score, unit.flagged) for unit in space.units] == [
        ("x", 0.0, False), ("a + b", 5.0, True), ("y", float("inf"), False),
    ]  # fmt: skip
    assert [(one.names, one.why) for one in space.merged] == [(("a", "b"), "Relu rounds alike before and after")]
    alone = space.singletons({"b", "w", "a"})
    assert [(unit.id, unit.members, unit.score, unit.flagged) for unit in alone] == [
        ("w", {"w"}, 0.0, False), ("a", {"a"}, 3.0, False), ("b", {"b"}, 0.0, False),
    ]  # fmt: skip
    assert [unit.members for unit in space.singletons({"b", "w"})] == [{"w"}, {"b"}]


def test_weights_and_constants_are_refined_by_themselves(tmp_path: Path) -> None:
    weights = "float w = {1.1}, float[4] v = {1.1, 2.2, 3.3, 4.4}"
    space = space_of(engine_of(parsed("a = Add(x, w) y = Mul(a, v)", VECTOR, weights), tmp_path))
    assert [unit.members for unit in space.singletons(members_of(space))] == [{"x"}, {"w"}, {"a"}, {"v"}, {"y"}]


def test_a_weight_that_a_body_reads_rides_with_what_is_made_of_it_there(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]> g (int64 n, float[2] x) => (float[2] y)
        <bool go = {1}, float w = {1.1}> {
            y = Loop (n, go, x) <body = b (int64 i, bool c, float[2] h) => (bool d, float[2] u)
                { d = Identity (c) t = Exp (h) v = Mul (t, w) u = Sqrt (v) }> }""")
    units = [set(unit.members) for unit in space_of(engine_of(model, tmp_path)).units]
    assert units == [{"x"}, {"v", "w"}, {"t"}, {"u"}, {"y"}]


def test_what_is_kept_already_is_no_unit(tmp_path: Path) -> None:
    engine = engine_of(parsed("a = Sqrt(x) b = Exp(a) y = Log(b)", VECTOR), tmp_path)
    already = engine.assignment.keeping(tensors=["a"], layers=["Log(y)"])
    space = space_of(engine, already=already)
    assert [set(unit.members) for unit in space.units] == [{"x"}, {"b"}]
    layers = space_of(engine, "layer", already=already)
    assert [unit.id for unit in layers.units] == ["Sqrt(a)", "Exp(b)"]


def test_what_a_kept_layer_makes_is_rounded_by_who_reads_it(tmp_path: Path) -> None:
    engine = engine_of(parsed("a = Exp(x) y = Log(a)", VECTOR), tmp_path)
    space = space_of(engine, already=engine.assignment.keeping(layers=["Exp(a)"]))
    assert [set(unit.members) for unit in space.units] == [{"a"}, {"y"}]


def test_an_unknown_granularity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown granularity 'node'"):
        space_of(engine_of(parsed("y = Exp(x)", VECTOR), tmp_path), "node")  # pyright: ignore[reportArgumentType]


# --- real models ---------------------------------------------------------------------------------------------------------------------

FAST = [
    ("models", "mnist", "fp16"), ("models", "dtln_1", "tf32"), ("models", "silero_vad", "bf16"),
    ("models", "ultraface_slim_320_qdq", "fp16"), ("exports", "scripted_loop_if", "fp16"),
    ("exports", "bert_mini", "fp16"), ("exports", "llama_gqa_mini", "tf32"), ("exports", "lstm_gru_tagger", "bf16"),
    ("exports", "nonzero_boxes", "fp16"), ("exports", "t5_encoder_mini", "bf16"),
]  # fmt: skip


def check_reach(folder: Path, name: str, precision: str) -> None:
    """Keeping everything is FP32, keeping nothing is all low, whatever the granularity."""
    engine = engine_of(folder / "models" / f"{name}.onnx", precision=precision)
    feeds, _ = recorded(folder, name)
    wide, low = engine.run(feeds, Assignment(FP32)), engine.run(feeds)
    assert not same(wide, low), "this input does not show rounding"
    tensors = {v.name for layer in engine.layers for v in (*layer.reads, *layer.weights, *layer.tensors)}
    tensors |= {name for layer in engine.layers for name in made_inside(layer)}
    for granularity in ("tensor", "layer", "block"):
        space = space_of(engine, granularity)
        members = members_of(space)
        assert members <= ({layer.name for layer in engine.layers} if space.by_layer else tensors)
        assert same(runs_of(engine, feeds, space, members), wide), granularity
        assert same(runs_of(engine, feeds, space, ()), low), granularity
        assert members == {one for unit in space.singletons(members) for one in unit.members}, granularity


def made_inside(layer: Layer) -> set[str]:
    """What the nodes of a layer and of its bodies make, and what bodies are given."""
    values = [value for node in inner_nodes(layer.nodes) for value in node.outputs]
    values += [value for node in inner_nodes(layer.nodes) for body in bodies_of(node).values() for value in body.inputs]
    return {value.name or "" for value in values}


@pytest.mark.parametrize(("folder", "name", "precision"), FAST)
def test_units_reach_everything(request: pytest.FixtureRequest, folder: str, name: str, precision: str) -> None:
    check_reach(request.getfixturevalue(folder), name, precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=longest), "bf16", "tf32"])
def test_units_of_every_model_reach_everything(models: Path, exports: Path, precision: str) -> None:
    for folder in (models, exports) if precision == "fp16" else (exports,):
        for path in sorted((folder / "models").glob("*.onnx")):
            check_reach(folder, path.stem, precision)


# --- known culprits ------------------------------------------------------------------------------------------------------------------

FRAGILE = [
    pytest.param("models", "dnsmos_sig_bak_ovr", marks=pytest.mark.slow), ("models", "magika_standard_v3_3"), ("exports", "bert_mini"), ("exports", "llama_gqa_mini"),
    ("exports", "t5_encoder_mini"), ("exports", "unet_attn_mini"), ("exports", "convtasnet_cln"),
]  # fmt: skip


def roots(engine: Engine, name: str, members: frozenset[str]) -> set[str]:
    """Members that a recorded tensor stands for: itself, or what it is a view of."""
    if name in members:
        return {name}
    layer = engine.layer_of(name)
    assert layer is not None, f"{name} is neither a member nor a view of one"
    assert layer.moves, f"{name} is neither a member nor a view of one"
    return {root for value in (*layer.reads, *layer.weights) for root in roots(engine, value.name or "", members)}


def worst(actual: dict[str, np.ndarray], golden: dict[str, np.ndarray]) -> float:
    """Largest max|actual - golden| / max|golden| over float outputs; Inf where something is not finite."""
    errors = [0.0]
    for name, wanted in golden.items():
        if wanted.dtype.kind == "f":
            error = float(np.abs(actual[name].astype(np.float64) - wanted).max() / np.abs(wanted).max())
            errors.append(error if np.isfinite(error) else np.inf)
    return max(errors)


@pytest.mark.parametrize(("folder", "name"), FRAGILE)
def test_known_culprits_are_units(request: pytest.FixtureRequest, folder: str, name: str) -> None:
    """The units of the recorded set pass, and so does the recorded set with the constants that serve it; nothing kept fails."""
    place: Path = request.getfixturevalue(folder)
    case = json.loads((place / "KNOWN_FRAGILE.json").read_text())[name]
    engine = engine_of(place / "models" / f"{name}.onnx")
    feeds, golden = recorded(place, name, case.get("tag") or case["on"])
    space = space_of(engine)
    members = members_of(space)
    wanted = {root for tensor in case["fp32_set_found"] for root in roots(engine, tensor, members)}
    assert len(wanted) <= len(case["fp32_set_found"])
    units = [unit for unit in space.units if unit.members & wanted]
    limit = case["tolerance_rel_max"]
    whole = frozenset().union(*(unit.members for unit in units))
    assert worst(runs_of(engine, feeds, space, whole), golden) <= limit
    alone = [unit.members for unit in space.singletons(whole) if unit.members & wanted]
    assert worst(runs_of(engine, feeds, space, frozenset().union(*alone)), golden) <= limit
    assert worst(runs_of(engine, feeds, space, ()), golden) > limit


# --- size ----------------------------------------------------------------------------------------------------------------------------


def deep(layers: int) -> onnx.ModelProto:
    """A residual network: product, scaling, activation, view, residual, over and over; one mask that all read."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [numpy_helper.from_array(np.array([4, 4]), "shape")], "x"
    for at in range(layers // 5):
        weights += [numpy_helper.from_array(rng.standard_normal((4, 4)).astype(np.float32), f"w{at}")]
        nodes += [
            helper.make_node("MatMul", [x, f"w{at}"], [f"a{at}"]), helper.make_node("Mul", [f"a{at}", "mask"], [f"b{at}"]),
            helper.make_node("Relu", [f"b{at}"], [f"c{at}"]), helper.make_node("Reshape", [f"c{at}", "shape"], [f"d{at}"]),
            helper.make_node("Add", [f"d{at}", x], [f"x{at}"]),
        ]  # fmt: skip
        x = f"x{at}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "mask", x)]
    graph = helper.make_graph(nodes, "deep", ports[:2], ports[2:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seconds_of(engine: Engine, granularity: str) -> tuple[Space, float]:
    begin = time.process_time()
    space = space_of(engine, granularity, objective="latency")  # pyright: ignore[reportArgumentType]
    return space, time.process_time() - begin


@pytest.mark.parametrize("granularity", ["tensor", "layer", "block"])
def test_a_thousand_layers_have_hundreds_of_units(tmp_path: Path, granularity: str) -> None:
    space, _ = seconds_of(engine_of(deep(1000), tmp_path), granularity)
    assert len(space.units) >= 200


def test_time_grows_with_size_and_not_its_square(tmp_path: Path) -> None:
    small, large = engine_of(deep(500), tmp_path), engine_of(deep(2000), tmp_path)
    few = min(seconds_of(small, "tensor")[1] for _ in range(3))
    many = min(seconds_of(large, "tensor")[1] for _ in range(3))
    assert many < 8 * few, (few, many)  # linear: 4, quadratic: 16
