"""Decoder blocks as torch exports them at opset 23, with Attention as one node: correct in every precision, then timed beside torch in the same run.

    python -m tests.bench.cuda_decoder [--folder models] [--length 1024] [--blocks 2]

Needs a GPU, torch and onnxscript. Each block: RMSNorm, queries, keys and values of grouped heads (16, 4 of keys, 128 elements each), rotations, causal
scaled_dot_product_attention, a gated MLP. Outputs are compared with the CPU device's in the same precision, range_rel; layers that no kernel computed
are named. Latency: replays of our recorded run, and eager torch in a CUDA graph, inputs on the device.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.engine import Engine
from probe.model import load
from tests.bench.network_errors import range_rel
from tests.bench.torch_graph import graph_seconds

OPSET, SEED = 23, 0
HEADS, GROUPS, SIZE = 16, 4, 128
WIDTH, INNER = HEADS * SIZE, 4096


class Block(torch.nn.Module):
    """One block of a decoder."""

    def __init__(self) -> None:
        super().__init__()
        made = lambda wide, high: torch.nn.Linear(wide, high, bias=False)
        self.before, self.between = (torch.nn.RMSNorm(WIDTH, eps=1e-6) for _ in range(2))
        self.q, self.k, self.v = made(WIDTH, WIDTH), made(WIDTH, GROUPS * SIZE), made(WIDTH, GROUPS * SIZE)
        self.o, self.gate, self.up, self.down = (
            made(WIDTH, WIDTH),
            made(WIDTH, INNER),
            made(WIDTH, INNER),
            made(INNER, WIDTH),
        )

    def forward(self, x: Any, cosines: Any, sines: Any) -> Any:
        n = self.before(x)
        q, k, v = (one.unflatten(-1, (-1, SIZE)).transpose(1, 2) for one in (self.q(n), self.k(n), self.v(n)))
        q, k = (one * cosines + _half_turned(one) * sines for one in (q, k))
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        n = self.between(x)
        return x + self.down(torch.nn.functional.silu(self.gate(n)) * self.up(n))


def _half_turned(x: Any) -> Any:
    one, other = x.chunk(2, -1)
    return torch.cat((-other, one), -1)


class Blocks(torch.nn.Module):
    """Several, with the angles of their places."""

    def __init__(self, count: int, length: int) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(Block() for _ in range(count))
        angles = torch.outer(
            torch.arange(length).float(), 10000.0 ** (-torch.arange(0, SIZE, 2).float() / SIZE)
        ).repeat(1, 2)
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x, self.cosines, self.sines)
        return x


def exported(folder: Path, count: int, length: int) -> tuple[Any, Path, dict[str, np.ndarray]]:
    """The module, its model and its input."""
    torch.manual_seed(SEED)
    module, x = Blocks(count, length).eval(), torch.randn(1, length, WIDTH)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"decoder_{count}x{length}.onnx"
    with torch.no_grad():
        torch.onnx.export(
            module, (x,), str(path), input_names=["x"], output_names=["y"], opset_version=OPSET, dynamo=True, external_data=False, verbose=False
        )  # fmt: skip
    return module, path, {"x": x.numpy()}


def seconds_of(engine: Engine, feeds: dict[str, np.ndarray]) -> tuple[float, int]:
    """Of a replay, input and output on the device; its launches."""
    assert isinstance(engine.device, CudaDevice)
    prepared = engine.device.prepare(engine._feeds(feeds), engine._plans(engine.assignment))
    prepared.replay()
    return prepared.time(), prepared.launches


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default="models", type=Path)
    parser.add_argument("--length", default=1024, type=int)
    parser.add_argument("--blocks", default=2, type=int)
    parser.add_argument("--precision", default="fp32,tf32,fp16,bf16")
    given = parser.parse_args()
    module, path, feeds = exported(given.folder, given.blocks, given.length)
    module = module.cuda()
    for precision in given.precision.split(","):
        engine = compile_model(load(path), precision=precision)
        expected = engine.run(feeds)
        ours = compile_model(load(path), precision=precision, device="cuda")
        actual = ours.run(feeds)
        assert isinstance(ours.device, CudaDevice)
        kinds = sorted({node.op_type for layer in ours.top_layers for node in layer.nodes})
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        with torch.no_grad():
            theirs = graph_seconds(
                module.to(dtype), [torch.from_numpy(feeds["x"]).cuda().to(dtype)], feeds["x"].size * 2
            )
        seconds, launches = seconds_of(ours, feeds)
        print(
            f"{precision}: range_rel {range_rel(actual, expected):.1e} of the CPU device's; {ours.device.fallen or 'no layer fell back'}; "
            f"{seconds * 1e6:.0f} us in {launches} launches, torch {theirs * 1e6:.0f}; {' '.join(kinds)}; {dict(ours.device.queue.apart)}",
            flush=True,
        )
        module = module.float()


if __name__ == "__main__":
    main()
