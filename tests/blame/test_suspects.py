"""Suspects from counts: Fisher's test against scipy, the posterior's behaviour, what a set difference would have listed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from probe.blame.suspects import NOISE, OTHER_CAUSE, fisher, same_everywhere, suspects_of

COUNTS = st.integers(0, 12)
RUNS = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["exact", "acc16", "splitk2"])), min_size=1, max_size=5
)


@given(bad=COUNTS, without_bad=COUNTS, good=COUNTS, without_good=COUNTS)
def test_fisher_is_the_one_sided_exact_test(bad: int, without_bad: int, good: int, without_good: int) -> None:
    theirs = fisher_exact([[bad, good], [without_bad, without_good]], alternative="greater")
    assert fisher(bad, bad + without_bad, good, good + without_good) == pytest.approx(float(theirs[1]), abs=1e-12)


@given(good=RUNS, bad=RUNS)
def test_suspects_are_ranked_and_their_posteriors_are_probabilities(good: list, bad: list) -> None:
    found, unexplained = suspects_of(good, bad)
    posteriors = [one.posterior for one in found]
    assert all(later <= before + 1e-9 for before, later in pairwise(posteriors))
    assert 0 < unexplained <= 1 and math.fsum(posteriors) + unexplained <= 1 + 1e-9
    for one in found:
        assert one.bad == sum(run.get(one.layer) == one.choice for run in bad) > 0
        assert one.good == sum(run.get(one.layer) == one.choice for run in good)
        assert one.bad * max(one.good_runs, 1) > one.good * max(one.bad_runs, 1)


@given(good=RUNS, bad=RUNS)
def test_a_set_difference_is_part_of_it(good: list, bad: list) -> None:
    difference = {item for run in bad for item in run.items()} - {item for run in good for item in run.items()}
    found, _ = suspects_of(good, bad)
    assert {(one.layer, one.choice) for one in found if one.good == 0} == difference


def test_one_good_and_one_bad_run_prove_little() -> None:
    good, bad = [dict.fromkeys("abcd", "exact")], [dict.fromkeys("abcd", "acc16")]
    found, unexplained = suspects_of(good, bad)
    assert [one.layer for one in found] == [*"abcd"] and {one.alike for one in found} == {3}
    # 8 choices share the prior; the likelihood of the four that are in the bad run is (1 - NOISE)^2, of the others NOISE^2.
    weight = (1 - OTHER_CAUSE) / 8
    total = 4 * weight * (1 - NOISE) ** 2 + 4 * weight * NOISE**2 + OTHER_CAUSE / 4
    assert [one.posterior for one in found] == pytest.approx([weight * (1 - NOISE) ** 2 / total] * 4)
    assert unexplained == pytest.approx(OTHER_CAUSE / 4 / total)
    assert {one.p_value for one in found} == {0.5}
    assert dict(found[0].instead) == {"exact": 1}


def test_more_runs_single_out_the_guilty_choice() -> None:
    def run(**tactics: str) -> dict[str, str]:
        return dict.fromkeys("abcdefgh", "exact") | tactics

    good = [run(a="acc16"), run(b="acc16", c="splitk2"), run(d="acc16"), run()]
    bad = [run(h="acc16", a="acc16"), run(h="acc16", b="acc16"), run(h="acc16", c="splitk2")]
    (first, *others), unexplained = suspects_of(good, bad)
    assert (first.layer, first.choice, first.bad, first.good, first.alike) == ("h", "acc16", 3, 0, 0)
    assert first.posterior > 0.95 and first.p_value == pytest.approx(1 / 35) and unexplained < 0.05
    assert all(one.posterior < 0.01 for one in others)


def test_what_is_in_a_good_run_too_may_still_be_suspect() -> None:
    """One flaky good run does not acquit, as a set difference would let it."""
    good = [{"a": "exact"}] * 5 + [{"a": "acc16"}]
    bad = [{"a": "acc16"}] * 6
    (found,), _ = suspects_of(good, bad)
    assert (found.choice, found.good, found.bad) == ("acc16", 1, 6) and found.p_value < 0.01 and found.posterior > 0.9


def test_innocent_when_evenly_spread() -> None:
    runs = [{"a": "exact"}, {"a": "acc16"}]
    assert suspects_of(runs, runs)[0] == ()
    assert same_everywhere([{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"b": 1}]) == (2, 1)


def test_a_layer_that_runs_lack_says_nothing_there() -> None:
    """A layer fused away in some runs: only runs that have it count."""
    found, _ = suspects_of([{"a": "exact"}, {"b": "exact"}], [{"a": "acc16", "b": "exact"}, {"b": "exact"}])
    (one,) = found
    assert (one.layer, one.bad_runs, one.good_runs) == ("a", 1, 1)
