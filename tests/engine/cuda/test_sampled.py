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


@pytest.mark.parametrize("op", ["GridSample", "RoiAlign"])
def test_channels_of_one_thread_change_no_bit(backend, monkeypatch, op):
    """On a machine of one multiprocessor a thread takes eight channels; the last of 19 has three."""
    random = np.random.default_rng(2)
    x = host_tensor(random.standard_normal((2, 19, 12, 10), dtype=np.float32))
    grid, regions = random.uniform(-1.2, 1.2, (2, 40, 30, 2)), random.uniform(0, 9, (60, 4))
    places = {"GridSample": [grid], "RoiAlign": [regions, random.integers(0, 2, 60)]}[op]
    inputs = [x, *(host_tensor(one.astype(np.float32) if one.dtype.kind == "f" else one) for one in places)]
    attributes = {"GridSample": {}, "RoiAlign": {"output_height": 7, "output_width": 7, "sampling_ratio": 2}}[op]
    node = ir.node(op, [ir.Value(name=f"x{at}") for at in range(len(inputs))], attributes)
    made, sources = [], set()
    for multiprocessors in (132, 1):
        monkeypatch.setattr(backend, "multiprocessors", multiprocessors)
        queue = Queue(backend, 20)
        (y,) = OPS[op].compute(queue, Call(node, inputs, [F32], 20))
        assert y is not None
        made.append(y.array(backend))
        sources |= {value for source in queue.sources for name, value in source.defines if name == "CHANNELS"}
    assert sources == {1, 8} and np.array_equal(*made)
