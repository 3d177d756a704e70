"""Kernels of detection, retrieval and graph networks beside torch: µs, and bytes that must move over the copy bandwidth.

    python -m tests.bench.cuda_operators [--only TopK]

Needs a GPU. As tests/bench/cuda_kernels.py, whose rig it uses: launches replayed as a CUDA graph over inputs that together exceed the L2 cache.
"""

from __future__ import annotations

import argparse
import math
from contextlib import suppress
from typing import Any

import numpy as np

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F16, F32, I32, I64, U8, Format
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from tests.bench.cuda_kernels import Job, Recorder, copy_bandwidth, measure, torch_seconds

RANKED = (
    (4096, 100, 5),
    (4096, 1000, 5),
    (512, 50257, 50),
    (8, 120000, 1000),
    (1, 1 << 20, 100),
    (1, 1 << 20, 1 << 20),
    (64, 4096, 2048),
)


def _top_k(k: int, fmt: Format) -> Any:
    made = _node("TopK", 2, {}, outputs=2)
    count = host_tensor(np.array([k]))
    return lambda queue, x: OPS["TopK"].compute(queue, Call(made, [x[0], count], [fmt, I64], 18))


def _node(op: str, inputs: int, attributes: dict[str, Any], outputs: int = 1) -> ir.Node:
    def values(letter: str, count: int) -> list[ir.Value]:
        return [ir.Value(name=f"{letter}{at}", type=ir.TensorType(ir.DataType.FLOAT)) for at in range(count)]

    return ir.node(op, values("x", inputs), attributes, outputs=values("y", outputs))


def _sampled(mode: str, fmt: Format) -> Any:
    made = _node("GridSample", 2, {"mode": mode})
    return lambda queue, x: OPS["GridSample"].compute(queue, Call(made, x, [fmt], 20))


def _added(rows: int, updates: int, fmt: Format) -> Any:
    """Messages of a graph added up: ScatterND, its indices the same for ours and torch's."""
    made = _node("ScatterND", 3, {"reduction": "add"})
    places = np.random.default_rng(0).integers(0, rows, (updates, 1))

    def run(queue: Queue, x: list[Tensor]) -> Any:
        return OPS["ScatterND"].compute(queue, Call(made, [x[0], host_tensor(places), x[1]], [fmt], 18))

    return run


def _torch_added(rows: int, updates: int) -> Any:
    held: list[Any] = []

    def run(torch: Any, x: list[Any]) -> Any:
        if not held:
            held.append(torch.from_numpy(np.random.default_rng(0).integers(0, rows, updates)).cuda())
        return x[0].index_add(0, held[0], x[1])

    return run


