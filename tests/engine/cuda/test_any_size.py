"""Random calls of many operators, of extents up to billions, planned without memory: launched on grids that there are, or refused by ``Unsupported``.
``python -m tests.engine.cuda.test_any_size SEED COUNT`` plans more."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.queue import MAX_BLOCKS, Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, I32, I64, U8
from tests.engine.cuda.test_too_large import Noting, asked_for, given

EXTENTS = (
    1, 1, 1, 2, 3, 8, 16, 64, 1000, 1 << 16, 1 << 20, (1 << 24) + 8, (1 << 30) - 8, (1 << 30) + 8, (1 << 31) - 1, 1 << 31, (1 << 31) + 8, 1 << 32, 3_000_000_000,
)  # fmt: skip
MOST = 1 << 44  # elements
Made = tuple[list[Any], dict[str, Any]]  # inputs as ``given`` takes them, attributes


def _list(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def _shape(r: Random, rank: int) -> tuple[int, ...]:
    while True:
        found = tuple(r.choice(EXTENTS) for _ in range(rank))
        if math.prod(found) < MOST:
            return found


def _some(r: Random, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return _shape(r, r.randint(least, most))


def _transpose(r: Random) -> Made:
    x = _some(r)
    return [x], {"perm": r.sample(range(len(x)), len(x))}


def _along(*more: Callable[[Random, int], Any]) -> Callable[[Random], Made]:
    """An axis; further inputs from its extent."""

    def make(r: Random) -> Made:
        x = _some(r)
        axis = r.randrange(len(x))
        return [x, *(one(r, x[axis]) for one in more)], {"axis": axis}

    return make


def _slice(r: Random) -> Made:
    x = _some(r)
    axis = r.randrange(len(x))
    return [x, _list(1), _list(x[axis]), _list(axis), _list(r.choice([1, 2, -1, 3]))], {}


def _reduced(r: Random) -> Made:
    x = _some(r)
    return [x, _list(*sorted(r.sample(range(len(x)), r.randint(1, len(x)))))], {}


def _pooled(r: Random) -> Made:
    window = [r.choice([1, 2, 3]) for _ in range(r.choice([1, 2, 3]))]
    return [_shape(r, 2 + len(window))], {"kernel_shape": window, "strides": [r.choice([1, 2, 7]) for _ in window]}


def _convolved(r: Random) -> Made:
    extents = (1, 8, 100, 1000, 1 << 16, 1 << 20, (1 << 30) + 8, (1 << 31) + 8)
    window = [r.choice([1, 1, 3]) for _ in range(r.choice([1, 2, 2, 3]))]
    channels, outputs = r.choice([1, 3, 8, 16, 64, 64]), r.choice([1, 3, 8, 16, 64])
    x = (r.choice([1, 2, 256, 1 << 20, (1 << 31) + 8]), channels, *(r.choice(extents) for _ in window))
    groups = channels if r.random() < 0.2 else 1
    w = (channels if groups > 1 else outputs, channels // groups, *window)
    return [x, w], {
        "group": groups,
        "pads": [one // 2 for one in window] * 2,
        "strides": [r.choice([1, 1, 2])] * len(window),
    }


def _brought(r: Random) -> Made:
    (x, w), attributes = _convolved(r)
    return [x, (x[1], w[0] // attributes["group"] or 1, *w[2:])], attributes


def _sizes(r: Random) -> tuple[int, int, int]:
    m, k, n = (r.choice([1, 3, 8, 64, 1000, 1 << 16, 1 << 20, (1 << 31) + 8]) for _ in range(3))
    return m, k, n


def _multiplied(r: Random) -> Made:
    (m, k, n), batch = _sizes(r), r.choice([(), (), (3,), (1 << 20,), ((1 << 31) + 8,)])
    return [(*batch, m, k), (*(batch if r.random() < 0.5 else ()), k, n)], {}


def _gemm(r: Random) -> Made:
    (m, k, n), turned = _sizes(r), r.randint(0, 1)
    return [(k, m) if turned else (m, k), (k, n)], {"transA": turned}


def _bytes(r: Random) -> Made:
    m, k, n = _sizes(r)
    return [((m, k), U8), ((k, n), U8)], {}


def _attended(r: Random) -> Made:
    rows = (1, 4, 64, 1000, 1 << 20, (1 << 31) + 8)
    lead, size = (r.choice([1, 2, 16, 1 << 20]), r.choice([1, 12, 1 << 16])), r.choice([8, 64, 128])
    q, k = (*lead, r.choice(rows), size), (*lead, r.choice(rows), size)
    return [q, k, k], {"is_causal": r.randint(0, 1)}


def _turned(r: Random) -> Made:
    batch, heads, rows = (
        r.choice([1, 2, 1 << 20]),
        r.choice([1, 12, 1 << 16]),
        r.choice([1, 1000, 1 << 20, (1 << 31) + 8]),
    )
    return [(batch, heads, rows, 64), (batch, rows, 32), (batch, rows, 32)], {}


def _normalised(r: Random) -> Made:
    x = _some(r)
    return [x, x[-1:], x[-1:]], {}


def _images(channels: int = 0, **attributes: int) -> Callable[[Random], Made]:
    def make(r: Random) -> Made:
        x = _some(r, 3)
        return [x, *(x[1:2] for _ in range(channels))], attributes

    return make


def _sampled(r: Random) -> Made:
    x = _shape(r, 4)
    return [x, (x[0], r.choice(EXTENTS), 2, 2)], {}


def _regions(r: Random) -> Made:
    count = r.choice(EXTENTS)
    return [_shape(r, 4), (count, 4), ((count,), I64)], {"output_height": 2, "output_width": 2}


def _recurrent(r: Random) -> Made:
    steps, batch = (r.choice([1, 5, 1 << 20, (1 << 31) + 8]) for _ in range(2))
    return [(steps, batch, 8), (1, 8, 8), (1, 8, 2)], {"hidden_size": 2}


def _placed(r: Random) -> Made:
    x = _some(r)
    return [x, ((7, 1), I64), (7, *x[1:])], {"reduction": r.choice(["none", "add"])}


def _reversed(r: Random) -> Made:
    x = _shape(r, 3)
    return [x, ((x[1],), I64)], {}


CALLS: dict[str, Callable[[Random], Made]] = {
    "Transpose": _transpose, "Concat": _along(), "Slice": _slice, "Gather": _along(lambda r, _: ((r.choice([5, 1 << 31]),), I64)), "Split": _along(lambda _, extent: _list(1, extent - 1)),
    "Expand": lambda r: ([(1,), _list(*_some(r))], {}), "Tile": lambda r: ([x := _some(r), _list(*(r.choice([1, 2]) for _ in x))], {}), "Pad": lambda r: ([x := _some(r), _list(*(r.choice([0, 1, 5]) for _ in 2 * x))], {}),
    "DepthToSpace": lambda r: ([(r.choice(EXTENTS), 8, 3, r.choice(EXTENTS[:12]))], {"blocksize": 2}), "GatherND": lambda r: ([_some(r), ((7, 1), I64)], {}), "ScatterND": _placed, "ReverseSequence": _reversed,
    **dict.fromkeys(("ReduceSum", "ReduceMax", "ReduceMean", "ReduceLogSumExp"), _reduced), **dict.fromkeys(("Softmax", "LpNormalization", "ArgMax"), _along()),
    "TopK": _along(lambda r, extent: _list(r.choice([1, min(5, extent), extent]))), "CumSum": lambda r: ([x := _some(r), np.int64(r.randrange(len(x)))], {}), "LayerNormalization": _normalised,
    "InstanceNormalization": _images(2), "GroupNormalization": _images(2, num_groups=1), "LRN": _images(size=3), "GlobalAveragePool": _images(), "Det": lambda r: ([(r.choice(EXTENTS), 3, 3)], {}),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pooled), "Conv": _convolved, "ConvTranspose": _brought, "MatMul": _multiplied, "Gemm": _gemm, "MatMulInteger": _bytes, "Attention": _attended, "RotaryEmbedding": _turned,
    "GridSample": _sampled, "RoiAlign": _regions, "LSTM": _recurrent, "QuantizeLinear": lambda r: ([_some(r), np.float32(0.1), np.uint8(3)], {}),
}  # fmt: skip
STORED = {"MatMulInteger": I32, "QuantizeLinear": U8, "ArgMax": I64}
OUTPUTS = {"TopK": 2, "Split": 2}


def planned(r: Random, op: str) -> str:
    """What became of a random call: the kernel, or the reason."""
    inputs, attributes = CALLS[op](r)
    backend, form = Noting(), r.choice([F16, F16, F32, BF16])
    found = [given(backend, one, form) for one in inputs]
    if any(one is not None and one.size >= MOST for one in found):
        return "more than anybody has"
    outputs = [ir.Value(name=f"y{at}") for at in range(OUTPUTS.get(op, 1))]
    node = ir.node(op, [ir.Value(name=f"x{at}") for at in range(len(found))], attributes, outputs=outputs)
    formats = [STORED.get(op, form), *(I64 if op == "TopK" else form for _ in outputs[1:])]
    opset = 23 if op in ("Attention", "RotaryEmbedding") else 20
    try:
        asked_for(Queue(backend, opset, recording=True), Call(node, found, formats, opset))
    except Unsupported as why:
        assert str(why)
        return str(why)
    assert all(0 < blocks <= MAX_BLOCKS for _, blocks in backend.grids), (op, inputs, attributes, backend.grids)
    return backend.grids[-1][0] if backend.grids else "nothing"


@pytest.mark.parametrize("op", CALLS)
def test_any_size(op):
    random = Random(op)
    seen = {planned(random, op) for _ in range(40)}
    assert len(seen) > 1 or op in ("QuantizeLinear", "Expand", "Tile"), seen


if __name__ == "__main__":
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    random, ends = Random(seed), Counter[str]()
    for _ in range(count):
        name = random.choice([*CALLS])
        ends[f"{name}: {planned(random, name)}"] += 1
    print(*(f"{many:6} {end}" for end, many in sorted(ends.items())), sep="\n")
