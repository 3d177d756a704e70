"""Tensors of more elements than 32 bits count, and more rows than a grid's second axis has blocks: made, read and left on the device.

Each network treats its rows alike and hands out a few of them, so that the CPU device says of those rows alone what they should be.
"""

from __future__ import annotations

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
FEW, NARROW = 5, 136  # on the host
# x has one number a row; c, of one row, makes it wide. What is behind "wide" is of all rows, what is picked of a few.
FLAT = "g (float[n,1] x, int64[k] picked) => ({kind}[a,b] y) {{ wide = Mul (x, c) {text} }}"
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
    "linear resize": (IMAGE, 's = Constant <value_floats = [1.0, 1.0, 1.5, 0.5]> () p = Resize <mode = "linear"> (wide, , s) y = Gather (p, picked)'),
    "average pool": (IMAGE, "p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (wide) y = Gather (p, picked)"),
    "batch": (IMAGE, "p = BatchNormalization (wide, e, e, e, positive) y = Gather (p, picked)"),
    "neighbours": (IMAGE, "p = LRN <size = 3> (wide) y = Gather (p, picked)"),
    "depth": (IMAGE, "p = DepthToSpace <blocksize = 2> (wide) y = Gather (p, picked)"),
    "triangle": (IMAGE, "p = Trilu (wide) y = Gather (p, picked)"),
    "samples": (IMAGE, 'g = Mul (x, grid) p = GridSample <padding_mode = "border"> (wide, g) y = Gather (p, picked)'),
    "slice": (
        FLAT, "s = Constant <value_ints = [3]> () e = Constant <value_ints = [-5]> () a = Constant <value_ints = [1]> () t = Slice (wide, s, e, a) r = Neg (t) y = Gather (r, picked)",
    ),
    "backwards": (
        FLAT, "s = Constant <value_ints = [-1]> () e = Constant <value_ints = [-1000000]> () a = Constant <value_ints = [1]> () r = Slice (wide, s, e, a, s) y = Gather (r, picked)",
    ),
    "split": (FLAT, "l, m = Split <axis = 1, num_outputs = 2> (wide) r = Sub (l, m) y = Gather (r, picked)"),
    "expand": (FLAT, "s = Shape (wide) t = Expand (x, s) r = Sub (t, wide) y = Gather (r, picked)"),
    "tile": (FLAT, "s = Constant <value_ints = [1, {columns}]> () r = Tile (x, s) y = Gather (r, picked)"),
    "place of the largest": (FLAT, "r = ArgMax <axis = 1> (wide) y = Gather (r, picked)"),
    "best": (FLAT, "k = Constant <value_ints = [5]> () r, i = TopK (wide, k) y = Gather (r, picked)"),
    "places of the best": (FLAT, "k = Constant <value_ints = [70]> () r, i = TopK (wide, k) y = Gather (i, picked)"),
    "hardmax": (FLAT, "r = Hardmax (wide) y = Gather (r, picked)"),
    "length": (FLAT, "r = LpNormalization (wide) y = Gather (r, picked)"),
    "tuples": (FLAT, "last = Constant <value_ints = [1]> () i = Unsqueeze (picked, last) y = GatherND (wide, i)"),
    "elements": (
        FLAT, "last = Constant <value_ints = [1]> () s = Constant <value_ints = [1, {columns}]> () i = Unsqueeze (picked, last) j = Expand (i, s) y = GatherElements (wide, j)",
    ),
    "placed": (
        FLAT, "last = Constant <value_ints = [1]> () i = Unsqueeze (picked, last) u = GatherND (wide, i) n = Neg (u) t = ScatterND (wide, i, n) y = Gather (t, picked)",
    ),
    "added": (
        FLAT, 'last = Constant <value_ints = [1]> () i = Unsqueeze (picked, last) u = GatherND (wide, i) t = ScatterND <reduction = "add"> (wide, i, u) y = Gather (t, picked)',
    ),
    "elements placed": (
        FLAT,
        (
            "last = Constant <value_ints = [1]> () s = Constant <value_ints = [1, {columns}]> () i = Unsqueeze (picked, last) j = Expand (i, s) "
            "u = GatherElements (wide, j) n = Neg (u) t = ScatterElements (wide, j, n) y = Gather (t, picked)"
        ),
    ),
    "reversed": (
        FLAT,
        (
            "h = Constant <value_float = 60.0> () a = Abs (x) m = Mul (a, h) j = Cast <to = 7> (m) last = Constant <value_ints = [1]> () i = Squeeze (j, last) "
            "r = ReverseSequence <batch_axis = 0, time_axis = 1> (wide, i) y = Gather (r, picked)"
        ),
    ),
    "cast": (FLAT, "h = Constant <value_float = 64.0> () m = Mul (wide, h) i = Cast <to = 6> (m) r = Cast <to = 1> (i) y = Gather (r, picked)"),
    "bytes": (
        FLAT, "h = Constant <value_float = 0.0078125> () z = Constant <value = uint8 {{7}}> () q = QuantizeLinear (wide, h, z) r = DequantizeLinear (q, h, z) y = Gather (r, picked)",
    ),
    "product of bytes": (
        FLAT, "h = Constant <value_float = 0.0078125> () z = Constant <value = uint8 {{7}}> () q = QuantizeLinear (wide, h, z) r = MatMulInteger (q, bytes, z) y = Gather (r, picked)",
    ),
    "one of many": (
        FLAT,
        (
            "h = Constant <value_float = 60.0> () a = Abs (x) m = Mul (a, h) j = Cast <to = 7> (m) last = Constant <value_ints = [1]> () i = Squeeze (j, last) "
            "d = Constant <value_int = {columns}> () v = Constant <value_floats = [0.0, 1.0]> () r = OneHot (i, d, v) y = Gather (r, picked)"
        ),
    ),
    "recurrent": (
        FLAT,
        (
            "s = Constant <value_ints = [-1, {eighth}, 8]> () f = Reshape (wide, s) t = Transpose <perm = [1, 0, 2]> (f) r, last = RNN <hidden_size = 2> (t, rw, rr) "
            "y = Gather <axis = 2> (r, picked)"
        ),
    ),
    # rows of which there are more than 2^28, of eight elements each, and more than 2^31, of one
    **{
        f"rows of {size}: {name}": (
            FLAT, f"many = Constant <value_ints = [-1, {size}]> () back = Constant <value_ints = [-1, {{{left}}}]> () f = Reshape (wide, many) {text} r = Reshape (p, back) y = Gather (r, picked)",
        )
        for size, name, left, text in (
            (8, "softmax", "columns", "p = Softmax (f)"), (8, "norm", "columns", "p = LayerNormalization (f, eight, eight)"), (8, "product", "columns", "p = MatMul (f, square)"),
            (8, "sum", "eighth", "last = Constant <value_ints = [1]> () p = ReduceSum (f, last)"), (8, "best", "quarter", "k = Constant <value_ints = [2]> () p, i = TopK (f, k)"),
            (8, "place of the largest", "eighth", "p = ArgMax <axis = 1> (f)"), (8, "cumsum", "columns", "one = Constant <value_int = 1> () p = CumSum (f, one)"),
            (8, "products", "eight of 17", "s = Constant <value_ints = [-1, 8, 17]> () g = Reshape (f, s) t = Transpose <perm = [0, 2, 1]> (g) p = MatMul (g, t)"),
            (8, "turned", "columns", "s = Constant <value_ints = [-1, 2, 4]> () g = Reshape (f, s) p = Transpose <perm = [0, 2, 1]> (g)"),
            (8, "determinant", "quarter", "s = Constant <value_ints = [-1, 2, 2]> () g = Reshape (f, s) p = Det (g)"),
            (1, "product", "columns", "p = MatMul (f, scalar)"), (1, "softmax", "columns", "p = Softmax <axis = 1> (f)"), (1, "norm", "columns", "p = LayerNormalization (f, single, single)"),
        )
    },
}  # fmt: skip
ONCE = [*NETWORKS][[*NETWORKS].index("linear resize") :]  # in one precision
CHANNELS = {
    "deep convolution": 64,
    "deep depthwise": 64,
    "strided convolution": 64,
    "grouped convolution": 32,
    "points": 64,
    "patches": 3,
}  # else 8
KINDS = {
    "place of the largest": "int64",
    "rows of 8: place of the largest": "int64",
    "places of the best": "int64",
    "product of bytes": "int32",
}
NEAR = {"fp32": 1e-4, "tf32": 4e-3, "fp16": 4e-3, "bf16": 3e-2}  # of the largest; sums of 32776 columns


