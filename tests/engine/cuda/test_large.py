"""Tensors of more elements than 32 bits count, and more rows than a grid's second axis has blocks: made, read and left on the device.

Each network treats its rows alike and hands out a few of them, so that the CPU device says of those rows alone what they should be.
"""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
ROWS, COLUMNS = 65_600, 32_776  # 2^31 and a little
FEW, NARROW = 5, 72  # on the host
# x has one number a row; c, of one row, makes it wide. What is behind "wide" is of all rows, what is picked of a few.
FLAT = "g (float[n,1] x, int64[k] picked) => (float[a,b] y) {{ wide = Mul (x, c) {text} }}"
IMAGE = "g (float[n,1,1,1] x, int64[k] picked) => (float[a,b,c1,c2] y) {{ wide = Mul (x, c) {text} }}"
NETWORKS = {
    "pointwise": (FLAT, "r = Sigmoid (wide) y = Gather (r, picked)"),
    "columns": (FLAT, "r = Add (wide, c) s = Mul (r, x) y = Gather (s, picked)"),
    "reduce": (FLAT, "last = Constant <value_ints = [1]> () r = ReduceSum (wide, last) y = Gather (r, picked)"),
    "largest": (FLAT, "last = Constant <value_ints = [1]> () r = ReduceMax (wide, last) y = Gather (r, picked)"),
    "softmax": (FLAT, "r = Softmax (wide) y = Gather (r, picked)"),
    "norm": (FLAT, "r = LayerNormalization (wide, c, c) y = Gather (r, picked)"),
    "transpose": (FLAT, "t = Transpose <perm = [1, 0]> (wide) y = Gather <axis = 1> (t, picked)"),
    "concat": (FLAT, "r = Relu (wide) t = Concat <axis = 1> (r, wide) y = Gather (t, picked)"),
    "cumsum": (FLAT, "one = Constant <value_int = 1> () r = CumSum (wide, one) y = Gather (r, picked)"),
    "pad": (FLAT, "p = Constant <value_ints = [0, 3, 0, 5]> () r = Pad (wide, p) y = Gather (r, picked)"),
    "where": (FLAT, "b = Less (wide, x) r = Where (b, wide, x) y = Gather (r, picked)"),
    "wide product": (FLAT, "f = Flatten (x) p = MatMul (f, c) r = Relu (p) y = Gather (r, picked)"),
    "long product": (FLAT, "p = MatMul (wide, w) y = Gather (p, picked)"),
    "products": (IMAGE, "t = Transpose <perm = [0, 1, 3, 2]> (wide) p = MatMul (wide, t) y = Gather (p, picked)"),
    "attention": (
        IMAGE, "t = Transpose <perm = [0, 1, 3, 2]> (wide) p = MatMul (wide, t) s = Softmax (p) q = MatMul (s, wide) y = Gather (q, picked)",
    ),
    "convolution": (
        IMAGE, "p = Conv <pads = [1, 1, 1, 1]> (wide, v) r = Relu (p) q = GlobalAveragePool (r) y = Gather (q, picked)",
    ),
    "depthwise": (IMAGE, "p = Conv <group = 8, pads = [1, 1, 1, 1]> (wide, d) y = Gather (p, picked)"),
    "deep convolution": (IMAGE, "p = Conv <pads = [1, 1, 1, 1]> (wide, v) r = Relu (p) y = Gather (r, picked)"),
    "deep depthwise": (IMAGE, "p = Conv <group = 64, pads = [1, 1, 1, 1]> (wide, d) y = Gather (p, picked)"),
    "strided convolution": (IMAGE, "p = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (wide, v) y = Gather (p, picked)"),
    "grouped convolution": (IMAGE, "p = Conv <group = 2, pads = [1, 1, 1, 1]> (wide, h) y = Gather (p, picked)"),
    "points": (IMAGE, "p = Conv (wide, u) r = Add (p, wide) y = Gather (r, picked)"),
    "patches": (IMAGE, "p = Conv <pads = [3, 3, 3, 3], strides = [2, 2]> (wide, seven) y = Gather (p, picked)"),
    "transposed convolution": (IMAGE, "p = ConvTranspose <pads = [1, 1, 1, 1]> (wide, v) y = Gather (p, picked)"),
    "pool": (IMAGE, "p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (wide) y = Gather (p, picked)"),
    "global pool": (IMAGE, "p = GlobalAveragePool (wide) y = Gather (p, picked)"),
    "instance": (IMAGE, "p = InstanceNormalization (wide, e, e) y = Gather (p, picked)"),
    "resize": (IMAGE, 's = Constant <value_floats = [1.0, 1.0, 2.0, 1.0]> () p = Resize <mode = "nearest"> (wide, , s) y = Gather (p, picked)'),
}  # fmt: skip
CHANNELS = {
    "deep convolution": 64,
    "deep depthwise": 64,
    "strided convolution": 64,
    "grouped convolution": 32,
    "points": 64,
    "patches": 3,
}  # else 8
NEAR = {"fp32": 1e-4, "tf32": 4e-3, "fp16": 4e-3, "bf16": 3e-2}  # of the largest; sums of 32776 columns


