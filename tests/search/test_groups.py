"""Culprit groups, hitting sets, and which units are tried together."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.search.groups import EXACT_HITTING_SET, compensating_candidates, culprit_group, lightest_hitting_set
from tests.search.problems import names

IDS = names(30)


@pytest.mark.parametrize(
    ("faults", "unit", "kept", "expected"),
    [
        ([{"u3"}], "u3", {"u3"}, {"u3"}),
        ([{"u3", "u9"}], "u3", {"u3"}, {"u3", "u9"}),
        ([{"u3", "u9", "u1"}], "u3", {"u3"}, {"u3", "u9", "u1"}),
        ([{"u3", "u9"}, {"u5"}], "u3", {"u3", "u5"}, {"u3", "u9"}),
        ([{"u3", "u20"}, {"u3", "u4"}], "u3", {"u3"}, {"u3", "u20"}),  # the more suspect of two
        ([{"u3", "u1", "u2", "u4", "u5"}], "u3", {"u3"}, None),  # too many to say anything
    ],
)
def test_culprit_group(faults, unit, kept, expected) -> None:
    def passes(held: frozenset[str]) -> bool:
        return all(fault & held for fault in faults)

    low = [frozenset({one}) for one in IDS if one not in kept]  # the last is the most suspect
    found = culprit_group(passes, frozenset(IDS), unit, low)
    assert found == (None if expected is None else frozenset(expected))


@given(
    st.lists(st.frozensets(st.sampled_from(IDS[:8]), min_size=1, max_size=3), min_size=1, max_size=EXACT_HITTING_SET),
    st.lists(st.integers(0, 9), min_size=8, max_size=8),
)
def test_the_lightest_hitting_set_of_a_few_groups_is_the_lightest(groups, costs) -> None:
    cost = dict(zip(IDS, costs, strict=False))
    found = lightest_hitting_set(groups, cost.__getitem__, IDS)
    assert all(group & found for group in groups)
    every = (frozenset(few) for size in range(9) for few in combinations(IDS[:8], size))
    lightest = min(sum(map(cost.__getitem__, few)) for few in every if all(group & few for group in groups))
    assert sum(map(cost.__getitem__, found)) == lightest


def test_many_groups_are_hit_greedily() -> None:
    groups = [frozenset({"u0", one}) for one in IDS[1:]]
    assert len(groups) > EXACT_HITTING_SET
    assert lightest_hitting_set(groups, lambda one: 1.0, IDS) == {"u0"}
    dear = lightest_hitting_set(groups, lambda one: 100.0 if one == "u0" else 1.0, IDS)
    assert all(group & dear for group in groups)


def candidates(lost: dict[str, float], most: int = 100) -> list[frozenset[str]]:
    items = {frozenset({one}): value for one, value in lost.items()}
    return compensating_candidates(list(items), items, most)


def test_those_that_lose_alike_are_tried_together_first() -> None:
    assert candidates({"a": 1.0, "b": 5.0, "c": 1.01, "d": 3.0})[0] == {"a", "c"}
    assert candidates({"a": 1.0, "b": 5.0, "c": 1.01, "d": 1.02})[0] == {"a", "c", "d"}, "three alike at once"
    assert len(candidates({"a": 1.0, "b": 5.0, "c": 1.0, "d": 3.0})) == 6, "every pair in the end"
    assert len(candidates({"a": 1.0, "b": 5.0, "c": 1.0, "d": 3.0}, most=2)) == 2


def test_many_alike_do_not_hide_a_pair() -> None:
    lost = {f"c{i}": 2.0 for i in range(12)} | {"a": 3.0, "b": 3.0}
    assert frozenset("ab") in candidates(lost, most=3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_without_margins_neighbours_come_first(value: float) -> None:
    found = candidates(dict.fromkeys("abc", value))
    assert set(found[:2]) == {frozenset("ab"), frozenset("bc")} and found[2] == {"a", "c"}


def test_what_would_leave_nothing_is_not_tried() -> None:
    assert candidates({"a": 1.0, "b": 1.0}) == [] and candidates({"a": 1.0}) == []
