"""Convolutions, pools and resizing of volumes and images beside torch, as CUDA graphs over cold inputs.

    python -m tests.bench.cuda_volumes [--only conv] [--type f16]

Needs a GPU. `last` is torch on tensors whose channels are contiguous, cuDNN's search on. `floor` as in cuda_kernels.py, by the ceilings of an H200: for
products the library's on tensor cores (FP32: its fused multiply-adds).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions import conv_nhwc
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from tests.bench.cuda_kernels import Job, Recorder, measure
from tests.bench.torch_graph import graph_seconds

Shape = tuple[int, ...]
_BANDWIDTH = 4.26e12
_PRODUCTS = {"f16": 7.8e14, "bf16": 7.8e14, "tf32": 3.6e14, "f32": 5.1e13}
# images, channels, outputs, extents, window, stride
CONVOLUTIONS = (
    (1, 1, 32, (128, 128, 128), (3, 3, 3), 1), (1, 32, 32, (128, 128, 128), (3, 3, 3), 1), (1, 32, 64, (128, 128, 128), (3, 3, 3), 2),
    (1, 64, 64, (64, 64, 64), (3, 3, 3), 1), (1, 128, 128, (32, 32, 32), (3, 3, 3), 1), (1, 256, 256, (16, 16, 16), (3, 3, 3), 1),
    (1, 320, 320, (8, 8, 8), (3, 3, 3), 1), (8, 64, 64, (8, 56, 56), (1, 3, 3), 1), (8, 256, 64, (8, 56, 56), (3, 1, 1), 1), (8, 64, 256, (8, 56, 56), (1, 1, 1), 1),
)  # fmt: skip
TRANSPOSED = (
    (1, 64, 32, (64, 64, 64), (2, 2, 2), 2),
    (1, 320, 256, (8, 8, 8), (2, 2, 2), 2),
    (1, 64, 32, (256, 256), (2, 2), 2),
)
RESIZES = (
    ((1, 64, 32, 32, 32), 2, "linear"), ((1, 64, 32, 32, 32), 2, "nearest"), ((8, 64, 128, 128), 2, "linear"), ((8, 64, 128, 128), 2, "cubic"),
    ((8, 3, 512, 512), 0.5, "linear"), ((8, 64, 128, 128), 2, "nearest"), ((8, 64, 128, 128), 1.5, "nearest"),
)  # fmt: skip


def node(op: str, count: int, attributes: dict[str, Any]) -> ir.Node:
    """A node whose second input, if it has one, is a weight."""
    values = [ir.Value(name=f"x{at}", type=ir.TensorType(ir.DataType.FLOAT)) for at in range(count)]
    if count > 1:
        values[1].const_value = ir.tensor(np.zeros(1, np.float32))
        ir.Graph([values[0]], [], nodes=[], initializers=[values[1]])
    return ir.node(op, values, attributes)


def convolution(op: str, problem: Any, stored: Format, *, tf32: bool) -> Job:
    images, channels, outputs, extents, window, stride = problem
    transposed = op == "ConvTranspose"
    pads = [0 if transposed else size // 2 for size in window]
    shape = tuple(n * stride if transposed else (n - 1) // stride + 1 for n in extents)
    weights = (channels, outputs, *window) if transposed else (outputs, channels, *window)
    made = node(op, 3, {"pads": [*pads, *pads], "strides": [stride] * len(window)})
    count = images * outputs * math.prod(shape)
    taps = 1 if transposed else math.prod(window)  # of an output
    functional = getattr(torch.nn.functional, f"conv{'_transpose' * transposed}{len(window)}d")
    name = f"{op} {images} {channels}>{outputs} {'x'.join(map(str, extents))} by {'x'.join(map(str, window))}{f' /{stride}' * (stride > 1)}"
    return Job(
        name, stored, lambda queue, x: OPS[op].compute(queue, Call(made, x, [stored], 18, tf32=tf32)),
        ((images, channels, *extents), weights, (outputs,)), count, 2.0 * count * channels * taps,
        lambda _, x: functional(*x, stride=stride, padding=pads),
    )  # fmt: skip


def resize(shape: Shape, by: float, mode: str, stored: Format) -> Job:
    axes = len(shape) - 2
    scales = np.array([1, 1, *[by] * axes], np.float32)
    made = node("Resize", 3, {"mode": mode})
    known = {"linear": "trilinear" if axes > 2 else "bilinear", "cubic": "bicubic", "nearest": "nearest"}[mode]
    more = {} if mode == "nearest" else {"align_corners": False}

    def run(queue: Queue, x: list[Tensor]) -> Any:
        (y,) = OPS["Resize"].compute(queue, Call(made, [x[0], None, host_tensor(scales)], [stored], 18))
        assert y is not None
        y.address(queue.backend)  # what only repeats is copied when someone asks
        return y

    return Job(
        f"Resize {mode} {'x'.join(map(str, shape))} by {by}", stored, run, (shape,), round(math.prod(shape) * by**axes),
        torch=lambda t, x: t.nn.functional.interpolate(x[0], scale_factor=by, mode=known, **more),
    )  # fmt: skip


def pool(op: str, shape: Shape, window: int, stride: int, stored: Format) -> Job:
    axes = len(shape) - 2
    made = node(
        op,
        1,
        {"kernel_shape": [window] * axes, "strides": [stride] * axes, "pads": [window // 2 * (window % 2)] * 2 * axes},
    )
    name = {"MaxPool": "max_pool", "AveragePool": "avg_pool"}[op]
    functional, pad = getattr(torch.nn.functional, f"{name}{axes}d"), window // 2 * (window % 2)
    out = math.prod((n + 2 * pad - window) // stride + 1 for n in shape[2:])
    return Job(
        f"{op} {'x'.join(map(str, shape))} by {window} /{stride}", stored, lambda queue, x: OPS[op].compute(queue, Call(made, x, [stored], 18)),
        (shape,), math.prod(shape[:2]) * out, torch=lambda _, x: functional(x[0], window, stride, pad),
    )  # fmt: skip


def jobs(stored: Format, *, tf32: bool) -> Iterator[Job]:
    for problem in CONVOLUTIONS:
        yield convolution("Conv", problem, stored, tf32=tf32)
    for problem in TRANSPOSED:
        yield convolution("ConvTranspose", problem, stored, tf32=tf32)
    yield pool("MaxPool", (1, 32, 128, 128, 128), 2, 2, stored)
    yield pool("AveragePool", (8, 64, 16, 56, 56), 3, 2, stored)
    yield pool("MaxPool", (32, 64, 112, 112), 3, 2, stored)
    for shape, by, mode in RESIZES:
        yield resize(shape, by, mode, stored)


def on_torch(job: Job, dtype: Any, *, last: bool) -> float:
    """Seconds of a run by torch."""
    given = [torch.randn(shape, device="cuda", dtype=dtype) for shape in job.shapes]
    if last:
        kinds = {4: torch.channels_last, 5: torch.channels_last_3d}
        given = [one.contiguous(memory_format=kinds[one.dim()]) if one.dim() in kinds else one for one in given]
    run: Callable[[Any, list[Any]], Any] | None = job.torch
    assert run is not None
    return graph_seconds(lambda *x: run(torch, list(x)), given, job.written * job.format.bytes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="jobs whose name this matches")
    parser.add_argument("--type", default="f16", choices=tuple(_PRODUCTS))
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--first", action="store_true", help="convolutions by the kernels that read channels first")
    given = parser.parse_args()
    stored, dtype = {"f16": (F16, torch.float16), "bf16": (BF16, torch.bfloat16)}.get(given.type, (F32, torch.float32))
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = given.type == "tf32"
    backend = Recorder()
    if given.first:
        conv_nhwc.refusal = lambda *_: "channels first"
    print(f"{given.type:52} {'us':>8} {'TFLOP/s':>7} {'floor':>5} {'torch':>8} {'last':>8}  kernels")
    for job in jobs(stored, tf32=given.type == "tf32"):
        if not re.search(given.only, job.name):
            continue
        seconds, moved = measure(backend, job)
        floor = max(moved / _BANDWIDTH, job.operations / _PRODUCTS[given.type])
        peers = [math.nan if given.no_torch else on_torch(job, dtype, last=last) for last in (False, True)]
        kernels = ", ".join(dict.fromkeys(source.entry for source in backend.last))
        print(
            f"{job.name:52} {seconds * 1e6:8.1f} {job.operations / seconds / 1e12:7.1f} {floor / seconds:5.0%} {peers[0] * 1e6:8.1f} {peers[1] * 1e6:8.1f}  {kernels}",
            flush=True,
        )


if __name__ == "__main__":
    main()
