"""Units that cannot differ become one; the order in which units are suspected."""

from __future__ import annotations

import math

import pytest

from probe.errors import InputError
from probe.search.ranking import rank, rank_by_effect, score
from probe.search.units import Unit, check_units, joined_name, merge_units


def unit(name: str, members: str = "", **values) -> Unit:
    return Unit(name, frozenset(members or name), **values)


@pytest.mark.parametrize(
    ("units", "together", "expected"),
    [
        ([unit("a"), unit("b")], [], ["a", "b"]),
        ([unit("a", "xy"), unit("b", "z"), unit("c", "yw")], [], ["a + c", "b"]),
        ([unit("a", "xy"), unit("b", "yz"), unit("c", "zw")], [], ["a + b + c"]),
        ([unit("a"), unit("b"), unit("c")], [["c", "b"]], ["a", "b + c"]),
        ([unit("a"), unit("b"), unit("c")], [["a", "c"], ["b", "c"]], ["a + b + c"]),
        ([unit("a"), unit("b"), unit("c"), unit("d"), unit("e")], ["abcde"], ["a + ... + e [5]"]),
        ([unit("a"), unit("b")], [["a"], []], ["a", "b"]),
    ],
)
def test_what_cannot_differ_is_merged(units: list[Unit], together: list[list[str]], expected: list[str]) -> None:
    merged = merge_units(units, together)
    assert [one.id for one in merged] == expected
    assert frozenset().union(*(one.members for one in merged)) == frozenset().union(*(one.members for one in units))
    check_units(merged)


def test_a_merged_unit_is_as_dear_and_as_suspect_as_its_parts() -> None:
    parts = [
        unit("a", cost=2, score=0.5, group="g"),
        unit("b", cost=3, score=math.nan, group="g", flagged=True),
        unit("c", cost=1, score=9, group="g"),
    ]
    (one,) = merge_units(parts, ["abc"])
    assert (one.cost, one.score, one.group, one.flagged) == (6, math.inf, "g", True)
    assert merge_units([parts[0], unit("d", group="h")], ["ad"])[0].group == ""


def test_merging_what_is_not_there() -> None:
    with pytest.raises(InputError, match="no unit is called 'z'"):
        merge_units([unit("a")], [["a", "z"]])


@pytest.mark.parametrize(
    ("names", "joined"), [(["a"], "a"), (list("abcd"), "a + b + c + d"), (list("abcde"), "a + ... + e [5]")]
)
def test_joined_name(names: list[str], joined: str) -> None:
    assert joined_name(names) == joined


@pytest.mark.parametrize(
    ("local", "gain", "expected"),
    [(0.5, 2, 1), (-0.5, 2, 1), (0.5, -2, 1), (math.nan, 1, math.inf), (math.inf, 0, math.inf), (0, 5, 0)],
)
def test_score(local: float, gain: float, expected: float) -> None:
    assert score(local, gain) == expected


@pytest.mark.parametrize(
    ("units", "by_count", "by_cost"),
    [
        ([unit("a", score=1), unit("b", score=3), unit("c", score=2)], "bca", "bca"),
        ([unit("a"), unit("b"), unit("c")], "abc", "abc"),
        ([unit("a", score=4, cost=4), unit("b", score=3, cost=1)], "ab", "ba"),
        ([unit("a", score=9), unit("b", flagged=True)], "ba", "ba"),
        ([unit("a", flagged=True, cost=9), unit("b", flagged=True, cost=1)], "ab", "ba"),
        ([unit("a", score=9), unit("b", score=math.nan)], "ba", "ba"),
        ([unit("a", score=9), unit("b", score=1, cost=0)], "ab", "ba"),
    ],
)
def test_rank(units: list[Unit], by_count: str, by_cost: str) -> None:
    assert "".join(rank(units)) == by_count
    assert "".join(rank(units, "cost")) == by_cost


def test_what_was_measured_ranks_before_what_was_guessed() -> None:
    units = {name: unit(name, cost=10 if name == "b" else 1) for name in "abcd"}
    effects = {"a": 0.1, "b": 0.5, "c": 0.1, "d": math.inf}
    assert rank_by_effect(effects, frozenset("c"), list("abcd"), units, "count") == list("cdba")
    assert rank_by_effect(effects, frozenset("c"), list("abcd"), units, "cost") == list("cdab")
