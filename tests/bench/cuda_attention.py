"""Attention in one kernel on problems of networks, each variant checked, then timed beside torch in the same run.

    python -m tests.bench.cuda_attention [--only 128x128] [--all] [--type tf32] [--interior fp32]

Needs a GPU. q, k, v and the result lie as linear layers leave and take them, [batch, length, heads, elements]; scores are scaled and, where the
problem says so, a mask is added; each tensor is rounded where it is produced, or, with an interior of FP32, the result alone. torch:
scaled_dot_product_attention. Both as CUDA graphs over inputs that together exceed the L2 cache; medians. The error is that of two heads of the
result against FP64, over its norm.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from probe.engine.device.cuda.compiling.workers import compile_ahead
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.errors import CudaError, Unsupported
from probe.engine.device.cuda.ops.attention.attention import AnyVariant, Variant
from probe.engine.device.cuda.ops.attention.attention_simt import Warps
from probe.engine.device.cuda.ops.attention.attention_wgmma import Groups, Held
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor
from tests.bench.cuda_kernels import COLD_BYTES, Recorder
from tests.bench.torch_graph import graph_seconds
from tests.engine.cuda.attention_problem import Problem, run, shapes
from tests.engine.cuda.null_backend import NullBackend

# batch, heads, queries, keys, elements, mask
PROBLEMS = (
    (8, 12, 128, 128, 64, 1), (1, 12, 128, 128, 64, 1), (16, 12, 197, 197, 64, 0), (1, 12, 256, 256, 64, 1), (1, 12, 512, 512, 64, 1),
    (4, 16, 1024, 1024, 64, 0), (1, 32, 1, 1024, 128, 0), (8, 16, 2048, 2048, 128, 0), (4, 16, 1024, 1024, 128, 1),
    (1, 16, 4096, 4096, 64, 0), (1, 16, 4096, 4096, 128, 0),
)  # fmt: skip
CHECKED = 2  # heads
TYPES = {
    "f16": (F16, torch.float16, 2e-3),
    "bf16": (BF16, torch.bfloat16, 2e-2),
    "f32": (F32, torch.float32, 3e-6),
    "tf32": (F32, torch.float32, 2e-3),
}


def peer(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
    heads = (one.transpose(1, 2) for one in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)


def variants(problem: Problem, stored: Format, *, tf32: bool) -> Iterator[AnyVariant]:
    if stored is F32 and not tf32:
        yield from itertools.starmap(Warps, itertools.product((1, 2, 4), (16, 32)))
        yield from (Warps(1, split=one) for one in (2, 4))
        return
    row_bytes, keys = problem[4] * stored.bytes + 16, -(-problem[3] // 16) * 16
    if problem[3] <= 256 and problem[4] == 64:
        yield Held(keys)
    yield from itertools.starmap(
        Groups, itertools.product((2,) if tf32 else (2, 3), (64,) if tf32 else (64, 128), (False, True))
    )
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


def named(text: str, keys: int) -> AnyVariant:
    """``3x128``: warpgroups and tile, ``3x128q`` with queries held, ``o`` one set of scores; ``4r32``: warps, and queries of one; ``s4``: warps that share queries, ``2s4``: twice as
    many queries, ``2s4r32``: twice 32, ``s4a``: values apart; ``h208``: keys held; or all that a ``Variant`` has, h for held, between dots.
    """
    if "s" in text:
        warps, _, rest = text.partition("s")
        split, _, each = rest.rstrip("a").partition("r")
        return Warps(int(warps or 1), int(each or 16), int(split), text[-1] == "a")
    if "r" in text:
        warps, each = map(int, text.split("r"))
        return Warps(warps, each)
    if text[0] == "h":
        return Held(int(text[1:]))
    if "x" in text:
        groups, tile = text.rstrip("qo").split("x")
        return Groups(int(groups), int(tile), "q" in text, 1 if "o" in text else 2)
    return Variant(*(-(-keys // 16) * 16 if one == "h" else int(one) for one in text.split(".")))


class Timed:
    """A problem on the GPU: as many sets of inputs as exceed its L2 cache."""

    def __init__(
        self, backend: Recorder, problem: Problem, stored: Format, *, rounds: bool, tf32: bool = False
    ) -> None:
        self._backend, self._problem, self._rounds, self._tf32 = backend, problem, rounds, tf32
        queue, random = Queue(backend, 18), np.random.default_rng(1)
        moved = sum(math.prod(one) for one in shapes(problem)) + math.prod(problem[:3]) * problem[4]
        drawn = [random.standard_normal(one, dtype=np.float32) for one in shapes(problem)]
        count = max(1, min(64, math.ceil(COLD_BYTES / (moved * stored.bytes))))
        backend.record = None
        self.sets = [[queue.convert(host_tensor(one), stored) for one in drawn] for _ in range(count)]
        for one in itertools.chain(*self.sets):
            one.address(backend)
        x = (torch.from_numpy(one.array(backend)).cuda().double() for one in self.sets[0])
        self.exact = peer(*(one[:1, :, :CHECKED] if one.shape[2] > 1 else one[:1] for one in x))

    def __call__(self, variant: AnyVariant | None) -> tuple[float, float]:
        """Seconds, and the error."""
        backend, queue = self._backend, Queue(self._backend, 18)
        backend.record = []
        kept = [run(queue, x, self._problem, variant, rounds=self._rounds, tf32=self._tf32) for x in self.sets]
        backend.synchronize()
        y = torch.from_numpy(kept[0].array(backend)[:1, :, :CHECKED]).cuda().double()
        error = float((y - self.exact).norm() / self.exact.norm())
        launched = backend.record

        def replay() -> None:
            for source, shape, arguments in launched:
                Driver.launch(backend, source, shape, arguments, "attention")

        seconds = backend.replayed(replay, len(self.sets))
        backend.settle()
        return seconds, error


def compiled(
    backend: Recorder,
    problem: Problem,
    stored: Format,
    found: Sequence[AnyVariant | None],
    *,
    rounds: bool,
    tf32: bool = False,
) -> None:
    """Have them compiled, several at once."""
    null = NullBackend(backend.multiprocessors)
    null.arch = backend.arch
    queue = Queue(null, 18)
    for variant in found:
        with suppress(Unsupported):
            x = [queue.empty(one, stored) for one in shapes(problem)]
            run(queue, x, problem, variant, rounds=rounds, tf32=tf32)
    compile_ahead(backend.compiler, [source for source, _ in null.launched])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name contains one of these, between commas")
    parser.add_argument("--all", action="store_true", help="every variant, not only the one that is chosen")
    parser.add_argument(
        "--variants", default="", help="these beside it: 3x128, 4.1.64.3.0.128 or 4.1.64.4.h, between commas"
    )
    parser.add_argument("--best", type=int, default=4, help="how many to print")
    parser.add_argument("--type", default="f16", choices=TYPES)
    parser.add_argument("--interior", default="storage", choices=("storage", "fp32"))
    given = parser.parse_args()
    stored, dtype, allowed = TYPES[given.type]
    rounds, tf32, backend = given.interior == "storage", given.type == "tf32", Recorder()
    torch.backends.cuda.matmul.allow_tf32 = tf32
    print(f"{'problem':24} {'torch us':>8}  variant: us, share of torch's speed, TFLOP/s (*: what is chosen), error")
    for problem in PROBLEMS:
        batch, heads, queries, keys, size, mask = problem
        name = f"{batch}x{heads} {queries}x{keys}x{size}{' mask' * mask}"
        if not any(one in name for one in given.only.split(",")):
            continue
        inputs = [torch.randn(shape, device="cuda", dtype=dtype) for shape in shapes(problem)]
        theirs = graph_seconds(peer, inputs, 2 * math.prod(problem[:3]) * size)
        more = [named(one, keys) for one in given.variants.split(",") if one]
        tried = [None, *more, *(variants(problem, stored, tf32=tf32) if given.all else ())]
        compiled(backend, problem, stored, tried, rounds=rounds, tf32=tf32)
        time_of, found = Timed(backend, problem, stored, rounds=rounds, tf32=tf32), []
        for variant in tried:
            try:
                seconds, error = time_of(variant)
            except (CudaError, Unsupported) as why:
                found.append((math.inf, f"{variant}: {why}"))
                continue
            flops = 4.0 * math.prod(problem[:5]) / seconds * 1e-12
            wrong = " WRONG" * (not error < allowed)
            text = f"{variant or '*'}: {seconds * 1e6:.1f}, {theirs / seconds:.0%}, {flops:.0f}, {error:.0e}{wrong}"
            found.append((seconds, text))
        print(
            f"{name:24} {theirs * 1e6:8.1f}  " + "; ".join(text for _, text in sorted(found)[: given.best]), flush=True
        )


if __name__ == "__main__":
    main()
