"""Shapes, strides and walks: the arithmetic behind every launch, against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import plan_walk
from probe.engine.device.cuda.tensors.layout import around, broadcast, collapse, contiguous, spread, width

shapes = st.lists(st.integers(1, 5), max_size=5).map(tuple)


@given(shapes, st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=3))
def test_joined_axes_visit_the_same_elements(shape, repeated):
    """Collapsing changes how a tensor is walked, never what is visited."""
    own = [tuple(1 if axis in gone else extent for axis, extent in enumerate(shape)) for gone in repeated]
    strides = [contiguous(shape), *(spread(one, shape) for one in own)]
    extents, steps = collapse(shape, strides)
    assert math.prod(extents) == math.prod(shape) and len(extents) <= max(len(shape), 1)
    for one, before, after in zip([shape, *own], strides, steps, strict=True):
        data = np.arange(math.prod(one))
        wide = as_strided(data, shape, [8 * s for s in before])
        flat = as_strided(data, extents, [8 * s for s in after])
        assert np.array_equal(wide.reshape(-1), flat.reshape(-1))
        assert np.array_equal(wide, np.broadcast_to(data.reshape(one), shape))


@given(shapes, shapes)
def test_broadcasting_is_numpys(one, other):
    try:
        expected = np.broadcast_shapes(one, other)
    except ValueError:
        with pytest.raises(Unsupported):
            broadcast(one, other)
    else:
        assert broadcast(one, other) == expected


def test_broadcasting_with_nothing():
    assert broadcast((0, 4), (1, 4)) == (0, 4)
    assert broadcast((), ()) == ()


def test_a_dense_tensor_is_one_axis():
    assert collapse((2, 3, 4), [(12, 4, 1)]) == ((24,), [(1,)])
    assert collapse((2, 3, 4), [(12, 4, 1), (0, 0, 1)]) == ((6, 4), [(4, 1), (0, 1)])
    assert collapse((1, 1), [(1, 1)]) == ((1,), [(0,)])


@pytest.mark.parametrize(
    ("limit", "numbers", "expected"), [(8, (16, 24), 8), (8, (12,), 4), (8, (7, 0), 1), (8, (0,), 8), (4, (8,), 4)]
)
def test_width(limit, numbers, expected):
    assert width(limit, *numbers) == expected


def test_around():
    assert around((2, 3, 4), -2) == (2, 3, 4)
    assert around((5,), 0) == (1, 5, 1)


@given(shapes.filter(bool), st.sampled_from((1, 2, 4, 8)))
def test_a_walk_covers_every_element_once(shape, widest):
    extents, strides = collapse(shape, [contiguous(shape)])
    walk = plan_walk(extents, strides, widest, math.prod(shape))
    assert walk.lanes * widest <= 16 or walk.lanes == 1
    assert walk.vectors * walk.lanes >= math.prod(shape) > (walk.vectors - 1) * walk.lanes


def test_large_tensors_need_wide_indices():
    assert plan_walk((1 << 31,), [(1,)], 4, 1 << 31).wide
    assert not plan_walk((1 << 20,), [(1,)], 4, 1 << 20).wide
