"""Products and convolutions in FP32 beside torch's (cuBLAS, cuDNN, TF32 off), as CUDA graphs over cold inputs; every tactic, if asked for.

    python -m tests.bench.cuda_fp32 [--only "3x3|3152"] [--all] [--seconds 20]

Needs a GPU. Convolutions read and write channels last with a bias, torch's as it likes them best of two orders. `TFLOP/s` is of what is chosen; the
error is that of the whole result against FP64, over its norm, where that is not long to compute.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions import conv_nhwc
from probe.engine.device.cuda.ops.convolutions.window import window_of
from probe.engine.device.cuda.ops.products.ffma import TACTICS, Ffma, choose, microseconds
from probe.engine.device.cuda.ops.products.ffma_family import name_of
from probe.engine.device.cuda.ops.products.matmul import product
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import Tensor
from tests.bench.cuda_kernels import Recorder
from tests.bench.rotation import Rotation

# batch, m, n, k, whether b is stored transposed
PRODUCTS = (
    (1, 4096, 4096, 4096, 0), (1, 1024, 768, 768, 0), (1, 1024, 3072, 768, 0), (1, 1024, 768, 3072, 0), (1, 256, 768, 768, 0), (1, 256, 2304, 768, 0),
    (1, 256, 3072, 768, 0), (1, 256, 768, 3072, 0), (1, 3152, 768, 768, 0), (1, 3152, 2304, 768, 0), (1, 3152, 3072, 768, 0), (1, 3152, 768, 3072, 0),
    (1, 32, 1000, 2048, 0), (1, 1, 1000, 2048, 0), (1, 32, 1000, 1280, 0), (192, 197, 197, 64, 1), (192, 197, 64, 197, 0), (96, 128, 128, 64, 1),
)  # fmt: skip
# images, channels, outputs, rows (and columns), taps each way, stride
CONVOLUTIONS = (
    *((b, *one) for b in (1, 32) for one in (
        (3, 64, 224, 7, 2), (64, 64, 56, 1, 1), (64, 64, 56, 3, 1), (64, 256, 56, 1, 1), (256, 64, 56, 1, 1), (256, 512, 56, 1, 2), (128, 128, 56, 3, 2),
        (128, 128, 28, 3, 1), (512, 128, 28, 1, 1), (128, 512, 28, 1, 1), (256, 256, 14, 3, 1), (1024, 256, 14, 1, 1), (256, 1024, 14, 1, 1),
        (512, 512, 7, 3, 1), (2048, 512, 7, 1, 1), (512, 2048, 7, 1, 1),
    )),
    *((32, *one) for one in (
        (3, 32, 224, 3, 2), (32, 16, 112, 1, 1), (16, 96, 112, 1, 1), (96, 24, 56, 1, 1), (24, 144, 56, 1, 1), (144, 24, 56, 1, 1), (192, 64, 14, 1, 1),
        (64, 384, 14, 1, 1), (576, 96, 14, 1, 1), (160, 960, 7, 1, 1), (960, 320, 7, 1, 1), (320, 1280, 7, 1, 1),
    )),
)  # fmt: skip
_LONG = 1 << 33  # products, from which on a result is not checked


@dataclass(frozen=True, slots=True)
class Job:
    """One problem: its extents as a product, its operands, and how both sides compute it."""

    name: str
    size: tuple[int, int, int, int]  # m, n, k, batch
    given: tuple[Any, ...]
    ours: Callable[[Queue, list[Tensor], Ffma | None], Tensor]
    theirs: Callable[..., Any]

    @property
    def written(self) -> int:
        m, n, _, batch = self.size
        return 4 * m * n * batch


def product_job(problem: Sequence[int]) -> Job:
    batch, m, n, k, turned = problem
    a = torch.randn((batch, m, k), device="cuda")
    b = torch.randn((batch, n, k) if turned else (batch, k, n), device="cuda")

    def ours(queue: Queue, x: list[Tensor], tile: Ffma | None) -> Tensor:
        y = queue.empty((batch, m, n), F32)
        right = Matrices(x[1], (n * k,), *((1, k) if turned else (n, 1)))
        product(queue, Matrices(x[0], (m * k,), k, 1), right, y, k, tile=tile)
        return y

    return Job(
        f"{batch}x{m}x{n}x{k}{' Bt' * turned}",
        (m, n, k, batch),
        (a, b),
        ours,
        lambda a, b: torch.bmm(a, b.mT if turned else b),
    )


def convolution_job(problem: Sequence[int]) -> Job:
    images, channels, outputs, rows, taps, stride = problem
    x = torch.randn((images, channels, rows, rows), device="cuda").contiguous(memory_format=torch.channels_last)
    w = torch.randn((outputs, channels, taps, taps), device="cuda")
    bias = torch.randn(outputs, device="cuda")
    out = (rows + taps // 2 * 2 - taps) // stride + 1
    values = [ir.Value(name=name) for name in "xwb"]
    values[1].const_value = ir.tensor(np.zeros(1, np.float32))
    graph = ir.Graph([values[0]], [], nodes=[], initializers=[values[1]])
    assert values[1].is_initializer(), graph
    node = ir.node("Conv", values, {"pads": [taps // 2] * 4, "strides": [stride] * 2})

    def ours(queue: Queue, x: list[Tensor], tile: Ffma | None) -> Tensor:
        call = Call(node, x, [F32], 18)
        (y,) = conv_nhwc.conv(queue, call, window_of(call, (rows, rows), (taps, taps)), [], [], tile)
        return y

    return Job(
        f"{images} {channels}>{outputs} {rows}x{rows} {taps}x{taps}{f' /{stride}' * (stride > 1)}",
        (images * out * out, outputs, channels * taps * taps, 1),
        (x, w, bias),
        ours,
        lambda x, w, b: torch.nn.functional.conv2d(x, w, b, stride, taps // 2),
    )


def torch_seconds(job: Job, rotation: Rotation, backend: Recorder) -> float:
    """Of torch; convolutions in the better of two orders."""
    found = [rotation.torch_seconds(job.theirs)]
    if len(job.given) > 2:
        first = (job.given[0].contiguous(), *job.given[1:])
        found.append(Rotation(backend, first, job.written).torch_seconds(job.theirs))
    return min(found)


def error_of(job: Job, rotation: Rotation) -> float:
    if math.prod(job.size) > _LONG:
        return math.nan
    exact = job.theirs(*(one.double() for one in job.given))
    actual = rotation.result(lambda queue, x: job.ours(queue, x, None)).double()
    return float((actual - exact).norm() / exact.norm())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name this matches")
    parser.add_argument("--all", type=int, default=0, help="so many tactics, those first that should be fastest")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no problem is begun after so many")
    given = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    backend, begin = Recorder(), time.perf_counter()
    many = backend.multiprocessors
    print(f"{'problem':28} {'torch us':>9} {'us':>9} {'share':>6} {'TFLOP/s':>8} {'error':>8}  chosen; tactics: us")
    jobs: list[tuple[Callable[[Sequence[int]], Job], Sequence[int]]] = [(product_job, one) for one in PRODUCTS]
    jobs += [(convolution_job, one) for one in CONVOLUTIONS]
    for make, problem in jobs:
        if time.perf_counter() - begin > given.seconds:
            break
        job = make(problem)
        if not re.search(given.only, job.name):
            continue
        rotation = Rotation(backend, job.given, job.written, lambda queue, x, one=job: one.ours(queue, x, None))
        peer, seconds = torch_seconds(job, rotation, backend), kernel_seconds(job, rotation, None)
        tiles = [one for one in sorted(TACTICS, key=lambda one: microseconds(one, *job.size, many)) if given.all]
        others = [
            (kernel_seconds(job, rotation, one), name_of(one)[5:])
            for one in tiles[: given.all]
            if math.isfinite(microseconds(one, *job.size, many))
        ]
        rate = 2e-12 * math.prod(job.size) / seconds
        text = "; ".join(f"{name}: {one * 1e6:.1f}" for one, name in sorted(others)[:6])
        print(
            f"{job.name:28} {peer * 1e6:9.1f} {seconds * 1e6:9.1f} {peer / seconds:6.0%} {rate:8.1f} {error_of(job, rotation):8.1e}  "
            f"{name_of(choose(*job.size, many))[5:]}; {text}",
            flush=True,
        )


def kernel_seconds(job: Job, rotation: Rotation, tile: Ffma | None) -> float:
    return rotation.seconds(lambda queue, x: job.ours(queue, x, tile))


if __name__ == "__main__":
    main()
