"""The engine as the oracle of a search: what it answers, what it spares, what it lets through."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.compare.diff import diff_sources
from probe.culprits.judge import Judge
from probe.culprits.oracle import EngineOracle
from probe.debug.goldens import open_golden
from probe.debug.observe import record_outputs
from probe.debug.record import collect_inputs
from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.errors import InputError
from probe.metrics.acceptance import parse_criterion
from probe.model.load import load
from probe.store.feeds import InputSet
from probe.store.tape import Tape
from tests.culprits.overflowing import Tensors, oracle_of, save, sets

NOTHING: frozenset[str] = frozenset()
ONE = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("oracle") / "model.onnx", (300, 1, 1))


def test_it_answers_as_a_run_is_judged(path: Path) -> None:
    oracle = oracle_of(path, sets(i=1.0))
    low, cured = oracle(NOTHING), oracle(frozenset({"square0", "mean0"}))
    assert (low.passed, cured.passed) == (False, True)
    assert low.margin < 0 < cured.margin < 1
    assert low.measured["failing_inputs"] == ["i"] and "y: " in low.measured["reasons"][0]
    assert cured.measured["range_rel"] == cured.measured["range_rel @ y"] < 0.01
    assert set(cured.measured) == {"range_rel", "range_rel @ y", "cosine @ y"}
    json.dumps(low.measured)


def test_every_unit_is_judged_as_diff_judges_it(path: Path) -> None:
    inputs = sets(quiet=1e-3, loud=1.0)
    oracle = oracle_of(path, inputs)
    golden = oracle_of(path, inputs)
    verdicts = []
    for unit in (*oracle.space.units, None):  # type: ignore[attr-defined]
        members = unit.members if unit else frozenset(one.id for one in oracle.space.units)  # type: ignore[attr-defined]
        assignment = oracle.space.assignment(oracle.base, members)
        made = Tape()
        with made:
            record_outputs(oracle.engine, assignment, inputs, made)
        reference = Tape()
        with reference:
            record_outputs(golden.engine, Assignment(FP32), inputs, reference)
        diff = diff_sources(made, reference, precision="fp16")
        judged = EngineOracle(
            oracle.engine, oracle.space, oracle.base, inputs, Judge(reference, inputs=inputs, precision="fp16")
        ).of(members)
        assert (judged.verdict, judged.failing_inputs) == (diff.verdict, diff.outputs[0].failing_inputs)
        verdicts.append(judged.verdict)
    assert "failed" in verdicts and "passed" in verdicts


@pytest.mark.parametrize(
    ("name", "precision", "passed"),
    [
        ("mnist", "fp16", True), ("silero_vad", "fp16", True), ("gtcrn_simple", "fp16", True), ("gtcrn_simple", "bf16", False),
        ("magika_standard_v3_3", "fp16", False), ("ultraface_slim_320_qdq", "fp16", False),
    ],
)  # fmt: skip
def test_real_networks_are_judged_as_diff_judges_them(models: Path, name: str, precision: str, passed: bool) -> None:
    model = load(models / "models" / f"{name}.onnx")
    inputs, _ = collect_inputs(model, [models / "data" / f"{name}__main.npz"])
    engine = compile_model(model, precision=precision, passes="none", fusion="none")
    with ExitStack() as opened:
        golden = open_golden("ort", model, inputs, opened)
        made = opened.enter_context(closing(Tape()))
        with made:
            record_outputs(engine, engine.assignment, inputs, made)
        diff = diff_sources(made, golden, precision=precision)
        judge = Judge(golden, [port.name for port in model.outputs], inputs, precision=precision)
        judged = EngineOracle(engine, Tensors(engine), engine.assignment, inputs, judge).of(NOTHING)
    assert (judged.verdict, judged.passed, passed) == (diff.verdict, bool(diff), passed)
    assert judged.worst == max(t.metrics.range_rel for t in diff.outputs if t.metrics)
    assert set(judged.metrics) <= {port.name for port in model.outputs}


def test_of_a_dataset_the_failing_inputs_are_named(path: Path) -> None:
    oracle = oracle_of(path, sets(quiet=1e-3, loud=1.0, quieter=1e-3))
    assert oracle(NOTHING).measured["failing_inputs"] == ["loud"]
    assert oracle.last is not None and oracle.last.failing_inputs == ("loud",)
    assert oracle(frozenset({"square0", "mean0"})).passed


def test_what_the_base_keeps_is_kept(path: Path) -> None:
    oracle = oracle_of(path, sets(i=1.0))
    oracle.base = oracle.base.keeping(tensors=["square0"])
    assert not oracle(NOTHING).passed
    assert oracle(frozenset({"mean0"})).passed


def test_seconds_are_told_apart(path: Path) -> None:
    oracle = oracle_of(path, sets(i=1.0))
    for _ in range(3):
        oracle(NOTHING)
    assert oracle.evaluated == 3
    assert 0 < oracle.network_seconds + oracle.judge_seconds <= oracle.seconds


# --- with an engine that does as it is told


class Engine:
    """Returns ``ONE`` plus the error of an input; kept tensors are errors that are left out."""

    def __init__(self, errors: Mapping[str, float], raises: str = "") -> None:
        self.errors, self.raises = errors, raises
        self.ran: list[str] = []

    def run(self, feeds: Mapping[str, Any], assignment: Assignment) -> dict[str, Any]:
        (key,) = feeds
        self.ran.append(key)
        if key == self.raises and key not in assignment.kept:
            raise InputError("the shapes do not fit", where="layer conv1")
        error = 0.0 if key in assignment.kept else self.errors[key]
        return {"y": ONE + np.float32(error)}


class Space:
    def assignment(self, base: Assignment, members: frozenset[str]) -> Assignment:
        return base.keeping(tensors=members)


def told(errors: dict[str, float], raises: str = "", *, judging: Any = None, **how: Any) -> tuple[EngineOracle, Engine]:
    engine = Engine(errors, raises)
    judge = Judge(
        {key: {"y": ONE} for key in errors}, **(judging or {"acceptance": [parse_criterion("range_rel<=0.1")]})
    )
    inputs = [InputSet(key, {key: ONE}, "test") for key in errors]
    return EngineOracle(engine, Space(), Assignment(Choice("fp16")), inputs, judge, **how), engine  # type: ignore[arg-type]


def test_what_does_not_run_fails_and_says_why() -> None:
    oracle, _ = told({"a": 0.0, "b": 0.0}, raises="b")
    evaluation = oracle(NOTHING)
    assert (evaluation.passed, evaluation.margin) == (False, -math.inf)
    assert evaluation.measured["reasons"] == ["it does not run: the shapes do not fit (layer conv1) (input b)"]
    assert evaluation.measured["failing_inputs"] == ["b"] and evaluation.measured["range_rel"] is None
    assert oracle(frozenset("b")).passed


def test_what_a_check_cannot_judge_ends_the_search() -> None:
    oracle, _ = told({"a": 0.0}, judging={"check": lambda _: None})
    with pytest.raises(InputError, match="the check returned nothing"):
        oracle(NOTHING)


def test_all_inputs_run_in_order_unless_told_otherwise() -> None:
    oracle, engine = told({"a": 0.5, "b": 0.0, "c": 0.5})
    evaluation = oracle(NOTHING)
    assert engine.ran == ["a", "b", "c"]
    assert evaluation.measured["failing_inputs"] == ["a", "c"]
    assert evaluation.margin == pytest.approx(-4, rel=1e-5)


def test_stopping_early() -> None:
    oracle, engine = told({"a": 0.0, "b": 0.0, "c": 0.5, "d": 0.0}, stop_early=True)
    first = oracle(NOTHING)
    assert engine.ran == ["a", "b", "c"] and not first.passed and math.isnan(first.margin)
    engine.ran.clear()
    again = oracle(frozenset({"a"}))
    assert engine.ran == ["c"] and not again.passed, "what failed before comes first"
    engine.ran.clear()
    passed = oracle(frozenset({"c"}))
    assert engine.ran == ["c", "a", "b", "d"] and passed.passed and passed.margin == 1.0


def test_stopping_early_waits_for_what_others_may_change() -> None:
    errors = {"a": 0.15, "b": 0.0, "c": 0.0}
    judging = {"acceptance": [parse_criterion("range_rel<=0.1")], "over": "mean"}
    oracle, engine = told(errors, judging=judging, stop_early=True)
    assert oracle(NOTHING).passed and engine.ran == ["a", "b", "c"]
    oracle, engine = told({**errors, "a": math.nan}, judging=judging, stop_early=True)
    assert not oracle(NOTHING).passed and engine.ran == ["a"]
    oracle, engine = told(errors, judging={"check": lambda _: True}, stop_early=True)
    assert oracle(NOTHING).passed and engine.ran == ["a", "b", "c"], "a check sees all inputs"


def test_what_is_known_is_reused_and_what_is_asked_again_is_not() -> None:
    asked: list[tuple[str, frozenset[str]]] = []

    def reuse(one: InputSet, assignment: Assignment) -> dict[str, Any] | None:
        asked.append((one.id, assignment.kept))
        return {"y": ONE} if one.id == "a" else None

    oracle, engine = told({"a": 0.0, "b": 0.0}, reuse=reuse)
    assert oracle(NOTHING).passed and engine.ran == ["b"]
    assert asked == [("a", NOTHING), ("b", NOTHING)]
    assert oracle(NOTHING).passed and engine.ran == ["b", "a", "b"] and len(asked) == 2
    oracle(frozenset({"a"}))
    assert len(asked) == 4


def test_traces_give_the_same_answers(path: Path) -> None:
    """The engine's own means of reuse, where the network is worth it; None elsewhere."""
    inputs = sets(i=1.0)
    plain = oracle_of(path, inputs)
    trace = plain.engine.trace(inputs[0].feeds, plain.base)

    def reuse(one: InputSet, assignment: Assignment) -> Mapping[str, Any] | None:
        return plain.engine.run_from(trace, assignment) if trace is not None else None

    reusing = oracle_of(path, inputs, how={"reuse": reuse})
    for unit in plain.space.units:  # type: ignore[attr-defined]
        assert repr(reusing(unit.members)) == repr(plain(unit.members))
