"""Every kernel under NVIDIA's compute-sanitizer: memory it should not touch, races between threads, reads of what nobody wrote.

    python tests/engine/cuda/sanitize.py [--tools memcheck,racecheck] [--each 2] [--seconds 140]

What runs is found, not listed: programs are made of the tables of cases and of what those do not reach (fused attention, sums of pairs, every
tactic of the wgmma family), each is first run on a device that computes nothing and says which kernels it launches, and one is taken when it
brings a kernel, by file, entry and precision, that fewer than ``--each`` programs before it brought. test_sanitize.py fails when a file of
kernels/ is launched by none.
"""

from __future__ import annotations

import argparse
import itertools
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.ops import integer_product
from probe.engine.device.cuda.ops.attention.attention_simt import Warps
from probe.engine.device.cuda.ops.attention.attention_wgmma import Groups, Held
from probe.engine.device.cuda.ops.products import few, ffma
from probe.engine.device.cuda.ops.products.matmul import product
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.ops.products.wgmma import ARCH
from probe.engine.device.cuda.ops.products.wgmma_tactics import TACTICS, Tactic, cycles
from probe.engine.device.cuda.ops.ranking import Ranking
from probe.engine.device.cuda.ops.reduce import reduced
from probe.engine.device.cuda.ops.topk import ranked
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums.agreement import Agreements
from probe.engine.device.cuda.sums.counts import Counts
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, I64
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.engine.device.pairs import Agreement, Measure, Rows
from probe.model import load
from tests.engine.cuda import attention_cases, conv_problem, volume_cases
from tests.engine.cuda.attention_problem import run, shapes
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.tables import TABLES
from tests.engine.cuda.test_few import Case, computed
from tests.engine.cuda.test_norm_channels import made
from tests.engine.cuda.test_volumes import u_net
from tests.engine.cuda.test_wgmma import PROBLEMS, operands

