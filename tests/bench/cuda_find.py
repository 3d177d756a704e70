"""What an evaluation of `probe find --device cuda` costs, and a new assignment of a deep network.

    python -m tests.bench.cuda_find [--only resnet50 b32] [--fusion full] [--evaluations 16]
    python -m tests.bench.cuda_find --net vit_b_16 [--folder KEPT]

The oracle of the search itself: golden is the network in FP32; each evaluation is an assignment that was never asked for before (half of the layers
kept in FP32), its outputs brought to the host and judged there. Kernels of all mixtures are compiled before, as by `find`. `again` is an assignment
asked a second time. `--net`: a network of network_exports.py, exported by torch. Times of Python calls.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from probe.culprits.judge import Judge
from probe.culprits.oracle import EngineOracle
from probe.engine.assignment import FP32, Assignment
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.engine.tuning.menu import lifted, prepare_menu
from probe.model import load
from probe.store.feeds import InputSet
from tests.bench.cuda_latency import Job, jobs


class Asked:
    """Assignments instead of members."""

    def assignment(self, base: Assignment, _members: frozenset[str], /) -> Assignment:
        return base


def evaluated(job: Job, given: argparse.Namespace, backend: Driver) -> None:
    begin = time.perf_counter()
    engine = compile_model(load(job.path), precision="fp16", fusion=given.fusion)
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    base = engine.assignment
    golden = engine.run(job.feeds, Assignment(FP32))
    said = f"{job.name} fusion {given.fusion}: {len(engine.network.graph)} nodes, {len(engine.layers)} layers"
    print(f"{said}, compiled and run once {time.perf_counter() - begin:.1f} s", flush=True)
    menu = prepare_menu(engine, job.feeds, base)
    assert menu is not None
    print(f"  menu: {menu.mixtures} mixtures, {menu.kernels} kernels compiled, {menu.seconds:.1f} s", flush=True)
    one = InputSet("0", job.feeds, "bench")
    oracle = EngineOracle(engine, Asked(), base, [one], Judge({"0": golden}, list(golden), [one], precision="fp16"))
    compiled = backend.compiler.compiled
    mixtures = list(islice(lifted(engine, base, 7), 4, 4 + given.evaluations))
    first, again = [list(_times(oracle, mixtures)) for _ in range(2)]
    print(
        f"  evaluations, ms: {' '.join(f'{ms:.1f}' for ms, _ in first)}: median {np.median([ms for ms, _ in first]):.1f} (judging "
        f"{np.median([ms for _, ms in first]):.2f}); again, which captures: median {np.median([ms for ms, _ in again]):.1f}; a third time "
        f"{np.median([ms for ms, _ in _times(oracle, mixtures)]):.1f}; {backend.compiler.compiled - compiled} kernels compiled for them",
        flush=True,
    )  # fmt: skip


def _times(oracle: EngineOracle, mixtures: list[Assignment]) -> Iterator[tuple[float, float]]:
    """Milliseconds of each evaluation, and of judging in it."""
    for one in mixtures:
        begin, judging = time.perf_counter(), oracle.judge_seconds
        oracle.evaluate(one)
        yield (time.perf_counter() - begin) * 1e3, (oracle.judge_seconds - judging) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="resnet50 b32")
    parser.add_argument("--net", default="", help="a network of network_exports.py instead")
    parser.add_argument("--folder", type=Path, help="where networks of torch are kept")
    parser.add_argument("--fusion", default="full")
    parser.add_argument("--evaluations", type=int, default=16)
    given = parser.parse_args()
    backend = Driver()
    with tempfile.TemporaryDirectory() as folder:
        if given.net:
            from tests.bench.network_exports import chosen, export

            begin, net = time.perf_counter(), chosen(given.net)[0]
            job = Job(net.name, export(net, given.folder or Path(folder)), net.inputs())
            print(f"exported by torch in {time.perf_counter() - begin:.1f} s", flush=True)
            evaluated(job, given, backend)
            return
        for job in jobs(Path(folder), given.only):
            evaluated(job, given, backend)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
