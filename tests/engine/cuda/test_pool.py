"""Pooling of images whose channels are contiguous: the bits of pooling planes."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import host_tensor

WINDOWS = {
    "3x3 by two": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
    "uneven": {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1], "strides": [1, 3]},
    "gaps": {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 2, 1, 2]},
    "large": {"kernel_shape": [5, 6], "pads": [2, 3, 2, 3], "strides": [3, 2]},
    "over the end": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "cubes": {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]},
    "volumes": {"kernel_shape": [3, 2, 4], "pads": [1, 0, 1, 0, 1, 2], "strides": [2, 1, 3], "ceil_mode": 1},
}


@pytest.mark.parametrize("stored", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_channels_last_gives_the_bits_of_planes(backend, op, window, stored):
    if backend.name == "host" and stored is not F16 and window not in ("3x3 by two", "cubes"):
        pytest.skip("compiling takes longest; the GPU computes all")
    if op == "AveragePool" and window == "gaps":
        pytest.skip("dilations of AveragePool came with opset 19")
    queue = Queue(backend, 18)
    volume = (5,) if len(WINDOWS[window]["kernel_shape"]) > 2 else ()
    array = np.random.default_rng(4).standard_normal((2, 24, *volume, 9, 11), dtype=np.float32)
    array[0, 3, ..., 4, 4:6], array[1, 7, ..., 0, 0], array[1, 8, ..., 8, 10] = np.nan, np.inf, -np.inf
    planes, other = (queue.convert(host_tensor(array), stored) for _ in range(2))
    made = []
    for one in (planes, dense_when_asked(queue, channels_last(queue, other))):
        node = ir.node(op, [ir.Value(name="x")], WINDOWS[window])
        (y,) = OPS[op].compute(queue, Call(node, [one], [stored], 18))
        assert y is not None
        made.append(y.array(backend))
    assert queue.launches["pool_direct"] == queue.launches["pool_channels"] == 1
    assert np.isnan(made[0]).any()
    np.testing.assert_array_equal(*made)


ROWS = {
    "halves": ({"kernel_shape": [2, 2], "strides": [2, 2]}, 16), "3x3": ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 24),
    "3x3 by two": ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}, 20),
    "counted": ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "count_include_pad": 1, "ceil_mode": 1}, 14),
    "far outside": ({"kernel_shape": [2, 8], "pads": [1, 7, 0, 5], "strides": [1, 4]}, 12), "over the end": ({"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 8),
    "no whole access": ({"kernel_shape": [1, 3], "strides": [1, 1]}, 16), "cubes": ({"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}, 16),
    "volumes": ({"kernel_shape": [3, 2, 4], "pads": [1, 0, 1, 0, 1, 2], "strides": [2, 1, 1], "ceil_mode": 1, "count_include_pad": 1}, 12),
}  # fmt: skip


@pytest.mark.parametrize("stored", [F16, BF16, F32], ids=str)
@pytest.mark.parametrize("window", ROWS)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_neighbours_of_a_row_together_give_the_bits_of_each(backend, monkeypatch, op, window, stored):
    if backend.name == "host" and stored is not (F16 if op == "MaxPool" else F32):
        pytest.skip("compiling takes longest; the GPU computes all")
    attributes, extent = ROWS[window]
    attributes = {key: value for key, value in attributes.items() if op == "AveragePool" or key != "count_include_pad"}
    volume = (5,) if len(attributes["kernel_shape"]) > 2 else ()
    array = np.random.default_rng(4).standard_normal((2, 3, *volume, 9, extent), dtype=np.float32)
    array[0, 2, ..., 4, 4:6], array[1, 1, ..., 0, 0], array[1, 2, ..., 8, extent - 1] = np.nan, np.inf, -np.inf
    made, ran = [], []
    for held in (32, 0):
        monkeypatch.setattr("probe.engine.device.cuda.ops.pool._HELD", held)
        queue = Queue(backend, 18)
        node = ir.node(op, [ir.Value(name="x")], attributes)
        (y,) = OPS[op].compute(queue, Call(node, [queue.convert(host_tensor(array), stored)], [stored], 18))
        assert y is not None
        made.append(y.array(backend))
        ran += [one for one in queue.launches if one.startswith("pool")]
    assert ran == ["pool_rows", "pool_direct"]
    assert np.isnan(made[0]).any()
    np.testing.assert_array_equal(*made)
