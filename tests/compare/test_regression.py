"""Two saved results, before and after."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.compare.regression import diff_results
from probe.errors import InputError
from probe.results.diff import Criterion, DiffResult, Finding
from probe.results.find import FindResult, Keep
from probe.results.publish import example_diff, example_layer, example_metrics, example_run, example_tensor, examples
from probe.results.regression import PartChange, RegressionResult
from probe.results.run import Fallback, GoldenInfo, LayerError, RunFinding, RunResult
from probe.results.tensors import InputInfo
from tests.compare.recorder import GOLDEN, diff


class TestRegression:
    def result(self, recorder: Any, **errors: float) -> DiffResult:
        golden = dict.fromkeys(errors, GOLDEN)
        actual = {name: GOLDEN + np.float32(error) for name, error in errors.items()}
        return diff(recorder, actual, golden, precision="fp16")

    @pytest.mark.parametrize(
        ("before", "after", "verdict", "status"),
        [
            (1e-3, 1e-3, "passed", "same"),
            (1e-3, 1.5e-3, "passed", "same"),
            (1e-3, 5e-3, "failed", "worse"),
            (5e-3, 1e-3, "passed", "better"),
            (1e-3, 1.0, "failed", "worse"),
            (1e-3, math.nan, "failed", "worse"),
            (math.nan, 1e-3, "passed", "better"),
            (0.0, 1e-7, "passed", "same"),
        ],
    )
    def test_outputs(self, recorder: Any, before: float, after: float, verdict: str, status: str) -> None:
        found = diff_results(self.result(recorder, y=before), self.result(recorder, y=after))
        assert (found.verdict, found.changes[0].status, bool(found)) == (verdict, status, verdict == "passed")

    def test_an_output_that_is_gone_is_a_regression(self, recorder: Any) -> None:
        found = diff_results(self.result(recorder, y=0.0, z=0.0), self.result(recorder, y=0.0))
        assert (found.verdict, found.reasons) == ("failed", ("z is gone",))

    def test_reasons_begin_with_what_is_gravest(self, recorder: Any) -> None:
        before = self.result(recorder, gone=0.0, fails=1e-3, grows=1e-5, keeps=0.0)
        after = self.result(recorder, fails=10.0, grows=1e-4, keeps=0.0)
        found = diff_results(before, after)
        assert [reason.split()[0] for reason in found.reasons] == ["gone", "fails", "grows:", "the"]
        (grown,) = [reason for reason in found.reasons if reason.startswith("grows")]
        assert grown.count("range_rel") == 1 and "went from" not in grown
        verdicts = {c.name: (c.verdict_before, c.verdict_after) for c in found.changes}
        assert verdicts["fails"] == ("passed", "failed") and verdicts["gone"] == ("passed", None)


# --- a chain of nodes n0, n1, ...: node i reads t(i-1) and writes t(i); the last tensor is the output


def chain(
    cuts: tuple[int, ...],
    errors: tuple[float, ...],
    own: tuple[float | None, ...] = (),
    *,
    interior: bool = True,
    **changed: Any,
) -> RunResult:
    """A run whose layers end at the nodes ``cuts``. ``interior``: tensors inside fused layers are compared as well."""
    size = len(errors)
    layers: list[LayerError] = []
    first = 0
    for end in cuts:
        nodes = tuple(f"n{i}" for i in range(first, end + 1))
        layers.append(
            example_layer(" + ".join(nodes), nodes=nodes, reads=(f"t{first - 1}",) if first else ("x",), outputs=(f"t{end}",),
                          injected=own[end] if own else None, local=None, accumulated=errors[end])
        )  # fmt: skip
        first = end + 1
    tensors = tuple(
        example_tensor(
            f"t{i}", role="output" if i == size - 1 else "internal",
            status="compared" if interior or i in cuts else "interior",
            metrics=example_metrics(range_rel=error, nonfinite_mismatch=int(error == math.inf)) if interior or i in cuts else None,
        )
        for i, error in enumerate(errors)
    )  # fmt: skip
    plain = replace(
        example_run(), verdict="passed", reasons=(), layers=tuple(layers), tensors=tensors, first_divergence=(), findings=(),
        golden=GoldenInfo("ort", example_run().golden.source),
    )  # fmt: skip
    return replace(plain, **changed)


error = st.sampled_from([0.0, 1e-7, 1e-4, 1.5e-4, 3e-3, 0.2, math.inf])


@st.composite
def two_chains(draw: st.DrawFn) -> tuple[RunResult, RunResult, int]:
    """The same chain twice, cut and wrong in different ways, and how many places there are where both are cut."""
    size = draw(st.integers(1, 9))
    sides, ends = [], []
    for _ in range(2):
        cuts = tuple(sorted({*draw(st.sets(st.integers(0, size - 1))), size - 1}))
        errors = tuple(draw(st.lists(error, min_size=size, max_size=size)))
        own = tuple(draw(st.lists(error | st.none(), min_size=size, max_size=size)))
        findings = tuple(
            RunFinding(kind, f"{kind} in t0", "t0", fatal=draw(st.booleans()))
            for kind in draw(st.sets(st.sampled_from("ab")))
        )
        verdict = draw(st.sampled_from(["passed", "warned", "failed"]))
        starts = (draw(st.sampled_from(sides_of(cuts))),) if draw(st.booleans()) else ()
        sides.append(
            chain(
                cuts,
                errors,
                own,
                interior=draw(st.booleans()),
                findings=findings,
                verdict=verdict,
                first_divergence=starts,
            )
        )
        ends.append(set(cuts))
    return sides[0], sides[1], len(ends[0] & ends[1])


def sides_of(cuts: tuple[int, ...]) -> list[str]:
    starts = (0, *(c + 1 for c in cuts[:-1]))
    return [" + ".join(f"n{i}" for i in range(first, end + 1)) for first, end in zip(starts, cuts, strict=True)]


@given(two_chains())
def test_a_result_is_not_worse_than_itself(chains: tuple[RunResult, RunResult, int]) -> None:
    one, _, _ = chains
    found = diff_results(one, one)
    assert found and not found.reasons and not found.settings and not found.warnings
    assert {c.status for c in found.changes} == {"same"}
    assert [(p.status, p.own in ("same", "unknown"), p.changed) for p in found.parts] == [("same", True, ())] * len(
        one.layers
    )
    assert all(f.status == "same" for f in found.findings)
    assert all(p.starts_before == p.starts_after for p in found.parts)


MIRRORED = {
    "worse": "better",
    "better": "worse",
    "only_before": "only_after",
    "only_after": "only_before",
    "same": "same",
    "unknown": "unknown",
}


@given(two_chains())
def test_the_other_way_round_worse_is_better(chains: tuple[RunResult, RunResult, int]) -> None:
    before, after, _ = chains
    forth, back = diff_results(before, after), diff_results(after, before)
    assert {c.name: MIRRORED[c.status] for c in forth.changes} == {c.name: c.status for c in back.changes}

    def seen(found: RegressionResult, *, mirrored: bool) -> set[tuple[Any, ...]]:
        def one(p: PartChange) -> tuple[Any, ...]:
            layers = (p.layers_before, p.layers_after)
            nodes = tuple(
                frozenset(n for layer in side for n in layer.nodes) for side in (layers[::-1] if mirrored else layers)
            )
            words = (MIRRORED[p.status], MIRRORED[p.own]) if mirrored else (p.status, p.own)
            starts = (p.starts_after, p.starts_before) if mirrored else (p.starts_before, p.starts_after)
            return (*nodes, *words, *starts, frozenset(p.boundary), p.changed)

        return {one(p) for p in found.parts}

    assert seen(forth, mirrored=True) == seen(back, mirrored=False)
    assert {(f.kind, MIRRORED[f.status]) for f in forth.findings} == {(f.kind, f.status) for f in back.findings}


@given(two_chains())
def test_parts_are_the_finest_cut_that_both_fusions_respect(chains: tuple[RunResult, RunResult, int]) -> None:
    before, after, common = chains
    found = diff_results(before, after)
    assert len(found.parts) == common
    for side, layers in (("layers_before", before.layers), ("layers_after", after.layers)):
        placed = Counter(one.name for p in found.parts for one in getattr(p, side))
        assert placed == Counter(one.name for one in layers)
    for p in found.parts:
        nodes = [{n for layer in side for n in layer.nodes} for side in (p.layers_before, p.layers_after)]
        assert nodes[0] == nodes[1]
        last = f"t{max(int(n[1:]) for n in nodes[0])}"
        assert p.boundary == (last,), "in a chain one tensor leaves a part"
    order = [p.boundary for p in found.parts]
    assert order == sorted(order, key=lambda b: int(b[0][1:]))


# --- cases


def parts(before: RunResult, after: RunResult) -> dict[str, PartChange]:
    return {p.name: p for p in diff_results(before, after).parts}


def test_a_part_is_compared_at_the_tensor_that_both_sides_write() -> None:
    before = chain((1, 2), (0.5, 1e-4, 1e-3), (None, 2e-4, 3e-4), interior=False)
    after = chain((0, 1, 2), (1e-4, 3e-3, 1e-3), (1e-4, 5e-3, 3e-4))
    fused, last = diff_results(before, after).parts
    assert (fused.boundary, fused.before, fused.after, fused.status) == (("t1",), 1e-4, 3e-3, "worse")
    assert (fused.own_before, fused.own_after, fused.own) == (2e-4, 5e-3, "worse")
    assert ([x.name for x in fused.layers_before], [x.name for x in fused.layers_after]) == (["n0 + n1"], ["n0", "n1"])
    assert fused.changed == ("fusion",) and fused.name == "n0 + n1"
    assert (last.status, last.own, last.changed) == ("same", "same", ())


def test_changed_precision_tactic_and_fallback_are_named_node_by_node() -> None:
    before = chain((0, 1), (1e-4, 1e-4))
    n0, n1 = before.layers
    after = chain((1,), (1e-4, 1e-4))
    fused = replace(after.layers[0], tactic="winograd_f4", precision="fp32")
    assert parts(before, replace(after, layers=(fused,)))["n0 + n1"].changed == ("fusion", "precision", "tactic")
    kept = replace(
        before,
        layers=(n0, replace(n1, precision="fp32")),
        fallbacks=(Fallback("n0", "Gemm", "no kernel", "reference"),),
    )
    found = parts(before, kept)
    assert (found["n0"].changed, found["n1"].changed) == (("fallback",), ("precision",))
    assert found["n0"].layers_after[0].fallback == "reference: no kernel"


def test_a_part_that_only_one_side_has_keeps_its_place() -> None:
    before = chain((0, 1, 2), (1e-4, 1e-4, 1e-4))
    folded = replace(before, layers=(before.layers[0], before.layers[2]))
    assert [(p.name, p.status) for p in diff_results(before, folded).parts] == [
        ("n0", "same"),
        ("n1", "only_before"),
        ("n2", "same"),
    ]
    assert [(p.name, p.status) for p in diff_results(folded, before).parts] == [
        ("n0", "same"),
        ("n1", "only_after"),
        ("n2", "same"),
    ]


def test_a_node_that_several_layers_repeat_ties_nothing_together() -> None:
    before = chain((0, 1), (1e-4, 1e-4))
    shared = replace(before, layers=tuple(replace(x, nodes=(*x.nodes, "Constant_7")) for x in before.layers))
    once = replace(before, layers=(shared.layers[0], before.layers[1]))
    for sides in ((shared, shared), (shared, once), (once, shared)):
        assert [p.boundary for p in diff_results(*sides).parts] == [("t0",), ("t1",)]


def test_where_error_starts_follows_the_fusion() -> None:
    before = chain((1,), (0.5, 0.5), first_divergence=("n0 + n1",))
    after = chain((0, 1), (0.5, 0.5), first_divergence=("n0",))
    (part,) = diff_results(before, after).parts
    assert part.starts_before and part.starts_after


@pytest.mark.parametrize(
    ("floors", "before", "after", "status"),
    [
        ((None, None), 2e-6, 9e-6, "worse"),
        ((5e-6, 6e-6), 2e-6, 9e-6, "same"),
        ((5e-6, 6e-6), 2e-6, 1.1e-5, "worse"),
        ((1e-7, 0.5), 1e-3, 0.5, "worse"),  # a floor that rose hides nothing
        ((math.inf, math.inf), 2e-6, 9e-6, "worse"),
    ],
)
def test_noise_is_what_both_sides_call_noise(
    floors: tuple[float | None, float | None], before: float, after: float, status: str
) -> None:
    sides = [chain((0,), (e,), golden=replace(example_run().golden, noise_floor={} if floor is None else {"t0": floor}))
             for e, floor in zip((before, after), floors, strict=True)]  # fmt: skip
    assert diff_results(*sides).changes[0].status == status


def test_findings_that_came_went_and_turned_fatal() -> None:
    one = RunFinding("overflow", "t0 overflows", "t0", fatal=False)
    other = RunFinding("masks", "t1 is masked", "t1")
    before, after = (chain((0,), (0.0,), findings=f) for f in ((one, other), (replace(one, fatal=True),)))
    found = {f.tensor: f for f in diff_results(before, after).findings}
    assert (found["t0"].status, found["t0"].was_fatal, found["t0"].fatal) == ("same", False, True)
    assert found["t1"].status == "only_before"
    first, second = (RunFinding("cancellation", f"in {name}", layer=name) for name in ("n0", "n1"))
    layers = (chain((0,), (0.0,), findings=(f,)) for f in (first, second))
    assert [f.status for f in diff_results(*layers).findings] == ["only_after", "only_before"]
    plain = replace(example_diff(), findings=(Finding("first_nan", "NaN in y", "y", fatal=True),))
    assert [f.status for f in diff_results(example_diff(), plain).findings] == ["only_after", "only_before"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_sha256": "0" * 64}, "the models are not the same"),
        (
            {"inputs": (InputInfo("dog", "1" * 64, "file dog.npz"),)},
            "the inputs are not the same: 1, then 1, none in common",
        ),
        ({"golden": replace(example_run().golden, kind="fp64")}, "the goldens were made differently: ort, then fp64"),
        ({"acceptance": (Criterion("range_rel", "<=", 0.5),)}, "judged by other limits"),
    ],
)
def test_what_cannot_be_compared_is_said(changed: dict[str, Any], said: str) -> None:
    one = example_run()
    other = replace(one, **changed)
    assert not diff_results(one, one).warnings
    (warning,) = diff_results(one, other).warnings
    assert warning.startswith(said)


def test_goldens_of_other_numbers_are_noticed_without_any_hash() -> None:
    def result(reach: float) -> DiffResult:
        return replace(example_diff(), tensors=(example_tensor("y", metrics=example_metrics(range=reach)),))

    assert diff_results(result(21.4), result(30.0)).warnings == (
        "the goldens are not the same numbers: the range differs of y",
    )
    assert not diff_results(result(21.4), result(21.5)).warnings


def test_a_run_beside_a_diff_is_noticed() -> None:
    assert "one is a probe.run/1, the other a probe.diff/1" in diff_results(example_run(), example_diff()).warnings


def test_settings_that_differ_are_listed() -> None:
    one = example_run()
    other = replace(one, precision="bf16", keep=("a",), environment={**one.environment, "numpy": "2.5.0"})
    found = {s.name: (s.before, s.after) for s in diff_results(one, other).settings}
    assert found == {"precision": ("fp16", "bf16"), "kept in FP32": ("nothing", "a"), "numpy": ("2.4.0", "2.5.0")}


def test_layers_of_a_diff_are_those_of_its_recordings() -> None:
    def result(*layers: tuple[str, tuple[str, ...], float]) -> DiffResult:
        tensors = tuple(
            example_tensor(
                f"t{i}",
                role="internal",
                layer=name,
                nodes=nodes,
                tactic="exact",
                metrics=example_metrics(range_rel=value),
            )
            for i, (name, nodes, value) in enumerate(layers)
        )
        return replace(example_diff(), tensors=tensors, first_divergence=())

    before = result(("a + b", ("a",), 1e-4), ("a + b", ("b",), 1e-4), ("c", ("c",), 1e-3))
    after = result(("a", ("a",), 1e-4), ("b", ("b",), 1e-2), ("c", ("c",), 1e-3))
    assert [(p.name, p.status, p.changed) for p in diff_results(before, after).parts] == [
        ("a + b", "worse", ("fusion",)),
        ("c", "same", ()),
    ]
    assert diff_results(replace(before, tensors=()), after).parts == ()


def test_searches_are_compared_by_what_must_stay() -> None:
    one = examples()["find"]
    assert isinstance(one, FindResult)
    more = replace(one, keep=(*one.keep, Keep("another", "l", (), "another", None)))
    assert diff_results(one, one) and {k.status for k in diff_results(one, one).kept} == {"same"}
    found = diff_results(one, more)
    assert not found and found.reasons == (f"{len(more.keep)} must stay FP32, {len(one.keep)} before",)
    assert [k.name for k in found.kept if k.status == "only_after"] == ["another"]
    assert diff_results(more, one)
    lost = diff_results(one, replace(one, status="unreachable", reason="FP32 fails", keep=()))
    assert lost.reasons == ("the search went from found to unreachable: FP32 fails",)
    with pytest.raises(InputError, match=r"before holds a probe\.find/1, after a probe\.run/1"):
        diff_results(one, example_run())