def network(folder, name: str, columns: int) -> Any:
    form, text = NETWORKS[name]
    channels = CHANNELS.get(name, 8)
    side = max(math.ceil((columns / channels) ** 0.5), 2)
    random = np.random.default_rng(3)
    shapes = {
        "c": (1, columns) if form is FLAT else (1, channels, side, side + 1), "w": (columns, 16), "v": (channels, channels, 3, 3),
        "d": (channels, 1, 3, 3), "h": (channels, channels // 2, 3, 3), "u": (channels, channels, 1, 1), "seven": (16, channels, 7, 7), "e": (channels,),
    }  # fmt: skip
    made = onnx.parser.parse_model(HEAD + form.format(text=text))
    for key, shape in shapes.items():
        if any(key in node.input for node in made.graph.node):
            array = random.uniform(-1, 1, shape).astype(np.float32)
            made.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    onnx.save(made, folder / "large.onnx")
    return load(folder / "large.onnx")


def check(folder, name: str, precision: str, backend, rows: int, columns: int) -> None:
    model = network(folder, name, columns)
    engine = compile_model(model, precision=precision)
    random = np.random.default_rng(4)
    x = random.uniform(-1, 1, (rows, *[1] * (len(model.inputs[0].shape or ()) - 1))).astype(np.float32)
    picked = np.array([0, rows // 2, rows - 2, rows - 1])
    golden = engine({"x": x[picked], "picked": np.arange(len(picked))})["y"]
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    engine.device = device

    def refuse(layer, reads, plan, *, wants_interior):
        raise AssertionError(f"{layer.name} would run on the CPU: {device.reasons[layer.name]}")

    device._on_cpu = refuse
    for _ in range(2):  # recorded, then repeated
        actual = engine({"x": x, "picked": picked})["y"]
        assert actual.shape == golden.shape and actual.dtype == golden.dtype
        off = np.abs(actual.astype(np.float64) - golden).max() / np.abs(golden).max()
        assert off <= NEAR[precision], off


@pytest.mark.parametrize("name", NETWORKS)
def test_few_rows(host, tmp_path, name):
    check(tmp_path, name, "fp16", host, FEW, NARROW)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (name, one)
        for name, (_, text) in NETWORKS.items()
        for one in ("fp16", "tf32", "fp32")
        if one != "tf32" or "Conv" in text
    ],
)
def test_more_than_32_bits_count(gpu, tmp_path, name, precision):
    gc.collect()  # networks of earlier tests hold tens of gigabytes
    if gpu.room() < 6 * ROWS * COLUMNS * 4:
        pytest.skip("not enough memory on the GPU")
    check(tmp_path, name, precision, gpu, ROWS, COLUMNS)
