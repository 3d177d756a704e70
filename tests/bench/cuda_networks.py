"""Six networks on a GPU, each judged in the run that times it: ours, ONNX Runtime's CUDA provider, torch, and the least it could take.

    python tests/bench/cuda_networks.py --folder models [--only bert,gpt2] [--precision fp16,bf16,tf32,fp32] [--ort PACKAGE_FOLDER]

The networks are those of network_exports.py, kept in ``--folder`` between calls. Golden outputs are ONNX Runtime's on the CPU in FP32. A latency
is that of a CUDA graph with inputs and outputs on the device: the median over 7 rounds of the mean over 50 runs.

``error`` is range_rel: the largest difference over the range of the golden output. What is allowed is what the precision costs, not what a GPU
adds: the CPU device rounds the same tensors at the same places and sums in FP32 as we do, so that its error is another draw of the same
noise (another order of a sum flips roundings, no more); the largest of two draws agree within half as much again. In FP32 a thousandth. A peer
that errs more than four times as much is wrong, and its time says nothing.

``tuned`` is the choice of tactics by measurement (``--tune``) among our own kernels, ``libraries`` the same with cuBLASLt and cuDNN beside them,
where they are installed; both are judged as the rest is.

``floor`` sums over layers what takes longer: their multiplications at the best measured rate, or their bytes at the bandwidth of a copy.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.runs.recording import Launched
from probe.engine.tuning.choose import choose
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.selector import Deny
from probe.engine.tuning.timing import Timings
from probe.model import load
from tests.bench.cuda_latency import floor_seconds, layer_seconds
from tests.bench.network_errors import allowed_error, range_rel
from tests.bench.network_exports import NETS, Net, chosen, export, file_of, golden
from tests.bench.network_peers import NONE, Peer, ort_peers, torch_peer

LIBRARIES = "cublaslt_.*|cudnn_.*"
# The best of torch.compile, eager torch and ONNX Runtime on an H200 at fp16, measured 2026-11-20; ms.
CITED = {
    "resnet50 b1": 0.413, "resnet50 b32": 1.467, "mobilenet_v2 b32": 0.826, "vit_b_16 b16": 1.741, "bert-base 8x128": 0.987,
    "gpt2 1x256": 0.552,
}  # fmt: skip


@dataclass
class Row:
    """A network in a precision.

    Attributes:
        ms: ours.
        same_bits: a replay gives what launching kernel by kernel does.
        fallbacks: layers that ran on the CPU, with the reason.
        kinds: kind of layer -> how many, their microseconds together; noting the time between layers costs each about one.
        kernels: launches a run, by kernel.
        slowest: the layers that take most, microseconds.
    """

    net: str
    precision: str
    ms: float
    error: float
    allowed: float
    floor_ms: float
    layers: int
    launches: int
    graphs: int
    same_bits: bool
    ready_seconds: float
    fallbacks: dict[str, str]
    kinds: dict[str, tuple[int, float]] = field(default_factory=dict)
    kernels: dict[str, int] = field(default_factory=dict)
    slowest: list[tuple[str, float]] = field(default_factory=list)
    ort: Peer = NONE
    torch: Peer = NONE
    tuned: Peer = NONE
    libraries: Peer = NONE

    @property
    def right(self) -> bool:
        worse = max((one.error for one in (self.tuned, self.libraries) if one is not NONE), default=0.0)
        return max(self.error, worse) <= self.allowed and self.same_bits and not self.fallbacks


def ours(net: Net, precision: str, folder: Path, backend: Any) -> Row:
    begin = time.perf_counter()
    engine = compile_model(load(export(net, folder)), precision=precision)
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    plans, feeds = engine._plans(engine.assignment), engine._feeds(net.inputs())
    prepared = device.prepare(feeds, plans)
    ready = time.perf_counter() - begin
    kernels = Counter(step.source.entry for step in prepared._recording.steps if isinstance(step, Launched))
    prepared.replay()
    found = {name: tensor.array(backend) for name, tensor in prepared.outputs().items()}
    device.replays.enabled = False
    launched = device.run(feeds, plans)
    same = all(np.array_equal(launched[name], array, equal_nan=True) for name, array in found.items())
    seconds = prepared.time()
    by_layer = layer_seconds(prepared)
    named = {layer.name: f"{layer.kind} {layer.pattern}".strip() for layer in engine.layers}
    kinds: dict[str, tuple[int, float]] = {}
    for name, one in by_layer.items():
        count, total = kinds.get(named.get(name, name), (0, 0.0))
        kinds[named.get(name, name)] = (count + 1, total + one * 1e6)
    return Row(
        net.name, precision, seconds * 1e3, range_rel(found, golden(net, folder)), allowed_error(net, precision, folder),
        floor_seconds(engine, None, precision) * 1e3, len(engine.layers), prepared.launches, prepared.graphs, same, ready, dict(device.fallen),
        dict(sorted(kinds.items(), key=lambda one: -one[1][1])), dict(kernels.most_common()),
        [(name, one * 1e6) for name, one in sorted(by_layer.items(), key=lambda one: -one[1])],
    )  # fmt: skip


def by_measurement(net: Net, precision: str, folder: Path, backend: Any) -> tuple[Peer, Peer]:
    """Tactics chosen by measured times: among ours, and among ours and the libraries'."""
    engine = compile_model(load(export(net, folder)), precision=precision)
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    timings, feeds, found = Timings(fingerprint_of(engine)), engine._feeds(net.inputs()), []
    for selectors in ((), (Deny(LIBRARIES),)):
        begin = time.perf_counter()
        choices = choose(engine, feeds, selectors, timings=timings)
        took = time.perf_counter() - begin
        prepared = device.prepare(feeds, engine._plans(choices.assignment(engine.assignment)))
        prepared.replay()
        made = {name: tensor.array(backend) for name, tensor in prepared.outputs().items()}
        of = Counter(tactic.split("_")[0] for tactic in choices.tactics.values())
        note = f"chosen in {took:.1f} s: {', '.join(f'{name} {count}' for name, count in of.most_common())}"
        found.append(Peer(prepared.time() * 1e3, range_rel(made, golden(net, folder)), note))
    return found[1], found[0]


