"""What reads images between their elements: every case of the table, on both devices."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.sampled_cases import REGIONS, SAMPLES


@pytest.mark.parametrize(("place", "case", "precision"), table(*SAMPLES))
def test_sampled(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*REGIONS))
def test_regions(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_places_that_are_nowhere_read_nothing_else(backend, mode, padding):
    """NaN, infinities and numbers beyond integers: what is read lies inside the image; the other places are right."""
    x = np.random.default_rng(1).standard_normal((1, 2, 3, 4), dtype=np.float32)
    odd = np.array([[np.nan, 0], [0, np.nan], [np.inf, -np.inf], [3e38, -3e38], [1e10, 0]], np.float32)
    made = []
    for places in (odd, np.zeros_like(odd)):
        grid = np.concatenate([places, np.array([[0.25, -0.5]], np.float32)]).reshape(1, 1, -1, 2)
        node = ir.node("GridSample", [ir.Value(name=one) for one in "xg"], {"mode": mode, "padding_mode": padding})
        (y,) = OPS["GridSample"].compute(Queue(backend, 20), Call(node, [host_tensor(x), host_tensor(grid)], [F32], 20))
        assert y is not None
        made.append(y.array(backend))
    assert np.array_equal(made[0][..., -1], made[1][..., -1])
    assert made[0].shape == (1, 2, 1, 6)
