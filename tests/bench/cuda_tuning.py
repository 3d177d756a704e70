"""Tactics chosen by measurement on a GPU: what choosing costs, cold and from the cache, and what it brings over the cost model.

    python -m tests.bench.cuda_tuning [--only bert] [--precision fp16] [--layers 8] [--cold]

Columns: `choose` the time of a choice with nothing measured yet (of that: kernels compiled ahead), and again with all times known; `exact` and
`tuned` the latency of the network as a CUDA graph with the device's own choices and with the measured ones; `sum` the sums of the layers' times that
were measured. `wrong` counts candidates that did not pass the check. Then the menu, and five assignments that were never asked for before, half of
the layers lifted: their first run, which records, and the second, which plans memory and captures; with the run itself and its copies.
--cold compiles into an empty folder.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from probe.engine.assignment import Assignment
from probe.engine.build import compile_model
from probe.engine.device.cuda.compiling.compile import Compiler, default_folder
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.guard import find_gpu
from probe.engine.engine import Engine
from probe.engine.tuning.choose import Choices, choose
from probe.engine.tuning.menu import lifted, prepare_menu
from probe.engine.tuning.timing import Timings
from probe.model import load
from probe.results.tactics import Fingerprint
from tests.bench.cuda_latency import Job, jobs, off


def total(choices: Choices, *, exact: bool) -> float:
    """Microseconds of all layers that have times."""
    found = 0.0
    for one in choices:
        times = {c.tactic: c.median_us for c in one.candidates}
        found += (times.get("exact") if exact else one.candidate.median_us) or 0.0
    return found


def new_assignments(engine: Engine, job: Job, backend: Driver, base: Assignment) -> None:
    """The menu, and what assignments take that were never asked for before."""
    menu = prepare_menu(engine, job.feeds, base)
    assert menu is not None
    told, compiled = [], backend.compiler.compiled
    for mixture in islice(lifted(engine, base, 7), 4, 9):
        begin = time.perf_counter()
        engine.run(job.feeds, mixture)
        first = time.perf_counter()
        engine.run(job.feeds, mixture)
        told.append(f"{(first - begin) * 1e3:.1f} + {(time.perf_counter() - first) * 1e3:.1f}")
    begin = time.perf_counter()
    for _ in range(5):
        engine.run(job.feeds, mixture)
    print(
        f"    {job.name}: menu of {menu.mixtures} mixtures, {menu.layers} ways of {len(engine.layers)} layers, {menu.kernels} kernels compiled, {menu.seconds:.1f} s, refused "
        f"{menu.refused[:2]}; new assignments (recorded + captured) {', '.join(told)} ms, a run again {(time.perf_counter() - begin) * 200:.1f} ms; "
        f"{backend.compiler.compiled - compiled} kernels compiled for them",
        flush=True,
    )  # fmt: skip


def measure(job: Job, precision: str, backend: Driver, shown: int) -> None:
    engine = compile_model(load(job.path), precision=precision)
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    if shown < 0:
        engine.run(job.feeds)
        new_assignments(engine, job, backend, engine.assignment)
        return
    plans = engine._plans(engine.assignment)
    exact_outputs = device.run(job.feeds, plans)
    compiled = backend.compiler.compiled
    timings, said = Timings(Fingerprint("", "", "", "", "")), [""]
    ahead = time.perf_counter()

    def progress(what: str) -> None:
        nonlocal ahead
        if what.startswith("compiling"):
            ahead, said[0] = time.perf_counter(), what

    begin = time.perf_counter()
    choices = choose(engine, job.feeds, timings=timings, progress=progress)
    chosen = time.perf_counter() - begin
    again = time.perf_counter()
    choose(engine, job.feeds, timings=timings)
    again = time.perf_counter() - again
    tuned = choices.assignment(engine.assignment)
    outputs = engine.run(job.feeds, tuned)
    far = max(off(outputs[name], array) for name, array in exact_outputs.items())
    seconds = [
        device.prepare(job.feeds, one).time() for one in (plans, engine._plans(tuned), plans, engine._plans(tuned))
    ]
    own, best = min(seconds[::2]), min(seconds[1::2])
    wrong = [note for note in timings.notes if "no candidate" in note]
    changed = sum(one.candidate.tactic != "exact" for one in choices)
    print(
        f"{job.name:20} {precision:5} choose {chosen:6.2f} s (ahead {max(ahead - begin, 0):.2f} s, {said[0]}; {backend.compiler.compiled - compiled} compiled here), again {again:.2f} s  "
        f"times {timings.measured}  wrong {len(wrong)}  not exact {changed} of {len(choices)}  exact {own * 1e3:.4f} ms, tuned {best * 1e3:.4f} ms ({own / best:.3f}x)  "
        f"sum {total(choices, exact=True):.1f} -> {total(choices, exact=False):.1f} us  off {far:.1e}  fallen {len(device.fallen)}",
        flush=True,
    )  # fmt: skip
    new_assignments(engine, job, backend, tuned)
    for note in wrong[:shown]:
        print("   ", note[:200])
    gains = []
    for one in choices:
        times = {c.tactic: c.median_us for c in one.candidates}
        if (before := times.get("exact")) is not None and one.candidate.median_us is not None:
            gains.append((before - one.candidate.median_us, before, one))
    for gain, before, one in sorted(gains, key=lambda row: -row[0])[:shown]:
        others = "; ".join(f"{c.tactic} {c.median_us:.2f}" for c in one.candidates[:4] if c.median_us is not None)
        print(f"    {gain:6.2f} of {before:7.2f} us  {one.context.layer[:60]}: {others}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="networks whose name contains one of these, separated by commas")
    parser.add_argument("--precision", default="fp16", help="comma-separated")
    parser.add_argument(
        "--layers",
        type=int,
        default=0,
        help="show so many of the layers that gain most; -1: the menu alone, nothing is chosen",
    )
    parser.add_argument("--cold", action="store_true", help="compile into an empty folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gpu = find_gpu()
        kept = Path(folder) / "kernels" if given.cold else default_folder()
        backend = Driver(compiler=Compiler(gpu.arch, kept))
        print(f"{backend.name} {backend.arch}")
        for job in (one for only in given.only.split(",") for one in jobs(Path(folder), only)):
            for precision in given.precision.split(","):
                measure(job, precision, backend, given.layers)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
