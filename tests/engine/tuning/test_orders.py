"""Orders of least total, against trying all of them."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.engine.tuning.orders import FIRST, LAST, PAIRS, Carried, Part, least, total_of

times = st.integers(0, 20).map(float)
keeps = st.fixed_dictionaries({(FIRST, FIRST): times, (LAST, LAST): times})
every = st.dictionaries(st.sampled_from(PAIRS), times, min_size=1)


@st.composite
def networks(draw, costs):
    parts = [Part(draw(costs)) for _ in range(draw(st.integers(1, 6)))]
    tensors = []
    for maker in [None, *range(len(parts))]:
        later = list(range(0 if maker is None else maker + 1, len(parts)))
        readers = draw(st.lists(st.sampled_from([*later, None]), max_size=4, unique=True))
        if readers:
            tensors.append(Carried(maker, tuple(readers), draw(times)))
    return parts, tensors


def tried(parts, tensors) -> float:
    return min(total_of(parts, tensors, orders) for orders in product(PAIRS, repeat=len(parts)))


@settings(max_examples=120, deadline=None)
@given(networks(keeps))
def test_the_least_total_of_parts_that_keep_an_order(network):
    found = least(*network)
    assert found.total == pytest.approx(tried(*network)) and found.bound == pytest.approx(found.total)
    assert total_of(*network, found.orders) == pytest.approx(found.total)


def fits(part: Part) -> bool:
    first, out, back, last = (part.costs.get(pair, math.inf) for pair in PAIRS)
    return math.isinf(out + back) or first + last <= out + back


@settings(max_examples=120, deadline=None)
@given(networks(every))
def test_any_parts(network):
    """Exact where every part fits a cut; else never better than the least, nor the bound above it."""
    parts, tensors = network
    found, best = least(parts, tensors), tried(parts, tensors)
    assert math.isfinite(found.total) and total_of(parts, tensors, found.orders) == pytest.approx(found.total)
    assert found.bound <= best + 1e-6 and found.total >= best - 1e-6
    if all(map(fits, parts)):
        assert found.total == pytest.approx(best)


def test_a_conversion_is_paid_once_for_all_readers():
    fast = Part({(LAST, LAST): 1.0, (FIRST, FIRST): 4.0})
    parts = [Part({(FIRST, FIRST): 1.0}), fast, fast, fast]
    assert least(parts, [Carried(0, (1, 2, 3), 5.0)]).orders[1:] == ((LAST, LAST),) * 3
    assert least(parts[:2], [Carried(0, (1,), 5.0)]).orders == ((FIRST, FIRST),) * 2


def test_a_faster_tactic_is_left_out_where_turning_costs_more():
    """A chain: the one in the middle would win by itself."""
    stays = Part({(FIRST, FIRST): 1.0})
    middle = Part({(FIRST, FIRST): 5.0, (LAST, LAST): 3.0})
    chain = [Carried(0, (1,), 1.5), Carried(1, (2,), 1.5)]
    assert least([stays, middle, stays], chain).orders[1] == (FIRST, FIRST)
    cheap = [Carried(0, (1,), 0.5), Carried(1, (2,), 0.5)]
    assert least([stays, middle, stays], cheap).orders[1] == (LAST, LAST)


def test_hundreds_of_layers():
    parts = [Part({(FIRST, FIRST): 1.0 + at % 3, (LAST, LAST): 2.0 - at % 2}) for at in range(400)]
    tensors = [Carried(at, (at + 1, *([at + 5] if at + 5 < 400 else [])), 0.3) for at in range(399)]
    found = least(parts, tensors)
    assert found.bound == found.total <= total_of(parts, tensors, [(LAST, LAST)] * 400)
