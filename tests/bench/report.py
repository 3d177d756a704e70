"""How long a report takes, how large it is, and how long it takes to open: a saved run of many layers, 24 tensors of it in detail.

    python tests/bench/report.py --layers 100 1000 3000

Made: from JSON to HTML on disk, interpreter included. Opened: in Chromium ($PROBE_CHROMIUM, or on PATH), from the request to the first frame
after load; left out without Playwright or a Chromium. Exit 1 where 1,000 layers take 2 s or more to make or 1 s to open, or 3 MB or more.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import probe
from probe.results.diff import TensorDiff
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


def in_detail(result: RunResult, tensors: int = 24) -> tuple[TensorDiff, ...]:
    """Outputs of its first layers, compared: four pictures, four of 512 channels, the others plain; all with a drill-down."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]] = [(1, 3, 256, 256)] * 4 + [(1, 512, 14, 14)] * 4 + [(8, 1024)] * (tensors - 8)
    golden = {
        layer.outputs[0]: rng.standard_normal(shape, np.float32) * 100
        for layer, shape in zip(result.layers, shapes, strict=False)
    }
    actual = {name: x.astype(np.float16).astype(np.float32) for name, x in golden.items()}
    return probe.diff(actual, golden, precision="fp16").tensors


OPENED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def opening(page: Path, repeats: int) -> float | None:
    """Seconds from the request to the first frame after load, the median; None without a browser."""
    chromium = os.environ.get("PROBE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium is None:
        return None
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        taken = []
        for _ in range(repeats):
            window: Any = browser.new_page(viewport={"width": 1280, "height": 900})
            window.goto(page.as_uri())
            taken.append(window.evaluate(OPENED) / 1e3)
            window.close()
        browser.close()
    return statistics.median(taken)


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
            made = result_of(layers)
            save(replace(made, tensors=in_detail(made)), source)
            words = (sys.executable, "-m", "probe", "report", str(source), "-o", str(page))
            best = interleave([Contestant(f"{layers} layers", words)], given.repeats, Path(folder, "log"))[
                f"{layers} layers"
            ]
            size, opened = page.stat().st_size, opening(page, given.repeats)
            shown = f"opens in {opened:.2f} s" if opened is not None else "not opened: no browser"
            print(
                f"{layers:6,} layers: {best.wall_s:5.2f} s wall, {best.cpu_s:5.2f} s CPU, {best.rss_mb:4.0f} MB, page {size / 1e6:.2f} MB, {shown}"
            )
            missed += layers == 1000 and (best.wall_s >= 2 or size >= 3e6 or (opened or 0) >= 1)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
