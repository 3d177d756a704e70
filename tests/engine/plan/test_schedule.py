"""Stages side by side: in whatever order their waits allow, each finds what it reads untouched."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from probe.engine.plan.memory import Lifetime, plan_memory
from probe.engine.plan.schedule import Stage, depths, lanes, waits


@st.composite
def networks(draw) -> list[Stage]:
    """Stages that each make a buffer or two and read some made before, or given (100, 101)."""
    stages, made = [], 0
    for _ in range(draw(st.integers(1, 25))):
        makes = frozenset(range(made, made + draw(st.integers(1, 2))))
        reads = frozenset(draw(st.lists(st.integers(0, made - 1), max_size=3))) if made else frozenset()
        reads |= frozenset(draw(st.lists(st.sampled_from((100, 101)), max_size=1)))
        made += len(makes)
        stages.append(Stage(makes | reads, makes))
    return stages


def planned(stages: list[Stage], sizes: list[int]):
    depth = depths(stages)
    order = sorted(range(len(stages)), key=lambda at: (depth[at], at))
    lives = {}
    for at, stage in enumerate(stages):
        for one in stage.uses:
            first, last = lives.get(one, (depth[at] if one < 100 else 0, depth[at]))
            lives[one] = (min(first, depth[at]), max(last, depth[at]))
    layout = plan_memory([Lifetime(sizes[one % len(sizes)], *lives[one]) for one in sorted(lives)], 1)
    ranges = {
        one: (offset, offset + sizes[one % len(sizes)]) for one, offset in zip(sorted(lives), layout.offsets, strict=True)
    }  # fmt: skip
    waited, before = waits(stages, order, ranges)
    return order, ranges, waited, before


@given(networks(), st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 1000))
def test_any_order_that_the_waits_allow_computes_the_same(stages, sizes, seed):
    order, ranges, waited, _ = planned(stages, sizes)
    assert all(order.index(other) < order.index(at) for at in order for other in waited[at])
    random, done, memory = Random(seed), set(), {}
    for one in ranges:
        if one >= 100:
            memory.update(dict.fromkeys(range(*ranges[one]), one))
    while len(done) < len(stages):
        at = random.choice([one for one in range(len(stages)) if one not in done and set(waited[one]) <= done])
        for one in stages[at].uses - stages[at].makes:
            assert all(memory.get(byte) == one for byte in range(*ranges[one])), f"stage {at} reads what is not {one}"
        for one in stages[at].makes:
            memory.update(dict.fromkeys(range(*ranges[one]), one))
        done.add(at)


@given(networks(), st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 4))
def test_lanes_and_waits_keep_every_order(stages, sizes, most):
    order, _, waited, before = planned(stages, sizes)
    lane = lanes(order, waited, before, most)
    assert set(lane) <= set(range(most))
    for at in order:  # `before` is what waits lead to, and no more
        reached, waiting = set(), list(waited[at])
        while waiting:
            other = waiting.pop()
            if other not in reached:
                reached.add(other)
                waiting += waited[other]
        assert before[at] == sum(1 << other for other in reached)


def test_independent_stages_get_lanes_of_their_own():
    """x -> q, k, v -> o, each through a workspace that would otherwise be shared."""
    stages = [
        Stage(frozenset({0}), frozenset({0})),
        *(Stage(frozenset({0, 1 + i, 4 + i}), frozenset({1 + i, 4 + i})) for i in range(3)),
        Stage(frozenset({1, 2, 3, 7}), frozenset({7})),
    ]
    assert depths(stages) == [1, 2, 2, 2, 3]
    order, _, waited, before = planned(stages, [16])
    assert waited[1:4] == [(0,)] * 3 and waited[4] == (1, 2, 3)
    assert sorted(lanes(order, waited, before)[1:4]) == [0, 1, 2]
