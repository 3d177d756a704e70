"""Runs that begin where an assignment begins to differ give the same bits as whole runs, and run no more than they must."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu import device, segments
from probe.engine.device.cpu.gated import GatedExecutor
from probe.engine.engine import Engine
from probe.model import load
from tests.engine.test_arithmetic import feeds_of
from tests.engine.test_executors import same

CASES = [
    ("models", "dtln_1", "fp16", "safe", "storage"),
    ("models", "gtcrn_simple", "bf16", "none", "storage"),
    ("models", "magika_standard_v3_3", "fp16", "full", "storage"),
    ("models", "mnist", "bf16", "none", "storage"),
    ("exports", "llama_gqa_mini", "fp16", "safe", "fp32"),
    ("exports", "convtasnet_cln", "tf32", "safe", "storage"),
    ("exports", "scripted_loop_if", "bf16", "safe", "storage"),
    ("exports", "lstm_gru_tagger", "fp16", "none", "storage"),
]


@pytest.fixture
def anywhere(monkeypatch):
    """Cuts as if networks took long, and each layer as long as any other."""
    monkeypatch.setattr(segments, "SHORTEST", 1e-6)
    measured = segments.measure_layers
    monkeypatch.setattr(
        device, "measure_layers", lambda *given: [replace(one, seconds=1.0) for one in measured(*given)]
    )


@pytest.fixture
def ran(monkeypatch) -> list[GatedExecutor]:
    """The sessions that were run, in order."""
    runs: list[GatedExecutor] = []
    plain = GatedExecutor.run
    monkeypatch.setattr(GatedExecutor, "run", lambda self, *args: (runs.append(self), plain(self, *args))[1])
    return runs


def chain(tmp_path: Path, links: int = 12, size: int = 64, **how) -> tuple[Engine, dict[str, np.ndarray]]:
    """x -> a0 -> a1 -> ... -> y: products with constants, then a sum of two far apart."""
    nodes = "\n".join(f"a{i} = MatMul ({f'a{i - 1}' if i else 'x'}, w)" for i in range(links))
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[{size},{size}] x) => (float[{size},{size}] y) <float[{size},{size}] w> {{ {nodes} y = Add (a0, a{links - 1}) }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    onnx.save(model, tmp_path / "chain.onnx")
    engine = compile_model(load(tmp_path / "chain.onnx"), **{"precision": "fp16", "fusion": "none", **how})
    return engine, {"x": rng.standard_normal((size, size), np.float32)}


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(("folder", "name", "precision", "fusion", "interior"), CASES)
def test_random_and_single_changes_bit_for_bit(request, folder, name, precision, fusion, interior):
    folder = request.getfixturevalue(folder)
    engine = compile_model(
        load(folder / "models" / f"{name}.onnx"), precision=precision, fusion=fusion, interior=interior
    )
    feeds = feeds_of(folder, name)
    trace = engine.trace(feeds)
    assert trace is not None
    assert len(engine.device.segments) > 2
    rng = random.Random(name)
    layers = [layer.name for layer in engine.layers]
    tensors = sorted({v.name for layer in engine.layers for v in (*layer.reads, *layer.weights, *layer.tensors)})
    tried = [engine.assignment]
    for attempt in range(20):
        if attempt % 4 == 3:
            some = rng.sample(layers, len(layers) // 2)
            tried.append(Assignment(Choice("fp32"), dict.fromkeys(some, Choice(precision))))
        else:
            tried.append(
                tried[rng.randrange(len(tried))].keeping(
                    layers=rng.sample(layers, rng.randint(0, len(layers) // 3)),
                    tensors=rng.sample(tensors, rng.randint(0, len(tensors) // 3)),
                )
            )
    base = tried[rng.randrange(len(tried))]
    tried += [base.keeping(tensors=[tensor]) for tensor in rng.sample(tensors, min(20, len(tensors)))]
    tried += [base.keeping(layers=[layer]) for layer in rng.sample(layers, min(10, len(layers)))]
    for assignment in (*tried, engine.assignment):
        assert same(engine.run_from(trace, assignment), engine.run(feeds, assignment)), assignment


@pytest.mark.usefixtures("anywhere")
def test_only_what_lies_behind_a_change_runs(tmp_path, ran):
    engine, feeds = chain(tmp_path)
    trace = engine.trace(feeds)
    parts = [segment.part for segment in engine.device.segments]
    assert len(parts) > 4
    for tensor in ("a0", "a5", "a11", "y"):
        ran.clear()
        engine.run_from(trace, engine.assignment.keeping(tensors=[tensor]))
        first = min(
            at for at, part in enumerate(parts) if any(tensor in {v.name for v in one.tensors} for one in part.layers)
        )
        assert [one.part for one in ran] == parts[first:]
        estimate = engine.estimate_from(trace, engine.assignment.keeping(tensors=[tensor]))
        assert estimate == 0.0  # it has run
    ran.clear()
    engine.run_from(trace, engine.assignment)
    assert not ran


@pytest.mark.usefixtures("anywhere")
def test_a_change_that_changes_no_bit_ends_where_it_began(tmp_path, ran):
    engine, feeds = chain(tmp_path)
    zeros = {"x": np.zeros_like(feeds["x"])}  # zero stays zero in any precision
    trace = engine.trace(zeros)
    kept = engine.assignment.keeping(tensors=["a3"])
    estimate = engine.estimate_from(trace, kept)
    ran.clear()
    engine.run_from(trace, kept)
    assert 1 <= len(ran) <= 2  # where it is stored, and where it is read
    assert estimate > 0.0


@pytest.mark.usefixtures("anywhere")
def test_a_search_that_moves_on_begins_at_what_it_ran_last(tmp_path, ran):
    engine, feeds = chain(tmp_path)
    trace = engine.trace(feeds)
    kept = engine.assignment.keeping(tensors=["a1"])
    engine.run_from(trace, kept)
    ran.clear()
    engine.run_from(trace, kept.keeping(tensors=["a10"]))
    assert 1 <= len(ran) <= 3
    assert len(engine.device.segments) > 4


@pytest.mark.usefixtures("anywhere")
def test_a_trace_holds_no_more_than_its_limit(tmp_path):
    engine, feeds = chain(tmp_path)
    tensor = feeds["x"].nbytes
    assert engine.trace(feeds, limit=tensor) is None  # y and one tensor in between are two
    trace = engine.trace(feeds, limit=5 * tensor)
    assert trace is not None
    assert trace.bytes <= 5 * tensor
    many = [engine.assignment.keeping(tensors=[f"a{i}"]) for i in range(12)]
    for assignment in many * 2:
        assert same(engine.run_from(trace, assignment), engine.run(feeds, assignment))
        held = {id(one.value): one.value for made in trace._results for held in made.by_key.values() for one in held}
        assert sum(value.tensor_size_in_bytes() for value in held.values()) <= 5 * tensor


@pytest.mark.usefixtures("anywhere")
def test_traces_of_a_dataset_share_sessions(tmp_path):
    engine, feeds = chain(tmp_path)
    sets = [feeds, {"x": feeds["x"] * 2}, {"x": feeds["x"][::-1]}]
    traces = [engine.trace(one) for one in sets]
    built = engine.device.segments
    kept = engine.assignment.keeping(tensors=["a4"])
    for one, trace in zip(sets, traces, strict=True):
        assert same(engine.run_from(trace, kept), engine.run(one, kept))
    assert engine.device.segments is built


@pytest.mark.usefixtures("anywhere")
def test_neither_inputs_nor_results_are_shared_with_the_caller(tmp_path):
    engine, feeds = chain(tmp_path)
    wanted = engine.run(feeds)["y"].copy()
    mine = {"x": feeds["x"].copy()}
    trace = engine.trace(mine)
    mine["x"][:] = 7.0
    engine.run_from(trace, engine.assignment)["y"][:] = 7.0
    assert np.array_equal(engine.run_from(trace, engine.assignment)["y"], wanted)
    kept = engine.assignment.keeping(tensors=["a0"])
    assert same(engine.run_from(trace, kept), engine.run(feeds, kept))


def test_small_networks_are_not_worth_it(models):
    engine = compile_model(load(models / "models" / "mnist.onnx"))
    assert engine.trace(feeds_of(models, "mnist")) is None


@pytest.mark.usefixtures("anywhere")
def test_what_the_gated_session_does_not_take_runs_whole(tmp_path):
    engine, feeds = chain(tmp_path)
    trace = engine.trace(feeds)
    other = Assignment(engine.assignment.default, {engine.layers[0].name: Choice("bf16")})
    assert same(engine.run_from(trace, other), engine.run(feeds, other))
    assert engine.estimate_from(trace, other) == float("inf")
    assert engine.trace(feeds, other) is None
    tactic = next(one for one in engine.candidates(engine.layers[0]) if one != "exact")
    assert engine.trace(feeds, engine.assignment.with_tactics({engine.layers[0].name: tactic})) is None


@pytest.mark.usefixtures("anywhere")
def test_outputs_that_no_layer_makes(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y, float[2] x, float[2] w) <float[2] w = {1.5, 2.5}>
    { a = Mul (x, w)  b = Exp (a)  c = Mul (b, w)  d = Sqrt (c)  y = Add (d, a) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    engine = compile_model(load(tmp_path / "model.onnx"), fusion="none", passes="none")
    feeds = {"x": np.array([1.1, 2.2], np.float32)}
    trace = engine.trace(feeds)
    assert trace is not None
    for assignment in (engine.assignment, engine.assignment.keeping(tensors=["b"])):
        assert same(engine.run_from(trace, assignment), engine.run(feeds, assignment))


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1000)), min_size=1, max_size=60),
    st.floats(1e-3, 10),
)
def test_segments_are_as_long_as_asked_for(layers, shortest):
    seconds, crossing = [one for one, _ in layers], [0, *(size for _, size in layers)]
    cuts = list(segments._cuts(seconds, crossing, shortest))
    assert cuts == sorted(set(cuts)) and all(0 < at < len(seconds) for at in cuts)
    lengths = [sum(seconds[a:b]) for a, b in pairwise([0, *cuts])]
    assert all(length >= shortest * (1 - 1e-9) for length in lengths)
    for at, length in zip(cuts, lengths, strict=True):  # no place nearby that fewer bytes cross
        other = [n for n in range(at + 1, len(seconds)) if length + sum(seconds[at:n]) < segments._WINDOW * shortest]
        assert all(crossing[at] <= crossing[n] for n in other)
