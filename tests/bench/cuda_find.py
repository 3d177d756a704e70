"""What an evaluation of `probe find --device cuda` costs, and a new assignment on a deep network.

    python -m tests.bench.cuda_find [--only resnet50 b32] [--fusion full] [--evaluations 24]
    python -m tests.bench.cuda_find --deep vit_b_16

A search as users start it, golden of ONNX Runtime on the CPU, with a bar between what FP16 and what FP32 miss. Milliseconds of every evaluation:
the network under an assignment that was never asked for before, its outputs on the host, and their judgement there. `--deep`: a network of
network_exports.py; assignments with half of its layers lifted, recorded and captured, as in cuda_tuning.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from probe import api
from probe.culprits.oracle import EngineOracle
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.model import load
from tests.bench.cuda_latency import Job, jobs
from tests.bench.cuda_tuning import new_assignments


def searched(job: Job, given: argparse.Namespace) -> None:
    """One line an evaluation group, and the totals."""
    times: list[tuple[float, float]] = []
    evaluate = EngineOracle.evaluate

    def timed(self: EngineOracle, assignment: object) -> object:
        begin, judging = time.perf_counter(), self.judge_seconds
        found = evaluate(self, assignment)  # pyright: ignore[reportArgumentType]
        times.append((time.perf_counter() - begin, self.judge_seconds - judging))
        return found

    EngineOracle.evaluate = timed  # pyright: ignore[reportAttributeAccessIssue]
    begin = time.perf_counter()
    found = api.find(
        job.path, inputs=job.feeds, device="cuda", accept=[f"range_rel<={given.bar}"], granularity="layer", fusion=given.fusion,
        max_evaluations=given.evaluations, lighter=False, passes="safe",
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    whole, judge = np.array(times).T * 1e3
    phases = ", ".join(f"{name} {value:.2f}" for name, value in found.seconds.items())
    print(
        f"{job.name} fusion {given.fusion}: {found.status}, {len(found.keep)} kept of {found.units}, {len(times)} evaluations: first {whole[0]:.1f} ms, "
        f"then median {np.median(whole[1:]):.1f}, largest {whole[1:].max():.1f} (judging {np.median(judge[1:]):.1f}); all of find {seconds:.1f} s: {phases}",
        flush=True,
    )  # fmt: skip
    print("  each:", " ".join(f"{ms:.0f}" for ms in whole), flush=True)


def deep(name: str, folder: Path) -> None:
    """New assignments of a network of network_exports.py."""
    from tests.bench.network_exports import chosen, export

    net = chosen(name)[0]
    path, feeds = export(net, folder), net.inputs()
    backend = Driver()
    engine = compile_model(load(path), precision="fp16")
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    print(f"{net.name}: {len(engine.network.graph)} nodes, {len(engine.layers)} layers", flush=True)
    engine.run(feeds)
    new_assignments(engine, Job(net.name, path, feeds), backend, engine.assignment)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="resnet50 b32")
    parser.add_argument("--deep", default="", help="a network of network_exports.py")
    parser.add_argument("--fusion", default="none")
    parser.add_argument("--evaluations", type=int, default=24)
    parser.add_argument("--bar", default="1e-4")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.deep:
            deep(given.deep, Path(folder))
            return
        for job in jobs(Path(folder), given.only):
            searched(job, given)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
