"""How long a report takes, and how large it is: from a saved run of many layers to HTML on disk, interpreter included.

    python tests/bench/report.py --layers 100 1000 3000

Exit 1 where 1,000 layers take 2 s or more, or 3 MB or more.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from probe.results.json import save
from probe.results.publish import example_layer, example_run
from probe.results.run import LayerError, RunResult
from tests.bench.timing import Contestant, interleave


def result_of(layers: int) -> RunResult:
    """A run with names as exporters write them: four nodes a layer, error that builds up, a jump at 62 %, NaN from 85 % on."""
    drawn = random.Random(0)
    accumulated, made = 1e-4, []
    for i in range(layers):
        injected = 10 ** drawn.gauss(-3.6, 0.5)
        accumulated = 0.3 if i == int(0.62 * layers) else 0.98 * accumulated + 0.2 * injected
        made.append(_layer(i, layers, accumulated if i < 0.85 * layers else math.inf, injected if i % 3 else None))
    return replace(example_run(), layers=tuple(made), first_divergence=(made[int(0.62 * layers)].name,))


def _layer(place: int, layers: int, accumulated: float, injected: float | None) -> LayerError:
    stem = f"/encoder/layer.{place * 24 // layers}/attention/self"
    return example_layer(
        f"{stem}/MatMul_{place}", nodes=tuple(f"{stem}/{op}_{place}" for op in ("MatMul", "Add", "Mul", "Erf")),
        reads=_reads(place, layers), outputs=(f"{stem}/Erf_{place}_output_0",), accumulated=accumulated,
        injected=injected, local=injected and 0.6 * injected, beyond=accumulated > 0.05, nonfinite=12 if math.isinf(accumulated) else 0,
    )  # fmt: skip


def _reads(place: int, layers: int) -> tuple[str, ...]:
    """The layer before, and every fourth time one eight back: chains with skips over them."""
    back = [one for one in ((place - 1, place - 8) if place % 4 == 3 else (place - 1,)) if one >= 0]
    return tuple(f"/encoder/layer.{one * 24 // layers}/attention/self/Erf_{one}_output_0" for one in back) or ("x",)


def main() -> int:
    """Print a line a size; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for layers in given.layers:
            source, page = Path(folder, "run.json"), Path(folder, "page.html")
            save(result_of(layers), source)
            words = (sys.executable, "-m", "probe", "report", str(source), "-o", str(page))
            best = interleave([Contestant(f"{layers} layers", words)], given.repeats, Path(folder, "log"))[
                f"{layers} layers"
            ]
            size = page.stat().st_size
            print(
                f"{layers:6,} layers: {best.wall_s:5.2f} s wall, {best.cpu_s:5.2f} s CPU, {best.rss_mb:4.0f} MB, page {size / 1e6:.2f} MB"
            )
            missed += layers == 1000 and (best.wall_s >= 2 or size >= 3e6)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
