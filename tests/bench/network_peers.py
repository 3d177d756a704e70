"""What others take for the six networks of network_exports.py, inputs and outputs on the GPU.

ONNX Runtime's CUDA provider runs in a process of its own, so that its package may lie elsewhere (``--ort`` of cuda_networks.py):

    python tests/bench/network_peers.py FOLDER --only resnet50 --precision fp16,tf32

prints a line of JSON a network and precision. Settings are the fastest there are: a CUDA graph, TF32 where the precision is not FP32, inputs and
outputs bound, cuDNN's exhaustive search, and the fastest of what SETTINGS tries for convolutions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.network_errors import OF_PEERS, allowed_error, range_rel
from tests.bench.network_exports import Arrays, Net, chosen, export, golden

ROUNDS, REPEATS, WARM_UP = 7, 50, 5
# Of ONNX Runtime's convolutions. With the bias fused, cuDNN's frontend computes both; all the workspace there is makes some networks slower.
SETTINGS: dict[str, dict[str, int]] = {
    "NCHW": {}, "NHWC": {"prefer_nhwc": 1}, "NHWC, bias fused": {"prefer_nhwc": 1, "fuse_conv_bias": 1}, "NCHW, bias fused": {"fuse_conv_bias": 1},
    "NCHW, little workspace": {"cudnn_conv_use_max_workspace": 0},
    "NHWC, bias fused, little workspace": {"prefer_nhwc": 1, "fuse_conv_bias": 1, "cudnn_conv_use_max_workspace": 0},
}  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """What a peer took.

    Attributes:
        ms: of an inference; NaN where it cannot run, or is wrong.
        error: range_rel against the golden outputs.
        note: how it ran, or why it did not.
    """

    ms: float
    error: float
    note: str = ""

    def __str__(self) -> str:
        return f"{self.ms:.3f}" if math.isfinite(self.ms) else "wrong" if not math.isnan(self.error) else "-"


NONE = Peer(math.nan, math.nan, "not run")


def ms_of(work: Callable[[], Any], torch: Any, stream: Any, *, rounds: int = ROUNDS, repeats: int = REPEATS) -> float:
    """Milliseconds: the median over rounds of the mean over repeats, or over single runs where gaps between them are the host's."""

    def timed(repeats: int) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream)
        for _ in range(repeats):
            work()
        end.record(stream)
        end.synchronize()
        return begin.elapsed_time(end) / repeats

    for _ in range(WARM_UP):
        work()
    many = statistics.median(timed(repeats) for _ in range(rounds))
    return min(many, statistics.median(timed(1) for _ in range(repeats)))


# --- torch --------------------------------------------------------------------------------------------------------------


def torch_peer(net: Net, precision: str, folder: Path) -> Peer:
    """torch's own module, eager, in a CUDA graph."""
    import torch

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if net.channels_last else torch.preserve_format
    try:
        with torch.inference_mode():
            module = net.build().to("cuda", dtype, memory_format=layout)
            inputs = [torch.from_numpy(array).cuda() for array in net.inputs().values()]
            inputs = [one.to(dtype, memory_format=layout) if one.is_floating_point() else one for one in inputs]
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    module(*inputs)
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=stream):
                    made = module(*inputs)
                ms = ms_of(graph.replay, torch, stream)
            torch.cuda.synchronize()
            outputs = made if isinstance(made, tuple) else (made,)
            arrays = {name: one.float().cpu().numpy() for name, one in zip(net.outputs, outputs, strict=True)}
    except RuntimeError as error:
        return Peer(math.nan, math.nan, " ".join(str(error).split())[:200])
    error = range_rel(arrays, golden(net, folder))
    right = error <= OF_PEERS * allowed_error(net, precision, folder)
    return Peer(
        ms if right else math.nan, error, "eager, CUDA graph" if right else f"eager, CUDA graph: wrong, {ms:.3f}"
    )


# --- ONNX Runtime -------------------------------------------------------------------------------------------------------


