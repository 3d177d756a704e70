"""Tactics for products on tensor cores on problems of networks, each checked, then timed beside torch in the same run.

    python -m tests.bench.cuda_products [--only 4096] [--all 12] [--type f16] [--also "128x96 pair 2"]

Needs a GPU. Both are replayed as CUDA graphs over inputs that together exceed the L2 cache; medians. The error is that of the whole result
against torch's product in FP64, over its norm. `share` is torch's time over ours.
"""

from __future__ import annotations

import argparse
import math
import re
from typing import Any

import torch

from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.products.ending import through
from probe.engine.device.cuda.ops.products.matmul import product
from probe.engine.device.cuda.ops.products.matmul import run as run_product
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.ops.products.wgmma_tactics import TACTICS, Tactic, choose, cycles
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor
from tests.bench.cuda_kernels import Recorder
from tests.bench.rotation import DTYPES, Rotation

# batch, m, n, k, whether a and b are stored transposed
PROBLEMS = (
    (1, 4096, 4096, 4096, 0, 0), (1, 8192, 8192, 8192, 0, 0), (1, 4096, 4096, 4096, 0, 1), (1, 4096, 4096, 4096, 1, 0), (1, 2048, 2048, 2048, 0, 0),
    (1, 1024, 1024, 1024, 0, 0), (1, 512, 512, 512, 0, 0), (1, 128, 768, 3072, 0, 0), (1, 128, 3072, 768, 0, 0), (1, 16384, 64, 576, 0, 0),
    (1, 1024, 768, 768, 0, 0), (1, 1024, 2304, 768, 0, 0), (1, 1024, 3072, 768, 0, 0), (1, 1024, 768, 3072, 0, 0), (1, 256, 50257, 768, 0, 1),
    (1, 256, 768, 768, 0, 0), (1, 256, 2304, 768, 0, 0), (1, 256, 3072, 768, 0, 0), (1, 256, 768, 3072, 0, 0),
    (1, 3152, 768, 768, 0, 1), (1, 3152, 2304, 768, 0, 1), (1, 3152, 3072, 768, 0, 1), (1, 3152, 768, 3072, 0, 1), (1, 32, 1000, 2048, 0, 1),
    (1, 1, 4096, 4096, 0, 0), (1, 16, 4096, 4096, 0, 1), (1, 1, 768, 3072, 0, 0), (96, 128, 128, 64, 0, 1), (96, 128, 64, 128, 0, 0),
    (32, 64, 3136, 256, 0, 0), (32, 512, 784, 128, 0, 0),
)  # fmt: skip
Problem = tuple[int, int, int, int, int, int]
_SMALL = 1 << 34  # products, up to which a result is checked


def run(queue: Queue, x: list[Tensor], problem: Problem, stored: Format, tile: Tactic | None = None) -> Tensor:
    batch, m, n, k, at, bt = problem
    y = queue.empty((batch, m, n), stored)
    a = Matrices(x[0], (m * k,), *((1, m) if at else (k, 1)))
    b = Matrices(x[1], (n * k,), *((1, k) if bt else (n, 1)))
    product(queue, a, b, y, k, tile=tile, tf32=stored is F32)
    return y


# What follows products in transformers, as steps on the product p, a bias x0, a residual x1 and the numbers of NUMBERS, each step rounded
TAILS = {
    "bias": ("float(op_add(p, x0))",), "residual": ("float(op_add(p, x0))", "float(op_add(v0, x1))"),
    "gelu": ("float(op_add(p, x0))", "float(op_div(v0, x2))", "op_erf(v1)", "float(op_add(v2, x3))", "float(op_mul(v0, v3))", "float(op_mul(v4, x4))"),
    "tanh": ("float(op_add(p, x0))", "(v0 * v0 * v0)", "float(op_mul(v1, x5))", "float(op_add(v0, v2))", "float(op_mul(v3, x6))", "op_tanh(v4)",
             "float(op_add(v5, x3))", "float(op_mul(v0, v6))", "float(op_mul(v7, x4))"),
}  # fmt: skip
NUMBERS = (1.4140625, 1.0, 0.5, 0.044715, 0.7978515625)


def tail_of(tail: str, x: list[Tensor], stored: Format) -> tuple[list[tuple[str, Reading]], list[Step]]:
    """What a tail reads and its steps; ``x``: a bias, a residual, then numbers."""
    rounding = "" if stored is F32 else stored.name
    texts = TAILS[tail]
    steps = [Step("p", "float", "sum", rounding)]
    steps += [
        Step(f"v{at}", "float", text, rounding, stored if at == len(texts) - 1 else None)
        for at, text in enumerate(texts)
    ]
    used = set(re.findall(r"x\d", " ".join(texts)))
    return [(f"x{at}", Reading(one)) for at, one in enumerate(x) if f"x{at}" in used], steps


def run_tailed(queue: Queue, x: list[Tensor], problem: Problem, stored: Format, tail: str, tile: Tactic) -> Tensor:
    batch, m, n, k, at, bt = problem
    readings, steps = tail_of(tail, x[2:], stored)
    ending = through(queue, (batch, m, n), readings, steps)
    a = Matrices(x[0], (m * k,), *((1, m) if at else (k, 1)))
    b = Matrices(x[1], (n * k,), *((1, k) if bt else (n, 1)))
    run_product(queue, describe(a, b, None, (batch, m, n), k, ending, tf32=stored is F32), tile)
    return ending.stored[0]


