"""Latency of whole networks on a GPU, inputs and outputs on the device: ours as a CUDA graph beside torch, and where the time goes.

    python tests/bench/cuda_latency.py [--only bert] [--precision fp16] [--layers 10]

Networks are generated (resnet50.py, bert_base.py: random weights, latency does not depend on them), or real ones of $PROBE_MODELS and
$PROBE_EXPORTS. Each is compared with the CPU device before it is timed (largest difference over the largest golden value). torch runs the
same architecture with its best attention, eagerly captured in a CUDA graph, channels last for convolutions.

Columns: `record` is a first run with its kernels compiled, launching as it goes; `prepare` the same with planning its memory, capturing and
feeding; `new assignment` the first and the second run when every other layer is lifted to FP32; `run` a run from and to the host; `replay` the
latency; `floor` the bytes of weights and tensors over copy bandwidth or the multiplications over the library's best, whichever is longer;
`memory` the block of memory over the peak of what is alive.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from probe.engine.build import compile_model
from probe.engine.costs import cost_of
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.runs.prepared import Prepared
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.pairs import Measure as How
from probe.engine.device.pairs import Rows
from probe.engine.engine import Engine
from probe.model import load
from tests.bench import bert_base, resnet50
from tests.bench.kernel_graph import graphs_of

REAL = (
    ("PROBE_MODELS", ("silero_vad", "gtcrn_simple", "dnsmos_sig_bak_ovr", "magika_standard_v3_3", "ultraface_slim_320", "superres_core")),
    ("PROBE_EXPORTS", ("bert_mini", "gpt2_mini", "llama_gqa_mini", "vit_mini", "unet_attn_mini", "lstm_gru_tagger", "convtasnet_cln")),
)  # fmt: skip
BANDWIDTH = 4.26e12  # bytes a second of a device copy, read and written
PEAK = {"fp32": 51e12, "tf32": 363e12, "fp16": 781e12, "bf16": 798e12}  # of the library's best product


@dataclass(frozen=True)
class Job:
    """A network and its inputs; ``twin`` makes torch's call of the same architecture."""

    name: str
    path: Path
    feeds: dict[str, np.ndarray]
    twin: Callable[[Any, Any], Callable[[], Any]] | None = None
    checked: bool = True


def jobs(folder: Path, only: str) -> Iterator[Job]:
    random = np.random.default_rng(0)
    for batch in (1, 8, 32):
        name = f"resnet50 b{batch}"
        if only in name:
            x = random.standard_normal((batch, 3, 224, 224), dtype=np.float32)
            path = resnet50.save(folder / f"resnet50_{batch}.onnx", batch)
            yield Job(name, path, {"x": x}, lambda t, dtype, b=batch: torch_resnet50(t, dtype, b), batch == 1)
    path = folder / "bert.onnx"
    for batch, length in ((1, 128), (8, 128)):
        name = f"bert-base {batch}x{length}"
        if only in name:
            if not path.exists():
                bert_base.write_bert_base(path)
            ids = random.integers(0, 30000, (batch, length))
            feeds = {"input_ids": ids, "attention_mask": np.ones((batch, length), np.int64)}
            yield Job(name, path, feeds, lambda t, dtype, b=batch, n=length: torch_bert(t, dtype, b, n), batch == 1)
    for variable, names in REAL:
        place = os.environ.get(variable)
        for name in names if place else ():
            if only in name and place:
                with np.load(min((Path(place) / "data").glob(f"{name}__*.npz"))) as stored:
                    feeds = {key[3:]: stored[key] for key in stored if key.startswith("in/")}
                yield Job(name, Path(place) / "models" / f"{name}.onnx", feeds)


# --- torch --------------------------------------------------------------------------------------------------------------