def _regions(count: int, images: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of images, as a detector proposes them."""
    random = np.random.default_rng(0)
    first, extent = random.uniform(0, size * 0.7, (count, 2)), random.uniform(2, size * 0.3, (count, 2))
    return np.concatenate([first, first + extent], 1).astype(np.float32), random.integers(0, images, count)


def _aligned(count: int, shape: tuple[int, ...], fmt: Format) -> Any:
    made = _node("RoiAlign", 3, {"output_height": 7, "output_width": 7, "sampling_ratio": 2})
    where = _regions(count, shape[0], shape[2])
    return lambda queue, x: OPS["RoiAlign"].compute(queue, Call(made, [x[0], *map(host_tensor, where)], [fmt], 16))


def _torch_aligned(count: int, shape: tuple[int, ...]) -> Any:
    held: list[Any] = []

    def run(torch: Any, x: list[Any]) -> Any:
        from torchvision.ops import roi_align

        if not held:
            regions, images = _regions(count, shape[0], shape[2])
            held.append(torch.from_numpy(np.concatenate([images[:, None], regions], 1)).to(x[0]))
        return roi_align(x[0], held[0], 7, 1.0, 2, True)

    return run


def _suppressed(count: int) -> Any:
    """300 boxes at most of a class, as a detector proposes them; their number is looked at when the job is made ready, not when it is timed."""
    made = _node("NonMaxSuppression", 5, {})
    boxes, most = host_tensor(_regions(count, 1, 500)[0][None]), host_tensor(np.array([300]))
    limits = [host_tensor(np.array([one], np.float32)) for one in (0.5, 0.0)]
    return lambda queue, x: OPS["NonMaxSuppression"].compute(queue, Call(made, [boxes, x[0], most, *limits], [I64], 18))


def _quantised(m: int, n: int, k: int) -> Any:
    """A linear layer as dynamic quantisation writes it."""
    quantise, multiply = _node("DynamicQuantizeLinear", 1, {}, outputs=3), _node("MatMulInteger", 4, {})
    ir.Graph(multiply.inputs[:1], multiply.outputs, nodes=[multiply], initializers=[multiply.inputs[1]])
    weight = host_tensor(np.random.default_rng(0).integers(-127, 128, (k, n)).astype(np.int8))

    def run(queue: Queue, x: list[Tensor]) -> Any:
        y, scale, zero = OPS["DynamicQuantizeLinear"].compute(queue, Call(quantise, [x[0]], [U8, F32, U8], 18))
        return OPS["MatMulInteger"].compute(queue, Call(multiply, [y, weight, zero, None], [I32], 18)), scale

    return run


def jobs() -> list[Job]:
    found = []
    for fmt in (F32, F16):
        found += [
            Job(f"TopK {rows} x {cols}, {k}", fmt, _top_k(k, fmt), ((rows, cols),), rows * k * (1 + 8 // fmt.bytes),
                torch=lambda t, x, k=k: t.topk(x[0], k))
            for rows, cols, k in RANKED
        ]  # fmt: skip
        found += [
            Job(f"GridSample {mode} {c} x {size}²", fmt, _sampled(mode, fmt), ((8, c, size, size), (8, size, size, 2)), 8 * c * size * size,
                torch=lambda t, x, m=name: t.nn.functional.grid_sample(x[0], x[1], m, "zeros", align_corners=False))
            for mode, name, c, size in (("linear", "bilinear", 64, 100), ("nearest", "nearest", 64, 100), ("cubic", "bicubic", 64, 100), ("linear", "bilinear", 3, 512))
        ]  # fmt: skip
        found += [
            Job(f"RoiAlign {count} of {c} x {size}²", fmt, _aligned(count, (n, c, size, size), fmt), ((n, c, size, size),), count * c * 49,
                torch=_torch_aligned(count, (n, c, size, size)))
            for count, n, c, size in ((1000, 2, 256, 50), (512, 1, 256, 100))
        ]  # fmt: skip
        if fmt is F32:
            found += [
                Job(f"NonMaxSuppression of {classes} x {count}", fmt, _suppressed(count), ((1, classes, count),), 600 * classes)
                for classes, count in ((1, 1000), (1, 8400), (80, 8400))
            ]  # fmt: skip
            found += [
                Job(f"quantised {m} x {n} x {k}", fmt, _quantised(m, n, k), ((m, k),), m * n) for m, n, k in ((1024, 768, 3072), (128, 768, 768))
            ]  # fmt: skip
        found += [
            Job(f"ScatterND add {updates} in {rows}, {width}", fmt, _added(rows, updates, fmt), ((rows, width), (updates, width)), rows * width,
                torch=_torch_added(rows, updates))
            for rows, updates, width in ((10000, 200000, 64), (100, 4000, 256))
        ]  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="jobs whose name contains this")
    parser.add_argument("--alone", action="store_true", help="without torch")
    given = parser.parse_args()
    only = given.only
    backend = Recorder()
    bandwidth = copy_bandwidth(backend)
    torch = None
    if not given.alone:
        with suppress(ImportError):
            import torch
    print(f"{backend.name} {backend.arch}: copy {bandwidth / 1e12:.2f} TB/s")
    print(f"{'job':38} {'type':5} {'us':>9} {'of floor':>8} {'torch us':>9}")
    for job in (one for one in jobs() if only in one.name):
        seconds, moved = measure(backend, job)
        other = torch_seconds(torch, job)
        print(
            f"{job.name:38} {job.format.name:5} {seconds * 1e6:9.1f} {moved / bandwidth / seconds:8.0%} "
            f"{other * 1e6 if other else math.nan:9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