def ort_peers(folder: Path, only: str, precisions: list[str], package: str) -> dict[tuple[str, str], Peer]:
    """ONNX Runtime's CUDA provider, in a process that finds its package in the folder ``package`` ("": where it is installed)."""
    path = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH", "")) if part)
    command = [sys.executable, __file__, str(folder), "--only", only, "--precision", ",".join(precisions)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    found: dict[tuple[str, str], Peer] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            key = row.pop("net"), row.pop("precision")
            found[key] = Peer(**row)
    if done.returncode:
        print(f"ONNX Runtime's process ended with {done.returncode}: {done.stderr[-600:]}")
    return found


def ort_peer(net: Net, precision: str, folder: Path, stream: Any) -> Peer:
    """The fastest of ONNX Runtime's settings that compute what they should: each is tried shortly, the best is measured."""
    import torch

    tried: dict[str, tuple[float, Callable[[], Any], Callable[[], Arrays]]] = {}
    said, wrong = [], 0.0
    wanted, allowed = golden(net, folder), OF_PEERS * allowed_error(net, precision, folder)
    for name, options in SETTINGS.items() if net.channels_last else [("NCHW", {})]:
        try:
            run, outputs, where = _bound(net, precision, folder, stream, options)
            ms = ms_of(run, torch, stream, rounds=1, repeats=20)
            torch.cuda.synchronize()
            error = range_rel(outputs(), wanted)
            if error <= allowed:
                tried[name + where] = ms, run, outputs
            else:
                said.append(f"{name}{where}: wrong ({_seen(outputs(), wanted)}), {ms:.3f}")
                wrong = max(wrong, error)
        except Exception as error:
            said.append(f"{name}: {' '.join(str(error).split())[:200]}")
    if not tried:
        return Peer(math.nan, wrong or math.nan, "; ".join(said))
    best = min(tried, key=lambda one: tried[one][0])
    _, run, outputs = tried[best]
    ms = ms_of(run, torch, stream)
    torch.cuda.synchronize()
    others = [f"{name} {ms:.3f}" for name, (ms, *_) in tried.items() if name != best]
    return Peer(ms, range_rel(outputs(), wanted), "; ".join([best, *others, *said]))


def _seen(made: Arrays, wanted: Arrays) -> str:
    """How outputs are wrong: how many elements are NaN or Inf, and how far off the others are."""
    flat = {name: array.astype(np.float64) for name, array in made.items()}
    bad = {
        "NaN": sum(int(np.isnan(one).sum()) for one in flat.values()),
        "Inf": sum(int(np.isinf(one).sum()) for one in flat.values()),
    }
    found = [f"{count} {what}" for what, count in bad.items() if count]
    return ", ".join(
        [*found, f"of {sum(one.size for one in flat.values())}" if found else f"error {range_rel(made, wanted):.1e}"]
    )


def _bound(
    net: Net, precision: str, folder: Path, stream: Any, more: dict[str, int]
) -> tuple[Callable[[], Any], Callable[[], Arrays], str]:
    """A session with inputs and outputs on the device: what runs it, what it makes, and a word about nodes on the CPU."""
    import onnxruntime as ort

    half = precision == "fp16"
    options = {
        "use_tf32": int(precision != "fp32"), "enable_cuda_graph": 1, "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": 1, "user_compute_stream": str(stream.cuda_stream), **more,
    }  # fmt: skip
    session, where = _session(ort, str(export(net, folder, half=half)), options)
    binding, made = session.io_binding(), {}
    for name, array in net.inputs().items():
        given = array.astype(np.float16) if half and array.dtype == np.float32 else array
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(given, "cuda", 0))
    for name, array in golden(net, folder).items():
        kind = np.float16 if half else np.float32
        made[name] = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), kind, "cuda", 0)
        binding.bind_ortvalue_output(name, made[name])
    running = ort.RunOptions()
    running.add_run_config_entry("disable_synchronize_execution_providers", "1")
    run = lambda: session.run_with_iobinding(binding, running)
    return run, lambda: {name: one.numpy() for name, one in made.items()}, where


def _session(ort: Any, model: str, options: dict[str, Any]) -> tuple[Any, str]:
    """A session whose nodes are all on the GPU; where that cannot be, one with some on the CPU, and a word about it."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    providers: list[Any] = [("CUDAExecutionProvider", options)]
    try:
        session, where = ort.InferenceSession(model, settings, providers=providers), ""
    except Exception as error:
        if "fallback" not in str(error).lower():
            raise
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "0")
        providers.append("CPUExecutionProvider")
        session, where = ort.InferenceSession(model, settings, providers=providers), ", nodes on the CPU"
    if "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError(f"no CUDA provider: {session.get_providers()}")
    return session, where


def rows(folder: Path, only: str, precisions: list[str]) -> Iterator[dict[str, Any]]:
    import onnxruntime
    import torch

    onnxruntime.preload_dlls()  # CUDA and cuDNN as torch's packages bring them
    stream = torch.cuda.Stream()
    for net in chosen(only):
        for precision in precisions:
            if precision in ("fp16", "tf32", "fp32"):
                yield {"net": net.name, "precision": precision, **asdict(ort_peer(net, precision, folder, stream))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--precision", default="fp16")
    given = parser.parse_args()
    for row in rows(given.folder, given.only, given.precision.split(",")):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
