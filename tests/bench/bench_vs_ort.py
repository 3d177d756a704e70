"""Our latency beside ONNX Runtime's own session, in the same run: both take turns on the same inputs, so that what slows the machine slows both.

    python tests/bench/bench_vs_ort.py MODEL.onnx [MODEL.onnx ...] [--rounds 30] [--threads 0]

Ours is what ``probe bench`` times: one session, optimisation off, weights shared and not packed, threads asleep between calls. ONNX Runtime
runs with its defaults (all optimisations, weights packed, threads spinning), and once more set up as ours is, which tells what our graph
costs from what those settings cost.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from probe.api.arguments import input_sets
from probe.engine.build import compile_model
from probe.model import load
from probe.ort.session import CPU, session_options
from probe.timing.bench import timeline_of
from tests.bench import machine

Feeds = Mapping[str, np.ndarray[Any, Any]]


def contestants(path: Path, threads: int) -> tuple[dict[str, Callable[[], float]], Callable[[], float]]:
    """Name -> one inference, returning its seconds; and how far ours is from ONNX Runtime's outputs, relative to their range."""
    import onnxruntime

    model = load(path)
    feeds = input_sets(model, None, 0, None, None)[0][0].feeds
    engine = compile_model(model, precision="fp32", threads=threads)
    context = timeline_of(engine, engine.assignment, time.perf_counter, threads=threads).context()
    usual = onnxruntime.SessionOptions()
    usual.intra_op_num_threads = threads
    usual.log_severity_level = 4
    ours_alike = session_options(threads)
    ours_alike.add_session_config_entry("session.disable_prepacking", "1")
    sessions = {
        name: onnxruntime.InferenceSession(str(path), options, providers=[CPU])
        for name, options in (("ORT, defaults", usual), ("ORT, set up as ours", ours_alike))
    }

    def ours() -> float:
        moments = context.run(feeds)
        return moments.end - moments.begin

    def theirs(session: Any) -> float:
        begin = time.perf_counter()
        session.run(None, feeds)
        return time.perf_counter() - begin

    def apart() -> float:
        golden = dict(
            zip((one.name for one in model.outputs), sessions["ORT, set up as ours"].run(None, feeds), strict=True)
        )
        actual = engine.run(feeds)
        return max(
            (_range_rel(actual[name], value) for name, value in golden.items() if isinstance(value, np.ndarray)),
            default=0.0,
        )

    return {"probe": ours, **{name: lambda one=one: theirs(one) for name, one in sessions.items()}}, apart


def _range_rel(actual: Any, golden: np.ndarray[Any, Any]) -> float:
    wide, reference = np.asarray(actual, np.float64), np.asarray(golden, np.float64)
    largest = float(np.abs(reference).max(initial=0.0))
    return float(np.abs(wide - reference).max(initial=0.0)) / largest if largest else 0.0


def interleave(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """A, B, C, A, B, C, ... after two of each that do not count."""
    for _ in range(2):
        for once in runs.values():
            once()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, once in runs.items():
            taken[name].append(once())
    return taken


def main() -> int:
    """Print a line a model and contestant; 1 where outputs differ, since a fast wrong answer is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    print("; ".join(f"{what} {value}" for what, value in machine.describe().items()), f"; commit {machine.commit()}")
    print(f"{'model':<26} {'':<20} {'min ms':>9} {'median ms':>10}  ours over theirs: medians (minima)")
    wrong = 0
    for path in given.models:
        runs, apart = contestants(path, given.threads)
        taken = interleave(runs, given.rounds)
        off = apart()
        wrong += off > 1e-3
        mine = taken["probe"]
        for name, times in taken.items():
            ratios = ""
            if name != "probe":
                ratios = f"{statistics.median(mine) / statistics.median(times):7.2f} ({min(mine) / min(times):.2f})"
            print(f"{path.stem:<26} {name:<20} {1e3 * min(times):9.3f} {1e3 * statistics.median(times):10.3f} {ratios}")
        print(f"{'':<26} outputs within {off:.1e} of their range")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
