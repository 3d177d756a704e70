"""What the CPU engine costs against plain FP32 ONNX Runtime at the same optimisation level and threads. Writes reports/DATE-engine-cost.md.

    python tests/bench/engine_cost.py               ResNet-50 (batch 1, 224 x 224) and BERT-base (128 tokens), about 3 minutes on two cores

Plain and engine take turns, inference by inference; a ratio is that of the medians. Each (network, precision) is measured in a process of
its own, so that memory is its own too.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
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
LIMITS = {"fp16": 2.0, "tf32": 2.0, "bf16": 2.5}


def feeds_of(network: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    if network == "resnet50":
        return {"x": rng.standard_normal((1, 3, 224, 224), np.float32)}
    return {"input_ids": rng.integers(0, 30522, (1, 128)), "attention_mask": np.ones((1, 128), np.int64)}


def plain_session(path: str):
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def forget_peak() -> None:
    """A child starts with its parent's high-water mark; Linux lets a process forget it."""
    Path("/proc/self/clear_refs").write_text("5")


def memory_mb(field: str) -> float:
    """``VmHWM`` (largest so far) or ``VmRSS`` (now) of this process, 10**6 bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / 1e6


def measure(network: str, path: str, precision: str, repeats: int) -> dict[str, object]:
    """In a process of its own: the engine alone first (its memory and its build), then in turns with plain ONNX Runtime."""
    import onnxruntime  # noqa: F401 - imports are no part of compiling

    from probe.engine.build import compile_model
    from probe.model import load

    feeds = feeds_of(network)
    forget_peak()
    base = memory_mb("VmRSS")
    begin = time.perf_counter()
    engine = compile_model(load(path), precision=precision)
    compiled = time.perf_counter() - begin
    begin = time.perf_counter()
    engine(feeds)
    first = time.perf_counter() - begin
    memory = memory_mb("VmHWM") - base
    activations = 0
    for tensor in engine.stream(feeds):
        activations += tensor.array.nbytes if tensor.array is not None else 0
    session = plain_session(path)
    session.run(None, feeds)

    def once(call) -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3

    names = [layer.name for layer in engine.layers]
    tensors = [layer.outputs[0].name for layer in engine.layers if layer.outputs]
    changed = []
    for shift in range(7):
        assignment = engine.assignment.keeping(layers=names[shift::7], tensors=tensors[shift::9])
        fresh = once(lambda assignment=assignment: engine.run(feeds, assignment))
        again = [once(lambda assignment=assignment: engine.run(feeds, assignment)) for _ in range(3)]
        changed.append(fresh / statistics.median(again))
    runs = [(once(lambda: session.run(None, feeds)), once(lambda: engine(feeds))) for _ in range(repeats)]
    kept = engine.assignment.keeping(layers=names[::7], tensors=tensors[::9])
    mixed = [(once(lambda: session.run(None, feeds)), once(lambda: engine.run(feeds, kept))) for _ in range(repeats)]
    return {
        "layers": len(engine.layers),
        "compile_s": compiled,
        "first_s": first,
        "weights_mb": Path(path).stat().st_size / 1e6,
        "activations_mb": activations / 1e6,
        "memory_mb": memory,
        "plain_ms": statistics.median(a for a, _ in runs),
        "engine_ms": statistics.median(b for _, b in runs),
        "mixed_ratio": statistics.median(b for _, b in mixed) / statistics.median(a for a, _ in mixed),
        "changed_ratio": statistics.median(changed),
        "sessions": engine.device.sessions_built,
    }


def report(results: dict[tuple[str, str], dict], repeats: int) -> str:
    python = sys.executable
    lines = [
        f"# What an evaluation costs on the CPU device ({dt.datetime.now(dt.UTC).date().isoformat()})",
        "",
        "`python tests/bench/engine_cost.py`: the gated session (passes safe, fusion safe, interior storage) against ONNX Runtime in FP32,",
        f"optimisation off in both, the same threads, in turns; medians of {repeats}. *mixed*: every seventh layer and every ninth tensor kept.",
        "*change*: first evaluation after a new assignment over a repeat. *build*: compiling, and the first run with its session.",
        "*memory*: growth of the process while compiling and running, over 3 x weights + activations (all tensors once).",
        "",
        "| network | precision | layers | plain ms | engine ms | ratio | bar | mixed | change (bar 1.2) | sessions | compile s | + first run s (bar 3) | memory MB | of bound |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, precision), r in results.items():
        ratio = r["engine_ms"] / r["plain_ms"]
        bound = 3 * r["weights_mb"] + r["activations_mb"]
        lines.append(
            f"| {network} | {precision} | {r['layers']} | {r['plain_ms']:.1f} | {r['engine_ms']:.1f} | {ratio:.2f} | "
            f"{LIMITS[precision]:g} {'met' if ratio <= LIMITS[precision] else '**missed**'} | {r['mixed_ratio']:.2f} | {r['changed_ratio']:.2f} | "
            f"{r['sessions']} | {r['compile_s']:.2f} | {r['compile_s'] + r['first_s']:.2f} | {r['memory_mb']:.0f} | {r['memory_mb'] / bound:.2f} |"
        )
    described = ", ".join(f"{name} {value}" for name, value in machine.describe().items())
    versions = machine.versions(python, ("numpy", "onnx", "onnx-ir", "onnxruntime-gpu", "onnxruntime"))
    return "\n".join(
        [*lines, "", f"Commit {machine.commit()}. {described}. {versions}. Seeded random weights and inputs.", ""]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--one", nargs=3, metavar=("NETWORK", "FILE", "PRECISION"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "reports" / f"{dt.datetime.now(dt.UTC).date().isoformat()}-engine-cost.md"
    )
    options = parser.parse_args()
    if options.one:
        network, path, precision = options.one
        print(json.dumps(measure(network, path, precision, options.repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            "resnet50": resnet50.save(Path(folder) / "resnet50.onnx"),
            "bert_base": bert_base.write_bert_base(Path(folder) / "bert_base.onnx"),
        }
        results = {}
        for network, path in paths.items():
            for precision in LIMITS:
                command = [
                    sys.executable,
                    __file__,
                    "--repeats",
                    str(options.repeats),
                    "--one",
                    network,
                    str(path),
                    precision,
                ]
                said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                results[network, precision] = json.loads(said)
                print(network, precision, results[network, precision], flush=True)
    text = report(results, options.repeats)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
