"""Every tactic for products in 16 bits on problems of networks, each checked, then timed beside torch in the same run.

    python -m tests.bench.cuda_products [--only 4096] [--all 12] [--type f16]

Needs a GPU. Both are replayed as CUDA graphs over inputs that together exceed the L2 cache; medians. The error is that of the whole result
against torch's product in FP64, over its norm.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import torch

from probe.engine.device.cuda.formats import BF16, F16, Format
from probe.engine.device.cuda.ops.matmul import product
from probe.engine.device.cuda.ops.product import Matrices
from probe.engine.device.cuda.ops.wgmma import TACTICS, Tactic, choose, cycles
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensor import Tensor, host_tensor
from tests.bench.cuda_kernels import Job, Recorder, measure
from tests.bench.torch_graph import graph_seconds

# batch, m, n, k, whether a and b are stored transposed
PROBLEMS = (
    (1, 4096, 4096, 4096, 0, 0), (1, 8192, 8192, 8192, 0, 0), (1, 4096, 4096, 4096, 0, 1), (1, 4096, 4096, 4096, 1, 0), (1, 2048, 2048, 2048, 0, 0),
    (1, 1024, 1024, 1024, 0, 0), (1, 512, 512, 512, 0, 0), (1, 128, 768, 3072, 0, 0), (1, 128, 3072, 768, 0, 0), (1, 16384, 64, 576, 0, 0),
    (1, 1024, 768, 768, 0, 0), (1, 1024, 2304, 768, 0, 0), (1, 1024, 3072, 768, 0, 0), (1, 1024, 768, 3072, 0, 0), (1, 256, 50257, 768, 0, 1),
    (1, 3152, 768, 768, 0, 1), (1, 3152, 3072, 768, 0, 1), (1, 3152, 768, 3072, 0, 1), (1, 32, 1000, 2048, 0, 1), (1, 1, 4096, 4096, 0, 0),
    (96, 128, 128, 64, 0, 1), (96, 128, 64, 128, 0, 0), (32, 64, 3136, 256, 0, 0), (32, 512, 784, 128, 0, 0),
)  # fmt: skip
Problem = tuple[int, int, int, int, int, int]


def run(queue: Queue, x: list[Tensor], problem: Problem, stored: Format, tile: Tactic | None = None) -> Tensor:
    batch, m, n, k, at, bt = problem
    y = queue.empty((batch, m, n), stored)
    a = Matrices(x[0], (m * k,), *((1, m) if at else (k, 1)))
    b = Matrices(x[1], (n * k,), *((1, k) if bt else (n, 1)))
    product(queue, a, b, y, k, tile=tile)
    return y


def shapes(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    batch, m, n, k, at, bt = problem
    return (batch, *((k, m) if at else (m, k))), (batch, *((n, k) if bt else (k, n)))


def torch_product(problem: Problem, a: Any, b: Any) -> Any:
    return torch.bmm(a.mT if problem[4] else a, b.mT if problem[5] else b)


def torch_seconds(problem: Problem, dtype: Any) -> float:
    given = [torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes(problem)]
    return graph_seconds(lambda a, b: torch_product(problem, a, b), given, math.prod(problem[:3]) * 2)


def error_of(backend: Recorder, problem: Problem, stored: Format, dtype: Any, tile: Tactic) -> float:
    queue, random = Queue(backend, 18), np.random.default_rng(1)
    x = [queue.convert(host_tensor(random.standard_normal(one, dtype=np.float32)), stored) for one in shapes(problem)]
    y = torch.from_numpy(run(queue, x, problem, stored, tile).array(backend)).cuda().double()
    exact = torch_product(problem, *(torch.from_numpy(one.array(backend)).cuda().to(dtype).double() for one in x))
    return float((y - exact).norm() / exact.norm())


def timed(backend: Recorder, problem: Problem, stored: Format, dtype: Any, tile: Tactic) -> tuple[float, str]:
    """Seconds, and what is wrong."""
    small = math.prod(problem[:4]) < 1 << 33
    error = error_of(backend, problem, stored, dtype, tile) if small else 0.0
    job = Job(
        "product",
        stored,
        lambda queue, x: run(queue, x, problem, stored, tile),
        shapes(problem),
        math.prod(problem[:3]),
    )
    seconds, _ = measure(backend, job)
    return seconds, "" if error < (5e-4 if stored is F16 else 4e-3) else f" WRONG {error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--all", type=int, default=0, help="so many tactics, those first that should be fastest")
    parser.add_argument("--type", default="f16", choices=("f16", "bf16"))
    given = parser.parse_args()
    stored, dtype = (F16, torch.float16) if given.type == "f16" else (BF16, torch.bfloat16)
    backend = Recorder()
    many = backend.multiprocessors
    print(f"{'problem':28} {'torch us':>9}  tactic: us, share of torch's speed (* chosen)")
    for problem in PROBLEMS:
        batch, m, n, k, at, bt = problem
        name = f"{batch}x{m}x{n}x{k}{' At' * at}{' Bt' * bt}"
        if given.only not in name:
            continue
        chosen = choose(m, n, k, batch, many)
        tiles = {chosen}
        if given.all:
            tiles |= set(sorted(TACTICS, key=lambda one: cycles(one, m, n, k, batch, many))[: given.all])
        peer, found = torch_seconds(problem, dtype), []
        for tile in tiles:
            seconds, wrong = timed(backend, problem, stored, dtype, tile)
            mark = "*" * (tile == chosen)
            found.append((seconds, f"{mark}{tile}: {seconds * 1e6:.1f}, {peer / seconds:.0%}{wrong}"))
        print(f"{name:28} {peer * 1e6:9.1f}  " + "; ".join(text for _, text in sorted(found)), flush=True)


if __name__ == "__main__":
    main()
