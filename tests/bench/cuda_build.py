"""Building a network on the GPU: from starting Python to the first result, cold (no kernel compiled yet) and warm, phase by phase.

    python -m tests.bench.cuda_build [--precision fp16] [--threads 1,4,8,16] [MODEL.onnx ...]

Needs a GPU. Each measurement is a process of its own; without models it builds ResNet-50 (tests/bench/resnet50.py) at batch 1. ``--threads``
also compiles all kernels of the network anew with so many threads, which says whether NVRTC takes turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHILD = "--child"
BEGUN = "PROBE_BUILD_BEGUN"  # when the process was started, by the clock of all processes


def child(path: str, precision: str, threads: str) -> dict[str, Any]:
    """One build in this process; seconds by phase."""
    seconds: dict[str, float] = {"python": time.time() - float(os.environ[BEGUN])}
    last = time.perf_counter()

    def done(phase: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[phase] = seconds.get(phase, 0.0) + now - last
        last = now

    import numpy as np

    import probe.engine.build as engine_build
    from probe.engine.device.cuda import driver
    from probe.engine.device.cuda.compiling.compile import Compiler, Source
    from probe.model import load
    from probe.model.inputs import make_inputs

    done("import")
    model = load(Path(path))
    done("read")
    engine = engine_build.compile_model(model, precision=precision, device="cuda")
    done("compile network")
    from probe.engine.device.cuda.guard import first_gpu

    gpu = first_gpu()  # opened while the network was compiled
    feeds = make_inputs(model, seed=0)[0]
    done("inputs")
    spent = {"kernels": 0.0, "modules": 0.0}
    compiled, loaded = Compiler.__call__, driver.driver.cuModuleLoadData

    def compiling(self: Compiler, source: Any) -> Any:
        begin = time.perf_counter()
        made = compiled(self, source)
        spent["kernels"] += time.perf_counter() - begin
        return made

    def loading(cubin: bytes) -> Any:
        begin = time.perf_counter()
        made = loaded(cubin)
        spent["modules"] += time.perf_counter() - begin
        return made

    Compiler.__call__, driver.driver.cuModuleLoadData = compiling, loading
    last = time.perf_counter()
    first = engine(feeds)
    done("first run")
    seconds["first run"] -= sum(spent.values())
    seconds.update(spent)
    last = time.perf_counter()
    again = engine(feeds)
    done("second run (graph)")
    Compiler.__call__ = compiled
    assert all(np.array_equal(first[name], again[name], equal_nan=True) for name in first)
    total = time.time() - float(os.environ[BEGUN])
    found: dict[str, Any] = {
        "total": total, "seconds": seconds, "network": engine.seconds, "compiled": gpu.compiler.compiled, "found": gpu.compiler.found,
    }  # fmt: skip
    if threads:
        from concurrent.futures import ThreadPoolExecutor

        sources = [one for one in gpu._kernels if isinstance(one, Source)]
        anew = Compiler(gpu.arch, None)
        for count in map(int, threads.split(",")):
            begin, used = time.perf_counter(), time.process_time()
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(anew, sources))
            found[f"{len(sources)} kernels, {count} threads"] = (
                f"{time.perf_counter() - begin:.2f} s, {time.process_time() - used:.2f} s of cores"
            )
    return found


def measured(path: str, precision: str, folder: str, threads: str = "") -> dict[str, Any]:
    made = subprocess.run(
        [sys.executable, "-m", "tests.bench.cuda_build", CHILD, path, "--precision", precision, "--threads", threads],
        env={**os.environ, "XDG_CACHE_HOME": folder, BEGUN: str(time.time())}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise SystemExit(made.stderr[-2000:])
    return json.loads(made.stdout.splitlines()[-1])


def show(name: str, found: dict[str, Any]) -> None:
    by_phase = ", ".join(f"{phase} {spent:.2f}" for phase, spent in found["seconds"].items() if spent >= 0.005)
    network = ", ".join(f"{phase} {spent:.2f}" for phase, spent in found["network"].items() if spent >= 0.005)
    print(
        f"{name}: {found['total']:.2f} s: {by_phase} (of the network: {network}); kernels compiled {found['compiled']}, found {found['found']}"
    )
    for key, value in found.items():
        if "threads" in key:
            print(f"  {key}: {value}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--precision", default="fp16")
    parser.add_argument("--threads", default="")
    parser.add_argument(CHILD, action="store_true")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.models[0], given.precision, given.threads)))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = given.models
        if not paths:
            from tests.bench import resnet50

            paths = [str(resnet50.save(Path(folder) / "resnet50.onnx", 1))]
        for at, path in enumerate(paths):
            name, cache = Path(path).stem, f"{folder}/{at}"
            show(f"{name} cold", measured(path, given.precision, cache))
            for _ in range(2):
                show(f"{name} warm", measured(path, given.precision, cache))
            if given.threads:
                show(f"{name} warm", measured(path, given.precision, cache, given.threads))


if __name__ == "__main__":
    main()