def rows(given: argparse.Namespace, backend: Any) -> Iterator[Row]:
    precisions = given.precision.split(",")
    peers = {} if given.ort is None else ort_peers(given.folder, given.only, precisions, given.ort)
    for net in chosen(given.only):
        for precision in precisions:
            row = ours(net, precision, given.folder, backend)
            row.ort = peers.get((net.name, precision), NONE)
            if given.tune:
                row.tuned, row.libraries = by_measurement(net, precision, given.folder, backend)
            if not given.no_torch:
                row.torch = torch_peer(net, precision, given.folder)
            yield row


def table(found: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| network | precision | ours ms | tuned | libraries | launches | ORT CUDA ms | ORT / ours | torch ms | best peer of 2026-11-20 | floor ms | error, allowed | ORT's error |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cited = f"{CITED[row.net]:.3f}" if row.precision == "fp16" else ""
        best = min(one for one in (row.ms, row.tuned.ms) if math.isfinite(one))
        lines.append(
            f"| {row.net} | {row.precision} | {row.ms:.3f} | {row.tuned} | {row.libraries} | {row.launches} | {row.ort} | {row.ort.ms / best:.2f} | {row.torch} "
            f"| {cited} | {row.floor_ms:.3f} | {row.error:.1e}, {row.allowed:.1e}{'' if row.right else ' WRONG'} | {row.ort.error:.1e} |"
        )
    return "\n".join(lines)


def details(row: Row, shown: int) -> Iterator[str]:
    """Where the time goes."""
    total = sum(us for _, us in row.kinds.values())
    kinds = "; ".join(f"{kind} x{count} {us:.0f}" for kind, (count, us) in row.kinds.items())
    yield f"{row.net} {row.precision}: {row.ms:.3f} ms, ORT {row.ort.ms:.3f}, torch {row.torch.ms:.3f}, error {row.error:.1e} of {row.allowed:.1e}"
    yield f"    ready in {row.ready_seconds:.1f} s, {row.layers} layers, {row.graphs} graphs, us by kind ({total:.0f} in all): {kinds}"
    yield f"    launches: {', '.join(f'{name} {count}' for name, count in row.kernels.items())}"
    for name, us in row.slowest[:shown]:
        yield f"    {us:7.1f} us {name[:110]}"
    for what, peer in (("tuned", row.tuned), ("libraries", row.libraries), ("ORT", row.ort), ("torch", row.torch)):
        if peer is not NONE:
            yield f"    {what}: {peer.note}, error {peer.error:.1e}"
    if not row.right:
        yield f"    WRONG: error {row.error:.2e} of {row.allowed:.2e}, same bits {row.same_bits}, on the CPU: {row.fallbacks}"


def is_ready(net: Net, folder: Path, precisions: Sequence[str]) -> bool:
    """Whether everything that is kept is there."""
    stem = file_of(net, folder)
    kept = [stem, file_of(net, folder, half=True), stem.with_suffix(".npz")]
    kept += [stem.with_suffix(f".{precision}.npz") for precision in precisions if precision != "fp32"]
    return all(path.exists() for path in kept)


def get_ready(given: argparse.Namespace) -> None:
    """Models, golden outputs and compiled kernels, a process a network at the same time."""

    def one(name: str) -> str:
        command = [
            sys.executable,
            __file__,
            "--folder",
            str(given.folder),
            "--only",
            name,
            "--precision",
            given.precision,
            "--prepare",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else f"{name}: {done.stderr[-800:]}"

    with ThreadPoolExecutor(given.jobs) as pool:
        wanted = [net for net in chosen(given.only) if not is_ready(net, given.folder, given.precision.split(","))]
        for said in pool.map(one, [net.name for net in wanted]):
            if said:
                print(said)


def prepare(given: argparse.Namespace, backend: Any) -> None:
    for net in chosen(given.only):
        golden(net, given.folder)
        export(net, given.folder, half=True)
        for precision in given.precision.split(","):
            allowed_error(net, precision, given.folder)
            engine = compile_model(load(export(net, given.folder)), precision=precision)
            device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
            device.prepare(engine._feeds(net.inputs()), engine._plans(engine.assignment))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="of models, kept between calls")
    parser.add_argument(
        "--only", default="", help=f"parts of names, comma-separated: {', '.join(net.name for net in NETS)}"
    )
    parser.add_argument("--precision", default="fp16", help="comma-separated")
    parser.add_argument("--layers", type=int, default=0, help="show so many of the slowest layers")
    parser.add_argument(
        "--ort", help="time ONNX Runtime's CUDA provider, too, from this folder; '' where it is installed"
    )
    parser.add_argument("--tune", action="store_true", help="choose tactics by measurement, too")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--jobs", type=int, default=6, help="networks got ready at the same time")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--prepare", action="store_true", help="export and compile only, in this process")
    parser.add_argument("--ready", action="store_true", help="export and compile only")
    given = parser.parse_args()
    from probe.engine.device.cuda.driver import Driver

    if given.prepare:
        prepare(given, Driver())
        return
    begin = time.perf_counter()
    get_ready(given)
    print(f"models and kernels ready in {time.perf_counter() - begin:.0f} s", flush=True)
    if given.ready:
        return
    backend, found = Driver(), []
    for row in rows(given, backend):
        found.append(row)
        print("\n".join(details(row, given.layers)), flush=True)
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in found], indent=1))


if __name__ == "__main__":
    main()
