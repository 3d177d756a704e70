"""Convolutions in FP16 beside torch's (cuDNN, channels last), both from and to channels last, as CUDA graphs over cold inputs.

    python -m tests.bench.cuda_convolutions [--only 3x3] [--type f16]

Needs a GPU. The error is that of the whole result against torch's convolution in FP32 of the same rounded values, over its norm.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from probe.engine.device.cuda.channels_last import channels_last
from probe.engine.device.cuda.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensor import Tensor, host_tensor
from tests.bench.cuda_kernels import Job, Recorder, measure
from tests.bench.torch_graph import graph_seconds

# images, channels, outputs, rows (and columns), taps each way, stride, groups
PROBLEMS = (
    *((b, *one) for b in (1, 32) for one in (
        (64, 64, 56, 1, 1, 1), (64, 64, 56, 3, 1, 1), (64, 256, 56, 1, 1, 1), (256, 64, 56, 1, 1, 1), (256, 512, 56, 1, 2, 1), (128, 128, 56, 3, 2, 1),
        (128, 128, 28, 3, 1, 1), (512, 128, 28, 1, 1, 1), (128, 512, 28, 1, 1, 1), (256, 256, 14, 3, 1, 1), (1024, 256, 14, 1, 1, 1),
        (512, 512, 7, 3, 1, 1), (2048, 512, 7, 1, 1, 1), (512, 2048, 7, 1, 1, 1),
    )),
    (32, 3, 64, 224, 7, 2, 1), (32, 96, 24, 56, 1, 1, 1), (32, 32, 32, 112, 3, 1, 32), (32, 144, 144, 56, 3, 1, 144), (32, 192, 192, 28, 3, 2, 192),
    (32, 576, 576, 14, 3, 1, 576), (32, 960, 960, 7, 3, 1, 960),
)  # fmt: skip
Problem = tuple[int, int, int, int, int, int, int]


def sizes(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shapes of x and w, and elements of y."""
    images, channels, outputs, rows, taps, stride, groups = problem
    out = (rows + taps // 2 * 2 - taps) // stride + 1
    return (images, channels, rows, rows), (outputs, channels // groups, taps, taps), images * outputs * out * out


def run(queue: Queue, x: list[Tensor], problem: Problem, stored: Format) -> Tensor:
    *_, taps, stride, groups = problem
    pads, strides = [taps // 2] * 4, [stride] * 2
    values = [ir.Value(name="x"), ir.Value(name="w"), ir.Value(name="b")]
    values[1].const_value = ir.tensor(np.zeros(1, np.float32))
    graph = ir.Graph([values[0]], [], nodes=[], initializers=[values[1]])
    assert values[1].is_initializer(), graph
    node = ir.node("Conv", values, {"pads": pads, "strides": strides, "group": groups})
    (y,) = OPS["Conv"].compute(queue, Call(node, x, [stored], 18))
    assert y is not None
    return y


def torch_conv(problem: Problem, x: Any, w: Any, b: Any) -> Any:
    *_, taps, stride, groups = problem
    return torch.nn.functional.conv2d(x, w, b, stride, taps // 2, groups=groups)


def timed(backend: Recorder, problem: Problem, stored: Format, dtype: Any) -> tuple[float, float, str]:
    """Seconds, torch's, and the error."""
    x_shape, w_shape, count = sizes(problem)
    random, queue = np.random.default_rng(0), Queue(backend, 18)
    made = [random.standard_normal(shape, dtype=np.float32) for shape in (x_shape, w_shape, w_shape[:1])]
    made[1] /= math.sqrt(math.prod(w_shape[1:]))
    tensors = [queue.convert(host_tensor(one), stored) for one in made]
    exact = [torch.from_numpy(one.array(backend)).cuda() for one in tensors]
    actual = torch.from_numpy(run(queue, tensors, problem, F32).array(backend)).cuda()
    golden = torch_conv(problem, *exact)
    error = float((actual - golden).norm() / golden.norm())
    given = [one.to(dtype).contiguous(memory_format=torch.channels_last) for one in exact[:2]]
    torch.backends.cudnn.benchmark = True
    peer = graph_seconds(lambda *x: torch_conv(problem, *x), [*given, exact[2].to(dtype)], count * 2)

    def work(queue: Queue, x: list[Tensor]) -> Tensor:
        return run(queue, x, problem, stored)

    def ready(queue: Queue, x: list[Tensor]) -> None:
        channels_last(queue, x[0])
        run(queue, x, problem, stored)  # weights in their order

    job = Job("conv", stored, work, (x_shape, w_shape, w_shape[:1]), count)
    seconds, _ = measure(backend, job, ready)
    return seconds, peer, f"{error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--type", default="f16", choices=("f16", "bf16"))
    given = parser.parse_args()
    stored, dtype = (F16, torch.float16) if given.type == "f16" else (BF16, torch.bfloat16)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    backend = Recorder()
    print(f"{'images channels>outputs':36} {'us':>8} {'TFLOP/s':>8} {'torch us':>9} {'error':>8}  kernels")
    for problem in PROBLEMS:
        images, channels, outputs, rows, taps, stride, groups = problem
        name = f"{images} {channels}>{outputs} {rows}x{rows} {taps}x{taps}{f' /{stride}' * (stride > 1)}{f' groups {groups}' * (groups > 1)}"
        if given.only not in name:
            continue
        seconds, peer, error = timed(backend, problem, stored, dtype)
        operations = 2.0 * sizes(problem)[2] * math.prod(sizes(problem)[1][1:])
        kernels = ", ".join(dict.fromkeys(source.entry for source in backend.last))
        print(
            f"{name:36} {seconds * 1e6:8.1f} {operations / seconds / 1e12:8.1f} {peer * 1e6:9.1f} {error:>8}  {kernels}",
            flush=True,
        )


if __name__ == "__main__":
    main()
