"""Our products and convolutions beside the libraries' best algorithms and torch: where our kernels lag.

    python -m tests.bench.cuda_library [--what products|convolutions] [--only 4096] [--type f16] [--ours 3] [--most 8]

Needs a GPU, nvmath-python and nvidia-cudnn-frontend. All are replayed as CUDA graphs over copies of the same inputs that together exceed the
L2 cache; medians. Every algorithm's result is checked against FP64 (products) or FP32 (convolutions) before it is timed: one that is wrong is
printed as such and not counted. Convolutions add their bias, and read and write channels last, but for the library's own plans with channels
first, which are given such tensors.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from probe import ir
from probe.engine.device.cuda.library.convolutions import CudnnFamily
from probe.engine.device.cuda.library.products import CublasLtFamily
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions.window import window_of
from probe.engine.device.cuda.ops.products.ending import storing
from probe.engine.device.cuda.ops.products.family import Convolution, Family
from probe.engine.device.cuda.ops.products.product import Matrices, Product, describe
from probe.engine.device.cuda.ops.products.wgmma_family import WgmmaFamily
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor
from tests.bench import cuda_convolutions, cuda_products
from tests.bench.cuda_kernels import Recorder
from tests.bench.rotation import DTYPES, Rotation
from tests.bench.torch_graph import graph_seconds

WRONG = {F16: 1e-3, BF16: 8e-3, F32: 1e-5}  # of a result's norm
Work = Callable[[Queue, list[Tensor]], Any]


def product_of(queue: Queue, x: list[Tensor], problem: cuda_products.Problem, stored: Format) -> Product:
    batch, m, n, k, at, bt = problem
    a = Matrices(x[0], (m * k,), *((1, m) if at else (k, 1)))
    b = Matrices(x[1], (n * k,), *((1, k) if bt else (n, 1)))
    shape = (batch, m, n)
    return describe(a, b, None, shape, k, storing(queue, shape, stored), tf32=stored is F32)


def convolution_of(x: list[Tensor], problem: cuda_convolutions.Problem, stored: Format) -> Convolution:
    *_, taps, stride, groups, _ = problem
    values = [ir.Value(name="x"), ir.Value(name="w"), ir.Value(name="b")]
    values[1].const_value = ir.tensor(np.zeros(1, np.float32))
    graph = ir.Graph([values[0]], [], nodes=[], initializers=[values[1]])
    assert values[1].is_initializer(), graph
    node = ir.node("Conv", values, {"pads": [taps // 2] * 4, "strides": [stride] * 2, "group": groups})
    call = Call(node, x[:3], [stored], 18, tf32=stored is F32)
    return Convolution(call, window_of(call, x[0].shape[2:], x[1].shape[2:]))


class Table:
    """Times of one problem.

    Args:
        work: what a name of a family computes.
        exact: the result; None: nothing is checked.
    """

    def __init__(self, rotation: Rotation, exact: Any, stored: Format) -> None:
        self.rotation, self.exact, self.stored = rotation, exact, stored
        self.notes: list[str] = []

    def time(self, name: str, work: Work) -> float:
        """Seconds; infinite for what is wrong or fails."""
        if self.exact is not None:
            y = self.rotation.result(work).to(self.exact.dtype).reshape(self.exact.shape)
            error = float((y - self.exact).norm() / self.exact.norm())
            if not error < WRONG[self.stored]:
                self.notes.append(f"{name} WRONG {error:.1e}")
                return math.inf
        return self.rotation.seconds(work)

    def best(self, found: dict[str, Work]) -> tuple[float, str]:
        timed = [(self.time(name, work), name) for name, work in found.items()]
        return min(timed, default=(math.inf, "-"))


def offered(queue: Queue, family: Family, problem: Product | Convolution, most: int) -> list[str]:
    """Names of a family that compute a problem."""
    found = [name for name in family.offered(queue, problem) if family.refusal(queue, problem, name) is None]
    return found[:most]


def line(
    name: str, ours: tuple[float, str], others: list[tuple[float, str]], torch_seconds: float, notes: list[str]
) -> None:
    theirs, by = min(others)
    share = f"{theirs / ours[0]:.0%}" if math.isfinite(theirs) else "-"
    print(
        f"{name:34} {ours[0] * 1e6:7.1f} {theirs * 1e6:7.1f} {torch_seconds * 1e6:7.1f} {share:>5}  {ours[1]} | {by}"
        + "".join(f"; {note}" for note in notes),
        flush=True,
    )


def products(backend: Recorder, stored: Format, only: str, ours: int, most: int) -> None:
    queue = Queue(backend, 18)
    for problem in cuda_products.PROBLEMS:
        batch, m, n, k, at, bt = problem
        name = f"{batch}x{m}x{n}x{k}{' At' * at}{' Bt' * bt}"
        if not re.search(only, name):
            continue
        values = cuda_products.operands(problem, stored)
        exact = None
        if batch * m * n * k <= 1 << 34:
            exact = cuda_products.torch_product(problem, *(one.double() for one in values))
        rotation = Rotation(backend, values, batch * m * n * stored.bytes)
        table = Table(rotation, exact, stored)

        def named(family: Family, tactic: str, one: Any = problem) -> Work:
            return lambda queue, x: family.launch(queue, product_of(queue, x, one, stored), tactic)[0]

        look = product_of(queue, rotation.first, problem, stored)
        mine = {"exact": lambda queue, x, one=problem: cuda_products.run(queue, x, one, stored)}
        mine |= {one: named(WgmmaFamily(), one) for one in offered(queue, WgmmaFamily(), look, ours)}
        theirs = {one: named(CublasLtFamily(), one) for one in offered(queue, CublasLtFamily(), look, most)}
        del look
        peer = rotation.torch_seconds(lambda a, b, one=problem: cuda_products.torch_product(one, a, b))
        line(name, table.best(mine), [table.best(theirs)], peer, table.notes)


def convolutions(backend: Recorder, stored: Format, only: str, ours: int, most: int) -> None:
    queue, dtype = Queue(backend, 18), DTYPES[stored.name]
    torch.backends.cudnn.benchmark = True
    for problem in cuda_convolutions.PROBLEMS:
        images, channels, outputs, rows, taps, stride, groups, _ = problem
        name = f"{images} {channels}>{outputs} {rows}x{rows} {taps}x{taps}{f' /{stride}' * (stride > 1)}{f' groups {groups}' * (groups > 1)}"
        if not re.search(only, name):
            continue
        x_shape, w_shape, y_shape = cuda_convolutions.sizes(problem)
        torch.manual_seed(0)
        values = [
            torch.randn(one, device="cuda", dtype=torch.bfloat16).to(dtype) for one in (x_shape, w_shape, w_shape[:1])
        ]
        values[1] /= 2 ** round(math.log2(math.prod(w_shape[1:])) / 2)  # a power of two: TF32 stays TF32
        torch.backends.cudnn.allow_tf32 = False
        exact = cuda_convolutions.torch_conv(problem, *(one.float() for one in values))
        torch.backends.cudnn.allow_tf32 = True
        given = [values[0].contiguous(memory_format=torch.channels_last) if channels >= 8 else values[0], *values[1:]]

        def ready(queue: Queue, x: list[Tensor], one: Any = problem) -> None:
            cuda_convolutions.run(queue, x, one, stored, tailed=False)  # weights in their order
            x[0].address(queue.backend)  # channels first, too

        rotation = Rotation(backend, given, math.prod(y_shape) * stored.bytes, ready)
        table = Table(rotation, exact, stored)

        def named(family: Family, tactic: str, one: Any = problem) -> Work:
            return lambda queue, x: family.launch(queue, convolution_of(x, one, stored), tactic)[0]

        look = convolution_of(rotation.first, problem, stored)
        mine = {"exact": lambda queue, x, one=problem: cuda_convolutions.run(queue, x, one, stored, tailed=False)}
        mine |= {
            one: named(WgmmaFamily(), one) for one in offered(queue, WgmmaFamily(), look, ours) if "nchw" not in one
        }
        others = [
            table.best({one: named(family, one) for one in offered(queue, family, look, most)})
            for family in (CudnnFamily(), CublasLtFamily())
        ]
        last = [one.contiguous(memory_format=torch.channels_last) if one.dim() == 4 else one for one in values]
        peer = graph_seconds(
            lambda x, w, b, one=problem: cuda_convolutions.torch_conv(one, x, w, b),
            last,
            math.prod(y_shape) * stored.bytes,
        )
        line(name, table.best(mine), others, peer, table.notes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", default="products", choices=("products", "convolutions"))
    parser.add_argument("--only", default="", help="problems whose name this matches")
    parser.add_argument("--type", default="f16", choices=("f16", "bf16", "tf32"))
    parser.add_argument("--ours", type=int, default=3, help="so many of our tactics beside the chosen one")
    parser.add_argument("--most", type=int, default=8, help="so many algorithms of each library")
    given = parser.parse_args()
    stored = {"f16": F16, "bf16": BF16, "tf32": F32}[given.type]
    torch.backends.cuda.matmul.allow_tf32 = True
    print(
        f"{'problem':34} {'ours us':>7} {'theirs':>7} {'torch':>7} {'speed':>5}  our best | the library's best (speed: theirs over ours)"
    )
    work = products if given.what == "products" else convolutions
    work(Recorder(), stored, given.only, given.ours, given.most)


if __name__ == "__main__":
    main()
