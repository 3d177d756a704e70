"""Pointwise nodes inside products and convolutions: the bits of one kernel after the other, with any kernel, shape and type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.products.ending import regrouped
from probe.engine.device.cuda.ops.products.product_shape import product_shape
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor


@dataclass(frozen=True)
class Tailed:
    """A product, and what is read beside it."""

    op: str
    inputs: tuple[tuple[int, ...], ...]
    beside: tuple[tuple[int, ...], ...]
    attributes: tuple[tuple[str, Any], ...] = ()


CASES = {
    "rows": Tailed("MatMul", ((33, 40), (40, 24)), ((33, 24), (24,))),
    "odd": Tailed("MatMul", ((33, 40), (40, 27)), ((33, 27), (33, 1))),
    "taller": Tailed("MatMul", ((2, 9, 16), (16, 8)), ((2, 9, 8), (8,))),
    "mask": Tailed("MatMul", ((2, 3, 16, 8), (2, 3, 8, 16)), ((2, 1, 1, 16), (1, 3, 16, 16))),
    "one for each": Tailed("MatMul", ((2, 9, 16), (16, 8)), ((2, 1, 8), (2, 1, 1))),
    "gemm": Tailed("Gemm", ((40, 64), (56, 64), (56,)), ((40, 56), (56,)), (("transB", 1), ("alpha", 0.5))),
    "window": Tailed("Conv", ((2, 8, 9, 8), (24, 8, 3, 3), (24,)), ((2, 24, 9, 8), (24, 1, 1)), (("pads", [1, 1, 1, 1]),)),
    "groups": Tailed("Conv", ((2, 16, 6, 5), (32, 8, 3, 3)), ((2, 32, 4, 3), (1, 32, 1, 1)), (("group", 2),)),
    "depthwise": Tailed("Conv", ((2, 8, 6, 5), (8, 1, 3, 3)), ((2, 8, 4, 3), (8, 1, 1)), (("group", 8),)),
    "pixels": Tailed("Conv", ((2, 16, 4, 4), (24, 16, 1, 1), (24,)), ((2, 24, 4, 4), (24, 1, 1))),
}  # fmt: skip
LARGE = {
    "large": Tailed("MatMul", ((1500, 776), (776, 1416)), ((1500, 1416), (1416,))),
    "large mask": Tailed("MatMul", ((4, 3, 136, 64), (4, 3, 64, 136)), ((4, 1, 1, 136), (4, 3, 136, 136))),
    "large odd": Tailed("Gemm", ((328, 264), (203, 264), (203,)), ((328, 203), (203,)), (("transB", 1),)),
    "large split": Tailed("Gemm", ((72, 2048), (136, 2048), (136,)), ((72, 136), (136,)), (("transB", 1),)),
    "depthwise 16": Tailed("Conv", ((3, 24, 15, 13), (24, 1, 3, 3), (24,)), ((3, 24, 8, 7), (24, 1, 1)), (("pads", [1, 1, 1, 1]), ("strides", [2, 2]), ("group", 24))),
    "strides": Tailed("Conv", ((3, 24, 15, 13), (40, 24, 3, 3), (40,)), ((3, 40, 8, 7), (40, 1, 1)), (("pads", [1, 1, 1, 1]), ("strides", [2, 2]))),
    "dilated": Tailed("Conv", ((2, 72, 17, 9), (136, 72, 3, 2)), ((1, 136, 1, 1), (2, 1, 11, 9)), (("pads", [0, 1, 0, 1]), ("dilations", [3, 2]))),
    "uneven pads": Tailed("Conv", ((2, 64, 10, 12), (64, 64, 5, 4)), ((2, 64, 9, 12), (64, 1, 1)), (("pads", [1, 2, 2, 1]),)),
    "strided pixels": Tailed("Conv", ((4, 64, 14, 14), (128, 64, 1, 1), (128,)), ((4, 128, 7, 7), ()), (("strides", [2, 2]),)),
    "seven": Tailed("Conv", ((5, 128, 7, 7), (64, 128, 3, 3), (64,)), ((5, 64, 7, 7), (64, 1, 1)), (("pads", [1, 1, 1, 1]),)),
    "large window": Tailed("Conv", ((8, 64, 28, 28), (136, 64, 3, 3), (136,)), ((8, 136, 28, 28), (136, 1, 1)), (("pads", [1, 1, 1, 1]),)),
}  # fmt: skip


def check(backend, case: Tailed, stored: Format, rounded: bool) -> None:
    """relu(product + x0) * x1, what is between rounded or not, and every step stored."""
    queue, random = Queue(backend, 18), np.random.default_rng(2)
    made = [random.standard_normal(shape, dtype=np.float32) for shape in (*case.inputs, *case.beside)]
    tensors = [queue.convert(host_tensor(one), stored) for one in made]
    count = len(case.inputs)
    node = ir.node(case.op, [ir.Value(name=f"i{at}") for at in range(count)], dict(case.attributes))
    call = Call(node, tensors[:count], [F32], 18)
    rounding = stored.name if rounded and stored is not F32 else ""
    readings = [("x0", Reading(tensors[count])), ("x1", Reading(tensors[count + 1]))]
    steps = (
        Step("p", "float", "sum", rounding, F32),
        Step("v0", "float", "op_add(p, x0)", rounding, stored if rounding else None),
        Step("v1", "float", "op_relu(v0)", rounding),
        Step("v2", "float", "op_mul(v1, x1)", rounding, stored if rounding else F32),
    )
    (wide,) = OPS[case.op].compute(queue, call)
    assert wide is not None
    expected = run_steps(queue, product_shape(call), [("sum", Reading(wide)), *readings], steps)
    tailed = OPS[case.op].tailed
    assert tailed is not None
    found = tailed(queue, call, readings, steps)
    assert len(found) == len(expected)
    for actual, golden in zip(found, expected, strict=True):
        assert actual.format is golden.format and actual.shape == golden.shape
        assert np.array_equal(actual.array(backend), golden.array(backend))


@pytest.mark.parametrize("name", CASES)
def test_an_ending_changes_no_bit(backend, name):
    on_host = backend.name == "host"  # where compiling takes longest
    for stored in (F16,) if on_host and name != "rows" else (F16, BF16, F32):
        for rounded in (True,) if on_host else (True, False):
            check(backend, CASES[name], stored, rounded)


@pytest.mark.gpu
@pytest.mark.parametrize("stored", [F16, BF16, F32], ids=lambda one: one.name)
@pytest.mark.parametrize("name", LARGE)
def test_a_large_ending_changes_no_bit(gpu, name, stored):
    check(gpu, LARGE[name], stored, rounded=True)


@pytest.mark.parametrize(
    ("shape", "strides", "target", "expected"),
    [
        ((2, 3, 4), (12, 4, 1), (6, 4), (4, 1)), ((2, 3, 4), (0, 0, 1), (6, 4), (0, 1)), ((2, 3, 4), (3, 1, 0), (1, 6, 4), (0, 1, 0)),
        ((2, 6, 4), (24, 4, 1), (2, 2, 3, 4), (24, 12, 4, 1)), ((1, 6), (0, 1), (6, 1), (1, 0)), ((4, 1, 1), (1, 0, 0), (2, 2), (2, 1)),
    ],
)  # fmt: skip
def test_regrouping(shape, strides, target, expected):
    assert regrouped(shape, strides, target) == expected


@pytest.mark.parametrize(
    ("shape", "strides", "target"), [((2, 3, 4), (4, 0, 1), (6, 4)), ((2, 3), (3, 1), (3, 2)), ((6,), (1,), (4,))]
)
def test_what_lies_unevenly_is_refused(shape, strides, target):
    with pytest.raises(Unsupported):
        regrouped(shape, strides, target)
