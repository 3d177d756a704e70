"""Group and instance norm of images that lie channels last, against float64 and against the same channels first."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor

# images, channels, rows, columns; groups (0: instance norm); opset
CASES = {
    "groups": ((2, 64, 9, 7), 8, 21),
    "a scale a group": ((1, 48, 5, 6), 3, 18),
    "one group": ((2, 40, 3, 5), 1, 21),
    "left over threads": ((1, 24, 40, 41), 3, 21),
    "one pixel": ((3, 32, 1, 1), 4, 21),
    "many channels": ((1, 1280, 3, 4), 32, 21),
}
UNIT = {"f16": 2.0**-11, "bf16": 2.0**-8, "float": 0.0}


def made(queue: Queue, x: Tensor, groups: int, opset: int, stored) -> np.ndarray:
    count = x.shape[1] if opset >= 21 else groups
    random = np.random.default_rng(2)
    affine = [host_tensor(random.standard_normal(count).astype(np.float32)) for _ in range(2)]
    node = ir.node(
        "GroupNormalization", [ir.Value(name=name) for name in "xsb"], {"num_groups": groups, "epsilon": 1e-5}
    )
    before = queue.launches.get("transpose")
    (y,) = OPS[node.op_type].compute(queue, Call(node, [x, *affine], [stored], opset))
    assert y is not None and queue.launches.get("transpose") == before
    return y.array(queue.backend)


def reference(array: np.ndarray, groups: int, opset: int) -> np.ndarray:
    wide = array.astype(np.float64).reshape(array.shape[0], groups, -1)
    mean, variance = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    count, random = array.shape[1] if opset >= 21 else groups, np.random.default_rng(2)
    scale, bias = (random.standard_normal(count).astype(np.float32) for _ in range(2))
    each = array.shape[1] // count
    scale, bias = (np.repeat(one.astype(np.float64), each)[None, :, None, None] for one in (scale, bias))
    return ((wide - mean) / np.sqrt(variance + 1e-5)).reshape(array.shape) * scale + bias


@pytest.mark.parametrize("stored", [F16, BF16, F32], ids=["f16", "bf16", "float"])
@pytest.mark.parametrize("name", CASES)
def test_groups_are_normalised_where_they_lie(backend, name, stored):
    shape, groups, opset = CASES[name]
    if backend.name == "host" and stored is not F16 and name not in ("groups", "many channels"):
        pytest.skip("compiling takes longest; the GPU computes all")
    queue = Queue(backend, opset)
    array = 50 + np.random.default_rng(1).standard_normal(
        shape, dtype=np.float32
    )  # the mean is far larger than what is around it
    planes, other = (queue.convert(host_tensor(array), stored) for _ in range(2))
    expected = reference(planes.array(backend), groups, opset)
    images = dense_when_asked(queue, channels_last(queue, other))
    found = made(queue, images, groups, opset, stored)
    if shape[2:] == (1, 1):  # both orders at once
        assert queue.launches["norm_held"]
    else:
        assert queue.launches["norm_channel_parts"] == queue.launches["norm_channel_apply"] == 1
        assert np.array_equal(found, made(queue, images, groups, opset, stored)), "the same bits again"
    allowed = UNIT[stored.name] * np.abs(expected) + 2e-5 * np.abs(expected).max()
    assert (np.abs(found - expected) <= allowed).all()
    assert (np.abs(made(queue, planes, groups, opset, stored) - found) <= 2 * allowed).all()


def test_who_else_reads_channels_last_changes_nothing(backend):
    """Images made channels first are normalised so, even if a convolution has turned them since."""
    queue = Queue(backend, 21)
    x = host_tensor(np.random.default_rng(1).standard_normal((2, 64, 9, 7), dtype=np.float32))
    before = made(queue, x, 8, 21, F32)
    channels_last(queue, x)
    assert np.array_equal(before, made(queue, x, 8, 21, F32))
    assert "norm_channel_parts" not in queue.launches
