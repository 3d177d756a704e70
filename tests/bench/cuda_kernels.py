"""Kernels against the machine: each case's time beside the least it could take, and beside torch where it is installed.

    python -m tests.bench.cuda_kernels [--only softmax]

Needs a GPU. Checked first (against the CPU device, by tests/engine/cuda), timed second: launches recorded once, replayed as a CUDA graph over
inputs that together exceed the L2 cache, median of repeats; torch the same way. `floor` is bytes over this machine's copy bandwidth, or operations over its
best matrix product, whichever takes longer; both ceilings are measured in the same run.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import driver

from probe import ir
from probe.engine.device.cuda.backend import Kernel, Shape
from probe.engine.device.cuda.driver import Driver, call
from probe.engine.device.cuda.layers.pointwise import Reading, run_chain
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.products.matmul import Tile, product
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format, format_of
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor

COLD_BYTES = 256 << 20  # of inputs and outputs that a replay walks over: several times the L2 cache
REPEATS = 15


class Recorder(Driver):
    """A driver that remembers launches, so that they can be captured without allocating."""

    def __init__(self) -> None:
        super().__init__()
        self.record: list[tuple[Kernel, Shape, Sequence[Any]]] | None = None
        self._freed: list[int] = []
        self.last: list[Kernel] = []  # what the last job launched

    def launch(self, source: Kernel, shape: Shape, arguments: Sequence[Any], what: str) -> None:
        if self.record is not None:
            self.record.append((source, shape, arguments))
        super().launch(source, shape, arguments, what)

    def free(self, address: int) -> None:
        if self.record is None:
            super().free(address)
        else:
            self._freed.append(address)  # a replay still writes there

    def settle(self) -> None:
        self.record = None
        for address in self._freed:
            super().free(address)
        self._freed.clear()

    def replayed(self, work: Callable[[], None], times: int) -> float:
        """Of one of ``times`` launches that ``work`` makes, replayed as a graph; median."""
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        call(driver.cuStreamBeginCapture(self.stream, mode), "beginning a capture")
        work()
        graph = call(driver.cuStreamEndCapture(self.stream), "ending a capture")
        ready = call(driver.cuGraphInstantiate(graph, 0), "instantiating a graph")
        events = [call(driver.cuEventCreate(0), "making an event") for _ in range(2)]
        found = []
        for _ in range(REPEATS + 3):
            call(driver.cuEventRecord(events[0], self.stream), "recording an event")
            call(driver.cuGraphLaunch(ready, self.stream), "launching a graph")
            call(driver.cuEventRecord(events[1], self.stream), "recording an event")
            call(driver.cuStreamSynchronize(self.stream), "running a graph")
            found.append(call(driver.cuEventElapsedTime(*events), "reading events") * 1e-3 / times)
        driver.cuGraphExecDestroy(ready)
        driver.cuGraphDestroy(graph)
        return statistics.median(found[3:])


@dataclass(frozen=True)
class Job:
    """One kernel on one problem."""

    name: str
    format: Format
    run: Callable[[Queue, list[Tensor]], Any]
    shapes: tuple[tuple[int, ...], ...]
    written: int  # elements
    operations: float = 0.0
    torch: Callable[[Any, list[Any]], Any] | None = None


def node(
    op: str, count: int, fmt: Format, attributes: dict[str, Any] | None = None
) -> Callable[[Queue, list[Tensor]], Any]:
    made = ir.node(
        op, [ir.Value(name=f"x{i}", type=ir.TensorType(ir.DataType.FLOAT)) for i in range(count)], attributes or {}
    )
    made.outputs[0].name = "y"
    made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return lambda queue, tensors: OPS[op].compute(queue, Call(made, tensors, [fmt], 18))


def chain(fmt: Format, *ops: str) -> Callable[[Queue, list[Tensor]], Any]:
    """Binary and unary nodes one behind the other; binary ones take the next input."""
    inputs = [ir.Value(name=f"x{i}", type=ir.TensorType(ir.DataType.FLOAT)) for i in range(4)]
    nodes, last, at = [], inputs[0], 1
    for op in ops:
        binary = op in ("Add", "Mul")
        made = ir.node(op, [last, inputs[at]] if binary else [last])
        at += binary
        made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        last = made.outputs[0]
        last.name = f"v{len(nodes)}"
        nodes.append(made)
    assert format_of(last) is F32
    roundings = {} if fmt is F32 else {id(n.outputs[0]): fmt.name for n in nodes}
    return lambda queue, tensors: run_chain(
        queue, nodes, {id(v): Reading(t) for v, t in zip(inputs, tensors, strict=False)}, roundings, {id(last): fmt}
    )


def jobs() -> list[Job]:
    big = (8192, 4096)
    count = math.prod(big)
    found = []
    for fmt in (F32, F16, BF16):
        found += [
            Job("add", fmt, chain(fmt, "Add"), (big, big), count, torch=lambda t, x: x[0] + x[1]),
            Job("relu", fmt, chain(fmt, "Relu"), (big,), count, torch=lambda t, x: t.relu(x[0])),
            Job("add row + gelu", fmt, chain(fmt, "Add", "Erf", "Mul"), (big, (4096,), big), count),
            Job("add channel", fmt, chain(fmt, "Add", "Relu"), ((32, 256, 56, 56), (256, 1, 1)), 32 * 256 * 56 * 56),
            Job("softmax 128", fmt, node("Softmax", 1, fmt, {"axis": -1}), ((262144, 128),), count, torch=lambda t, x: t.softmax(x[0], -1)),
            Job("softmax 4096", fmt, node("Softmax", 1, fmt, {"axis": -1}), (big,), count, torch=lambda t, x: t.softmax(x[0], -1)),
            Job("softmax 50257", fmt, node("Softmax", 1, fmt, {"axis": -1}), ((512, 50257),), 512 * 50257, torch=lambda t, x: t.softmax(x[0], -1)),
            Job("layernorm 768", fmt, node("LayerNormalization", 3, fmt, {"axis": -1}), ((32768, 768), (768,), (768,)), 32768 * 768,
                torch=lambda t, x: t.nn.functional.layer_norm(x[0], (768,), x[1], x[2])),
            Job("layernorm 4096", fmt, node("LayerNormalization", 3, fmt, {"axis": -1}), (big, (4096,), (4096,)), count,
                torch=lambda t, x: t.nn.functional.layer_norm(x[0], (4096,), x[1], x[2])),
            Job("instancenorm 512x512", fmt, node("InstanceNormalization", 3, fmt), ((4, 32, 512, 512), (32,), (32,)), 1 << 25),
            Job("sum rows 4096", fmt, lambda q, x, f=fmt: OPS["ReduceSum"].compute(q, Call(_reduce(-1), [x[0], None], [f], 11)), (big,), 8192,
                torch=lambda t, x: t.sum(x[0], -1)),
            Job("sum columns", fmt, lambda q, x, f=fmt: OPS["ReduceSum"].compute(q, Call(_reduce(0), [x[0], None], [f], 11)), (big,), 4096,
                torch=lambda t, x: t.sum(x[0], 0)),
            Job("transpose", fmt, lambda q, x: transposed(q, x[0], (1, 0)), (big,), count, torch=lambda t, x: x[0].t().contiguous()),
            Job("heads", fmt, lambda q, x: transposed(q, x[0], (0, 2, 1, 3)), ((64, 512, 16, 64),), 1 << 25),
            Job("concat", fmt, node("Concat", 2, fmt, {"axis": 1}), (big, big), 2 * count, torch=lambda t, x: t.cat(x, 1)),
        ]  # fmt: skip
        for m, n, k in ((512, 512, 512), (1024, 1024, 1024), (4096, 4096, 4096), (128, 768, 3072), (16384, 64, 576)):
            found.append(
                Job(f"matmul {m}x{n}x{k}", fmt, node("MatMul", 2, fmt), ((m, k), (k, n)), m * n, 2.0 * m * n * k,
                    torch=lambda t, x: t.matmul(*x))
            )  # fmt: skip
    for m, n, k in ((1024, 1024, 1024), (4096, 4096, 4096), (128, 768, 3072)):
        found.append(
            Job(f"tf32 {m}x{n}x{k}", F32, _tf32, ((m, k), (k, n)), m * n, 2.0 * m * n * k, torch=_torch_tf32)
        )  # fmt: skip
    return found


def _tf32(queue: Queue, x: list[Tensor]) -> Tensor:
    (m, k), (_, n) = x[0].shape, x[1].shape
    y = queue.empty((m, n), F32)
    product(queue, Matrices(x[0], (), k, 1), Matrices(x[1], (), n, 1), y, k, tf32=True)
    return y


def _torch_tf32(torch: Any, x: list[Any]) -> Any:
    torch.backends.cuda.matmul.allow_tf32 = True
    made = torch.matmul(*x)
    torch.backends.cuda.matmul.allow_tf32 = False
    return made


def tiles() -> list[Job]:
    """Other tiles of matmul_mma than the one that is chosen, on one large product."""
    shape, found = (4096, 4096), []
    for tile in (
        Tile(128, 128, 32, 64, 32), Tile(128, 128, 32, 64, 64), Tile(128, 128, 64, 64, 32), Tile(128, 256, 32, 64, 64),
        Tile(256, 128, 32, 64, 64), Tile(128, 64, 32, 64, 32), Tile(128, 64, 64, 32, 32),
    ):  # fmt: skip

        def run(queue: Queue, x: list[Tensor], tile: Tile = tile) -> Tensor:
            y = queue.empty(shape, F16)
            product(queue, Matrices(x[0], (), 4096, 1), Matrices(x[1], (), 4096, 1), y, 4096, tile=tile)
            return y

        name = f"tile {tile.m}x{tile.n}x{tile.k} {tile.tm}x{tile.tn}"
        found.append(Job(name, F16, run, (shape, shape), 4096**2, 2.0 * 4096**3))
    return found


def _reduce(axis: int) -> ir.Node:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    return ir.node("ReduceSum", [x], {"axes": [axis], "keepdims": 0})


def copy_bandwidth(backend: Recorder) -> float:
    """Bytes a second, read and written, of the best of two ways to copy 2 GB: the driver's, and the ReLU kernel's."""
    size = 2 << 30
    here, there = backend.allocate(size), backend.allocate(size)
    events = [call(driver.cuEventCreate(0), "making an event") for _ in range(2)]
    times = []
    for _ in range(REPEATS):
        call(driver.cuEventRecord(events[0], backend.stream), "recording an event")
        call(driver.cuMemcpyDtoDAsync(there, here, size, backend.stream), "copying")
        call(driver.cuEventRecord(events[1], backend.stream), "recording an event")
        backend.synchronize()
        times.append(call(driver.cuEventElapsedTime(*events), "reading events") * 1e-3)
    backend.free(here)
    backend.free(there)
    shape = (8192, 16384)
    seconds, moved = measure(backend, Job("copy", F32, chain(F32, "Relu"), (shape,), math.prod(shape)))
    return max(2 * size / statistics.median(times), moved / seconds)


def torch_seconds(torch: Any, job: Job) -> float | None:
    if torch is None or job.torch is None:
        return None
    dtype = {"float": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[job.format.name]
    from tests.bench.torch_graph import graph_seconds

    run, given = job.torch, [torch.randn(shape, device="cuda", dtype=dtype) for shape in job.shapes]
    return graph_seconds(lambda *x: run(torch, list(x)), given, job.written * job.format.bytes)


def measure(
    backend: Recorder, job: Job, ready: Callable[[Queue, list[Tensor]], Any] | None = None
) -> tuple[float, int]:
    """Seconds of one run, and bytes that it must move.

    Args:
        ready: done before, on the same inputs, and not timed.
    """
    queue = Queue(backend, 18)
    size = job.format.bytes
    moved = (sum(math.prod(shape) for shape in job.shapes) + job.written) * size
    sets = max(1, min(64, math.ceil(COLD_BYTES / moved)))
    random = np.random.default_rng(0)
    first = [random.standard_normal(shape, dtype=np.float32) for shape in job.shapes]
    backend.record, kept, lists = None, [], []
    for _ in range(sets):
        backend.record = None  # how inputs come to be in their format is not what is timed
        inputs = [queue.convert(host_tensor(array), job.format) for array in first]
        for tensor in inputs:
            tensor.address(backend)
        if ready is not None:
            ready(queue, inputs)
        backend.record = []
        kept.append((inputs, job.run(queue, inputs)))
        lists.append(backend.record)
    backend.synchronize()
    again = [one for record in lists for one in record]
    backend.last = [source for source, _, _ in lists[0]]

    def replay() -> None:
        for source, shape, arguments in again:
            Driver.launch(backend, source, shape, arguments, job.name)

    seconds = backend.replayed(replay, sets)
    backend.settle()
    return seconds, moved


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="jobs whose name contains this")
    only = parser.parse_args().only
    backend = Recorder()
    bandwidth = copy_bandwidth(backend)
    try:
        import torch
    except ImportError:
        torch = None
    peaks: dict[str, float] = {}
    if torch is not None:
        for name, dtype in (("float", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)):
            probe_job = Job("peak", {"float": F32, "f16": F16, "bf16": BF16}[name], chain(F32, "Relu"), ((8192, 8192), (8192, 8192)), 0,
                            torch=lambda t, x: t.matmul(*x))  # fmt: skip
            peaks[name] = 2.0 * 8192**3 / (torch_seconds(torch, probe_job) or math.inf)
            del dtype
    print(f"{backend.name} {backend.arch}: copy {bandwidth / 1e12:.2f} TB/s, "
          + ", ".join(f"{name} product {peak / 1e12:.0f} TFLOP/s" for name, peak in peaks.items()))  # fmt: skip
    print(f"{'job':24} {'type':5} {'us':>9} {'GB/s':>7} {'TFLOP/s':>8} {'of floor':>8} {'torch us':>9}")
    for job in (*jobs(), *tiles()):
        if only not in job.name:
            continue
        seconds, moved = measure(backend, job)
        other = torch_seconds(torch, job)
        floor = max(moved / bandwidth, job.operations / peaks.get(job.format.name, math.inf))
        print(
            f"{job.name:24} {job.format.name:5} {seconds * 1e6:9.1f} {moved / seconds / 1e9:7.0f} {job.operations / seconds / 1e12:8.1f} "
            f"{floor / seconds:8.0%} {other * 1e6 if other else math.nan:9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
