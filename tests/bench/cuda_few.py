"""Products of few rows beside what else computes them and beside torch (cuBLAS), as CUDA graphs over weights that together exceed the L2 cache.

    python -m tests.bench.cuda_few [--only 768x50257] [--type f16] [--rows 1,8,16] [--all] [--compile] [--json FILE]

Needs a GPU. Medians. `limit` is what reading the weights takes at 4.2 TB/s. Weights lie along n, but where a name ends in t; they are fixed, as a
network's. `other` is what the device takes without matmul_few, *exact* says that it takes matmul_few; errors are those of the whole result against FP64, over its norm.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.ops.products import few
from probe.engine.device.cuda.ops.products.ending import storing
from probe.engine.device.cuda.ops.products.few import TACTICS, Few
from probe.engine.device.cuda.ops.products.ffma import Ffma
from probe.engine.device.cuda.ops.products.matmul import MMA_TILES, TF32_TILES, Tile, run
from probe.engine.device.cuda.ops.products.product import Matrices, Product, describe
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from tests.bench import cuda_kernels
from tests.bench.cuda_kernels import Recorder
from tests.bench.rotation import DTYPES, device_tensor

# k, n, whether weights lie along k
WEIGHTS = (
    (768, 768, 0), (768, 3072, 0), (3072, 768, 0), (2048, 4096, 0), (4096, 11008, 0), (768, 50257, 0), (768, 50257, 1), (2048, 1000, 0), (2048, 1000, 1), (512, 512, 0),
    (4096, 4096, 1), (1280, 320, 1), (768, 8192, 0), (1024, 16384, 1), (4096, 14336, 0), (256, 1024, 0),
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16)
TYPES = {"f16": (F16, False), "bf16": (BF16, False), "fp32": (F32, False), "tf32": (F32, True)}
_COLD = 160 << 20  # bytes of weights that a replay walks over: three times the L2 cache
_MOST = 160  # copies
_RATE = 4.2e6  # bytes a microsecond


class Weight:
    """Copies of a weight, ours and torch's, and what multiplies them."""

    def __init__(self, backend: Recorder, k: int, n: int, along_k: int, kind: str) -> None:
        self.backend, self.queue, self.k, self.n, self.along_k = backend, Queue(backend, 18), k, n, along_k
        self.stored, self.tf32 = TYPES[kind]
        dtype = DTYPES[self.stored.name]
        torch.manual_seed(0)
        self.x = torch.randn((max(ROWS), k), device="cuda", dtype=torch.bfloat16).to(
            dtype
        )  # no more bits than TF32 has
        w = torch.randn((n, k) if along_k else (k, n), device="cuda", dtype=torch.bfloat16).to(dtype)
        self.bytes = w.numel() * w.element_size()
        self.copies = max(1, min(_MOST, math.ceil(_COLD / self.bytes)))
        self.theirs = [w.clone() for _ in range(self.copies)]
        self.ours = [device_tensor(self.queue, w) for _ in range(self.copies)]
        self.rows = device_tensor(self.queue, self.x)

    def product(self, m: int, weight: Any) -> Product:
        ending = storing(self.queue, (m, self.n), self.stored)
        right = Matrices(weight, (), *((1, self.k) if self.along_k else (self.n, 1)), fixed=True)
        left = Matrices(self.rows, (), self.k, 1)
        return describe(left, right, None, (m, self.n), self.k, ending, tf32=self.tf32)

    def launched(self, m: int, tactic: Few | Ffma | Tile | None, copies: int) -> tuple[list[Any], Any]:
        """What is launched for so many copies, and the last result."""
        found, y = [], None
        for one in self.ours[:copies]:
            self.backend.record = []
            whole = self.product(m, one)
            with mock.patch.object(few, "chosen", return_value=None):
                run(self.queue, whole, tactic)
            found.append(self.backend.record[-1])  # what turns a weight comes before
            y = whole.ending.stored[0]
        self.backend.synchronize()
        return found, y

    def seconds(self, launches: list[Any]) -> float:
        def replay() -> None:
            for source, shape, arguments in launches:
                Driver.launch(self.backend, source, shape, arguments, "timed")

        return self.backend.replayed(replay, len(launches))

    def torch_seconds(self, m: int) -> float:
        x, stream = self.x[:m], torch.cuda.Stream()
        work = [(one.mT if self.along_k else one) for one in self.theirs]
        with torch.cuda.stream(stream):
            torch.matmul(x, work[0])
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            kept = [torch.matmul(x, one) for one in work]
        times = []
        for _ in range(9):
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            graph.replay()
            events[1].record()
            torch.cuda.synchronize()
            times.append(events[0].elapsed_time(events[1]) * 1e-3 / len(kept))
        return statistics.median(times[2:])

    def error(self, y: Any, m: int) -> float:
        w = self.theirs[0].double()
        exact = self.x[:m].double() @ (w.mT if self.along_k else w)
        return float((torch.from_numpy(y.array(self.backend).copy()).cuda().double() - exact).norm() / exact.norm())


