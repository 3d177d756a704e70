"""ONNX's own Attention and RotaryEmbedding beside torch in the same run, as CUDA graphs over inputs that exceed the L2 cache.

    python -m tests.bench.cuda_attention_op [--only causal] [--type f16]

Needs a GPU. torch: scaled_dot_product_attention on heads as they lie here, [batch, heads, length, elements] or, ``rows``, [batch, length, heads and
elements]; a rotation by eager products and sums. The error is that of the result against torch's in FP64, over its norm.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from tests.bench.cuda_kernels import Job, Recorder, measure
from tests.bench.torch_graph import graph_seconds

_OPSET = 24
_TYPES = {"f16": (F16, torch.float16), "bf16": (BF16, torch.bfloat16), "f32": (F32, torch.float32)}


@dataclass(frozen=True)
class Attended:
    """A problem.

    Attributes:
        heads: of queries, of keys.
        lengths: queries, keys of the past, keys.
        mask: bools, of each batch.
        rows: heads lie beside one another in rows.
    """

    batch: int
    heads: tuple[int, int]
    lengths: tuple[int, int, int]
    size: int
    causal: bool = False
    mask: bool = False
    rows: bool = False

    def __str__(self) -> str:
        queries, past, keys = self.lengths
        words = (" causal" * self.causal, " mask" * self.mask, " rows" * self.rows, f" behind {past}" * (past > 0))
        return f"Attention {self.batch} x {'/'.join(map(str, self.heads))} x {queries} x {keys} x {self.size}{''.join(words)}"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of queries, keys, values, keys and values of the past."""
        queries, past, keys = self.lengths
        found = [
            (self.batch, heads, n, self.size)
            for heads, n in zip((*self.heads, self.heads[1]), (queries, keys, keys), strict=True)
        ]
        if self.rows:
            found = [(batch, n, heads * size) for batch, heads, n, size in found]
        return (*found, *[(self.batch, self.heads[1], past, self.size)] * (2 if past else 0))

    def job(self, stored: Format) -> Job:
        queries, past, keys = self.lengths
        attributes = {"is_causal": int(self.causal)}
        if self.rows:
            attributes |= dict(zip(("q_num_heads", "kv_num_heads"), self.heads, strict=True))
        made = ir.node(
            "Attention", [ir.Value(name=f"x{at}", type=ir.TensorType(ir.DataType.FLOAT)) for at in range(6)], attributes
        )
        hidden = np.random.default_rng(2).random((self.batch, 1, queries, keys)) < 0.3
        hidden[..., 0] = False
        mask = host_tensor(~hidden) if self.mask else None
        formats = [stored, *([stored] * 2 if past else [])]

        def run(queue: Queue, x: list[Tensor]) -> Any:
            return OPS["Attention"].compute(queue, Call(made, [*x[:3], mask, *x[3:]], formats, _OPSET))

        seen = torch.from_numpy(~hidden).cuda() if self.mask else None
        return Job(
            str(self), stored, run, self.shapes, math.prod(self.shapes[0]), 4.0 * self.batch * self.heads[0] * queries * (past + keys) * self.size,
            lambda _, x: self._by_torch(x, seen),
        )  # fmt: skip

    def _by_torch(self, x: list[Any], seen: Any) -> Any:
        q, k, v = x[:3]
        if self.rows:
            q, k, v = (one.unflatten(-1, (-1, self.size)).transpose(1, 2) for one in (q, k, v))
        if len(x) > 3:
            k, v = torch.cat((x[3], k), 2), torch.cat((x[4], v), 2)
        causal = self.causal and self.lengths[0] > 1  # a single query looks at all keys
        y = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=causal, enable_gqa=self.heads[0] != self.heads[1]
        )
        return y.transpose(1, 2).flatten(2) if self.rows else y


PROBLEMS = (
    Attended(1, (12, 12), (1024, 0, 1024), 64, causal=True), Attended(1, (32, 8), (2048, 0, 2048), 128, causal=True),
    Attended(1, (12, 12), (1024, 0, 1024), 64), Attended(1, (32, 8), (2048, 0, 2048), 128), Attended(8, (12, 12), (200, 0, 200), 64, causal=True),
    Attended(4, (16, 16), (1024, 0, 1024), 64, mask=True), Attended(2, (32, 8), (1024, 0, 1024), 128, causal=True, rows=True),
    Attended(1, (32, 8), (1, 2047, 1), 128, causal=True), Attended(16, (32, 8), (1, 2047, 1), 128, causal=True),
)  # fmt: skip


def turned(shape: tuple[int, ...], stored: Format, *, interleaved: bool) -> Job:
    """A rotation of all elements of heads, a row of cosines for each place."""
    made = ir.node(
        "RotaryEmbedding",
        [ir.Value(name=f"x{at}", type=ir.TensorType(ir.DataType.FLOAT)) for at in range(3)],
        {"interleaved": int(interleaved)},
    )
    table = (shape[0], shape[2], shape[3] // 2)

    def peer(_: Any, x: list[Any]) -> Any:
        one, other = (x[0][..., ::2], x[0][..., 1::2]) if interleaved else x[0].chunk(2, -1)
        c, s = x[1].unsqueeze(1), x[2].unsqueeze(1)
        parts = c * one - s * other, s * one + c * other
        return torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)

    name = f"RotaryEmbedding {'x'.join(map(str, shape))}{' interleaved' * interleaved}"
    run = lambda queue, x: OPS["RotaryEmbedding"].compute(queue, Call(made, x, [stored], _OPSET))
    return Job(name, stored, run, (shape, table, table), math.prod(shape), torch=peer)


def jobs(stored: Format) -> Iterator[Job]:
    for problem in PROBLEMS:
        yield problem.job(stored)
    for interleaved in (False, True):
        yield turned((4, 32, 2048, 128), stored, interleaved=interleaved)


def error_of(backend: Recorder, job: Job, peer: Callable[..., Any], dtype: Any) -> float:
    queue, random = Queue(backend, _OPSET), np.random.default_rng(1)
    x = [queue.convert(host_tensor(random.standard_normal(one, dtype=np.float32)), job.format) for one in job.shapes]
    y = torch.from_numpy(job.run(queue, x)[0].array(backend)).cuda().double()
    exact = peer(torch, [torch.from_numpy(one.array(backend)).cuda().to(dtype).double() for one in x])
    return float((y - exact).norm() / exact.norm())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="problems whose name contains one of these, between commas")
    parser.add_argument("--type", default="f16", choices=tuple(_TYPES))
    parser.add_argument("--no-error", action="store_true", help="times alone")
    given = parser.parse_args()
    stored, dtype = _TYPES[given.type]
    backend = Recorder()
    print(f"{given.type:52} {'us':>8} {'TFLOP/s':>7} {'torch':>8}   error  kernels")
    for job in jobs(stored):
        peer = job.torch
        if peer is None or not any(one in job.name for one in given.only.split(",")):
            continue
        error = math.nan if given.no_error else error_of(backend, job, peer, dtype)
        seconds, _ = measure(backend, job)
        inputs = [torch.randn(shape, device="cuda", dtype=dtype) for shape in job.shapes]
        theirs = graph_seconds(lambda *x, run=peer: run(torch, list(x)), inputs, job.written * stored.bytes)
        kernels = ", ".join(dict.fromkeys(source.entry for source in backend.last))
        rate = job.operations / seconds / 1e12
        print(f"{job.name:52} {seconds * 1e6:8.1f} {rate:7.1f} {theirs * 1e6:8.1f} {error:7.0e}  {kernels}", flush=True)


if __name__ == "__main__":
    main()
