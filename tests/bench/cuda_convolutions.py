"""Convolutions beside torch's (cuDNN, channels last), both from and to channels last, as CUDA graphs over cold inputs.

    python -m tests.bench.cuda_convolutions [--only 3x3] [--type f16] [--all 8] [--no-torch]

Needs a GPU. Of each convolution: with its bias; and with what follows it in ResNet-50 or MobileNet: an addition where the network has one, and a
ReLU or clip, each rounded, in the same kernel. `floor` is the share of the time that the bytes or the products would take on this machine. The
error is that of the whole result against torch's convolution in FP32 of the same rounded values, over its norm.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import Any

import numpy as np
import torch

from probe import ir
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.products import wgmma
from probe.engine.device.cuda.ops.products.wgmma_tactics import TACTICS, Tactic, cycles
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor
from tests.bench.cuda_kernels import Recorder
from tests.bench.cuda_products import tactic_named
from tests.bench.rotation import DTYPES, Rotation
from tests.bench.torch_graph import graph_seconds

# images, channels, outputs, rows (and columns), taps each way, stride, groups, whether something is added
PROBLEMS = (
    *((b, *one) for b in (1, 32) for one in (
        (64, 64, 56, 1, 1, 1, 0), (64, 64, 56, 3, 1, 1, 0), (64, 256, 56, 1, 1, 1, 1), (256, 64, 56, 1, 1, 1, 0), (256, 512, 56, 1, 2, 1, 0),
        (128, 128, 56, 3, 2, 1, 0), (128, 128, 28, 3, 1, 1, 0), (512, 128, 28, 1, 1, 1, 0), (128, 512, 28, 1, 1, 1, 1), (256, 256, 14, 3, 1, 1, 0),
        (1024, 256, 14, 1, 1, 1, 0), (256, 1024, 14, 1, 1, 1, 1), (512, 512, 7, 3, 1, 1, 0), (2048, 512, 7, 1, 1, 1, 0), (512, 2048, 7, 1, 1, 1, 1),
    )),
    *((32, *one) for one in (
        (3, 64, 224, 7, 2, 1, 0), (3, 32, 224, 3, 2, 1, 0), (32, 16, 112, 1, 1, 1, 0), (16, 96, 112, 1, 1, 1, 0), (96, 24, 56, 1, 1, 1, 0),
        (24, 144, 56, 1, 1, 1, 0), (144, 24, 56, 1, 1, 1, 1), (144, 32, 28, 1, 1, 1, 0), (32, 192, 28, 1, 1, 1, 0), (192, 32, 28, 1, 1, 1, 1),
        (192, 64, 14, 1, 1, 1, 0), (64, 384, 14, 1, 1, 1, 0), (384, 64, 14, 1, 1, 1, 1), (384, 96, 14, 1, 1, 1, 0), (96, 576, 14, 1, 1, 1, 0),
        (576, 96, 14, 1, 1, 1, 1), (576, 160, 7, 1, 1, 1, 0), (160, 960, 7, 1, 1, 1, 0), (960, 160, 7, 1, 1, 1, 1), (960, 320, 7, 1, 1, 1, 0),
        (320, 1280, 7, 1, 1, 1, 0), (32, 32, 112, 3, 1, 32, 0), (96, 96, 112, 3, 2, 96, 0), (144, 144, 56, 3, 1, 144, 0), (144, 144, 56, 3, 2, 144, 0),
        (192, 192, 28, 3, 1, 192, 0), (192, 192, 28, 3, 2, 192, 0), (384, 384, 14, 3, 1, 384, 0), (576, 576, 14, 3, 1, 576, 0),
        (576, 576, 14, 3, 2, 576, 0), (960, 960, 7, 3, 1, 960, 0),
    )),
)  # fmt: skip
Problem = tuple[int, int, int, int, int, int, int, int]
_BANDWIDTH, _PRODUCTS = 4.26e12, {F16: 7.8e14, BF16: 7.8e14, F32: 3.6e14}  # of an H200: bytes and operations a second


def sizes(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shapes of x, w and y."""
    images, channels, outputs, rows, taps, stride, groups, _ = problem
    out = (rows + taps // 2 * 2 - taps) // stride + 1
    return (images, channels, rows, rows), (outputs, channels // groups, taps, taps), (images, outputs, out, out)


def run(
    queue: Queue, x: list[Tensor], problem: Problem, stored: Format, *, tailed: bool, out: Format | None = None
) -> Tensor:
    """x, w, bias, and what is added."""
    *_, taps, stride, groups, adds = problem
    pads, strides = [taps // 2] * 4, [stride] * 2
    values = [ir.Value(name="x"), ir.Value(name="w"), ir.Value(name="b")]
    values[1].const_value = ir.tensor(np.zeros(1, np.float32))
    graph = ir.Graph([values[0]], [], nodes=[], initializers=[values[1]])
    assert values[1].is_initializer(), graph
    node = ir.node("Conv", values, {"pads": pads, "strides": strides, "group": groups})
    call = Call(node, x[:3], [out or stored], 18, tf32=stored is F32)
    if not tailed:
        (y,) = OPS["Conv"].compute(queue, call)
        assert y is not None
        return y
    rounding = "" if stored is F32 else stored.name
    steps = [Step("p", "float", "sum", rounding)]
    if adds:
        steps.append(Step("v", "float", "float(op_add(p, x0))", rounding))
    steps.append(Step("y", "float", f"op_relu({steps[-1].name})", rounding, stored))
    tail = OPS["Conv"].tailed
    assert tail is not None
    (y,) = tail(queue, call, [("x0", Reading(x[3]))] if adds else [], steps)
    return y


def torch_conv(problem: Problem, x: Any, w: Any, b: Any) -> Any:
    *_, taps, stride, groups, _ = problem
    return torch.nn.functional.conv2d(x, w, b, stride, taps // 2, groups=groups)


def torch_tailed(problem: Problem, x: Any, w: Any, b: Any, *added: Any) -> Any:
    y = torch_conv(problem, x, w, b)
    return torch.relu_(y.add_(added[0]) if added else y)


def with_tactic(tactic: Tactic | None) -> None:
    """What wgmma is to take, whatever should be fastest."""
    wgmma.choose = (lambda *_, **__: tactic) if tactic is not None else _CHOOSE


_CHOOSE = wgmma.choose


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name this matches")
    parser.add_argument("--type", default="f16", choices=("f16", "bf16", "tf32"))
    parser.add_argument("--all", type=int, default=0, help="so many tactics, those first that should be fastest")
    parser.add_argument("--also", default="", help="further tactics, by name, commas between")
    parser.add_argument("--no-torch", action="store_true")
    given = parser.parse_args()
    stored = {"f16": F16, "bf16": BF16, "tf32": F32}[given.type]
    dtype, backend = DTYPES[stored.name], Recorder()
    torch.backends.cudnn.benchmark = True
    print(
        f"{'images channels>outputs':38} {'us':>7} {'floor':>5} {'tailed':>7} {'floor':>5} {'torch':>7} {'tailed':>7} {'error':>8}  kernels; tactics, tailed"
    )
    for problem in PROBLEMS:
        images, channels, outputs, rows, taps, stride, groups, adds = problem
        name = f"{images} {channels}>{outputs} {rows}x{rows} {taps}x{taps}{f' /{stride}' * (stride > 1)}{f' groups {groups}' * (groups > 1)}{' +' * adds}"
        if not re.search(given.only, name):
            continue
        x_shape, w_shape, y_shape = sizes(problem)
        torch.manual_seed(0)
        values = [
            torch.randn(one, device="cuda", dtype=torch.bfloat16).to(dtype)
            for one in (x_shape, w_shape, w_shape[:1], *([y_shape] if adds else []))
        ]
        values[1] /= 2 ** round(math.log2(math.prod(w_shape[1:])) / 2)  # a power of two: TF32 stays TF32
        last = [
            one.contiguous(memory_format=torch.channels_last) if one.dim() == 4 and min(one.shape[1:]) > 1 else one
            for one in values
        ]
        last[1] = values[1]
        if channels < 8:
            last[0] = values[0]
        count = math.prod(y_shape)
        weights = Rotation(
            backend, last, count * stored.bytes, lambda queue, x, one=problem: run(queue, x, one, stored, tailed=True)
        )
        torch.backends.cudnn.allow_tf32 = False
        exact = torch_conv(problem, *(one.float() for one in values[:3]))
        actual = weights.result(lambda queue, x, one=problem: run(queue, x, one, stored, tailed=False, out=F32))
        error = float((actual - exact).norm() / exact.norm())
        torch.backends.cudnn.allow_tf32 = True
        del exact, actual
        found = [
            weights.seconds(lambda queue, x, one=problem, t=tailed: run(queue, x, one, stored, tailed=t))
            for tailed in (False, True)
        ]
        kernels = ", ".join(dict.fromkeys(source.entry for source in backend.last))
        operations = 2.0 * count * math.prod(w_shape[1:])
        moved = [stored.bytes * (math.prod(x_shape) + math.prod(w_shape) + count * (1 + extra)) for extra in (0, adds)]
        floors = [
            max(one / _BANDWIDTH, operations / _PRODUCTS[stored]) / seconds
            for one, seconds in zip(moved, found, strict=True)
        ]
        peers = [math.nan, math.nan]
        if not given.no_torch:
            on_torch = [
                values[0].contiguous(memory_format=torch.channels_last),
                values[1].contiguous(memory_format=torch.channels_last),
                *last[2:],
            ]
            peers = [graph_seconds(lambda *x, one=problem: torch_conv(one, *x), on_torch[:3], count * stored.bytes),
                     graph_seconds(lambda *x, one=problem: torch_tailed(one, *x), on_torch, count * stored.bytes)]  # fmt: skip
        others = []
        if (given.all or given.also) and groups == 1:
            m, k = count // outputs, math.prod(w_shape[1:]) * stored.bytes // 2
            tiles = {tactic_named(one.strip()) for one in given.also.split(",") if one.strip()}
            tiles |= set(
                sorted(TACTICS, key=lambda one: cycles(one, m, outputs, k, 1, backend.multiprocessors))[: given.all]
            )
            for tile in tiles:
                if math.isinf(cycles(tile, m, outputs, k, 1, backend.multiprocessors)):
                    continue
                with_tactic(tile)
                others.append(
                    (
                        weights.seconds(lambda queue, x, one=problem: run(queue, x, one, stored, tailed=True)),
                        str(tile)[6:],
                    )
                )
            with_tactic(None)
        text = "; ".join(f"{tile}: {seconds * 1e6:.1f}" for seconds, tile in sorted(others)[:5])
        print(
            f"{name:38} {found[0] * 1e6:7.1f} {floors[0]:5.0%} {found[1] * 1e6:7.1f} {floors[1]:5.0%} {peers[0] * 1e6:7.1f} {peers[1] * 1e6:7.1f} "
            f"{error:8.1e}  {kernels}; {text}",
            flush=True,
        )


if __name__ == "__main__":
    main()