def torch_resnet50(torch: Any, dtype: Any, batch: int) -> Callable[[], Any]:
    """Batch norms folded, as ours are."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, before: int, inside: int, stride: int) -> None:
            super().__init__()
            after = inside * resnet50.EXPANSION
            self.a, self.b = nn.Conv2d(before, inside, 1), nn.Conv2d(inside, inside, 3, stride, 1)
            self.c = nn.Conv2d(inside, after, 1)
            self.shortcut = nn.Conv2d(before, after, 1, stride) if before != after else nn.Identity()

        def forward(self, x: Any) -> Any:
            return (self.c(self.b(self.a(x).relu_()).relu_()) + self.shortcut(x)).relu_()

    layers, before = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for inside, blocks, stride in resnet50.STAGES:
        for at in range(blocks):
            layers.append(Block(before, inside, stride if at == 0 else 1))
            before = inside * resnet50.EXPANSION
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, resnet50.CLASSES))
    model = model.to("cuda", dtype, memory_format=torch.channels_last).eval()
    x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
    return lambda: model(x)


def torch_bert(torch: Any, dtype: Any, batch: int, length: int) -> Callable[[], Any]:
    nn, functional = torch.nn, torch.nn.functional
    width, heads, inner = bert_base.HIDDEN, bert_base.HEADS, bert_base.INNER

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
            self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

        def forward(self, x: Any) -> Any:
            q, k, v = self.qkv(x).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
            x = self.first(x + self.out(seen))
            return self.second(x + self.down(functional.gelu(self.up(x))))

    words, places, norm = nn.Embedding(30522, width), nn.Embedding(512, width), nn.LayerNorm(width)
    layers = nn.Sequential(*(Layer() for _ in range(12)))
    for one in (words, places, norm, layers):
        one.to("cuda", dtype).eval()
    ids = torch.randint(0, 30000, (batch, length), device="cuda")
    order = torch.arange(length, device="cuda")
    return lambda: layers(norm(words(ids) + places(order)))


def torch_seconds(torch: Any, job: Job, precision: str) -> float:
    if torch is None or job.twin is None:
        return float("nan")
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        work = job.twin(torch, dtype)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        times = []
        for _ in range(9):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(50):
                graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3 / 50)
    return float(np.median(times[2:]))


# --- ours ---------------------------------------------------------------------------------------------------------------


def layer_seconds(prepared: Prepared, rounds: int = 20) -> dict[str, float]:
    """Seconds of each layer within a run, with events between layers: the median over rounds."""
    found: dict[str, list[float]] = {}
    once = prepared.timed_layers(time.perf_counter)
    for _ in range(rounds):
        for layer, seconds in once().items():
            found.setdefault(layer, []).append(seconds)
    return {layer: statistics.median(all_of) for layer, all_of in found.items()}


def floor_seconds(engine: Engine, shapes: dict[str, tuple[int, ...]] | None, precision: str) -> float:
    """The least the network could take: of every layer its multiplications at the library's best rate, or its bytes at copy bandwidth.

    Args:
        shapes: of all tensors; None: as the model declares them.
    """
    total = 0.0
    for layer in engine.layers:
        cost = cost_of(
            layer.nodes, reads=layer.reads, weights=layer.weights, outputs=layer.outputs, shapes=shapes,
            float_bytes=2 if precision in ("fp16", "bf16") else 4,
        )  # fmt: skip
        if layer.kind not in ("shape", "move"):
            total += max((cost.flops or 0) / PEAK[precision], (cost.bytes or 0) / BANDWIDTH)
    return total


def off(actual: np.ndarray, golden: np.ndarray) -> float:
    both = np.isfinite(golden) & np.isfinite(actual) if golden.dtype.kind == "f" else np.ones(golden.shape, bool)
    if not both.any():
        return 0.0
    far = np.abs(actual[both].astype(np.float64) - golden[both].astype(np.float64)).max()
    return float(far / max(np.abs(golden[both].astype(np.float64)).max(), 1e-30))


def new_assignment(engine: Engine, device: CudaDevice, feeds: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Seconds of the first two runs under an assignment that is new but for its kernels: recorded, then made ready and repeated."""
    changed = engine.assignment.keeping(layers=[layer.name for layer in engine.layers][::2])
    plans = engine._plans(changed)
    device.replays.enabled = False
    device.run(feeds, plans)  # compiles what this mixture needs
    device.replays.enabled = True
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        device.run(feeds, plans)
        times.append(time.perf_counter() - begin)
    return times[0], times[1]


def sums_of_pairs(backend: Driver) -> None:
    """Sums of tensors and their goldens against the bytes of both at copy bandwidth, as a graph: 64 M pairs, what ResNet-50 has most of, and many of
    those together."""
    queue, random = Queue(backend, 18), np.random.default_rng(0)
    golden, other = (host_tensor(random.standard_normal((32, 1 << 21), dtype=np.float32)) for _ in range(2))
    sizes = (
        (1 << 26, 1, (Rows(), Rows(32), Rows(32, 64))),
        (32 * 256 * 3136, 1, (Rows(32, 256),)),
        (32 * 2048 * 49, 1, (Rows(32, 2048),)),
        (32 * 256 * 784, 1, (Rows(32, 256),)),
        (32 * 256 * 784, 40, (Rows(32, 256),)),
        (32 * 1024 * 196, 20, (Rows(32, 1024),)),
        (32 * 2048 * 49, 40, (Rows(32, 2048),)),
    )
    told, works, held = [], [], []
    for stored, (size, many, layouts) in product((F32, F16, BF16), sizes):
        actual = queue.convert(other, stored)
        pair = [Tensor((size,), one.format, buffer=one.memory) for one in (actual, golden) if one.address(backend)]
        held.append(actual)
        for rows in layouts:
            works.append(partial(_summed, *pair, rows, many))
            floor = many * sum(one.nbytes for one in pair) / BANDWIDTH
            told.append(
                (
                    f"{many:2} x {size / 2**20:4.1f} M pairs, {stored.name:5}, {rows.items:2} x {rows.channels:4} rows",
                    floor,
                )
            )
    for (what, floor), graph in zip(told, graphs_of(backend, works), strict=True):
        seconds = min(backend.seconds(graph.launch) for _ in range(12))
        print(f"sums of {what}: {seconds * 1e6:.1f} us, {floor / seconds:.0%} of copy bandwidth", flush=True)


