"""Attention in one kernel on problems of networks, each variant checked, then timed beside torch in the same run.

    python -m tests.bench.cuda_attention [--only 128x128] [--all] [--type f16]

Needs a GPU. q, k, v and the result lie as linear layers leave and take them, [batch, length, heads, elements]; scores are scaled and, where the
problem says so, a mask is added; each tensor is rounded where it is produced. torch: scaled_dot_product_attention. Both as CUDA graphs over
inputs that together exceed the L2 cache; medians. The error is that of the whole result against FP64, over its norm.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.attention import Attention, Variant, attend, choose, view
from probe.engine.device.cuda.ops.attention_code import Steps, pair_expression
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, Format
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from tests.bench.cuda_kernels import Job, Recorder, measure
from tests.bench.torch_graph import graph_seconds

# batch, heads, queries, keys, elements, mask
PROBLEMS = (
    (8, 12, 128, 128, 64, 1), (1, 12, 128, 128, 64, 1), (16, 12, 197, 197, 64, 0), (1, 12, 256, 256, 64, 1), (1, 12, 512, 512, 64, 1),
    (4, 16, 1024, 1024, 64, 0), (1, 32, 1, 1024, 128, 0), (8, 16, 2048, 2048, 128, 0),
)  # fmt: skip
Problem = tuple[int, int, int, int, int, int]


def run(queue: Queue, x: list[Tensor], problem: Problem, stored: Format, variant: Variant | None = None) -> Tensor:
    root = host_tensor(np.array(problem[4] ** -0.5, np.float32), stored)
    q, k, v = (view(one).transposed((0, 2, 1, 3)) for one in x[:3])
    steps = [Step("s_", "float", "sum", stored.name), Step("s0", "float", "op_mul(s_, x0)", stored.name)]
    readings = [("x0", Reading(root))]
    if problem[5]:
        steps.append(Step("s1", "float", "op_add(s0, x1)", stored.name))
        readings.append(("x1", Reading(x[3])))
    pairs = (
        "sum_2",
        pair_expression("Mul", ("s_", "x0"), stored.name),
        pair_expression("Add", ("s0", "x1"), stored.name),
    )
    between = Steps(tuple(name for name, _ in readings), tuple(steps), pairs[: len(steps)])
    after = Steps((), (Step("w_", "float", "sum", stored.name),))
    what = Attention(q, k, v, tuple(readings), Steps(), Steps(), between, after)
    return attend(queue, what, stored, (0, 2, 1, 3), variant)[0]


def shapes(problem: Problem) -> tuple[tuple[int, ...], ...]:
    batch, heads, queries, keys, size, mask = problem
    return (
        (batch, queries, heads, size), (batch, keys, heads, size), (batch, keys, heads, size),
        *([(batch, 1, 1, keys)] if mask else []),
    )  # fmt: skip


def peer(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    heads = (one.transpose(1, 2) for one in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def variants(problem: Problem) -> Iterator[Variant]:
    row_bytes, keys = problem[4] * 2 + 16, -(-problem[3] // 16) * 16
    sizes = itertools.product((1, 2, 4, 8), (1, 2, 4), (32, 64, 128), (2, 3, 4), (keys, 0), (255, 168, 128), (1, 2))
    for warps, split, tile, stages, held, registers, rows in sizes:
        if 8 * warps * rows >= max(problem[2], 9) or warps * split > 8 or tile % (16 * split) or tile * stages > 256:
            continue
        if split > 1 and (rows > 1 or registers < 255):
            continue
        one = Variant(warps, split, tile, stages, held, registers, rows)
        fits = one.shared_bytes(row_bytes, problem[4]) <= 220 << 10 and held * rows <= 240 * split
        if fits and (not held or stages <= 2 * -(-held // tile)):
            yield one


def timed(backend: Recorder, problem: Problem, stored: Format, dtype: Any, variant: Variant) -> tuple[float, float]:
    """Seconds, and the error."""
    queue, random = Queue(backend, 18), np.random.default_rng(1)
    error = 0.0
    if math.prod(problem[:4]) < 1 << 26:
        x = [
            queue.convert(host_tensor(random.standard_normal(one, dtype=np.float32)), stored) for one in shapes(problem)
        ]
        y = torch.from_numpy(run(queue, x, problem, stored, variant).array(backend)).cuda().double()
        exact = peer(*(torch.from_numpy(one.array(backend)).cuda().double() for one in x))
        error = float((y - exact).norm() / exact.norm())
    written = math.prod(problem[:3]) * problem[4]
    job = Job("attention", stored, lambda queue, x: run(queue, x, problem, stored, variant), shapes(problem), written)
    return measure(backend, job)[0], error


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--all", action="store_true", help="every variant, not only the one that is chosen")
    parser.add_argument("--best", type=int, default=4, help="how many to print")
    parser.add_argument("--type", default="f16", choices=("f16", "bf16"))
    given = parser.parse_args()
    stored, dtype = (F16, torch.float16) if given.type == "f16" else (BF16, torch.bfloat16)
    backend = Recorder()
    print(f"{'problem':24} {'torch us':>8}  variant: us, share of torch's speed, TFLOP/s (* chosen), error")
    for problem in PROBLEMS:
        batch, heads, queries, keys, size, mask = problem
        name = f"{batch}x{heads} {queries}x{keys}x{size}{' mask' * mask}"
        if given.only not in name:
            continue
        inputs = [torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes(problem)]
        theirs = graph_seconds(peer, inputs, 2 * math.prod(problem[:3]) * size)
        chosen = choose(queries, keys, size, batch * heads, backend.multiprocessors)
        found = []
        others = [one for one in variants(problem) if given.all and one != chosen]
        for variant in (chosen, *others):
            seconds, error = timed(backend, problem, stored, dtype, variant)
            flops = 4.0 * math.prod(problem[:5]) / seconds * 1e-12
            wrong = " WRONG" * (not error < (2e-3 if stored is F16 else 2e-2))
            text = f"{'*' * (variant == chosen)}{variant} s{variant.stages} r{variant.registers}: {seconds * 1e6:.1f}, {theirs / seconds:.0%}, {flops:.0f}, {error:.0e}{wrong}"
            found.append((seconds, text))
        print(
            f"{name:24} {theirs * 1e6:8.1f}  " + "; ".join(text for _, text in sorted(found)[: given.best]), flush=True
        )


if __name__ == "__main__":
    main()
