"""The memory planner: buffers alive together never overlap, and little is wasted."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.plan.memory import NEAR, Layout, Lifetime, plan_memory

LIFETIMES = st.lists(
    st.builds(
        lambda nbytes, first, length: Lifetime(nbytes, first, first + length),
        st.one_of(st.integers(0, 5000), st.integers(0, 1 << 24)), st.integers(0, 40), st.integers(0, 40),
    ),
    max_size=40,
)  # fmt: skip


def overlaps(lifetimes: list[Lifetime], layout: Layout) -> list[tuple[int, int]]:
    found = []
    for a, (one, at) in enumerate(zip(lifetimes, layout.offsets, strict=True)):
        for b, (other, there) in enumerate(zip(lifetimes[:a], layout.offsets, strict=False)):
            together = one.first <= other.last and other.first <= one.last
            if together and at < there + other.nbytes and there < at + one.nbytes:
                found.append((b, a))
    return found


@given(LIFETIMES, st.sampled_from((1, 16, 256)))
def test_buffers_alive_together_never_overlap(lifetimes, alignment):
    layout = plan_memory(lifetimes, alignment)
    assert not overlaps(lifetimes, layout)
    assert all(offset % alignment == 0 for offset in layout.offsets)
    assert layout.nbytes == max(
        (o + -(-one.nbytes // alignment) * alignment for o, one in zip(layout.offsets, lifetimes, strict=True)), default=0
    )  # fmt: skip


@given(LIFETIMES)
def test_the_peak_is_what_is_alive_at_its_worst_step(lifetimes):
    layout = plan_memory(lifetimes, 256)
    alive = [
        sum(-(-one.nbytes // 256) * 256 for one in lifetimes if one.first <= step <= one.last) for step in range(82)
    ]
    assert layout.peak_bytes == max(alive, default=0)
    assert layout.peak_bytes <= layout.nbytes <= sum(-(-one.nbytes // 256) * 256 for one in lifetimes)


@given(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=60))
def test_a_chain_takes_its_two_largest_neighbours(sizes):
    """Layer after layer, each reading what the one before it made: nothing needs to be wasted."""
    lifetimes = [Lifetime(size, step, step + 1) for step, size in enumerate(sizes)]
    layout = plan_memory(lifetimes)
    assert not overlaps(lifetimes, layout) and layout.nbytes <= NEAR * layout.peak_bytes


def residual_network(count: int, seed: int) -> list[Lifetime]:
    """Blocks of a few layers around a shortcut, sizes halving now and then: what convolutional networks look like."""
    random, found, step, size = np.random.default_rng(seed), [], 0, 1 << 24
    while len(found) < count:
        length = int(random.integers(2, 5))
        found.append(Lifetime(size, step, step + length))
        for _ in range(length):
            found.append(Lifetime(int(size * random.choice((0.25, 0.5, 1))), step, step + 1))
            step += 1
        size = max(size // int(random.choice((1, 1, 1, 2))), 1 << 16)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_networks_with_shortcuts_are_near_their_peak(seed):
    lifetimes = residual_network(300, seed)
    layout = plan_memory(lifetimes)
    assert not overlaps(lifetimes, layout) and layout.nbytes <= NEAR * layout.peak_bytes


def test_two_thousand_tensors_are_planned_quickly():
    random = np.random.default_rng(0)
    lifetimes = [
        Lifetime(int(2.0 ** random.uniform(8, 24)), first, first + int(random.integers(1, 40)))
        for first in random.integers(0, 2000, 2000).tolist()
    ]
    begin = time.process_time()
    layout = plan_memory(lifetimes)
    assert time.process_time() - begin < 3.0  # a fifth of that on an idle machine
    assert layout.nbytes <= 1.15 * layout.peak_bytes