_FEWER = {"POINTWISE": 12}  # rows of a table, of which so many launch all there is
NUMPY = {F32: "float32", F16: "float16", BF16: "bfloat16"}
PRODUCTS = ("MatMul", "Gemm", "Conv")
LARGEST = 1 << 17  # elements of an input: racecheck keeps track of every access
WORDS = re.compile(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard")
FOUND = re.compile(r"Invalid|Uninitialized|Race|hazard|Barrier|Divergent|Leaked|Program hit|Misaligned", re.IGNORECASE)

Kernel = tuple[str, str, str]


@dataclass(frozen=True)
class Program:
    """Something that launches kernels.

    Attributes:
        kind: its precision, acc16 for FP16 sums, or the family that all tactics are taken of.
    """

    name: str
    kind: str
    run: Callable[[Any, Path], object]


class Hopper(NullBackend):
    """Computes nothing, on sm_90a."""

    arch = ARCH


def programs() -> Iterator[Program]:
    for family, table in TABLES.items():
        for case in table[: _FEWER.get(family)]:
            sizes = [
                np.size(one) if isinstance(one, np.ndarray) else math.prod(one)
                for one in case.inputs.values()
                if _is_shape(one)
            ]
            for kind in ("fp16", "fp32", *(("tf32", "acc16") if case.op in PRODUCTS else ())):
                if max(sizes, default=0) <= LARGEST:
                    yield Program(
                        f"{case} {kind}", kind, _network(lambda folder, one=case: one.save(folder), kind, "none")
                    )
    for case in volume_cases.DEEP:
        for kind in ("fp16", "tf32"):
            run_it = _network(lambda folder, one=case: one.save(folder), kind, "none")
            yield Program(f"gathered, {case} {kind}", f"volumes {kind}", run_it)
    for by, kind in itertools.product(("Resize", "ConvTranspose"), ("fp16", "fp32")):
        run_it = _network(lambda folder, one=by: u_net(folder, by=one), kind, "safe")
        yield Program(f"a network of volumes, {by} {kind}", f"volumes, network {kind}", run_it)
    for name, attended in attention_cases.CASES.items():
        for kind in ("fp16", "bf16"):
            saved = lambda folder, one=attended: (folder / "case.onnx", one.save(folder / "case.onnx"))
            yield Program(f"attention {name} {kind}", kind, _network(saved, kind, "safe"))
    for variant, rounds in itertools.product(
        (
            Groups(2, 64), Groups(3, 64), Groups(2, 128), Groups(3, 64, sets=1), Held(208), Held(208, 2), Warps(1), Warps(4), Warps(1, split=4),
        ), (True, False),
    ):  # fmt: skip
        kind = f"{variant} {'storage' if rounds else 'fp32'}"
        yield Program(kind, kind, lambda backend, _, v=variant, r=rounds: _attention(backend, v, r))
    for one in (Held(208), Groups(2, 64, holds=True)):
        kind = f"{one} tf32"
        yield Program(kind, "tf32", lambda backend, _, v=one: _attention(backend, v, rounds=False, tf32=True))
    for kind in ("TopK", "ReduceMax"):
        yield Program(
            f"{kind} of integers", f"{kind} of integers", lambda backend, _, one=kind: _integers(backend, one)
        )
    for stored in (F32, F16):
        kind = f"groups of channels {stored.name}"
        yield Program(kind, kind, lambda backend, _, one=stored: _norm_channels(backend, one))
    for stored in (F32, F16, BF16):
        for rows in (None, Rows(4), Rows(4, 2)):
            yield Program(
                f"sums of pairs {stored.name} {rows}",
                f"pairs {stored.name} {rows}",
                lambda backend, _, s=stored, r=rows: _pairs(backend, s, r),
            )
        kind = f"pairs of images {stored.name}"
        yield Program(kind, kind, lambda backend, _, s=stored: _images(backend, s))
    for kind, problems in (
        ("image", conv_problem.IMAGES),
        ("points", conv_problem.POINTS),
        ("few", conv_problem.FEW),
        ("depthwise", conv_problem.DEPTHWISE),
    ):
        for name, problem in problems.items():
            run_it = lambda backend, _, one=problem, few=kind == "few": conv_problem.computed(
                backend, one, F16, tailed=True, few=few
            )
            yield Program(f"convolution, {kind}, {name}", f"convolution {kind}", run_it)
    for tactic in TACTICS:
        _, m, n, k, *_ = PROBLEMS["edges"]
        if not math.isinf(cycles(tactic, m, n, k, 1, 132)):
            yield Program(f"wgmma {tactic}", str(tactic), lambda backend, _, one=tactic: _product(backend, one))
    for tile in integer_product.TILES:
        yield Program(f"integers {tile}", str(tile), lambda backend, _, one=tile: _bytes(backend, one))
    for tile in (one for one in ffma.TACTICS if one.splits in (1, 3)):
        yield Program(f"ffma {tile}", str(tile), lambda backend, _, one=tile: _wide_product(backend, one))
    for tactic, kind, by_n in itertools.product((few.Few(4), few.Few(8, 3)), ("f16", "tf32", "fp32"), (True, False)):
        for case in (Case(5, 136, 264, by_n=by_n, added=1), Case(16, 67, 101, by_n=by_n)):
            name = f"{tactic} {kind} {case}"
            run_it = lambda backend, _, t=tactic, k=kind, c=case: computed(backend, c, k, t)[0]
            yield Program(name, f"few {tactic} {kind} {by_n}", run_it)


def _is_shape(given: Any) -> bool:
    return isinstance(given, np.ndarray) or (isinstance(given, tuple) and all(isinstance(one, int) for one in given))


def _network(
    save: Callable[[Path], tuple[Path, dict[str, np.ndarray]]], kind: str, fusion: Any
) -> Callable[[Any, Path], object]:
    def run(backend: Any, folder: Path) -> object:
        path, feeds = save(folder)
        choice = Choice("fp16", "acc16") if kind == "acc16" else Choice(kind)
        engine = compile_model(load(path), precision=choice.precision, passes="none", fusion=fusion, threads=1)
        engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        engine.device.replays.enabled = False
        return engine.run(feeds, Assignment(choice))

    return run


def _norm_channels(backend: Any, stored: Any) -> object:
    queue = Queue(backend, 21)
    x = queue.convert(host_tensor(np.random.default_rng(0).standard_normal((2, 24, 19, 21), dtype=np.float32)), stored)
    return made(queue, dense_when_asked(queue, channels_last(queue, x)), 3, 21, stored)


def _integers(backend: Any, op: str) -> object:
    """What networks have on the host where it is the same in every run."""
    queue, x = Queue(backend, 18), host_tensor(np.random.default_rng(0).integers(-(1 << 40), 1 << 40, (3, 5000)))
    if op == "ReduceMax":
        return [reduced(queue, x, [axis], "MAX", I64).array(backend) for axis in (0, 1)]
    for k in (200, 5000):
        y, places = queue.empty((3, k), I64), queue.empty((3, k), I64)
        ranked(queue, Ranking(x, y, places, 3, 5000, k, least=False))
    return places.array(backend)


def _pairs(backend: Any, stored: Any, rows: Rows | None) -> object:
    queue, random = Queue(backend, 18), np.random.default_rng(0)
    golden, actual = (host_tensor(random.standard_normal((4, 2, 555), dtype=np.float32)) for _ in range(2))
    pair = queue.convert(actual, stored), golden
    pairs, counts, looks = Pairs(queue, most=5), Counts(queue), Agreements(queue)
    pairs.add(*pair, Measure(floor=1e-3), rows, worst=True)
    counts.add(*pair, NUMPY[stored], threshold=np.inf, range_=6.0)
    pending, columns = looks.rows(*pair, Agreement(555, kl=True)), looks.columns(*pair, 555, np.inf)
    return pairs.fetch(), counts.fetch(), looks.rows_of(pending), looks.columns_of(columns)


def _images(backend: Any, stored: Any) -> object:
    """Channels last: more of them than threads take at once, items that end inside a block's stretch, one pixel left over."""
    queue, random, pairs = Queue(backend, 18), np.random.default_rng(0), Pairs(Queue(backend, 18), most=5)
    for shape in ((3, 5, 5, 8), (2, 3, 3, 1100), (1, 90, 91, 4)):
        golden, actual = (host_tensor(random.standard_normal(shape, dtype=np.float32)) for _ in range(2))
        rows = Rows(shape[0], shape[3])
        pairs.add(queue.convert(actual, stored), golden, Measure(floor=1e-3), rows, worst=True, last=True)
    return pairs.fetch()


def _attention(backend: Any, variant: Groups | Held | Warps, rounds: bool, *, tf32: bool = False) -> object:
    problem, queue, random = (1, 2, 70, 200, 64, 1), Queue(backend, 18), np.random.default_rng(0)
    stored = F32 if tf32 or isinstance(variant, Warps) else F16
    x = [queue.convert(host_tensor(random.standard_normal(one, dtype=np.float32)), stored) for one in shapes(problem)]
    return run(queue, x, problem, variant, rounds=rounds, tf32=tf32).array(backend)


def _product(backend: Any, tactic: Tactic) -> object:
    _, m, n, k, *_ = problem = PROBLEMS["edges"]
    a, b, _ = operands(backend, problem, F16)
    queue = Queue(backend, 18)
    y = queue.empty((m, n), F32)
    product(queue, a, b, y, k, tile=tactic)
    return y.array(backend)


def _bytes(backend: Any, tile: integer_product.Tile) -> object:
    random, (m, n, k) = np.random.default_rng(0), (70, 136, 264)
    a, b = (random.integers(0, 256, one).astype(np.uint8) for one in ((1, m, k), (1, k, n)))
    zeros = (host_tensor(random.integers(0, 256, one).astype(np.uint8)) for one in (m, n))
    factors = [integer_product.Bytes(host_tensor(x), *x.shape, zero) for x, zero in zip((a, b), zeros, strict=True)]
    return integer_product.product(Queue(backend, 18), *factors, 1, tile=tile).array(backend)


def _wide_product(backend: Any, tile: ffma.Ffma) -> object:
    m, n, k = 70, 136, 264
    queue, random = Queue(backend, 18), np.random.default_rng(0)
    a, b = (host_tensor(random.standard_normal(one, dtype=np.float32)) for one in ((m, k), (k, n)))
    y = queue.empty((m, n), F32)
    product(queue, Matrices(a, (), k, 1), Matrices(b, (), n, 1), y, k, tile=tile)
    return y.array(backend)


def kernels_of(program: Program, folder: Path) -> set[Kernel]:
    """What it launches: file, entry, kind of the program."""
    backend = Hopper()
    try:
        program.run(backend, folder)
    except Exception as error:  # zeros for results can be no shape; what was launched before counts
        del error
    return {(source.file, source.entry, program.kind) for source, _ in backend.launched}


def taken(each: int, folder: Path) -> tuple[list[Program], Counter[Kernel]]:
    """Programs that bring something, and how often each kernel is then launched."""
    found: list[Program] = []
    seen: Counter[Kernel] = Counter()
    for program in programs():
        own = kernels_of(program, folder)
        if any(seen[kernel] < each for kernel in own):
            found.append(program)
            seen.update(own)
    return found, seen


def inside(each: int) -> None:
    """Run them on the GPU; ends with an error when a kernel that was to be launched was not."""
    from probe.engine.device.cuda.driver import Driver

    backend = Driver()
    with tempfile.TemporaryDirectory() as folder:
        found, _ = taken(each, Path(folder))
        failed = []
        for program in found:
            try:
                program.run(backend, Path(folder))
                backend.synchronize()
            except Exception as error:
                failed.append(f"{program.name}: {' '.join(str(error).split())[:300]}")
    print(f"{len(found)} programs, {backend.launches} launches, {len(failed)} failed", *failed, sep="\n")
    sys.exit(bool(failed))


def sanitized(tool: str, each: int, seconds: float) -> bool:
    """Whether a tool finds nothing; prints what it says."""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", "--print-limit", "3000"]
    command += [sys.executable, __file__, "--inside", "--each", str(each)]
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        print(f"{tool}: not done within {seconds:.0f} s")
        return False
    lines = (done.stdout + done.stderr).splitlines()
    clean = done.returncode == 0 and any(WORDS.search(line) for line in lines)
    print(f"{tool}: {'clean' if clean else f'ended with {done.returncode}'}, {time.perf_counter() - begin:.0f} s")
    shown = [line for line in lines if WORDS.search(line) or "programs," in line]
    print("\n".join(shown if clean else [*shown, *summary(lines)]), flush=True)
    return clean


def summary(lines: list[str]) -> Iterator[str]:
    """What a tool found, alike findings once: what, in which kernel, launched or copied where."""
    found: Counter[str] = Counter()
    for block in "\n".join(lines).split("\n========= \n"):
        words = [line.removeprefix("=========").strip() for line in block.splitlines() if line.startswith("=========")]
        what = next((line for line in words if FOUND.search(line)), "")
        places = [line.split("Host Frame: ")[-1] for line in words if ".py:" in line]
        kernel = next((line for line in words if line.startswith("at ")), "")
        if what:
            found[" | ".join((re.sub(r"0x[0-9a-f]+", "...", what), kernel[:80], " < ".join(places[:4])))] += 1
    for what, count in found.most_common(12):
        yield f"{count} x {what}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tools", default="memcheck,racecheck", help="also synccheck, initcheck")
    parser.add_argument("--each", type=int, default=2, help="programs a kernel and precision")
    parser.add_argument("--seconds", type=float, default=600, help="a tool may take")
    parser.add_argument("--inside", action="store_true", help="run the kernels in this process, without a tool")
    given = parser.parse_args()
    if given.inside:
        inside(given.each)
    if shutil.which("compute-sanitizer") is None:
        sys.exit("no compute-sanitizer: it comes with the CUDA toolkit")
    found = [sanitized(tool, given.each, given.seconds) for tool in given.tools.split(",")]
    sys.exit(not all(found))


if __name__ == "__main__":
    main()