def network(folder, name: str, columns: int) -> Any:
    form, text = NETWORKS[name]
    channels = CHANNELS.get(name, 8)
    side = max(math.ceil((columns / channels) ** 0.5), 2)
    random = np.random.default_rng(3)
    shapes = {
        "c": (1, columns) if form is FLAT else (1, channels, side, side + 1), "w": (columns, 16), "v": (channels, channels, 3, 3),
        "d": (channels, 1, 3, 3), "h": (channels, channels // 2, 3, 3), "u": (channels, channels, 1, 1), "seven": (16, channels, 7, 7), "e": (channels,),
        "positive": (channels,), "grid": (1, 4, 5, 2), "bytes": (columns, 16), "rw": (1, 2, 8), "rr": (1, 2, 2), "eight": (8,), "square": (8, 8), "scalar": (1, 1), "single": (1,),
    }  # fmt: skip
    parts = {"columns": columns, "eight of 17": columns * 8 // 17, "quarter": columns // 4, "eighth": columns // 8}
    made = onnx.parser.parse_model(HEAD + form.format(text=text.format(**parts), kind=KINDS.get(name, "float")))
    computed = {name for node in made.graph.node for name in node.output}
    for key, shape in shapes.items():
        if key not in computed and any(key in node.input for node in made.graph.node):
            array = random.uniform(-1, 1, shape).astype(np.float32)
            array = (
                abs(array) + 0.1 if key == "positive" else (array * 100).astype(np.uint8) if key == "bytes" else array
            )
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
        if golden.dtype.kind != "f":
            assert np.array_equal(actual, golden)
            continue
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
        if (one != "tf32" or "Conv" in text) and (one == "fp16" or name not in ONCE)
    ],
)
def test_more_than_32_bits_count(gpu, make_room, tmp_path, name, precision):
    make_room(6 * ROWS * COLUMNS * 4)
    check(tmp_path, name, precision, gpu, ROWS, COLUMNS)
