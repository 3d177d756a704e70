"""Products and convolutions of 8-bit integers on a GPU: µs of every tile beside the kernel without tensor cores and torch._int_mm.

    python -m tests.bench.cuda_integers [--only 1024] [--all]

As tests/bench/cuda_kernels.py: launches replayed as a CUDA graph over inputs that together exceed the L2 cache. Every result is checked against the
kernel without tensor cores before it is timed. ``--all``: tiles that were tried, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from probe import ir
from probe.engine.device.cuda.ops import integer_product
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.integer_product import TILES, Bytes, Tile, choose, product
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, U8
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from tests.bench.cuda_kernels import COLD_BYTES, Driver, Recorder

# m, n, k, of which m x k are activations
PRODUCTS = (
    (1024, 3072, 768),
    (1024, 768, 3072),
    (128, 768, 768),
    (16, 768, 768),
    (1, 3072, 768),
    (1, 768, 3072),
    (4096, 4096, 4096),
)
TRIED = (
    Tile(128, 128, 128, 64, 64, 1, 3, 0, 0, 0), Tile(128, 64, 64, 64, 32, 1, 4, 0, 0, 0), Tile(64, 128, 64, 32, 64, 1, 4, 0, 0, 0),
    Tile(128, 64, 128, 64, 32, 1, 4, 0, 0, 0), Tile(32, 64, 128, 32, 32, 2, 4, 0, 0, 0), Tile(16, 64, 256, 16, 64, 4, 6, 0, 0, 0),
)  # fmt: skip
# images, channels, pixels, outputs, window, stride, groups
CONVOLUTIONS = (
    (32, 64, 56, 64, 3, 1, 1), (32, 256, 14, 256, 3, 1, 1), (32, 256, 56, 64, 1, 1, 1), (1, 3, 224, 64, 7, 2, 1), (32, 144, 56, 144, 3, 1, 144),
)  # fmt: skip


class Times:
    """What a graph of launches takes."""

    def __init__(self) -> None:
        self.backend = Recorder()
        self.queue = Queue(self.backend, 18)

    def seconds(self, run: Callable[[int], Any], nbytes: int) -> float:
        """
        Args:
            run: launches a problem on inputs of its own, by number.
            nbytes: of a problem.
        """
        backend, sets = self.backend, max(1, min(32, -(-COLD_BYTES // nbytes)))
        backend.record = []
        kept = [run(at) for at in range(sets)]
        backend.synchronize()
        again = list(backend.record)

        def replay() -> None:
            for source, shape, arguments in again:
                Driver.launch(backend, source, shape, arguments, "")

        found = backend.replayed(replay, sets)
        backend.settle()
        del kept
        return found


def drawn(kind: Any, *shape: int) -> np.ndarray:
    info = np.iinfo(kind)
    return np.random.default_rng(0).integers(info.min, info.max + 1, shape, kind)


def _multiplied(
    queue: Queue, a: np.ndarray, b: np.ndarray, zero: Tensor, _: int, *, tile: Tile | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    left, right = host_tensor(a), host_tensor(b)
    factors = Bytes(left, *a.shape, zero), Bytes(right, *b.shape, None, fixed=True, zero_fixed=True)
    return product(queue, *factors, 1, tile=tile), left, right


def products(times: Times, only: str, tried: tuple[Tile, ...]) -> Iterator[str]:
    torch = None
    with suppress(ImportError):
        import torch
    for m, n, k in PRODUCTS:
        name = f"{m} x {n} x {k}"
        if only not in name:
            continue
        a, b, zero = drawn(np.uint8, 1, m, k), drawn(np.int8, 1, k, n), host_tensor(np.array(120, np.uint8))
        nbytes = m * k + k * n + 4 * m * n

        factors = partial(_multiplied, times.queue, a, b, zero)
        with mock.patch.object(integer_product, "_is_small", return_value=True):
            expected = factors(0)[0].array(times.backend)
            found = [f"dp4a {times.seconds(factors, nbytes) * 1e6:.1f}"]
        chosen = choose(m, n, k, 1, times.backend.multiprocessors)
        for tile in (*TILES, *tried):
            run = partial(factors, tile=tile)
            same = np.array_equal(run(0)[0].array(times.backend), expected)
            word = f"{tile.m}x{tile.n}x{tile.k}({tile.warp_m}x{tile.warp_n}x{tile.along},{tile.stages}) {times.seconds(run, nbytes) * 1e6:.1f}"
            found.append(f"{'' if same else 'WRONG '}{'*' if tile is chosen else ''}{word}")
        if torch is not None and m > 16:
            from tests.bench.torch_graph import graph_seconds

            given = [torch.randint(-128, 128, shape, dtype=torch.int8, device="cuda") for shape in ((m, k), (n, k))]
            seconds = graph_seconds(lambda x, w: torch._int_mm(x, w.t()), given, 4 * m * n)
            found.append(f"torch {seconds * 1e6:.1f}")
        yield f"{name:20} {', '.join(found)}"


def convolutions(times: Times, only: str) -> Iterator[str]:
    """QLinearConv, a scale an output, with a bias."""
    for images, channels, pixels, outputs, window, stride, groups in CONVOLUTIONS:
        name = f"QLinearConv {images} x {channels} x {pixels}², {outputs} {window}x{window}{' depthwise' if groups > 1 else ''}"
        if only not in name:
            continue
        values = [ir.Value(name=f"x{at}", type=ir.TensorType(ir.DataType.FLOAT)) for at in range(9)]
        attributes = {"pads": [window // 2] * 4, "strides": [stride] * 2, "group": groups}
        node = ir.node("QLinearConv", values, attributes)
        ir.Graph(values[:1], node.outputs, nodes=[node], initializers=values[1:])
        x, w = (
            drawn(np.uint8, images, channels, pixels, pixels),
            drawn(np.int8, outputs, channels // groups, window, window),
        )
        scales = np.full(outputs, 0.01, np.float32)
        rest = [
            host_tensor(one)
            for one in (
                np.float32(0.02),
                np.uint8(128),
                w,
                scales,
                np.int8(0),
                np.float32(1.0),
                np.uint8(3),
                np.zeros(outputs, np.int32),
            )
        ]
        call = lambda given, node=node, rest=rest: Call(node, [given, *rest], [U8], 18)

        def run(_: int, x: np.ndarray = x, call: Any = call) -> Any:
            given = host_tensor(x)
            return OPS["QLinearConv"].compute(times.queue, call(given)), given

        times.queue.sources.clear()
        seconds = times.seconds(run, x.nbytes + images * outputs * (pixels // stride) ** 2)
        parts = " + ".join(source.entry for source in dict.fromkeys(times.queue.sources))
        yield f"{name:40} {seconds * 1e6:.1f} ({parts})"


def quantising(times: Times, only: str) -> Iterator[str]:
    values = [ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))]
    outputs = [ir.Value(name=f"y{at}", type=ir.TensorType(ir.DataType.FLOAT)) for at in range(3)]
    node = ir.node("DynamicQuantizeLinear", values, outputs=outputs)
    for rows, cols in ((1024, 768), (128, 768), (1, 768), (1024, 3072)):
        name = f"DynamicQuantizeLinear {rows} x {cols}"
        if only not in name:
            continue
        x = np.random.default_rng(0).standard_normal((rows, cols), np.float32)

        def run(_: int, x: np.ndarray = x) -> Any:
            given = host_tensor(x)
            return OPS["DynamicQuantizeLinear"].compute(times.queue, Call(node, [given], [U8, F32, U8], 18)), given

        yield f"{name:40} {times.seconds(run, 5 * x.size) * 1e6:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name contains this")
    parser.add_argument("--all", action="store_true", help="tiles that were tried, too")
    given = parser.parse_args()
    times = Times()
    for line in products(times, given.only, TRIED if given.all else ()):
        print(line, flush=True)
    for line in (*quantising(times, given.only), *convolutions(times, given.only)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
