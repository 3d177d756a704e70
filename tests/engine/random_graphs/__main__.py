"""Random models by the thousand.

    python -m tests.engine.random_graphs --seeds 0:2000 --device cpu|host|gpu [--seconds 90] [--part 0/3] [--modes 2]

A failure prints its seed, how the model was compiled, the tensor and how far it is off, and a model that was made small to a file beside its
feeds. Exit code 1 when there was one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from tests.engine.random_graphs.drawing import drawn
from tests.engine.random_graphs.runs import Check, backend_of, checks_of, fault
from tests.engine.random_graphs.shrink import shrunk


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:100", help="FIRST:BEHIND")
    parser.add_argument("--device", choices=("cpu", "host", "gpu"), default="cpu")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no seed is begun later")
    parser.add_argument("--part", default="0/1", help="AT/PARTS: every so manyth seed, for processes side by side")
    parser.add_argument("--modes", type=int, default=2, help="ways to compile each model, of those there are")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "random_graphs",
        help="failing models, host's kernels",
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    begin, behind = (int(one) for one in given.seeds.split(":"))
    at, parts = (int(one) for one in given.part.split("/"))
    backend, start = backend_of(given.device, given.folder), time.perf_counter()
    counted: Counter[str] = Counter()
    for seed in range(begin + at, behind, parts):
        if time.perf_counter() - start > given.seconds:
            break
        model = drawn(seed)
        counted["seeds"] += 1
        for check in checks_of(seed, given.device, given.modes):
            counted["runs"] += 1
            path = given.folder / f"seed{seed}.onnx"
            found = fault(check, model.model, model.feeds, backend, path)
            if found is None:
                path.unlink()
                continue
            counted[found.kind] += 1
            print(f"seed {seed}, {check}: {found}", flush=True)
            _small(seed, check, backend, path, found.kind, start + given.seconds)
    print(f"{given.device}: {dict(counted)} in {time.perf_counter() - start:.0f} s", flush=True)
    return int(counted.keys() > {"seeds", "runs"})


def _small(seed: int, check: Check, backend: object, path: Path, kind: str, until: float) -> None:
    model = drawn(seed)

    def fails(one: onnx.ModelProto, feeds: object) -> bool:
        found = fault(check, one, feeds, backend, path.with_suffix(".try.onnx"))
        return found is not None and found.kind == kind

    small, feeds = shrunk(model.model, model.feeds, fails, until=until)
    onnx.save(small, path)
    np.savez(path.with_suffix(".npz"), **feeds)
    path.with_suffix(".try.onnx").unlink(missing_ok=True)
    print(
        f"  {path}: "
        + " ".join(f"{','.join(one.output)} = {one.op_type}({', '.join(one.input)})" for one in small.graph.node),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
