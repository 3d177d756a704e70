"""What comparing every tensor costs on a GPU, beside an inference: device times and wall.

    python -m tests.bench.cuda_run [--batch 32] [--precision fp16] [--whole]

ResNet-50 (resnet50.py). Goldens are the network's own FP32 tensors, on the device. `inference` is one CUDA graph, inputs and outputs on the device;
`tapped` the same layers with every tensor inside them kept; `sums` what metrics are made of, `everything` with histograms, largest errors, rows and
columns too: kernels of all tensors as one graph. Wall times launch one by one from Python. `--whole`: `probe run` from ONNX to verdict, by phase.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from probe.debug.device_sums import asked_of, reference_of
from probe.engine.assignment import FP32, Assignment
from probe.engine.build import compile_model
from probe.engine.device.cuda.backend import Batch, Launch, Shape
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums.comparing import Comparing, Held
from probe.engine.device.cuda.tensors.formats import Format
from probe.engine.device.cuda.tensors.tensor import Tensor
from probe.engine.device.pairs import Asked
from probe.metrics.measure import Spec
from probe.model import load
from tests.bench import resnet50

BANDWIDTH = 4.26e12  # bytes a second of a device copy, read and written
Pair = tuple[Held, Held, Asked]


class Collected(Queue):
    """A queue that keeps what is launched, to be made one graph of, and the memory for it."""

    def collect(self) -> list[Launch]:
        self.seen: list[Launch] = []
        self.made: list[Tensor] = []
        return self.seen

    def empty(self, shape: tuple[int, ...], format: Format) -> Tensor:  # noqa: A002
        self.made.append(super().empty(shape, format))
        return self.made[-1]

    def launch(self, source: Any, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0) -> None:
        self.seen.append(Launch(source, Shape((blocks, 1, 1), threads, shared_bytes), arguments, self.layer))


def graph_seconds(backend: Driver, pairs: Sequence[Pair], *, everything: bool) -> float:
    """Device seconds of comparing all pairs."""
    queue = Collected(backend, 18)
    launches = queue.collect()
    comparing = Comparing(queue, worst=5)
    for actual, golden, asked in pairs:
        only = asked if everything else Asked(asked.how, asked.rows)
        comparing.add(actual, golden, only)
    comparing._pairs._join()
    if everything:
        comparing._counts._pack()
    graph = backend.capture([Batch(tuple(launches))])
    graph.launch()
    return min(backend.seconds(graph.launch) for _ in range(10))


def tapped_pairs(engine: Any, feeds: Any, device: CudaDevice) -> list[Pair]:
    """Every float tensor of a run with its golden and what is asked of them."""
    golden: dict[str, Held] = {}
    for tapped in device.stream(feeds, engine._plans(Assignment(FP32)), interior=True):
        if isinstance(tapped.held, Held):
            golden[tapped.name] = tapped.held
    found = []
    for tapped in device.stream(feeds, engine._plans(engine.assignment), interior=True):
        if isinstance(tapped.held, Held) and tapped.name in golden:
            reference = reference_of(golden[tapped.name].array())
            asked = asked_of(reference, Spec(atol=1e-8, rtol=1e-5, storage="float16"))
            if asked is not None:
                found.append((tapped.held, golden[tapped.name], asked))
    return found


def wall(work: Any, backend: Driver) -> float:
    times = []
    for _ in range(7):
        backend.synchronize()
        begin = time.perf_counter()
        work()
        backend.synchronize()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--whole", action="store_true", help="probe run, by phase, too")
    given = parser.parse_args()
    backend = Driver()
    with tempfile.TemporaryDirectory() as folder:
        path = resnet50.save(Path(folder) / "m.onnx", given.batch)
        x = np.random.default_rng(0).standard_normal((given.batch, 3, 224, 224), dtype=np.float32)
        engine = compile_model(load(path), precision=given.precision)
        device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        feeds, plans = engine._feeds({"x": x}), engine._plans(engine.assignment)
        device.run(feeds, plans)
        prepared = device.prepare(feeds, plans)
        inference = prepared.time()
        del prepared
        pairs = tapped_pairs(engine, feeds, device)
        nbytes = sum(a.nbytes + g.nbytes for a, g, _ in pairs)
        stored = {v.name for layer in engine.layers for v in layer.outputs}
        by_layer = [pair for pair, t in zip(pairs, names_of(device, feeds, plans, pairs), strict=True) if t in stored]
        tapping = min(backend.seconds(lambda: consume(device, feeds, plans)) for _ in range(5))
        print(
            f"resnet50 b{given.batch} {given.precision}: inference {inference * 1e3:.3f} ms; tapped, launched one by one {tapping * 1e3:.3f} ms"
        )
        for name, chosen in (("outputs of layers", by_layer), ("every tensor", pairs)):
            sums, everything = (graph_seconds(backend, chosen, everything=one) for one in (False, True))
            size = sum(a.nbytes + g.nbytes for a, g, _ in chosen)
            print(
                f"  {name}: {len(chosen)}, {size / 1e9:.2f} GB: sums {sums * 1e3:.3f} ms ({sums / inference:.2f} x an inference, "
                f"{size / BANDWIDTH / sums:.0%} of copy bandwidth), everything {everything * 1e3:.3f} ms"
            )  # fmt: skip
        print(f"  bytes of goldens and tensors: {nbytes / 1e9:.2f} GB")
        device.run(feeds, plans)
        plain = wall(lambda: device.run(feeds, plans), backend)
        tapped = wall(lambda: consume(device, feeds, plans), backend)
        adding = wall(lambda: compare(device, pairs), backend)
        print(
            f"  wall: run from and to the host {plain * 1e3:.2f} ms, tapped {tapped * 1e3:.2f} ms, compared with answers {adding * 1e3:.2f} ms"
        )
        if given.whole:
            from probe import api

            for where in ("cuda",):
                begin = time.perf_counter()
                result = api.run(path, inputs={"x": x}, device=where, precision=given.precision)
                phases = ", ".join(f"{name} {value:.2f}" for name, value in result.seconds.items())
                print(
                    f"  probe run --device {where}: {time.perf_counter() - begin:.1f} s {result.verdict}: {phases}; {result.notes}"
                )


def consume(device: CudaDevice, feeds: Any, plans: Any) -> None:
    for _ in device.stream(feeds, plans, interior=True):
        pass


def names_of(device: CudaDevice, feeds: Any, plans: Any, pairs: Sequence[Pair]) -> list[str]:
    """Names of the pairs' tensors, which are in the order they are handed out."""
    names = [tapped.name for tapped in device.stream(feeds, plans, interior=True) if isinstance(tapped.held, Held)]
    assert len(names) == len(pairs), (len(names), len(pairs))
    return names


def compare(device: CudaDevice, pairs: Sequence[Pair]) -> None:
    comparing = device.comparing()
    for actual, golden, asked in pairs:
        comparing.add(cast("Any", actual), cast("Any", golden), asked)
    comparing.answers()


if __name__ == "__main__":
    main()
