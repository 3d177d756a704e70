"""Verdicts of real networks on both devices, in every precision, with the same interior; where they differ, what the CPU device says of itself.

    python -m tests.bench.cuda_verdicts [--models FOLDER] [--exports FOLDER] [--only PART,...] [--precision fp16,bf16,tf32,fp32] [--jobs 4]

Each network runs on each of its stored inputs by ``probe run`` against ONNX Runtime in FP32, no layer by itself (the verdict is of outputs). Both devices round the same tensors at the same
places; they differ by the order of FP32 sums and by functions' last bits, which flips single roundings. So the errors of both are draws
of one noise, and an error near a limit may lie on either side of it. Whether a difference is of that kind is asked of the CPU device alone: it
runs again on inputs moved by at most half a step of the precision (``DRAWS`` seeds, goldens made anew), and the smallest and largest of its errors are its
own spread. A verdict that differs is explained where the limit, or the other device's error, lies within the spread.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from probe import api
from probe.precision import PRECISIONS
from probe.results.run import RunResult

ROOT = Path(__file__).resolve().parents[2]
DRAWS = 8
THREADS = 2  # of ONNX Runtime, a process: rows run side by side
APART = 1.5  # errors that differ by more, and are not ten times below a limit, are shown with the CPU's spread where verdicts agree, too

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """A network on one set of inputs in one precision; errors are those of the output that is worst on either device.

    Attributes:
        limits: of range_rel of an output, to warn and to fail.
        nonfinite: elements of outputs that are NaN or Inf where golden is not, or the reverse: CPU, CUDA.
        spread: the CPU's smallest and largest error and the verdicts it gives on moved inputs; None where nobody asked.
    """

    model: str
    data: str
    precision: str
    cpu: str
    cuda: str
    cpu_error: float
    cuda_error: float
    limits: tuple[float, ...]
    nonfinite: tuple[int, int]
    fallbacks: int
    seconds: float
    spread: tuple[float, float, tuple[str, ...]] | None = None

    @property
    def agree(self) -> bool:
        return self.cpu == self.cuda

    @property
    def explained(self) -> bool:
        """The CPU device by itself gives the other verdict, too, or errors on both sides of what the GPU has."""
        if self.agree or self.spread is None:
            return self.agree
        low, high, verdicts = self.spread
        return self.cuda in verdicts or low <= self.cuda_error <= high


def run(path: Path, inputs: Arrays, precision: str, device: str) -> RunResult:
    return api.run(
        path, inputs=inputs, precision=precision, device=device, try_cure=False, details=0, threads=THREADS, layers="^$"
    )


def errors(result: RunResult) -> dict[str, float]:
    return {name: one.metrics.range_rel for name, one in result.outputs.items() if one.metrics is not None}


def nonfinite(result: RunResult) -> int:
    return sum(one.metrics.nonfinite_mismatch for one in result.outputs.values() if one.metrics is not None)


def worst(result: RunResult) -> float:
    return max((math.inf if math.isnan(one) else one for one in errors(result).values()), default=0.0)


def moved(inputs: Arrays, precision: str, seed: int) -> Arrays:
    """Float inputs, each element by at most half a step of the precision; a hundred steps of FP32 there, which rounds nothing."""
    random = np.random.default_rng(seed)
    most = max(PRECISIONS[precision].roundoff, 100 * PRECISIONS["fp32"].roundoff)
    return {
        name: (array * (1 + most * random.uniform(-1, 1, array.shape))).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }  # fmt: skip


def spread_of(path: Path, inputs: Arrays, precision: str) -> tuple[float, float, tuple[str, ...]]:
    found = [run(path, moved(inputs, precision, seed), precision, "cpu") for seed in range(DRAWS)]
    of = [worst(one) for one in found]
    return min(of), max(of), tuple(sorted({one.verdict for one in found}))


def row(path: Path, data: Path, precision: str) -> Row:
    with np.load(data) as stored:
        inputs = {key[3:]: stored[key] for key in stored if key.startswith("in/")}
    begin = time.perf_counter()
    cpu, cuda = (run(path, inputs, precision, device) for device in ("cpu", "cuda"))
    one, other = worst(cpu), worst(cuda)
    limits = tuple(sorted({one.threshold for one in cpu.acceptance if one.metric == "range_rel"}))
    asked = cpu.verdict != cuda.verdict or (
        max(one, other) > APART * min(one, other) and max(one, other) > 0.1 * min(limits, default=0.0)
    )
    return Row(
        path.stem, data.stem.split("__")[1], precision, cpu.verdict, cuda.verdict, one, other, limits, (nonfinite(cpu), nonfinite(cuda)), len(cuda.fallbacks),
        time.perf_counter() - begin, spread_of(path, inputs, precision) if asked else None,
    )  # fmt: skip


def said(row: Row) -> str:
    of = [f"NaN or Inf {row.nonfinite[0]}, {row.nonfinite[1]}"] if any(row.nonfinite) else []
    if row.spread is not None:
        low, high, verdicts = row.spread
        of.append(f"the CPU alone, inputs moved: {low:.3g} to {high:.3g}, {' or '.join(verdicts)}")
    if not row.agree:
        of.append("explained" if row.explained else "NOT EXPLAINED")
    if row.fallbacks:
        of.append(f"{row.fallbacks} layers on the CPU")
    return "; ".join(of)


def line(row: Row) -> str:
    return (
        f"| {row.model} | {row.data} | {row.precision} | {row.cpu} | {row.cuda} | {row.cpu_error:.3g} | {row.cuda_error:.3g} "
        f"| {' '.join(f'{one:g}' for one in row.limits)} | {said(row)} |"
    )


def cases(folders: Sequence[Path], only: str) -> Iterator[tuple[Path, Path]]:
    for folder in folders:
        for data in sorted((folder / "data").glob("*.npz")):
            if any(part in data.stem for part in only.split(",")):
                yield folder / "models" / f"{data.stem.split('__')[0]}.onnx", data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = ROOT.parent / "shared"
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("PROBE_MODELS", beside / "models")))
    parser.add_argument("--exports", type=Path, default=Path(os.environ.get("PROBE_EXPORTS", beside / "exports")))
    parser.add_argument("--only", default="", help="parts of names of stored inputs, comma-separated")
    parser.add_argument("--precision", default="fp16,bf16,tf32,fp32", help="comma-separated")
    parser.add_argument("--jobs", type=int, default=4, help="networks side by side, a process each")
    given = parser.parse_args()
    precisions, found, broken = given.precision.split(","), list[Row](), list[str]()
    print(
        "| network | inputs | precision | CPU | CUDA | CPU's error | CUDA's error | limits | |\n|---|---|---|---|---|---|---|---|---|"
    )
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        wanted = {
            pool.submit(row, path, data, precision): f"{data.stem} {precision}"
            for precision in precisions
            for path, data in cases((given.models, given.exports), given.only)
        }
        for one in as_completed(wanted):
            if (error := one.exception()) is not None:
                broken.append(f"{wanted[one]}: {type(error).__name__}: {error}")
                continue
            found.append(one.result())
            print(line(found[-1]), flush=True)
    differ = [one for one in found if not one.agree]
    apart = sum(one.spread is not None for one in found) - len(differ)
    print(f"\n{len(found)} rows: {len(found) - len(differ)} agree ({apart} of them with errors more than {APART} apart), {len(differ)} differ, "
          f"{sum(one.explained for one in differ)} of those explained")  # fmt: skip
    print("\n".join(broken))
    return int(bool(broken) or not all(one.explained for one in differ))


if __name__ == "__main__":
    sys.exit(main())
