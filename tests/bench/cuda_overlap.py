"""What it brings to let a kernel begin before the one before it has ended (kernels/overlap.cuh), on whole networks.

    python -m tests.bench.cuda_overlap [--only resnet50] [--precision fp16] [--rounds 200]

Each network is prepared twice on the same inputs, with and without overlap, and timed in turns; then replayed ``rounds`` times, one behind the
other, and every result compared bit for bit with that of launches one by one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.runs.prepared import Prepared
from probe.model import load
from tests.bench.cuda_latency import Job, jobs


def measure(job: Job, precision: str, drivers: dict[str, Driver], rounds: int) -> None:
    engine = compile_model(load(job.path), precision=precision)
    plans, feeds = engine._plans(engine.assignment), engine._feeds(job.feeds)
    ready: dict[str, Prepared] = {}
    expected: dict[str, np.ndarray] = {}
    kernels: Counter[str] = Counter()
    for name, backend in drivers.items():
        device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        if not expected:
            device.replays.enabled = False
            expected = device.run(feeds, plans)
            device.replays.enabled = True
            kernels = Counter(device.queue.launches)
        ready[name] = device.prepare(feeds, plans)
    times = {name: [] for name in ready}
    for _ in range(3):
        for name, one in ready.items():
            times[name].append(one.time(50, rounds=5))
    wrong = 0
    for at in range(rounds):
        ready["overlapped"].replay()
        if at % 10 == 0:
            found = {name: t.array(drivers["overlapped"]) for name, t in ready["overlapped"].outputs().items()}
            wrong += any(
                not np.array_equal(found[key], value, equal_nan=value.dtype.kind == "f")
                for key, value in expected.items()
            )
    said = "  ".join(f"{name} {min(all_of) * 1e3:.3f} ms" for name, all_of in times.items())
    print(
        f"{job.name:18} {precision:5} {said}  {ready['overlapped'].launches} launches, {wrong} results of {rounds // 10} with other bits",
        flush=True,
    )
    print(f"    {dict(kernels.most_common(14))}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="networks whose name contains this; several with commas")
    parser.add_argument("--precision", default="fp16", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    drivers = {"in turn": Driver(overlapped=False), "overlapped": Driver()}
    with tempfile.TemporaryDirectory() as folder:
        for only in given.only.split(","):
            for job in jobs(Path(folder), only):
                for precision in given.precision.split(","):
                    measure(job, precision, drivers, given.rounds)


if __name__ == "__main__":
    main()
