"""More accurate tactics before FP32: planted losses are switched back, what need not be is not, and what that costs is counted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from probe.culprits.oracle import EngineOracle
from probe.culprits.tactic_cure import cure_by_tactics, legal, possible_switches
from probe.engine.assignment import FP32
from probe.engine.engine import Engine
from probe.engine.tuning.choose import choose
from probe.engine.tuning.selector import Allow, Deny
from probe.store.feeds import InputSet
from tests.blame.planted import chain, engine_of, oracle_of

ALONE, HALF = 0.2, 0.035


def case(
    tmp_path: Path, planted: dict[int, float], tactics: dict[int, str] | None = None
) -> tuple[Engine, Any, EngineOracle]:
    """A chain of 16 products, all acc16 unless it is said otherwise."""
    made = chain(tmp_path / "c.onnx", 16, planted)
    engine = engine_of(made.path)
    base = engine.assignment.with_tactics(
        {name: (tactics or {}).get(at, "acc16") for at, name in enumerate(made.layers)}
    )
    return engine, base, oracle_of(engine, made.sets, ())


@pytest.mark.parametrize(
    ("planted", "switched"),
    [({5: ALONE}, [5]), ({2: ALONE, 9: ALONE, 14: ALONE}, [2, 9, 14])],
    ids=["one", "three"],
)
def test_what_loses_is_switched_and_nothing_else(
    tmp_path: Path, planted: dict[int, float], switched: list[int]
) -> None:
    engine, base, oracle = case(tmp_path, planted)
    cure = cure_by_tactics(engine, base, oracle)
    assert cure and cure.status == "found"
    assert [(one.layer, one.before, one.after) for one in cure.switches] == [
        (f"product {at}", "acc16", "exact") for at in switched
    ]
    assert oracle.evaluate(cure.assignment).passed and not oracle.evaluate(base).passed
    assert len(cure.certificates) == len(switched) and not cure.assignment.kept
    for one in cure.switches:
        assert not oracle.evaluate(cure.assignment.with_tactics({one.layer: one.before})).passed


def test_what_passes_needs_nothing(tmp_path: Path) -> None:
    engine, base, oracle = case(tmp_path, {})
    cure = cure_by_tactics(engine, base, oracle)
    assert cure.status == "nothing_needed" and cure.switches == () and cure.cost_us == 0
    assert cure.assignment == base


def test_what_no_tactic_cures_is_said(tmp_path: Path) -> None:
    """The output is asked to be better than storing it in FP16 allows: then tensors must stay FP32, over the accurate tactics."""
    from probe.metrics.acceptance import parse_criterion

    made = chain(tmp_path / "c.onnx", 6, {2: ALONE})
    engine = engine_of(made.path)
    oracle = oracle_of(engine, made.sets, (), acceptance=(parse_criterion("range_rel<=0.00001"),))
    base = engine.assignment.with_tactics(dict.fromkeys(made.layers, "acc16"))
    cure = cure_by_tactics(engine, base, oracle)
    assert cure.status == "not_enough" and not cure and cure.switches == ()
    assert cure.assignment == cure.accurate and {cure.accurate.of(name).tactic for name in made.layers} == {"exact"}


def test_fast_tactics_are_given_back_where_the_answer_passes_with_them(tmp_path: Path) -> None:
    """The third step: a layer lifted to FP32 needs no switch, and one that is not still does."""
    engine, base, oracle = case(tmp_path, {4: ALONE, 11: ALONE})
    cure = cure_by_tactics(engine, base, oracle, kept=engine.assignment.keeping(layers=["product 4"]))
    assert cure.status == "found" and [one.layer for one in cure.switches] == ["product 11"]
    assert cure.assignment.of("product 4") == FP32 and cure.assignment.of("product 7").tactic == "acc16"
    assert oracle.evaluate(cure.assignment).passed


def test_costs_are_counted_and_kept_small(tmp_path: Path) -> None:
    """Of a pair either can be switched: the cheaper one is."""
    engine, base, oracle = case(tmp_path, {3: HALF, 12: HALF})
    times = {(f"product {at}", name): us for at in range(16) for name, us in (("acc16", 10.0), ("exact", 11.0))}
    times["product 3", "exact"] = 95.0
    cure = cure_by_tactics(
        engine, base, oracle, times=times, objective="cost", scores={"product 3": 5.0, "product 12": 4.0}
    )
    assert [one.layer for one in cure.switches] == ["product 12"]
    assert cure.cost_us == pytest.approx(1.0)
    assert cure_by_tactics(engine, base, oracle).cost_us is None  # not measured


def test_a_budget_leaves_it_open(tmp_path: Path) -> None:
    engine, base, oracle = case(tmp_path, {3: HALF, 12: HALF})
    assert cure_by_tactics(engine, base, oracle, max_evaluations=3).status == "open"


def test_switches_go_to_the_most_accurate_that_exists(tmp_path: Path) -> None:
    engine, base, _ = case(tmp_path, {}, {0: "splitk2", 1: "exact"})
    found = possible_switches(engine, base, {("product 2", "exact"): 30.0, ("product 2", "acc16"): 20.0})
    assert [one.layer for one in found] == [
        f"product {at}" for at in range(2, 16)
    ]  # splitk2 promises no more error than exact
    assert found[0].cost_us == 10.0 and found[1].cost_us is None


def test_layers_in_fp32_take_a_tactic_that_exists_there(tmp_path: Path) -> None:
    engine, base, oracle = case(tmp_path, {})
    made = legal(engine, base.keeping(tensors=["t5"]))
    exact = {layer.name for layer in engine.layers if made.of(layer.name).tactic == "exact"}
    # t5 is made by product 4, and read by product 5 through a Concat, whose result is a tensor of its own.
    assert "product 4" in exact and "product 7" not in exact
    assert oracle.evaluate(made).passed


def test_a_network_that_winograd_breaks(tmp_path: Path) -> None:
    """Inputs of 800 and more: FP16 transforms of F(4x4), up to a hundred times as large, are Inf where direct sums are not."""
    rng = np.random.default_rng(0)
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,4,16,16] x) => (float[1,4,16,16] y) {
      a = Conv <pads = [1,1,1,1]> (x, w0)
      b = Mul (a, big)
      c = Conv <pads = [1,1,1,1]> (b, w1)
      d = Mul (c, small)
      y = Conv <pads = [1,1,1,1]> (d, w2)
    }"""
    model = onnx.parser.parse_model(text)
    arrays = {f"w{at}": 0.1 * rng.standard_normal((4, 4, 3, 3)) for at in range(3)} | {"big": 1500.0, "small": 1 / 1500}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()
    )
    onnx.save(model, tmp_path / "m.onnx")
    sets = (InputSet("x", {"x": rng.standard_normal((1, 4, 16, 16)).astype(np.float32)}, "test"),)
    engine = engine_of(tmp_path / "m.onnx", passes="none", fusion="none")
    oracle = oracle_of(engine, sets, ())
    convs = [layer.name for layer in engine.layers if layer.kind == "conv"]
    base = engine.assignment.with_tactics(dict.fromkeys(convs, "winograd_f4"))
    assert oracle.evaluate(engine.assignment).passed and not oracle.evaluate(base).passed
    cure = cure_by_tactics(engine, base, oracle)
    second = next(layer.name for layer in engine.layers if "c" in {value.name for value in layer.tensors})
    assert cure.status == "found" and [(one.layer, one.after) for one in cure.switches] == [(second, "exact")]
    denied = choose(
        engine, sets[0].feeds, [Deny(f"winograd_.* @ {re.escape(second)}"), Allow("winograd_f4|exact"), _Last()]
    )
    assert denied.tactics[second] == "exact" and sum(name == "winograd_f4" for name in denied.tactics.values()) == 2
    assert oracle.evaluate(denied.assignment(engine.assignment)).passed


class _Last:
    """Takes the candidate that was declared last."""

    name = "last"

    def select(self, context: Any, candidates: Any) -> Any:
        del context
        return candidates[::-1]

    def chosen(self, context: Any, candidate: Any) -> None:
        """Nothing to do."""
