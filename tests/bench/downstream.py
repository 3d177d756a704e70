"""What it gains to run only what lies downstream of a change. Writes reports/DATE-downstream.md.

    python tests/bench/downstream.py                five networks, about 4 minutes on two cores

All layers in FP16; then each tensor that a layer rounds is kept alone, in random order, once by ``engine.run`` and once by ``engine.run_from`` a trace of
the run in FP16, in turns, after one whole-network run each. A second line keeps the tensors one after the other, as an elimination does
(each assignment holds those before it). Bits are compared each time. Ratios are of sums of seconds over all assignments.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bert_base
import machine
import numpy as np
import resnet50

ROOT = Path(__file__).resolve().parents[2]
MODELS = ("dnsmos_sig_bak_ovr", "magika_standard_v3_3", "gtcrn_simple")
LARGE = {"resnet50": "x: 1 x 3 x 224 x 224", "bert_base": "128 tokens"}


def feeds_of(path: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    if path.stem == "resnet50":
        return {"x": rng.standard_normal((1, 3, 224, 224), np.float32)}
    if path.stem == "bert_base":
        return {"input_ids": rng.integers(0, 30522, (1, 128)), "attention_mask": np.ones((1, 128), np.int64)}
    with np.load(min((path.parent.parent / "data").glob(f"{path.stem}__*.npz"))) as stored:
        return {key[3:]: stored[key] for key in stored if key.startswith("in/")}


def measure(path: Path, most: int) -> dict[str, float]:
    """In a process of its own."""
    from probe.engine.build import compile_model
    from probe.model import load

    engine = compile_model(load(path), passes="none", fusion="none")
    feeds = feeds_of(path)
    engine.run(feeds)
    units: dict[str, None] = {}
    for layer in engine.layers:
        sites = engine.rounding.sites(layer, "fp16")
        edge = [value for value in sites.reads if id(value) in sites.at_edge]
        units.update(dict.fromkeys(value.name or "" for value in (*edge, *sites.weights, *sites.stores)))
    names = list(units)
    picked = [names[at] for at in sorted({round(at) for at in np.linspace(0, len(names) - 1, min(most, len(names)))})]
    base = engine.assignment
    begin = time.perf_counter()
    trace = engine.trace(feeds)
    found: dict[str, float] = {"layers": len(engine.layers), "units": len(names), "measured": len(picked)}
    found["trace_s"] = time.perf_counter() - begin
    if trace is None:
        return found
    begin = time.perf_counter()
    engine.trace(feeds)
    found |= {"again_s": time.perf_counter() - begin, "trace_mb": trace.bytes / 1e6}
    found["segments"] = len(engine.device.segments)
    singles = [base.keeping(tensors=[str(name)]) for name in np.random.default_rng(0).permutation(picked)]
    step = max(1, len(picked) // 40)
    growing = [base.keeping(tensors=picked[:at]) for at in range(step, len(picked), step)]
    for what, tried in (("single", singles), ("growing", growing)):
        whole = resumed = 0.0
        for assignment in tried:
            begin = time.perf_counter()
            wanted = engine.run(feeds, assignment)
            middle = time.perf_counter()
            engine._plans.cache_clear()
            restart = time.perf_counter()
            got = engine.run_from(trace, assignment)
            whole, resumed = whole + middle - begin, resumed + time.perf_counter() - restart
            assert all(np.array_equal(got[n], wanted[n], equal_nan=True) for n in wanted), (path, assignment)
        found |= {f"{what}_run_ms": whole / len(tried) * 1e3, f"{what}_from_ms": resumed / len(tried) * 1e3}
    return found


def report(results: dict[str, dict[str, float]]) -> str:
    lines = [
        f"# Running only what lies downstream of a change ({dt.datetime.now(dt.UTC).date().isoformat()})",
        "",
        "`python tests/bench/downstream.py`: " + (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(),
        "*trace*: the first on an engine (cuts measured, sessions built); *again*: on further inputs. Times in ms for an assignment never tried before,",
        "planning included. *growing*: each assignment keeps what the ones before it kept and more.",
        "",
        "| network | layers | segments | trace s | again s | held MB | single: run | from | gain | growing: run | from | gain |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        if "segments" not in r:
            lines.append(f"| {name} | {r['layers']} | none: not worth it | {r['trace_s']:.2f} | | | | | | | | |")
            continue
        cells = [
            f"{r['layers']}",
            f"{r['segments']}",
            f"{r['trace_s']:.2f}",
            f"{r['again_s']:.3f}",
            f"{r['trace_mb']:.1f}",
        ]
        for what in ("single", "growing"):
            run, resumed = r[f"{what}_run_ms"], r[f"{what}_from_ms"]
            cells += [f"{run:.2f}", f"{resumed:.2f}", f"{run / resumed:.2f}x"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    described = ", ".join(f"{name} {value}" for name, value in machine.describe().items())
    versions = machine.versions(sys.executable, ("numpy", "onnx", "onnx-ir", "onnxruntime-gpu", "onnxruntime"))
    return "\n".join([*lines, "", f"Commit {machine.commit()}. {described}. {versions}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models" / "models")
    parser.add_argument("--most", type=int, default=120, help="tensors kept, spread over the network")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    date = dt.datetime.now(dt.UTC).date().isoformat()
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / f"{date}-downstream.md")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.most)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [options.models / f"{name}.onnx" for name in MODELS]
        paths.append(resnet50.save(Path(folder) / "resnet50.onnx"))
        paths.append(bert_base.write_bert_base(Path(folder) / "bert_base.onnx"))
        for path in paths:
            command = [sys.executable, __file__, "--most", str(options.most), "--one", str(path)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[path.stem] = json.loads(said)
            print(path.stem, results[path.stem], flush=True)
    text = report(results)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