def run_apart(queue: Queue, x: list[Tensor], problem: Problem, stored: Format, tail: str, tile: Tactic) -> Tensor:
    """The bias with the product, what is behind it in a kernel of its own."""
    readings, steps = tail_of(tail, x[2:], stored)
    sums = run_tailed(queue, x, problem, stored, "bias", tile)
    (made,) = run_steps(queue, sums.shape, [("v0", Reading(sums)), *readings[1:]], steps[2:])
    return made


def torch_product(problem: Problem, a: Any, b: Any) -> Any:
    return torch.bmm(a.mT if problem[4] else a, b.mT if problem[5] else b)


def operands(problem: Problem, stored: Format) -> list[Any]:
    """Random; in FP32 with no more bits than TF32 has."""
    batch, m, n, k, at, bt = problem
    torch.manual_seed(1)
    found = []
    for shape in ((batch, *((k, m) if at else (m, k))), (batch, *((n, k) if bt else (k, n)))):
        values = torch.randn(shape, device="cuda", dtype=torch.bfloat16 if stored is F32 else DTYPES[stored.name])
        found.append(values.to(DTYPES[stored.name]))
    return found


def tactic_named(text: str) -> Tactic:
    """Of ``128x96 pair 2 split-k 2``, as tactics are printed; without ``wgmma`` and the depth, too."""
    known = {re.sub(r"^wgmma (\d+x\d+)x\d+", r"\1", str(one)): one for one in TACTICS}
    if text in known:
        return known[text]
    found = re.fullmatch(r"(?:wgmma )?(\d+)x(\d+)(?:x64)?(?: pair (\d+))?(?: in (\d+) turns)?(?: split-k (\d+))?", text)
    assert found, text
    m, n, pair, turns, splits = (int(one or 1) for one in found.groups())
    wm = m if turns > 1 or (m, n) == (64, n) else 128 if m == 256 else 64
    return Tactic(m, n, wm, pair, splits, turns)


def checked(rotation: Rotation, problem: Problem, stored: Format, tile: Tactic, exact: Any) -> str:
    """What is wrong with a tactic's result."""
    if exact is None:
        return ""
    y = rotation.result(lambda queue, x: run(queue, x, problem, stored, tile)).double()
    error = float((y - exact).norm() / exact.norm())
    return "" if error < {F16: 5e-4, BF16: 4e-3, F32: 5e-6}[stored] else f" WRONG {error:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name this matches")
    parser.add_argument("--all", type=int, default=0, help="so many tactics, those first that should be fastest")
    parser.add_argument("--also", default="", help="further tactics, by name, commas between")
    parser.add_argument("--type", default="f16", choices=("f16", "bf16", "tf32"))
    parser.add_argument(
        "--tail",
        default="",
        choices=("", *TAILS),
        help="what follows, in the same kernel (torch: without)",
    )
    parser.add_argument("--apart", action="store_true", help="what is behind the bias in a kernel of its own")
    parser.add_argument("--shown", type=int, default=5, help="tactics that are printed")
    given = parser.parse_args()
    stored = {"f16": F16, "bf16": BF16, "tf32": F32}[given.type]
    torch.backends.cuda.matmul.allow_tf32 = True
    backend = Recorder()
    many = backend.multiprocessors
    also = {tactic_named(one.strip()) for one in given.also.split(",") if one.strip()}
    print(f"{'problem':24} {'torch us':>9}  tactic: us, share (* chosen)")
    for problem in PROBLEMS:
        batch, m, n, k, at, bt = problem
        name = f"{batch}x{m}x{n}x{k}{' At' * at}{' Bt' * bt}"
        if not re.search(given.only, name):
            continue
        deep = k * stored.bytes // 2
        chosen = choose(m, n, deep, batch, many)
        tiles = {chosen} | {one for one in also if not math.isinf(cycles(one, m, n, deep, batch, many))}
        if given.all:
            tiles |= set(sorted(TACTICS, key=lambda one: cycles(one, m, n, deep, batch, many))[: given.all])
        values = operands(problem, stored)
        exact = torch_product(problem, *(one.double() for one in values)) if m * n * k * batch <= _SMALL else None
        if given.tail:
            exact = None
            values += [
                torch.randn(n, device="cuda").to(values[0].dtype),
                torch.randn((batch, m, n), device="cuda").to(values[0].dtype),
                *(torch.tensor(one, device="cuda", dtype=values[0].dtype) for one in NUMBERS),
            ]
        rotation = Rotation(backend, values, batch * m * n * stored.bytes)
        peer, found = rotation.torch_seconds(lambda a, b, *_, one=problem: torch_product(one, a, b)), []
        for tile in tiles:
            wrong = checked(rotation, problem, stored, tile, exact)

            def work(queue: Queue, x: list[Tensor], one: Problem = problem, tile: Tactic = tile) -> Tensor:
                if not given.tail:
                    return run(queue, x, one, stored, tile)
                return (run_apart if given.apart else run_tailed)(queue, x, one, stored, given.tail, tile)

            seconds = rotation.seconds(work)
            text = f"{'*' * (tile == chosen)}{str(tile)[6:]}: {seconds * 1e6:.1f}, {peer / seconds:.0%}{wrong}"
            found.append((seconds, text, tile))
        shown = [text for at, (_, text, tile) in enumerate(sorted(found, key=lambda one: one[0]))
                 if at < given.shown or tile == chosen or "WRONG" in text]  # fmt: skip
        print(f"{name:24} {peer * 1e6:9.1f}  " + "; ".join(shown), flush=True)


if __name__ == "__main__":
    main()
