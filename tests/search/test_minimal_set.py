"""Prefix, elimination and certificates by themselves; and the peers that the campaign compares with."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.search.minimal_set import bundles, certify, eliminate, smallest_prefix, union
from probe.search.oracle import Evaluation, Inquiry
from probe.search.units import Unit
from tests.search.peers import Counted, ddmin, prefix_bisection
from tests.search.problems import names


def singles(ids) -> list[frozenset[str]]:
    return [frozenset({one}) for one in ids]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_smallest_prefix(count: int) -> None:
    ids = names(count)
    for needed in range(1, count + 1):
        for start in (1, 3, count):
            passes = Counted(lambda kept, needed=needed: frozenset(ids[:needed]) <= kept)
            assert smallest_prefix(passes, singles(ids), start) == needed
            assert passes.evaluations <= 2 * math.log2(count) + 2
            assert not {frozenset(), frozenset(ids)} & passes._known.keys(), "known from the baselines"


@given(st.sets(st.integers(0, 99)), st.randoms(use_true_random=False))
def test_eliminate_leaves_the_culprits(culprits: set[int], rng: random.Random) -> None:
    ids = names(100)
    needed = frozenset(ids[i] for i in culprits)
    order = rng.sample(ids, 100)
    passes = Counted(lambda kept: needed <= kept)
    assert eliminate(passes, frozenset(ids), singles(order)) == needed
    k = len(needed)
    assert passes.evaluations <= 2 + k * (3 + 2 * math.log2(100 / max(k, 1)))


def test_eliminate_keeps_what_is_no_candidate_and_may_give_up() -> None:
    ids = names(20)
    passes = Counted(lambda kept: frozenset(ids[:5]) <= kept)
    assert eliminate(passes, frozenset(ids), singles(ids[10:])) == frozenset(ids[:10])
    given_up = eliminate(passes, frozenset(ids), singles(ids[::-1]), most=2)
    assert sum(one in given_up for one in ids[:5]) == 5, "what was not looked at stays"
    assert passes(given_up)


def test_items_go_as_a_whole() -> None:
    items = [frozenset("ab"), frozenset("cd"), frozenset("ef")]
    assert eliminate(lambda kept: "c" in kept, union(items), items) == frozenset("cd")


def test_bundles_stand_where_their_most_suspect_item_does() -> None:
    items = singles("abcdef")
    group = {"a": "g", "c": "h", "d": "g", "e": "h"}
    found = bundles(items, lambda item: group.get(next(iter(item)), ""))
    assert found == [frozenset("b"), frozenset("ad"), frozenset("ce"), frozenset("f")]


def inquiry(passes) -> Inquiry:
    return Inquiry(lambda kept: Evaluation(passes(kept)), [Unit(one, frozenset({one})) for one in "abcd"])


def test_certificates() -> None:
    asked = inquiry(lambda kept: {"a", "b"} <= kept)
    done = certify(asked, frozenset("ab"), ["b", "a"])
    assert done.needless is None
    assert [(one.unit, one.evaluation, one.verdict.passed) for one in done.certificates] == [
        ("b", 0, False),
        ("a", 1, False),
    ]
    assert asked.counts["proof"] == 2
    done = certify(asked, frozenset("ab"), ["b", "a"])
    assert asked.counts["proof"] == 4, "a certificate is evaluated afresh"
    done = certify(asked, frozenset("abcd"), ["b", "c", "d", "a"])
    assert done.needless == "c" and [one.unit for one in done.certificates] == ["b"]


# --- peers -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.data())
def test_ddmin_is_one_minimal(count: int, data: st.DataObject) -> None:
    """On any function of sets: what we compare with must be right."""
    ids = names(count)
    subsets = [frozenset(few) for size in range(1, count) for few in combinations(ids, size)]
    passing = set(data.draw(st.lists(st.sampled_from(subsets)))) if subsets else set()
    passing.add(frozenset(ids))
    found = frozenset(ddmin(lambda kept: kept in passing, ids))
    assert found in passing
    assert not any(found - {one} in passing for one in found if len(found) > 1)


def test_prefix_bisection() -> None:
    ids = names(50)
    for last in range(50):
        passes = Counted(lambda kept, last=last: ids[last] in kept)
        assert prefix_bisection(passes, ids) == ids[: last + 1]
        assert passes.evaluations <= 6
