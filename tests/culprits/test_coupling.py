"""Tensors that share a unit cannot differ: one kept without the others gives what there is with none kept, bit for bit."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.culprits.space import Space
from probe.engine.engine import Engine
from tests.culprits.spaces import Feeds, engine_of, parsed, recorded, runs_of, same, space_of
from tests.engine.emulator import Emulator

VECTOR = "float[4] x -> float[4] y"
TOGETHER = "reach their readers through the same views: keeping one keeps all"

# body, signature, weights -> the sets that share a unit
CASES = {
    "one reader that picks": ("a = Exp(x) b = Relu(a) y = Exp(b)", VECTOR, "", [("a", "b")]),
    "a chain of them": (
        "a = Exp(x) b = Neg(a) c = Abs(b) d = Relu(c) y = Exp(d)", VECTOR, "", [("a", "b", "c", "d")]),
    "a graph input": ("a = Neg(x) y = Exp(a)", VECTOR, "", [("x", "a")]),
    "an output that is made so": ("a = Exp(x) y = Relu(a)", VECTOR, "", [("a", "y")]),
    "through views": (
        "a = Exp(x) v = Reshape(a, s) w = Transpose(v) b = Relu(w) y = Exp(b)", "float[4] x -> float[2,2] y",
        "int64[2] s = {2, 2}", [("a", "b")]),
    "several at once": ("a = Exp(x) b = Sqrt(x) c = Max(a, b) y = Exp(c)", VECTOR, "", [("a", "b", "c")]),
    "several through a Concat": (
        "a = Exp(x) b = Sqrt(x) v = Concat<axis=0>(a, b) c = Relu(v) y = Exp(c)", "float[4] x -> float[8] y", "", [("a", "b", "c")]),
    "only those with no other reader": ("a = Exp(x) b = Sqrt(x) c = Max(a, b) y = Mul(c, b)", VECTOR, "", [("a", "c")]),
    "two readers that both pick": ("a = Exp(x) b = Relu(a) c = Neg(a) y = Mul(b, c)", VECTOR, "", [("a", "b", "c")]),
    "one that only looks at the shape": (
        "a = Exp(x) s = Shape(a) b = Relu(a) y = Expand(b, s)", VECTOR, "", [("a", "b")]),
    "a choice": ("a = Exp(x) b = Where(m, a, w) y = Exp(b)", "float[4] x, bool[4] m -> float[4] y", "float w = {1.1}", [("a", "b")]),
    "a constant that several read joins nobody": (
        "a = Exp(x) b = Max(a, w) c = Sqrt(b) d = Max(c, w) y = Exp(d)", VECTOR, "float w = {1.1}", [("a", "b"), ("c", "d")]),
    "a Cast that casts nothing": ("a = Exp(x) b = Cast<to=1>(a) y = Exp(b)", VECTOR, "", [("a", "b")]),
    "a pool": (
        "a = Exp(x) b = MaxPool<kernel_shape=[2,2]>(a) y = Exp(b)", "float[1,1,4,4] x -> float[1,1,3,3] y", "", [("a", "b")]),
    "not one that computes": ("a = Exp(x) b = Sqrt(a) y = Exp(b)", VECTOR, "", []),
    "not one that sees steps": ("a = Exp(x) b = Floor(a) y = Exp(b)", VECTOR, "", []),
    "not one that returns indices": (
        "a = Exp(x) b, i = TopK(a, k) y = Exp(b)", "float[4] x -> float[2] y, int64[2] i", "int64[1] k = {2}", []),
    "not what another computes on": ("a = Exp(x) b = Relu(a) y = Mul(a, b)", VECTOR, "", []),
    "not an output": ("a = Exp(x) b = Relu(a) y = Exp(b)", "float[4] x -> float[4] y, float[4] a", "", []),
    "not what is read as an integer": (
        "a = Exp(x) b = Relu(a) i = Cast<to=7>(a) y = Exp(b)", "float[4] x -> float[4] y, int64[4] i", "", []),
    "not what meets an unrounded tensor in a view": (
        "a = Exp(x) b = Relu(a) v = Concat<axis=0>(b, z) y = Exp(v)", "float[4] x, float[4] z -> float[8] y", "", []),
    "but where whoever reads the view rounds alike": (
        "a = Exp(x) b = Relu(a) v = Concat<axis=0>(b, z) c = Neg(v) y = Exp(c)", "float[4] x, float[4] z -> float[8] y", "",
        [("a", "b", "z", "c")]),
    "inputs of one view": (
        "v = Concat<axis=0>(x, z) y = Exp(v)", "float[4] x, float[4] z -> float[8] y", "", [("x", "z")]),
}  # fmt: skip


def merged_of(engine: Engine) -> list[tuple[str, ...]]:
    return [one.names for one in space_of(engine).merged]


@pytest.mark.parametrize("case", CASES)
def test_who_shares_a_unit(tmp_path: Path, case: str) -> None:
    body, signature, weights, wanted = CASES[case]
    assert merged_of(engine_of(parsed(body, signature, weights), tmp_path)) == wanted


@pytest.mark.parametrize(("limit", "wanted"), [(6.0, [("a", "b")]), (6.0001, [])])
def test_bounds_that_nobody_rounds_count_if_rounding_leaves_them_alone(tmp_path, limit, wanted):
    model = onnx.parser.parse_model(
        f'<ir_version: 5, opset_import: ["" : 9]> g (float[4] x) => (float[4] y)'
        f" {{ a = Exp(x) b = Clip<min=0.0, max={limit}>(a) y = Exp(b) }}"
    )
    assert merged_of(engine_of(model, tmp_path)) == wanted


BRANCHES = """<ir_version: 8, opset_import: ["" : 17]> g (bool c, float[4] x) => (float[4] y) {
    r = If (c) <then_branch = t () => (float[4] p) { p = Exp (x) }, else_branch = e () => (float[4] q) { q = Sqrt (x) }>
    b = OP (r)
    y = Exp (b) }"""
LOOP = """<ir_version: 8, opset_import: ["" : 17]> g (int64 n, float[4] x) => (float[4] last, float[k,4] y)
<bool go = {1}> {
    last, all = Loop (n, go, x) <body = b (int64 i, bool c, float[4] h) => (bool d, float[4] u, float[4] s)
        { d = Identity (c) u = Sqrt (h) w = Exp (h) s = Neg (w) }>
    y = Exp (all) }"""


def test_branches_that_one_reader_rounds_alike(tmp_path):
    assert merged_of(engine_of(onnx.parser.parse_model(BRANCHES.replace("OP", "Relu")), tmp_path)) == [("p", "q", "b")]
    assert merged_of(engine_of(onnx.parser.parse_model(BRANCHES.replace("OP", "Sqrt")), tmp_path)) == []


def test_what_a_loop_collects_is_handed_on_and_what_it_carries_is_not(tmp_path):
    engine = engine_of(onnx.parser.parse_model(LOOP), tmp_path)
    assert merged_of(engine) == [("w", "s", "all")]
    check(engine, {"n": np.array(3), "x": DATA["x"]}, space_of(engine))


# --- proofs --------------------------------------------------------------------------------------------------------------------------

DATA = {
    "x": np.array([0.3, 1.2345678, 7.654321, 300.7], np.float32),
    "z": np.array([-1.1, 0.1, 1e-6, 250.3], np.float32),
}


def check(engine: Engine, feeds: Feeds, space: Space, sets: int = 1_000_000) -> int:
    """Keep each member of each shared unit without the others; returns how many were tried.

    Each is nothing without the others, but where all of them reach their readers together: there each is as much as all.
    """
    low, tried = runs_of(engine, feeds, space, ()), 0
    for one in space.merged[:sets]:
        whole = runs_of(engine, feeds, space, one.names) if one.why == TOGETHER else low
        for name in one.names:
            alone = runs_of(engine, feeds, space, [name])
            assert same(alone, whole), (one, name)
            tried += 1
    return tried


UNARY = ["Relu", "Neg", "Abs", "Identity", "Sqrt", "Sigmoid", "Floor", "Round", "Sign", "Exp"]
BINARY = ["Max", "Min", "Add", "Mul"]


@st.composite
def graphs(draw: st.DrawFn) -> onnx.ModelProto:
    """Up to ten operators on vectors of four, exact and inexact, views among them; one to three of the tensors are outputs."""
    made, lines = ["x", "z"], []
    for at in range(draw(st.integers(2, 10))):
        one, other = (made[-1 - draw(st.integers(0, min(3, len(made) - 1)))] for _ in range(2))
        kind = draw(st.sampled_from(["unary", "unary", "binary", "view", "clip", "where", "both"]))
        name = f"t{at}"
        lines.append({
            "unary": f"{name} = {draw(st.sampled_from(UNARY))} ({one})",
            "binary": f"{name} = {draw(st.sampled_from(BINARY))} ({one}, {other})",
            "view": f"v{at} = Reshape ({one}, two) w{at} = Transpose (v{at}) {name} = Reshape (w{at}, four)",
            "clip": f"{name} = Clip ({one}, low, high)",
            "where": f"{name} = Where (m, {one}, {other})",
            "both": f"v{at} = Concat <axis = 0> ({one}, {other}) {name} = Slice (v{at}, start, stop)",
        }[kind])  # fmt: skip
        made.append(name)
    outputs = sorted({made[-1], *draw(st.lists(st.sampled_from(made[2:]), max_size=2))})
    weights = "int64[2] two = {2, 2}, int64[1] four = {4}, int64[1] start = {2}, int64[1] stop = {6}, float low = {0.1}, float high = {9.7}"
    ports = ", ".join(f"float[4] {name}" for name in outputs)
    return parsed("\n".join(lines), f"float[4] x, float[4] z, bool[4] m -> {ports}", weights)


@settings(max_examples=150)
@given(graphs())
def test_one_without_the_other_is_none_in_random_graphs(model: onnx.ModelProto) -> None:
    """In the engine, and in the emulator, which shares no code with it."""
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_of(model, Path(folder))
        space = space_of(engine)
        if not space.merged:
            return
        feeds = {**DATA, "m": np.array([True, False, True, False])}
        check(engine, feeds, space)
        emulator = Emulator(model)
        outputs = [value.name for value in model.graph.output]
        low = emulator.run(feeds, "fp16")
        for one in space.merged:
            whole = emulator.run(feeds, "fp16", kept=one.names) if one.why == TOGETHER else low
            for name in one.names:
                alone = emulator.run(feeds, "fp16", kept=[name])
                assert same({n: alone[n] for n in outputs}, {n: whole[n] for n in outputs}), (one, name)


def test_keeping_all_of_a_shared_unit_does_change_what_comes_out(tmp_path):
    """Else the property above would hold of anything."""
    for case in ("one reader that picks", "through views", "several at once", "inputs of one view"):
        body, signature, weights, _ = CASES[case]
        engine = engine_of(parsed(body, signature, weights), tmp_path)
        space = space_of(engine)
        feeds = {port.name: DATA[port.name] for port in engine.model.inputs}
        assert not same(runs_of(engine, feeds, space, space.merged[0].names), runs_of(engine, feeds, space, ())), case


@pytest.mark.parametrize(
    ("folder", "name", "precision", "least"),
    [
        ("models", "mnist", "fp16", 4),
        ("models", "osf_landmarks", "bf16", 12),
        ("models", "squeezenet_fp16", "fp16", 12),
        ("models", "squeezenet_fp16", "tf32", 12),
        ("models", "silero_vad", "fp16", 12),
        ("models", "magika_standard_v3_3", "bf16", 8),
        ("models", "ultraface_slim_320", "fp16", 12),
        ("exports", "t5_encoder_mini", "fp16", 12),
        ("exports", "scripted_loop_if", "bf16", 4),
        ("exports", "nonzero_boxes", "fp16", 6),
    ],
)
def test_one_without_the_other_is_none_in_real_models(request, folder, name, precision, least):
    place = request.getfixturevalue(folder)
    engine = engine_of(place / "models" / f"{name}.onnx", precision=precision)
    space = space_of(engine)
    some = list(space.merged)
    random.Random(name).shuffle(some)
    sampled = Space("tensor", space.units, merged=tuple(some[:6]))
    assert check(engine, recorded(place, name)[0], sampled) >= least