def _summed(actual: Tensor, golden: Tensor, rows: Rows, many: int, queue: Queue) -> None:
    """``many`` pairs of so many elements, one behind the other in memory that holds 64 M."""
    pairs, room = Pairs(queue), (1 << 26) // actual.size
    for at in range(many):
        first = at % room * actual.size
        pair = (
            Tensor(one.shape, one.format, buffer=one.memory, begins=first * one.nbytes // one.size)
            for one in (actual, golden)
        )
        pairs.add(*pair, How(floor=1e-3), rows)
    pairs.fetch()


def _replayed(prepared: Prepared) -> dict[str, Tensor]:
    prepared.replay()
    return prepared.outputs()


def measure(job: Job, precision: str, backend: Driver, torch: Any, shown: int) -> None:
    begin = time.perf_counter()
    engine = compile_model(load(job.path), precision=precision)
    built = time.perf_counter() - begin
    cpu, device = engine.device, CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    plans, feeds = engine._plans(engine.assignment), engine._feeds(job.feeds)
    device.replays.enabled = False
    begin = time.perf_counter()
    eager = device.run(feeds, plans)
    compiled = time.perf_counter() - begin
    device.replays.enabled = True
    begin = time.perf_counter()
    recorded = device.run(feeds, plans)
    record = time.perf_counter() - begin
    begin = time.perf_counter()
    prepared = device.prepare(feeds, plans)
    ready = time.perf_counter() - begin
    prepared.replay()
    found = {name: tensor.array(backend) for name, tensor in prepared.outputs().items()}
    replayed = device.run(feeds, plans)
    begin = time.perf_counter()
    for _ in range(10):
        device.run(feeds, plans)
    whole = (time.perf_counter() - begin) / 10
    same = all(
        np.array_equal(eager[name], other[name], equal_nan=eager[name].dtype.kind == "f")
        for other in (recorded, found, replayed) for name in eager
    )  # fmt: skip
    seconds = prepared.time()
    beside = device.prepare(feeds, plans, side_by_side=True)
    other_bits = {name: tensor.array(backend) for name, tensor in _replayed(beside).items()}
    same = same and all(np.array_equal(other_bits[k], v, equal_nan=v.dtype.kind == "f") for k, v in found.items())
    in_lanes = beside.time()
    far = max(off(eager[name], array) for name, array in cpu.run(feeds, plans).items()) if job.checked else float("nan")
    other = torch_seconds(torch, job, precision)
    floor = float("nan")
    if job.checked:  # every tensor is copied to the host for its shape
        shapes = {t.name: t.array.shape for t in device.stream(feeds, plans, interior=True) if t.array is not None}
        floor = floor_seconds(engine, shapes, precision)
    layout = prepared.layout
    new, again = new_assignment(engine, device, feeds)
    print(
        f"{job.name:22} {precision:5} replay {seconds * 1e3:8.3f} ms ({in_lanes * 1e3:.3f} side by side)  floor {floor * 1e3:8.3f}  torch {other * 1e3:8.3f}  run {whole * 1e3:8.3f}  build {built:5.2f} s  "
        f"compile {compiled:5.2f} s  record {record * 1e3:6.1f} ms  prepare {ready * 1e3:6.1f} ms  "
        f"new assignment {new * 1e3:5.1f} + {again * 1e3:5.1f} ms  layers {len(engine.layers)}  "
        f"launches {prepared.launches}  graphs {prepared.graphs}  memory {layout.nbytes / 2**20:.1f}/{layout.peak_bytes / 2**20:.1f} MiB  "
        f"off {far:.1e}  same bits {same}  {prepared.note} {sorted(set(device.fallen.values())) or ''}",
        flush=True,
    )
    if shown:
        by_layer = sorted(layer_seconds(prepared).items(), key=lambda one: -one[1])
        total = sum(one for _, one in by_layer)
        kinds: dict[str, list[float]] = {}
        for name, one in by_layer:
            kind = next((f"{layer.kind} {layer.pattern}" for layer in engine.layers if layer.name == name), name)
            kinds.setdefault(kind, []).append(one)
        for name, one in by_layer[:shown]:
            print(f"    {one * 1e6:8.1f} us {one / total:5.1%}  {name[:110]}")
        ordered = sorted(kinds.items(), key=lambda one: -sum(one[1]))
        print(
            "    " + "; ".join(f"{kind.strip()} {len(all_of)}: {sum(all_of) * 1e6:.0f} us" for kind, all_of in ordered)
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--precision", default="fp16,fp32", help="comma-separated")
    parser.add_argument("--layers", type=int, default=0, help="show so many of the slowest layers")
    parser.add_argument("--pairs", action="store_true", help="the sums that metrics are made of instead")
    given = parser.parse_args()
    try:
        import torch
    except ImportError:
        torch = None
    backend = Driver()
    if given.pairs:
        sums_of_pairs(backend)
        return
    print(f"{backend.name} {backend.arch}, torch {torch.__version__ if torch is not None else 'absent'}")
    with tempfile.TemporaryDirectory() as folder:
        for job in jobs(Path(folder), given.only):
            for precision in given.precision.split(","):
                measure(job, precision, backend, torch, given.layers)


if __name__ == "__main__":
    main()
