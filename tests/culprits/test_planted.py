"""What the generator says of its networks is true on the engine: minima, decoys, traps, sizes. And the neutral evaluator agrees."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest

from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.model.load import read_model
from probe.model.mixed import convert_mixed
from probe.model.model import Model
from tests.bench import neutral
from tests.bench.find_peers import measure, package, planted_cases
from tests.bench.mixed_cost import cost_of
from tests.culprits.planted.bases import BASES
from tests.culprits.planted.build import KINDS, Planted, build
from tests.engine.emulator import Emulator
from tests.model import builders as b
from tests.thorough import longest

SMALL = [(kind, 60, k, seed) for seed, kind in enumerate(KINDS) for k in (0, 3)]
MIDDLE = [(kind, 200, 12, seed) for seed, kind in enumerate(KINDS)]
LARGE = [("mixed", 1000, 40, 0), ("coupled", 1000, 40, 1)]  # tests/bench/find_planted.py has all kinds at this size
TABLE = [*SMALL, ("mixed", 200, 12, 0), *(pytest.param(*row, marks=pytest.mark.slow) for row in MIDDLE)]
TABLE += [pytest.param(*row, marks=longest) for row in LARGE]

BY_TURNS = list(zip(KINDS, [*BASES] * 3, strict=True))

planted = cache(build)


def loaded(made: Planted) -> Model:
    content = made.model.SerializeToString()
    return read_model(Path("planted.onnx"), memoryview(content), content=content)


class Kept:
    """Runs with tensors kept, on the engine, judged plainly."""

    def __init__(self, made: Planted) -> None:
        self.made = made
        self.engine: Engine = compile_model(loaded(made), passes="none", fusion="none")
        graph = made.model.graph
        self.all = frozenset(name for node in graph.node for name in node.output)
        self.all |= {one.name for one in (*graph.initializer, *graph.input)}

    def __call__(self, kept: frozenset[str]) -> neutral.Verdict:
        found = self.engine.run(self.made.inputs, self.engine.assignment.keeping(tensors=kept))
        return neutral.judge(found, self.made.golden, self.made.accept)


@pytest.mark.parametrize(("kind", "nodes", "k", "seed"), TABLE)
def test_the_minimum_is_what_the_generator_says(kind: str, nodes: int, k: int, seed: int) -> None:
    made = planted(kind, nodes, k, seed)
    run = Kept(made)
    assert len(made.faults) == k
    assert run(run.all).passed
    assert run(made.minimum).passed
    assert run(frozenset()).passed == (k == 0)
    for fault in made.faults:
        for tensor in fault.tensors:
            assert not run(made.minimum - {tensor}).passed, f"{fault} is not needed"
            if kind != "accumulated":
                assert not run(run.all - {tensor}).passed, f"{fault} alone does no harm"
    # Faults do not make up for each other either.
    rng = np.random.default_rng(seed)
    for _ in range(8 if k > 1 else 0):
        some = rng.choice(k, rng.integers(2, k + 1), replace=False)
        lost = {tensor for at in some for tensor in made.faults[at].tensors}
        assert not run(made.minimum - lost).passed, f"faults {sorted(some)} cancel"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("nodes", "k"), [(60, 3), (200, 12)])
def test_accumulated_errors_add_up_and_the_largest_are_the_least_that_suffices(base: str, nodes: int, k: int) -> None:
    made = build("accumulated", nodes, k, 1, base)
    run = Kept(made)
    order = sorted(made.errors, key=made.errors.__getitem__, reverse=True)
    limit = float(made.accept[0].partition("<=")[2])
    half = made.errors[order[k - 1]] / 2
    rng = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        kept = frozenset(name for name in order if rng.random() < share)
        predicted = sum(error for name, error in made.errors.items() if name not in kept)
        if predicted > half + 0.3:  # below, the rounding of the rest of the network is what an output shows
            assert run(kept | (run.all - set(order))).error / limit == pytest.approx(predicted, abs=1e-3)
            assert run(kept).error / limit == pytest.approx(predicted, abs=half)
    # No k - 1 of them take off more than the largest; with these and all else in FP32 it still fails.
    assert not run(frozenset(order[: k - 1]) | (run.all - set(order))).passed
    assert run(frozenset(order[:k])).passed


@pytest.mark.parametrize("base", BASES)
def test_decoys_look_broken_and_are_harmless(base: str) -> None:
    made = build("decoys", 60, 0, 3, base)
    emulator = Emulator(made.model)
    low, high = emulator.run(made.inputs, "fp16"), emulator.run(made.inputs, "fp32")
    assert len(made.others) == 4
    for decoy in made.others:
        assert np.isinf(low[decoy.tensors[0]]).any() and np.isfinite(high[decoy.tensors[0]]).all()
    assert Kept(made)(frozenset()).passed


@pytest.mark.parametrize("base", BASES)
def test_one_half_of_a_compensating_pair_is_worse_than_none(base: str) -> None:
    made = build("compensating", 60, 1, 3, base)
    run = Kept(made)
    assert len(made.others) == 2
    for pair in made.others:
        for half in pair.tensors:
            assert not run(made.minimum | {half}).passed
        assert run(made.minimum | set(pair.tensors)).passed


@pytest.mark.parametrize(("kind", "base"), BY_TURNS)
def test_networks_are_valid_of_the_size_asked_for_and_always_the_same(kind: str, base: str) -> None:
    made = build(kind, 200, 3, 5, base)
    assert made.nodes == pytest.approx(200, rel=0.1)
    assert made.model.SerializeToString() == build(kind, 200, 3, 5, base).model.SerializeToString()
    assert made.model.SerializeToString() != build(kind, 200, 3, 6, base).model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(made.model.SerializeToString(), options)
    outputs = cast(list[np.ndarray], session.run(None, dict(made.inputs)))
    for (name, wanted), found in zip(made.golden.items(), outputs, strict=True):
        assert session.get_outputs()[0].name == name
        np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())


def test_faults_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="more nodes"):
        build("vanishing", 60, 12, 0)
    with pytest.raises(ValueError, match="nothing to accumulate"):
        build("accumulated", 60, 40, 0)


# --- the neutral evaluator -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "base"), BY_TURNS)
def test_the_neutral_evaluator_judges_exports_as_the_engine_does(kind: str, base: str, tmp_path: Path) -> None:
    made = build(kind, 60, 1, 2, base)
    run = Kept(made)
    for kept, passes in ((made.minimum, True), (frozenset(), False), (run.all, True)):
        convert_mixed(loaded(made), "fp16", keep_tensors=kept).save(tmp_path / "mixed.onnx")
        verdict = neutral.evaluate(onnx.load(tmp_path / "mixed.onnx"), made.inputs, made.golden, made.accept)
        assert verdict.passed == passes
        # An output that stays FP32 for its type is rounded by the engine all the same, and sums differ in their last bits.
        assert verdict.error == pytest.approx(run(kept).error, rel=0.1, abs=2e-3)


def test_the_neutral_evaluator_stores_each_tensor_in_its_declared_type() -> None:
    model = b.model(
        [
            b.node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16),
            b.node("Mul", ["h", "w"], ["s"]),
            b.node("Constant", [], ["half"], value=b.weight("", np.array([0.5], np.float16))),
            b.node("Mul", ["s", "half"], ["t"]),
            b.node("Cast", ["t"], ["y"], to=onnx.TensorProto.FLOAT),
        ],
        [b.value("x", (2,))],
        [b.value("y", (2,))],
        [b.weight("w", np.array([300], np.float16))],
    )
    found = neutral.TypedModel(model).run({"x": np.array([1.0009, 300.0], np.float32)})
    assert found["h"].tolist() == [float(np.float16(1.0009)), 300.0]
    assert found["s"].tolist() == [float(np.float16(np.float16(1.0009) * np.float32(300))), np.inf]
    assert found["y"][1] == np.inf


@pytest.mark.parametrize(
    ("actual", "passed"), [([1.0, 2.0], True), ([1.0, 2.1], False), ([1.0, np.nan], False), ([1.0, np.inf], False), ([1.0], False)]
)  # fmt: skip
def test_the_neutral_evaluator_judges_plainly(actual: list[float], passed: bool) -> None:
    golden = {"y": np.array([1.0, 2.0], np.float32)}
    verdict = neutral.judge({"y": np.array(actual, np.float32)}, golden, ("range_rel<=0.02", "cosine>=0.999"))
    assert verdict.passed == passed


def test_the_neutral_evaluator_refuses_what_it_cannot_compute() -> None:
    with pytest.raises(neutral.UnsupportedError, match="If"):
        neutral.TypedModel(b.if_else())
    with pytest.raises(ValueError, match="not by 'psnr>=30'"):
        neutral.judge({}, {}, ("psnr>=30",))


# --- what is said of the peers' models -------------------------------------------------------------------------------


def test_the_cost_of_a_mixed_model_is_counted_from_its_types(tmp_path: Path) -> None:
    made = build("overflow", 60, 1, 2, "rmsnorm")
    costs = {}
    for name, kept in (("low", frozenset[str]()), ("mixed", made.minimum)):
        convert_mixed(loaded(made), "fp16", keep_tensors=kept).save(tmp_path / "mixed.onnx")
        costs[name] = cost_of(onnx.load(tmp_path / "mixed.onnx"), made.inputs)
    original = cost_of(made.model, made.inputs)
    assert original.nodes == original.nodes_fp32 == made.nodes and original.casts == 0
    assert original.flops == original.flops_fp32 == costs["low"].flops
    assert (costs["low"].nodes_fp32, costs["low"].flops_fp32, costs["low"].casts) == (0, 0, 2)  # input and output
    # The square and the mean that reads it: 8 x 32 elements each.
    assert (costs["mixed"].nodes_fp32, costs["mixed"].flops_fp32) == (2, 512)
    assert costs["mixed"].casts == 4


def test_products_count_two_flops_a_multiplication() -> None:
    weights = [b.weight("k", np.ones((5, 3, 2, 2), np.float32)), b.weight("m", np.ones((4, 6), np.float32))]
    nodes = [b.node("Conv", ["x", "k"], ["c"]), b.node("MatMul", ["c", "m"], ["y"])]
    model = b.model(nodes, [b.value("x", (1, 3, 5, 5))], [b.value("y", (1, 5, 4, 6))], weights)
    counted = cost_of(model, {"x": np.ones((1, 3, 5, 5), np.float32)})
    assert counted.flops == 2 * (5 * 4 * 4) * (3 * 2 * 2) + 2 * (5 * 4 * 6) * 4


def test_a_peer_that_is_not_there_has_that_for_its_result(tmp_path: Path) -> None:
    made = build("overflow", 60, 1, 2, "rmsnorm")
    case = next(planted_cases([("overflow", 60, 1, 2)]))
    (tmp_path / "model.onnx").write_bytes(made.model.SerializeToString())
    outcome = package("modelopt", sys.executable)(case, tmp_path / "model.onnx", tmp_path / "out.onnx")
    assert "nvidia-modelopt" in outcome.failure and outcome.evaluations is None
    (row,) = measure(case, {"AutoCast": package("modelopt", sys.executable)})
    assert row.startswith("| AutoCast | no model |") and "nvidia-modelopt" in row
