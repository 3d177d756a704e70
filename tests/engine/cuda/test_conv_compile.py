"""Convolutions of sm_90a compile without a GPU: which kernel is chosen, its registers, and nothing spilled."""

from __future__ import annotations

import pytest

from probe import ir
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16
from tests.engine.cuda.test_wgmma_compile import fine, hopper

# images, channels, outputs, rows (and columns), taps each way, stride, groups; the kernel, and the most registers of a thread
CASES = {
    "two groups in turn": ((32, 64, 64, 56, 3, 1, 1), "conv_image", 168),
    "one group": ((32, 256, 256, 14, 3, 1, 1), "conv_image", 255),
    "whole images": ((32, 512, 512, 7, 3, 1, 1), "conv_image", 255),
    "a stem": ((32, 3, 64, 224, 7, 2, 1), "conv_image", 168),
    "few pixels": ((1, 512, 256, 28, 1, 1, 1), "conv_few", 128),
    "fewer pixels": ((1, 2048, 512, 7, 1, 1, 1), "conv_few", 128),
    "depthwise": ((32, 144, 144, 56, 3, 1, 144), "conv_depthwise_mma", 80),
    "depthwise by two": ((32, 96, 96, 112, 3, 2, 96), "conv_depthwise_mma", 80),
    "few channels": ((32, 16, 96, 112, 1, 1, 1), "conv_point", 80),
    "few outputs": ((32, 144, 24, 56, 1, 1, 1), "conv_point", 128),
}


@pytest.mark.parametrize("stored", [F16, BF16], ids=lambda one: one.name)
@pytest.mark.parametrize("name", CASES)
def test_kernels_are_within_their_budget(name, stored):
    (images, channels, outputs, rows, taps, stride, groups), kernel, most = CASES[name]
    if stored is BF16 and kernel == "conv_image":
        pytest.skip("its registers are those of FP16, and compiling it takes longest")
    backend = hopper()
    backend.multiprocessors = 132
    queue, out = Queue(backend, 18), (rows - 1) // stride + 1
    shapes = ((images, channels, rows, rows), (outputs, channels // groups, taps, taps), (outputs,))
    values = [ir.Value(name=name) for name in "xwb"]
    node = ir.node("Conv", values, {"group": groups, "pads": [taps // 2] * 4, "strides": [stride] * 2})
    call = Call(node, [queue.empty(shape, stored) for shape in shapes], [stored], 18)
    beside = [("x0", Reading(queue.empty((images, outputs, out, out), stored)))]
    steps = [
        Step("p", "float", "sum", stored.name),
        Step("v", "float", "float(op_add(p, x0))", stored.name),
        Step("y", "float", "op_relu(v)", stored.name, stored),
    ]
    tail = OPS["Conv"].tailed
    assert tail is not None
    tail(queue, call, beside, steps)
    found = [(source, shape) for source, shape in backend.launched if source.entry == kernel]
    assert len(found) == 1, [source.entry for source, _ in backend.launched]
    for source, shape in found:
        fine(source, shape.shared_bytes, most)
