"""Generated code: what is read, rounded and written, and that fusing changes no bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.layers.chain import Operand, Step, Walk, chain_source, plan_walk
from probe.engine.device.cuda.layers.expressions import literal
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, packed, unpacked
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.model import load

TEXT = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,6,8] x, float[8] row, float[6,1] column) => (float[2,6,8] y, float[2,6,8] z)
<float three = {3.0}>
{ a = Mul (x, row)  b = Add (a, column)  c = Sigmoid (b)  d = Mul (b, c)  e = Sub (d, three)  y = Tanh (e)  z = Mul (d, d) }"""


def test_a_chain_reads_and_writes_each_tensor_once():
    operands = (Operand("x0", F16, "", "dense"), Operand("x1", F32, "f16", "fixed"))
    steps = (Step("v0", "float", "op_add(x0, x1)", "f16"), Step("v1", "float", "op_relu(v0)", "f16", F16))
    text = chain_source(operands, steps, Walk((4, 8), 8, wide=False), (True, False)).text
    assert text.count("*(const Pack<f16, N>*)") == 1 and text.count("*(Pack<f16, N>*)") == 1
    assert "float x1 = round_f16(read(x1_in));" in text
    assert "float v0 = round_f16(op_add(x0, x1));" in text
    assert "v0_out" not in text and "i64" not in text


def test_the_code_does_not_depend_on_sizes():
    operands, steps = (Operand("x0", F32, "", "dense"),), (Step("v0", "float", "op_relu(x0)", "", F32),)
    assert chain_source(operands, steps, Walk((64,), 4, wide=False), (True,)) is chain_source(
        operands, steps, Walk((128,), 4, wide=False), (True,)
    )
    assert "i64 vectors" in chain_source(operands, steps, Walk((1 << 40,), 4, wide=True), (True,)).text


def test_literals_are_exact():
    assert literal(0.5) == "__uint_as_float(0x3f000000u)" and literal(float("-inf")) == "__uint_as_float(0xff800000u)"


@pytest.mark.parametrize("fmt", [F16, BF16])
def test_packing_keeps_what_is_representable(fmt):
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = unpacked(bits.view(np.uint8), fmt, bits.shape)
    assert values.dtype == np.float32
    known = ~np.isnan(values)
    assert np.array_equal(packed(values, fmt).view(np.uint16)[known], bits[known])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("interior", ["storage", "fp32"])
def test_fusing_changes_no_bit(backend, tmp_path, precision, interior):
    """The same nodes as one kernel and as a kernel each, rounded at the same places; looking at them changes nothing."""
    onnx.save(onnx.parser.parse_model(TEXT), tmp_path / "m.onnx")
    random = np.random.default_rng(0)
    feeds = {
        "x": random.standard_normal((2, 6, 8), dtype=np.float32), "row": random.standard_normal(8, dtype=np.float32),
        "column": random.standard_normal((6, 1), dtype=np.float32),
    }  # fmt: skip
    results, launches = [], []
    for fusion in ("none", "full"):
        engine = compile_model(load(tmp_path / "m.onnx"), precision=precision, fusion=fusion, interior=interior)
        device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        engine.device = device
        results.append(engine(feeds))
        launches.append(sum(device.queue.launches.values()))
        taps = {}
        tapped = engine.run(feeds, tap=lambda t, taps=taps: taps.update({t.name: t.array}))
        assert all(np.array_equal(tapped[name], results[-1][name]) for name in tapped)
        if interior == "storage":
            assert {"a", "b", "c", "d", "e", "y", "z"} <= taps.keys()
        assert not device.fallen
    assert launches[1] < launches[0]
    if interior == "storage" or precision == "fp32":
        assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


def test_divisors_that_stay_the_same_divide_as_others_do(backend):
    """Every class of floats: the bits of x / y."""
    random = np.random.default_rng(3)
    queue = Queue(backend, 18)
    bits = random.integers(0, 1 << 32, 1 << 15, dtype=np.uint32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -3e-45, 1e-38, 3.4e38, 1.0, -5.0]
    x = np.concatenate(
        [
            bits.view(np.float32),
            np.array(special, np.float32),
            random.standard_normal(1 << 12).astype(np.float32) * 1e-38,
        ]
    )
    few = (random.integers(1, 1 << 12, 1 << 12).astype(np.float32) * np.float32(2.0**-148)).astype(np.float32)  # ties
    x = np.concatenate([x, few]).astype(np.float32)
    divisors = (2**0.5, 8.0, 3.0, -7.0, 2.0**-126, 1e-42, 3e38, 0.0, float("inf"), 2.0**-149 * 3, 2.0**30 * 3)
    for divisor in divisors:
        readings = [("x", Reading(host_tensor(x))), ("y", Reading(host_tensor(np.array(divisor, np.float32))))]
        (made,) = run_steps(queue, x.shape, readings, [Step("z", "float", "float(op_div(x, y))", "", F32)])
        with np.errstate(all="ignore"):
            expected = x / np.float32(divisor)
        found = made.array(backend)
        same = (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))
        assert same.all(), (divisor, x[~same][:3], found[~same][:3], expected[~same][:3])
    walk = plan_walk((64,), [(1,)], 4, 64)
    operands = (Operand("x", F32, "", "dense"), Operand("y", F32, "", "fixed"), Operand("w", F32, "", "dense"))
    steps = (Step("z", "float", "float(op_div(x, y))"), Step("v", "float", "float(op_div(z, w))", "", F32))
    text = chain_source(operands, steps, walk, (True, False, True)).code
    assert "op_div_by(x, y_by)" in text and "op_div(z, w)" in text
