"""What comparing every tensor costs on a GPU, beside an inference: device times and wall.

    python -m tests.bench.cuda_run [--batch 32] [--precision fp16] [--whole]

ResNet-50 (resnet50.py). Goldens are the network's own tensors on inputs a thousandth larger, made
wide, on the device. `inference` is one CUDA graph, inputs and outputs on the device;
`sums` what metrics are made of, `everything` with histograms, largest errors, rows and columns too: kernels of all tensors as one graph. Wall times
are those of a run whose tensors are handed out (recorded, prepared, then repeated); of a plain run from and to the host, before and after those that
are compared and answered; of these. `--whole`: `probe run` from ONNX to verdict, by phase.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from probe.debug.device_sums import Reference, asked_of
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums.comparing import Comparing, Held
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.engine.device.pairs import Asked, Measure, Rows
from probe.metrics.measure import Spec
from probe.metrics.sentinels import Sentinels
from probe.model import load
from tests.bench import resnet50
from tests.bench.kernel_graph import graphs_of

BANDWIDTH = 4.26e12  # bytes a second of a device copy, read and written
Pair = tuple[Held, Held, Asked]


def graph_seconds(backend: Driver, pairs: Sequence[Pair]) -> list[float]:
    """Device seconds of the sums of all pairs, and of everything that is asked of them."""

    def compared(queue: Queue, *, everything: bool) -> None:
        comparing = Comparing(queue, worst=5)
        for actual, golden, asked in pairs:
            comparing.add(actual, golden, asked if everything else Asked(asked.how, asked.rows))
        comparing.answers()

    found = []
    for graph in graphs_of(backend, [partial(compared, everything=one) for one in (False, True)]):
        graph.launch()
        found.append(min(backend.seconds(graph.launch) for _ in range(10)))
    return found


def tapped_pairs(engine: Any, feeds: Any, device: CudaDevice, *, interior: bool) -> dict[str, Pair]:
    """Every float tensor of a run with its golden and what is asked of them."""
    plans = engine.plans(engine.assignment)
    other = {name: array * np.float32(1.001) for name, array in feeds.items()}
    golden: dict[str, Held] = {}
    for tapped in device.stream(other, plans, interior=interior):
        if isinstance(tapped.held, Held):
            golden[tapped.name] = Held(device.queue.convert(tapped.held.tensor, F32), device.backend)
    looking = device.comparing()
    places = [looking.add(one, one, Asked(Measure(floor=1.0), Rows())) for one in golden.values()]
    answers = looking.answers()
    found = {}
    actual = {one.name: one.held for one in device.stream(feeds, plans, interior=interior) if one.name in golden}
    for (name, one), place in zip(golden.items(), places, strict=True):
        sums = answers[place or 0].sums
        range_ = max(abs(sums.golden_min), abs(sums.golden_max))
        reference = Reference(tuple(one.shape), range_, Sentinels(), 0.0, distributions=False, by_class=False)
        asked = asked_of(reference, Spec(atol=1e-8, rtol=1e-5, storage="float16"))
        held = actual[name]
        if asked is not None and isinstance(held, Held):
            found[name] = held, one, asked
    return found


def compared(
    device: CudaDevice,
    feeds: Any,
    plans: Any,
    pairs: dict[str, Pair],
    *,
    interior: bool,
    sums: bool,
    moments: list[float] | None = None,
) -> Any:
    """A run of which every tensor is compared.

    Args:
        moments: of the host: begun, run asked for, pairs asked for, outputs there, answered.
    """
    noted = [last := time.perf_counter()]
    comparing = device.comparing()
    for tapped in device.stream(feeds, plans, interior=interior):
        if len(noted) == 1:
            noted.append(time.perf_counter())
        if tapped.name in pairs:
            _, golden, asked = pairs[tapped.name]
            comparing.add(
                cast("Any", tapped.held), cast("Any", golden), Asked(asked.how, asked.rows) if sums else asked
            )
        last = time.perf_counter()
    noted += [last, time.perf_counter()]
    answers = comparing.answers()
    if moments is not None:
        moments += [*noted, time.perf_counter()]
    return answers


def steps(work: Callable[[list[float]], Any]) -> str:
    """Milliseconds of the host between the moments of ``compared``, medians of seven."""
    found = []
    for _ in range(7):
        moments: list[float] = []
        work(moments)
        found.append(np.diff(moments))
    named = ("run asked for", "pairs", "outputs", "answers")
    return ", ".join(f"{name} {ms:.2f}" for name, ms in zip(named, np.median(found, axis=0) * 1e3, strict=True))


def wall(work: Callable[[], Any], backend: Driver) -> list[float]:
    times = []
    for _ in range(9):
        backend.synchronize()
        begin = time.perf_counter()
        work()
        backend.synchronize()
        times.append(time.perf_counter() - begin)
    return times


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
        device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        feeds, plans = engine.feeds({"x": x}), engine.plans(engine.assignment)
        device.run(feeds, plans)
        inference = device.prepare(feeds, plans).time()
        print(f"resnet50 b{given.batch} {given.precision}: inference {inference * 1e3:.3f} ms of the GPU", flush=True)
        for name, interior in (("outputs of layers", False), ("every tensor", True)):
            pairs = tapped_pairs(engine, feeds, device, interior=interior)
            chosen = list(pairs.values())
            sums, everything = graph_seconds(backend, chosen)
            size = sum(a.nbytes + g.nbytes for a, g, _ in chosen)
            print(
                f"  {name}: {len(chosen)}, {size / 1e9:.2f} GB: sums {sums * 1e3:.3f} ms ({sums / inference:.2f} x an inference, "
                f"{size / BANDWIDTH / sums:.0%} of copy bandwidth), everything {everything * 1e3:.3f} ms",
                flush=True,
            )  # fmt: skip
            pairs = {
                key: (Held(host_tensor(np.zeros(1, np.float32)), backend), g, asked)
                for key, (_, g, asked) in pairs.items()
            }
            del chosen
            tapping = wall(lambda how=interior: deque(device.stream(feeds, plans, interior=how), maxlen=0), backend)
            graph = next(one.prepared for one in reversed(device.watched._known.values()) if one.prepared is not None)
            print(
                f"    handed out, one graph: {graph.time(10) * 1e3:.3f} ms of the GPU; wall ms: tapped {told(tapping)}",
                end="",
            )
            work = partial(compared, device, feeds, plans, pairs, interior=interior)
            run = partial(device.run, feeds, plans)
            before, times, after = wall(run, backend), wall(partial(work, sums=True), backend), wall(run, backend)
            plain = float(np.median([*before[2:], *after[2:]]))
            print(f"; plain {plain * 1e3:.2f}; with sums {told(times)} ({np.median(times[2:]) / plain:.2f} x)", end="")
            busy = min(backend.seconds(partial(work, sums=True)) for _ in range(3))
            split = steps(lambda noted, work=work: work(sums=True, moments=noted))
            print(f", between events {busy * 1e3:.2f}, of the host: {split}", end="")
            times = wall(partial(work, sums=False), backend)
            print(
                f"; with everything {told(times)} ({np.median(times[2:]) / plain:.2f} x) {device.watched.notes or ''}",
                flush=True,
            )
        if given.whole:
            from probe import api

            begin = time.perf_counter()
            result = api.run(path, inputs={"x": x}, device="cuda", precision=given.precision)
            phases = ", ".join(f"{name} {value:.2f}" for name, value in result.seconds.items())
            print(
                f"  probe run --device cuda: {time.perf_counter() - begin:.1f} s {result.verdict}: {phases}; {result.notes}"
            )


def told(times: Sequence[float]) -> str:
    """The first two, and the median of the others."""
    return f"{times[0] * 1e3:.1f}, {times[1] * 1e3:.1f}, then {np.median(times[2:]) * 1e3:.2f}"


if __name__ == "__main__":
    main()
