"""Choosing: what selectors see, what they decide, and what is said when nothing is left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.assignment import Assignment, Choice
from probe.engine.engine import Engine
from probe.engine.tactics import TACTICS
from probe.engine.tuning.choose import choose, problems_of
from probe.engine.tuning.context import Candidate, LayerContext
from probe.engine.tuning.rules import read_rules
from probe.engine.tuning.selector import (
    Allow,
    Deny,
    Fastest,
    PreferAccurate,
    PreferDeterministic,
    Random,
    Record,
    Selector,
    error_class,
)
from probe.errors import InputError
from tests.engine.tuning.selectors import Asked, candidate, context, names

Feeds = dict[str, np.ndarray]


# --- what a selector is asked ------------------------------------------------------------------------------------------


def test_a_selector_is_asked_about_every_layer_that_computes_and_told_what_was_taken(
    engine: Engine, feeds: Feeds
) -> None:
    asked = Asked()
    choices = choose(engine, feeds, [asked])
    layers = [one.context.layer for one in choices]
    assert [one.layer for one, _ in asked.asked] == layers == [layer for layer, _ in asked.told]
    assert "split" not in layers, "data movement is no choice"
    first, offered = asked.asked[0]
    assert first.outputs == ("act1_out",) and first.reads == ("x",) and first.precision == "fp16"
    assert first.nodes == ("fc1/MatMul", "fc1/Add", "act1")
    assert first.problem == "MatMul(fp16[4,32], fp16[32,32]) + Add(., fp16[32]) + Relu(.) -> fp16[4,32]"
    assert offered == ["exact", "acc16", "splitk2", "splitk4", "splitk8"]


def test_candidates_say_what_they_are(engine: Engine, feeds: Feeds) -> None:
    found = {one.context.layer: one for one in problems_of(engine, feeds)}
    product = {one.tactic: one for one in found["fc2/MatMul + fc2/Add"].candidates}
    assert product["splitk4"].workspace == 4 * 4 * 4 * 64  # four partial sums of 4 x 64 in FP32
    assert product["exact"].workspace == 0
    assert product["acc16"].formats == ("fp16", "fp16")
    assert "FP16" in product["acc16"].numerics
    assert all(one.median_us is None for one in product.values()), "nothing was measured"


def test_shapes_are_those_of_the_run(engine: Engine) -> None:
    """The batch is symbolic in the file."""
    found = problems_of(engine, {"x": np.ones((7, 32), np.float32)})
    assert all("[7," in one.context.problem for one in found)


def test_precision_of_all_layers_or_of_each(engine: Engine, feeds: Feeds) -> None:
    in_fp32 = choose(engine, feeds, precision="fp32")
    assert {one.context.precision for one in in_fp32} == {"fp32"}
    assert "acc16" not in names(in_fp32["fc2/MatMul + fc2/Add"].candidates)
    kept = problems_of(engine, feeds, engine.assignment.keeping(layers=["norm"]))
    by_layer = {one.context.layer: one.context for one in kept}
    assert by_layer["norm"].precision == "fp32" and by_layer["softmax"].precision == "fp16"
    assert by_layer["norm"].problem.startswith("LayerNormalization(fp32[4,32]")


def test_tf32_is_stored_as_fp32(engine: Engine, feeds: Feeds) -> None:
    (one, *_) = problems_of(engine, feeds, Assignment(Choice("tf32")))
    assert one.context.problem.startswith("MatMul(tf32[4,32]") and one.candidates[0].formats == ("fp32", "fp32")


# --- what they decide ------------------------------------------------------------------------------------------------


def test_without_times_and_selectors_everything_is_exact(engine: Engine, feeds: Feeds) -> None:
    choices = choose(engine, feeds)
    assert set(choices.tactics.values()) == {"exact"}
    assert choices.assignment(engine.assignment) == engine.assignment


def test_choices_become_an_assignment_that_runs(engine: Engine, feeds: Feeds) -> None:
    choices = choose(engine, feeds, [Allow("acc16 @ ^fc2", "sum_acc16 @ ^norm$")])
    assignment = choices.assignment(engine.assignment)
    assert assignment.of("fc2/MatMul + fc2/Add") == Choice("fp16", "acc16")
    assert set(assignment.layers) == {"fc2/MatMul + fc2/Add", "norm"}
    exact, other = engine.run(feeds), engine.run(feeds, assignment)
    assert any((exact[name] != other[name]).any() for name in exact)


def test_selectors_are_asked_one_after_the_other(engine: Engine, feeds: Feeds) -> None:
    asked = Asked()
    choices = choose(engine, feeds, [Deny("splitk.*"), Random(1), asked])
    offered = {context.layer: left for context, left in asked.asked}
    assert sorted(offered["fc2/MatMul + fc2/Add"]) == ["acc16", "exact"]
    one = choices["fc2/MatMul + fc2/Add"]
    assert one.refused == dict.fromkeys(("splitk2", "splitk4", "splitk8"), "deny splitk.*")
    assert len(one.candidates) == 5, "what was refused is still told"


def test_a_kept_layer_keeps_its_precision(engine: Engine, feeds: Feeds) -> None:
    base = engine.assignment.keeping(layers=["softmax"])
    choices = choose(engine, feeds, [Allow("sum_pairwise @ softmax")])
    assert choices.assignment(base).of("softmax") == Choice("fp32", "sum_pairwise")


TIMED = [candidate("exact", 30.0), candidate("acc16", 10.0), candidate("splitk2"), candidate("splitk4", 20.0)]

ORDERS: list[tuple[Selector, list[str]]] = [
    (Fastest(), ["acc16", "splitk4", "exact", "splitk2"]),
    (PreferAccurate(), ["exact", "splitk2", "splitk4", "acc16"]),
    (PreferDeterministic(), ["exact", "acc16", "splitk2", "splitk4"]),
    (Allow("splitk.*"), ["splitk2", "splitk4"]),
    (Allow("splitk.* @ conv1", "acc16 @ conv2"), ["splitk2", "splitk4"]),
    (Allow("acc16 @ elsewhere"), ["exact", "acc16", "splitk2", "splitk4"]),
    (Allow("acc"), []),
    (Deny("splitk.*"), ["exact", "acc16"]),
    (Deny("acc16 @ ^y$"), ["exact", "splitk2", "splitk4"]),
    (Deny("acc"), ["exact", "acc16", "splitk2", "splitk4"]),
    (Record(), ["exact", "acc16", "splitk2", "splitk4"]),
]


@pytest.mark.parametrize(("selector", "expected"), ORDERS, ids=lambda one: getattr(one, "name", ""))
def test_what_a_selector_allows(selector: Selector, expected: list[str]) -> None:
    assert names(selector.select(context(), TIMED)) == expected


def test_deterministic_ones_come_first() -> None:
    shaky = [candidate("atomic", 1.0, deterministic=False), candidate("exact", 9.0), candidate("splitk2", 2.0)]
    assert names(PreferDeterministic().select(context(), shaky)) == ["exact", "splitk2", "atomic"]


def test_error_classes_follow_the_models_of_the_tactics() -> None:
    classes = {tactic.name: error_class(tactic.name, "fp16") for tactic in TACTICS}
    assert classes["exact"] == classes["splitk8"] == classes["sum_pairwise"] == 0
    assert classes["exact"] < classes["winograd_f2"] < classes["acc16"] == classes["sum_acc16"] < classes["winograd_f4"]
    in_fp32 = {name: error_class(name, "fp32") for name in ("sum_pairwise", "splitk2", "exact", "sum_sequential")}
    assert sorted(in_fp32, key=in_fp32.__getitem__) == ["sum_pairwise", "splitk2", "exact", "sum_sequential"]


def test_accurate_takes_the_fastest_of_the_most_accurate(engine: Engine, feeds: Feeds) -> None:
    choices = choose(engine, feeds, [Fastest(), PreferAccurate()])
    for one in choices:
        best = min(error_class(c.tactic, "fp16") for c in one.candidates)
        assert error_class(one.candidate.tactic, "fp16") == best


def test_random_is_a_function_of_the_seed_and_the_layers_tensors(engine: Engine, feeds: Feeds) -> None:
    first, again, other = (choose(engine, feeds, [Random(seed)]).tactics for seed in (3, 3, 4))
    assert first == again != other
    offered = [candidate(name) for name in ("exact", "acc16", "splitk2", "splitk4", "splitk8")]
    drawn = {names(Random(seed).select(context(), offered))[0] for seed in range(60)}
    assert drawn == {"exact", "acc16", "splitk2", "splitk4", "splitk8"}
    assert names(Random(9).select(context(), offered)) == names(Random(9).select(context(), offered[::-1]))


@given(st.lists(st.sampled_from([tactic.name for tactic in TACTICS]), unique=True, min_size=1), st.integers(0, 99))
def test_orders_lose_nothing(tactics: list[str], seed: int) -> None:
    offered = [candidate(name, float(at)) for at, name in enumerate(tactics)]
    for selector in (Fastest(), PreferAccurate(), PreferDeterministic(), Random(seed), Record()):
        assert sorted(names(selector.select(context(), offered))) == sorted(tactics)


# --- when it cannot be -----------------------------------------------------------------------------------------------


def test_nothing_left_names_each_candidate_and_who_refused_it(engine: Engine, feeds: Feeds) -> None:
    with pytest.raises(InputError) as refused:
        choose(engine, feeds, [Deny("splitk.* @ ^fc2", "acc16 @ ^fc2"), Allow("splitk2 @ ^fc2")])
    assert refused.value.what == (
        "layer fc2/MatMul + fc2/Add: no tactic is left: exact refused by allow splitk2 @ ^fc2; "
        + "; ".join(
            f"{name} refused by deny splitk.* @ ^fc2, acc16 @ ^fc2"
            for name in ("acc16", "splitk2", "splitk4", "splitk8")
        )
    )


def test_all_layers_without_a_tactic_are_told_at_once(engine: Engine, feeds: Feeds) -> None:
    with pytest.raises(InputError, match="for 4 layers") as refused:
        choose(engine, feeds, [Allow("splitk4")])
    told = re.findall(r"^  layer (.*?): no tactic is left", refused.value.what, re.MULTILINE)
    assert told == ["gate + gated", "norm", "mixed", "softmax"]


def test_a_selector_takes_only_what_it_was_offered(engine: Engine, feeds: Feeds) -> None:
    class Inventive(Asked):
        name = "mine"

        def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
            return [candidate("winograd_f9"), *candidates]

    with pytest.raises(InputError, match="mine takes winograd_f9, which it was not offered"):
        choose(engine, feeds, [Inventive()])


def test_nobody_is_told_of_a_choice_that_failed(engine: Engine, feeds: Feeds) -> None:
    asked = Asked()
    with pytest.raises(InputError):
        choose(engine, feeds, [asked, Deny("exact @ mixed")])
    assert asked.asked and not asked.told


def test_inputs_must_fit(engine: Engine) -> None:
    with pytest.raises(InputError, match="x"):
        choose(engine, {"z": np.ones((4, 32), np.float32)})


def test_record_writes_down_every_choice(engine: Engine, feeds: Feeds) -> None:
    """Polygraphy's TestRecorder.basic: what is told is what is there."""
    record = Record()
    choices = choose(engine, feeds, [record, Random(7)])
    assert [(context.layer, one.tactic) for context, one in record.choices] == list(choices.tactics.items())


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        (Deny("winogard_.*"), "no tactic is called so; the layers it is about have .*exact"),
        (Deny("splitk.*@ ^fc2"), "no tactic is called so"),
        (Allow("acc16 @ elsewhere"), "about no layer"),
        (Deny("acc16", "acc16 @ fc22"), "about no layer"),
    ],
)
def test_a_rule_about_nothing_is_refused(engine: Engine, feeds: Feeds, selector: Selector, told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        choose(engine, feeds, [selector])
    assert refused.value.where.startswith(("--deny ", "--allow ")) and "TACTIC @ LAYER" in refused.value.hint


def test_a_rule_about_tactics_of_other_devices_or_of_a_file_is_not(
    engine: Engine, feeds: Feeds, tmp_path: Path
) -> None:
    assert choose(
        engine,
        feeds,
        [Deny("wgmma_.*", "ffma_.*_splitk4", "wgmma_.*_swapped", "wgmma_192x128", "cublaslt_.*", "winograd_f2")],
    )
    (tmp_path / "rules").write_text("acc16 @ elsewhere\nsplitk.*\n")
    selector = Deny(*read_rules([f"@{tmp_path / 'rules'}"], "--deny"))
    choose(engine, feeds, [selector])
    assert selector.notes == ("deny acc16 @ elsewhere: it is about no layer of this network",)
