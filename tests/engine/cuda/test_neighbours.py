"""Chains on two neighbours at once: for every value of a format the bits of float, rounded once more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.engine.device.cuda.layers.chain import Operand, Step, Walk, chain_source
from probe.engine.device.cuda.layers.neighbours import both_lines, format_of_all
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, unpacked
from probe.engine.device.cuda.tensors.tensor import host_tensor

EVERY = np.arange(1 << 16, dtype=np.uint16)
# With few and with many digits, at both ends of the exponents and outside of them; by 14, 30, 82 and 94 a product with the rounded reciprocal is not enough
DIVISORS = (1.4140625, 14.0, 30.0, 82.0, 94.0, 3.0, -6.0, 49.0, 7.0, 2.0**-14, 2.0**-24, 3 * 2.0**-24, 1.9990234375, 65504.0, 2.0**-133, 3 * 2.0**-130, 2.0**127, 1.9921875 * 2.0**127,
            1.5 * 2.0**126, 0.0, -0.0, math.inf, math.nan)  # fmt: skip


def rounded(values, stored):
    """To nearest even."""
    if stored is F16:
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = values.astype(np.float32).view(np.uint32)
    near = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), np.float32(np.nan), near.view(np.float32))


def same(found, golden) -> bool:
    """To the sign of zero; NaN is NaN."""
    known = ~np.isnan(golden)
    return bool(
        np.array_equal(np.isnan(found), ~known)
        and np.array_equal(found.view(np.uint32)[known], golden.view(np.uint32)[known])
    )


@pytest.mark.parametrize("stored", [F16, BF16], ids=lambda one: one.name)
def test_every_value_gives_the_bits_of_float(backend, stored):
    queue = Queue(backend, 18)
    x = unpacked(EVERY.view(np.uint8), stored, EVERY.shape)
    y = unpacked(np.random.default_rng(3).permutation(EVERY).view(np.uint8), stored, EVERY.shape)
    texts = (
        "op_erf(x0)", "float(op_div(x0, x1))", "float(op_add(x0, x2))", "float(op_sub(x0, x2))", "float(op_mul(x0, x2))",
        "float(op_mul(v0, x2))", "op_relu(x0)", "float(op_div(x1, x0))",
        "op_clip<float>(x0, x2, x1)",
    )  # fmt: skip
    steps = [Step(f"v{at}", "float", text, stored.name, F32) for at, text in enumerate(texts)]
    erf = rounded(np.array([math.erf(float(one)) for one in x]), stored)
    for divisor in DIVISORS:
        by = rounded(np.array([divisor], np.float32), stored)[0]
        readings = [
            (f"x{at}", Reading(queue.convert(host_tensor(np.asarray(one)), stored)))
            for at, one in enumerate((x, by, y))
        ]
        found = run_steps(queue, x.shape, readings, steps)
        with np.errstate(all="ignore"):
            golden = [erf, x / by, x + y, x - y, x * y, erf * y, np.where(x < 0, np.float32(0), x), by / x]
            low = np.where(x < y, y, x)
            golden.append(np.where(low > by, by, low))
        for step, actual, expected in zip(steps, found, golden, strict=True):
            assert same(actual.array(backend), rounded(expected, stored)), (step.expression, divisor)


@pytest.mark.gpu
@pytest.mark.parametrize("stored", [F16, BF16], ids=lambda one: one.name)
def test_erf_is_that_of_float_rounded(gpu, stored):
    queue = Queue(gpu, 18)
    x = unpacked(EVERY.view(np.uint8), stored, EVERY.shape)
    (wide,) = run_steps(queue, x.shape, [("x0", Reading(host_tensor(x)))], [Step("v0", "float", "op_erf(x0)", "", F32)])
    erf = rounded(np.array([math.erf(float(one)) for one in x]), stored)
    assert same(rounded(wide.array(gpu), stored), erf)


def test_what_is_one_instruction_for_both():
    """Sums of low values; products in f16 alone; not what is not rounded, or read wide."""
    steps = [
        Step("v0", "float", "float(op_add(sum, x0))", "f16"), Step("v1", "float", "float(op_add(v0, x0))", "f16", F16),
        Step("v2", "float", "float(op_mul(v1, v0))", "f16"), Step("v3", "bool", "op_less(v2, x1)"),
        Step("v4", "float", "op_where<float>(v3, v1, x1)", "f16", F32),
    ]  # fmt: skip
    operands = (Operand("x0", F16, "", "dense"), Operand("x1", F32, "", "strided"))
    lines = both_lines(operands, steps, ("sum",))
    assert "unsigned v0_2 = side_by_side(float(op_add(sum_a, x0_a)), float(op_add(sum_b, x0_b)), f16());" in lines
    assert "unsigned v1_2 = pair_plus(v0_2, x0_2, f16());" in lines
    assert "*(unsigned*)&v1_out.lane[n] = v1_2;" in lines
    assert "unsigned v2_2 = pair_times(v1_2, v0_2, f16());" in lines
    assert "bool v3_a = op_less(v2_a, x1_a), v3_b = op_less(v2_b, x1_b);" in lines
    assert "write(v4_out.lane[n + 1], v4_b);" in lines
    assert (
        both_lines(operands[:1], [Step("v0", "float", "op_relu(x0)", "f16")])[2]
        == "unsigned v0_2 = pair_relu(x0_2, f16());"
    )
    low = [Step(one.name, one.type, one.expression, "bf16") for one in steps[1:3]]
    assert not any("pair_times" in line for line in both_lines((Operand("v0", BF16, "", "dense"), operands[0]), low))


def test_chains_of_one_format_have_neighbours():
    low, other = Step("v0", "float", "op_relu(x0)", "f16"), Step("v1", "float", "op_relu(v0)", "bf16", BF16)
    assert format_of_all([low]) == "f16" and not format_of_all([low, other])
    assert not format_of_all([Step("v0", "float", "op_relu(x0)", "", F32)])
    operands = (Operand("x0", F32, "", "dense"),)
    assert "n += 2" not in chain_source(operands, (low, other), Walk((64,), 4, wide=False), (True,)).text