def measured(weight: Weight, m: int, tactics: list[Few], other: Ffma | Tile | None, *, checked: bool) -> dict[str, Any]:
    """Microseconds, by tactic; ``wrong``: those whose error is too large."""
    found: dict[str, Any] = {"few": {}, "wrong": []}
    limit = {F16: 5e-4, BF16: 4e-3, F32: 5e-6}[weight.stored]
    launches, y = weight.launched(m, other, weight.copies)
    found["other"], found["entry"] = weight.seconds(launches) * 1e6, f"{launches[0][0]}"
    backend = weight.backend
    found["exact"] = str(few.chosen(weight.product(m, weight.ours[0]), backend.arch, backend.multiprocessors) or "")
    arguments = None
    for tactic in tactics:
        launches, y = weight.launched(m, tactic, 1 if arguments else weight.copies)
        if arguments is None:
            arguments = [one[2] for one in launches]
        if checked and weight.error(y, m) > limit:
            found["wrong"].append(str(tactic))
        again = [(launches[0][0], launches[0][1], one) for one in arguments]
        found["few"][str(tactic)] = weight.seconds(again) * 1e6
    if not checked:
        found["torch"] = weight.torch_seconds(m) * 1e6
    weight.backend.settle()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="weights whose name this matches")
    parser.add_argument("--type", default="f16,fp32")
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--all", action="store_true", help="every tactic at 1 and 16 rows, three between")
    parser.add_argument(
        "--apart",
        action="store_true",
        help="beside kernels of architectures without clusters, and only tactics for those",
    )
    parser.add_argument("--compile", action="store_true", help="compiled and checked on one copy, not timed")
    parser.add_argument("--seconds", type=float, default=600, help="no problem is begun behind them")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = "tf32" in given.type
    cuda_kernels.REPEATS = 1 if given.compile else 7
    begin, backend, rows = time.perf_counter(), Recorder(), [int(one) for one in given.rows.split(",")]
    every: list[dict[str, Any]] = []
    for (k, n, along_k), kind in ((one, kind) for one in WEIGHTS for kind in given.type.split(",")):
        name = f"{k}x{n}{'t' * along_k}"
        if not re.search(given.only, name) or time.perf_counter() - begin > given.seconds:
            continue
        weight = Weight(backend, k, n, along_k, kind)
        if given.compile:
            weight.copies = 1
        tiles = TF32_TILES if kind == "tf32" else MMA_TILES
        limit, each = weight.bytes / _RATE, weight.stored.bytes
        for m in rows:
            sizes = m, n, k, 1, backend.multiprocessors
            order = sorted(
                TACTICS,
                key=lambda one, sizes=sizes, each=each: few.microseconds(
                    one, *sizes, bytes_each=each, cores=kind != "fp32"
                ),
            )
            other = None
            if given.apart:
                order = [one for one in order if one.splits == 1]
                other = Ffma(32, 32, 4, 4) if kind == "fp32" else tiles[-1]
            tactics = order[: (len(order) if m in (1, 16) else 3) if given.all else 1]
            found = measured(weight, m, tactics, other, checked=given.compile)
            fastest = min(found["few"], key=found["few"].__getitem__)
            every.append({"k": k, "n": n, "along_k": along_k, "kind": kind, "m": m, "limit": limit, **found})
            best = found["few"][fastest]
            print(f"{name:11} {kind} m={m:<2} limit {limit:6.1f} other {found['other']:6.1f} torch {found.get('torch', 0):6.1f} few {best:6.1f} {best / limit:5.2f} "
                  f"{fastest[4:]}; by model {found['few'][str(order[0])]:.1f}{' exact' * bool(found['exact'])}{' WRONG' * bool(found['wrong'])}", flush=True)  # fmt: skip
        backend.settle()
        del weight
    if given.json:
        given.json.write_text(json.dumps(every))


if __name__ == "__main__":
    main()
