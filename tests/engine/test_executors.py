"""Two executors, one semantics: the gated session and the session-a-layer one give the same bits under any assignment."""

from __future__ import annotations

import random

import numpy as np
import pytest

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.model import load
from tests.engine.test_arithmetic import feeds_of

CASES = [
    ("models", "silero_vad", "fp16", "safe", "storage"),
    ("models", "gtcrn_simple", "bf16", "safe", "fp32"),
    ("models", "magika_standard_v3_3", "fp16", "full", "storage"),
    ("models", "mnist", "bf16", "none", "storage"),
    ("exports", "llama_gqa_mini", "fp16", "safe", "fp32"),
    ("exports", "convtasnet_cln", "tf32", "safe", "storage"),
    ("exports", "scripted_loop_if", "bf16", "safe", "storage"),
    ("exports", "lstm_gru_tagger", "fp16", "none", "storage"),
]


def same(actual: dict[str, np.ndarray], golden: dict[str, np.ndarray]) -> bool:
    return actual.keys() == golden.keys() and all(
        np.array_equal(actual[name], golden[name], equal_nan=actual[name].dtype.kind == "f") for name in golden
    )


@pytest.mark.parametrize(("folder", "name", "precision", "fusion", "interior"), CASES)
def test_twenty_random_assignments(request, folder, name, precision, fusion, interior):
    folder = request.getfixturevalue(folder)
    engine = compile_model(
        load(folder / "models" / f"{name}.onnx"), precision=precision, fusion=fusion, interior=interior
    )
    feeds = feeds_of(folder, name)
    rng = random.Random(name)
    layers = [layer.name for layer in engine.layers]
    tensors = sorted({v.name for layer in engine.layers for v in (*layer.reads, *layer.weights, *layer.tensors)})
    forms: set[str] = set()
    outputs = []
    for attempt in range(20):
        if attempt % 4 == 3:
            some = rng.sample(layers, len(layers) // 2)
            assignment = Assignment(Choice("fp32"), dict.fromkeys(some, Choice(precision)))
        else:
            assignment = engine.assignment.keeping(
                layers=rng.sample(layers, rng.randint(0, len(layers) // 3)),
                tensors=rng.sample(tensors, rng.randint(0, len(tensors) // 3)),
            )
        forms |= {plan.form for plan in engine.rounding.plan(assignment).values()}
        outputs.append(engine.run(feeds, assignment))
        assert same(outputs[-1], engine.run(feeds, assignment, tap=lambda _: None)), attempt
    assert forms >= {"plain", "wide", "low", "switched", "general"}
    assert not all(same(outputs[0], other) for other in outputs)  # assignments do reach what runs
    assert engine.device.sessions_built == 1  # one gated session for all of them


def test_an_assignment_outside_the_menu_still_runs(models):
    engine = compile_model(load(models / "models" / "mnist.onnx"), precision="fp16")
    feeds = feeds_of(models, "mnist")
    mixed = engine.assignment.keeping(layers=[engine.layers[0].name])
    mixed = Assignment(mixed.default, {**mixed.layers, engine.layers[-1].name: Choice("bf16")})
    assert same(engine.run(feeds, mixed), engine.run(feeds, mixed, tap=lambda _: None))


def test_a_run_repeats_itself_bit_for_bit(models):
    engine = compile_model(load(models / "models" / "gtcrn_simple.onnx"), precision="fp16")
    feeds = feeds_of(models, "gtcrn_simple")
    first = engine(feeds)
    assert all(same(first, engine(feeds)) for _ in range(3))
