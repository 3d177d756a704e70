"""Rows of more elements than 31 bits count, attention over as many keys and elements of a mask, places in tensors beyond them, copies from and to the
host and sums of pairs of billions of elements: what should come out follows from how what goes in was made, and only windows of it are looked at."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums.agreement import Agreements
from probe.engine.device.cuda.sums.counts import Counts
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.copies import filled
from probe.engine.device.cuda.tensors.formats import F16, F32
from probe.engine.device.pairs import Agreement, Measure, Rows
from probe.model import load

ROWS, COLUMNS = 65_600, 32_776  # 2^31 and a little
FEW, NARROW = 7, 72


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def large(request):
    """A backend, and whether it has room for what is large."""
    backend, is_gpu = request.getfixturevalue(request.param), request.param == "gpu"
    if is_gpu:
        request.getfixturevalue("make_room")(45 << 30)
    return backend, is_gpu


def run(folder, backend, text: str, feeds: dict[str, Any], precision: str, **weights: Any) -> Any:
    """What a network makes of its inputs, on kernels alone."""
    made = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]>\n{text}')
    for key, array in weights.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), key))
    onnx.save(made, folder / "large.onnx")
    engine = compile_model(load(folder / "large.onnx"), precision=precision)
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)

    def refuse(layer, reads, plan, *, wants_interior):
        raise AssertionError(f"{layer.name} would run on the CPU: {device.reasons[layer.name]}")

    device._on_cpu = refuse
    return engine(feeds)["y"]


ROW = {
    "mean": "r = ReduceMean <keepdims = 0> (f, last) y = Reshape (r, single)",
    "largest": "r = ReduceMax <keepdims = 0> (f, last) y = Reshape (r, single)",
    "softmax": "s = Softmax (f) r = Reshape (s, back) y = Gather (r, picked)",
}


@pytest.mark.parametrize("name", ROW)
def test_one_row(large, tmp_path, name):
    """Ones but in the rows at the end, a few of which lie beyond 2^31."""
    backend, is_gpu = large
    rows, columns = (ROWS, COLUMNS) if is_gpu else (FEW, NARROW)
    x = np.ones((rows, 1), np.float32)
    x[-max(rows // 1000, 1) :] = 3
    x[-1] = 5
    axes = "a,b" if name == "softmax" else "a"
    text = f"g (float[n,1] x, int64[k] picked) => (float[{axes}] y) {{ wide = Mul (x, c) f = Reshape (wide, whole) {ROW[name]} }}"
    picked = np.array([0, rows // 2, rows - 1])
    shapes = {"last": [1], "single": [1], "whole": [1, -1], "back": [-1, columns]}
    given = {key: np.array(one) for key, one in shapes.items() if f", {key})" in text}
    c = np.ones((1, columns), np.float32)
    actual = run(tmp_path, backend, text, {"x": x, "picked": picked}, "fp32", c=c, **given)
    if name == "softmax":
        parts = np.exp(x.astype(np.float64))
        wanted = (parts / (parts.sum() * columns))[picked]
        np.testing.assert_allclose(actual, np.broadcast_to(wanted, actual.shape), rtol=2e-4)
    else:
        np.testing.assert_allclose(actual, x.max() if name == "largest" else x.mean(dtype=np.float64), rtol=1e-4)


@pytest.mark.parametrize(
    ("precision", "count", "masked"),
    [
        ("fp32", 50_000, True),
        ("tf32", 50_000, True),
        ("fp16", 50_000, True),
        ("fp16", 100_000, False),
        ("fp32", 100_000, False),
    ],
)
def test_attention_of_long_rows(large, tmp_path, precision, count, masked):
    """Scores that would take 40 GB; a mask of more elements than 31 bits count."""
    backend, is_gpu = large
    count = count if is_gpu else 70
    random = np.random.default_rng(1)
    q, k, v = (random.uniform(-1, 1, (1, 1, count, 64)).astype(np.float16).astype(np.float32) for _ in range(3))
    m, across = (random.integers(-4, 4, shape).astype(np.float32) / 4 for shape in ((count, 1), (1, count)))
    scores = "mask = Mul (m, across) s = Add (p, mask)" if masked else "s = Mul (p, eighth)"
    text = f"""g (float[1,1,n,64] q, float[1,1,n,64] k, float[1,1,n,64] v, float[n,1] m, float[1,n] across) => (float[1,1,n,64] y) {{
        t = Transpose <perm = [0, 1, 3, 2]> (k) p = MatMul (q, t) {scores} w = Softmax (s) y = MatMul (w, v) }}"""
    weights = {} if masked else {"eighth": np.float32(0.125)}
    actual = run(tmp_path, backend, text, {"q": q, "k": k, "v": v, "m": m, "across": across}, precision, **weights)
    picked = [0, 1, count // 2, count - 1]
    found = q[0, 0, picked].astype(np.float64) @ k[0, 0].T
    found = found + m[picked] * across if masked else found / 8
    found = np.exp(found - found.max(1, keepdims=True))
    wanted = found / found.sum(1, keepdims=True) @ v[0, 0]
    off = np.abs(actual[0, 0, picked] - wanted).max() / np.abs(wanted).max()
    assert off <= {"fp32": 1e-4, "tf32": 5e-3, "fp16": 2e-2}[precision], off


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_query_over_many_keys(large, tmp_path, precision):
    """Keys and values of 2^31 elements and a little, all multiples of one: weights are those of a row of their factors."""
    backend, is_gpu = large
    keys = (1 << 25) + 4096 if is_gpu else 300
    random = np.random.default_rng(2)
    x = (random.integers(-64, 65, (keys, 1)) / 64).astype(np.float32)
    x[-5:] = 1
    c, q = (random.integers(-8, 9, shape).astype(np.float32) / 8 for shape in ((1, 64), (1, 1, 1, 64)))
    text = "g (float[n,1] x, float[1,1,1,64] q) => (float[1,1,1,64] y) { wide = Mul (x, c) k = Reshape (wide, heads) y = Attention <scale = 1.0> (q, k, k) }"
    actual = run(tmp_path, backend, text, {"x": x, "q": q}, precision, c=c, heads=np.array([1, 1, -1, 64]))
    scores = x[:, 0].astype(np.float64) * float((q[0, 0, 0] * c[0]).sum())
    weights = np.exp(scores - scores.max())
    wanted = (weights * x[:, 0]).sum() / weights.sum() * c[0]
    assert np.abs(actual[0, 0, 0] - wanted).max() <= (1e-3 if precision == "fp32" else 1e-2) * np.abs(wanted).max()


def test_places_behind_31_bits(large, tmp_path):
    """Of MaxPool, which counts them through the whole tensor."""
    backend, is_gpu = large
    rows, side = (ROWS, 64) if is_gpu else (FEW, 3)
    text = "g (float[n,1,1,1] x, int64[k] picked) => (int64[a,b,c,d] y) { wide = Mul (x, c) p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (wide) y = Gather (i, picked) }"
    c = np.random.default_rng(3).permutation(8 * side * side).reshape(1, 8, side, side).astype(np.float32)
    picked = np.array([0, rows // 2, rows - 1])
    actual = run(tmp_path, backend, text, {"x": np.ones((rows, 1, 1, 1), np.float32), "picked": picked}, "fp32", c=c)
    even = side // 2 * 2
    own = np.arange(c.size).reshape(c.shape)[:, :, :even, :even].reshape(8, even // 2, 2, even // 2, 2)
    own = own.transpose(0, 1, 3, 2, 4).reshape(8, even // 2, even // 2, 4)
    best = c.reshape(-1)[own].argmax(-1)
    wanted = np.take_along_axis(own, best[..., None], -1)[..., 0]
    np.testing.assert_array_equal(actual, wanted + picked.reshape(-1, 1, 1, 1) * c.size)


def test_there_and_back(large, tmp_path):
    """An input and an output of more bytes than 32 bits count."""
    backend, is_gpu = large
    count = (1 << 30) + (1 << 26) + 5 if is_gpu else 4099
    x = np.arange(count, dtype=np.uint32)
    x &= 2047
    x = x.astype(np.float32)
    actual = run(tmp_path, backend, "g (float[n] x) => (float[n] y) { y = Neg (x) }", {"x": x}, "fp32")
    assert actual.shape == x.shape
    for first in (0, count // 2, min(1 << 29, count), min(1 << 30, count) - 1000, count - 1000):
        part = slice(max(first, 0), max(first, 0) + 1000)
        np.testing.assert_array_equal(actual[part], -x[part])


def _pair(backend, queue, size: int) -> tuple[Any, Any, dict[int, tuple[float, float]]]:
    """FP16 and golden, ones but at a few places: what stands there."""
    actual, golden = queue.empty((size,), F16), queue.empty((size,), F32)
    filled(queue, actual, 1.0)
    filled(queue, golden, 1.0)
    odd = {0: (1.0, 1.5), size // 2: (-1.0, 1.0), size - 3: (1.0, 9.0), size - 2: (np.nan, 1.0), size - 1: (4.0, 1.0)}
    for at, (x, y) in odd.items():
        backend.upload(actual.address(backend) + 2 * at, np.array([x], np.float16).view(np.uint8))
        backend.upload(golden.address(backend) + 4 * at, np.array([y], np.float32).view(np.uint8))
    return actual, golden, odd


@pytest.mark.parametrize("rows", [Rows(), Rows(5), Rows(5, 8)], ids=["one", "items", "channels"])
def test_pairs(large, rows):
    """Sums, histograms and the largest errors of three billion pairs."""
    backend, is_gpu = large
    size = 3_000_000_000 if is_gpu else 12_000
    queue = Queue(backend, 18)
    actual, golden, odd = _pair(backend, queue, size)
    pairs, counts = Pairs(queue), Counts(queue)
    pairs.add(actual, golden, Measure(floor=1e-3, atol=1e-2, range_=9.0), rows, worst=True)
    counts.add(actual, golden, "float16", threshold=np.inf, range_=9.0)
    (found, worst), (histogram,) = pairs.fetch()[0], counts.fetch()
    plain = size - len(odd)
    there = {at: (x, y) for at, (x, y) in odd.items() if not np.isnan(x)}
    assert (found.count, found.compared, found.nan_actual, found.mismatched) == (size, size - 1, 1, len(odd))
    assert (found.max_abs, found.golden_max, found.actual_min, found.actual_max) == (8.0, 9.0, -1.0, 4.0)
    sums = {
        "abs_error": (0.0, lambda x, y: abs(x - y)),
        "dot": (1.0, lambda x, y: x * y),
        "golden_squared": (1.0, lambda x, y: y * y),
    }
    for name, (usual, of) in sums.items():
        assert getattr(found, name) == plain * usual + sum(of(*both) for both in there.values()), name
    wanted = sorted(there, key=lambda at: -abs(there[at][0] - there[at][1]))
    assert [one.place for one in worst] == wanted
    if rows.count > 1:
        assert [*found.item_error] == [0.5, 0.0, 2.0, 0.0, 8.0] and [*found.item_range] == [1.5, 1.0, 1.0, 1.0, 9.0]
    if rows.channels > 1:
        assert (found.channel_error[0], found.channel_error[7], found.channel_range[7]) == (0.5, 8.0, 9.0)
    bins, many = histogram.errors
    assert many[bins == 0].sum() == plain and many.sum() == size - 1


def test_pairs_of_images_as_they_lie(large):
    """Channels contiguous: places are those of the images in order."""
    backend, is_gpu = large
    items, pixels, channels = 5, 9_375_000 if is_gpu else 75, 64
    size = items * pixels * channels
    queue = Queue(backend, 18)
    actual, golden, odd = _pair(backend, queue, size)
    pairs = Pairs(queue)
    pairs.add(actual, golden, Measure(floor=1e-3, atol=1e-2), Rows(items, channels), worst=True, last=True)
    found, worst = pairs.fetch()[0]
    assert (found.compared, found.mismatched, found.max_abs) == (size - 1, len(odd), 8.0)
    assert [*found.item_error] == [0.5, 0.0, 2.0, 0.0, 8.0]
    plain = (size - len(odd)) + 1.5 - 1 + 9 + 4
    assert abs(found.dot - plain) <= 1e-9 * plain

    def in_order(at: int) -> int:
        pixel, channel = divmod(at, channels)
        return (pixel // pixels * channels + channel) * pixels + pixel % pixels

    places = {in_order(at): abs(x - y) for at, (x, y) in odd.items() if not np.isnan(x)}
    assert [one.place for one in worst] == sorted(places, key=lambda at: -places[at])
    wanted = np.zeros(channels)
    for at, (x, y) in odd.items():
        wanted[at % channels] = max(wanted[at % channels], 0 if np.isnan(x) else abs(x - y))
    np.testing.assert_array_equal(found.channel_error, wanted)


def test_rows_of_pairs(large):
    """Rows and columns beyond 2^31 elements."""
    backend, is_gpu = large
    cols = 1000
    size = (2_200_000 if is_gpu else 12) * cols
    queue = Queue(backend, 18)
    actual, golden, odd = _pair(backend, queue, size)
    agreements = Agreements(queue)
    rows, columns = agreements.rows(actual, golden, Agreement(cols)), agreements.columns(actual, golden, cols, np.inf)
    found, (error, extent) = agreements.rows_of(rows), agreements.columns_of(columns)
    # all but the last, where there is a NaN
    assert (found.rows, found.top1) == (size // cols, size // cols - 1)
    wanted = np.zeros(cols)
    for at, (x, y) in odd.items():
        wanted[at % cols] = max(wanted[at % cols], 0 if np.isnan(x) else abs(x - y))
    np.testing.assert_array_equal(error, wanted)
    assert extent[(size - 3) % cols] == 9


def test_memory_is_told_in_64_bits(large):
    """A tensor that begins more than 2^32 bytes into its memory."""
    backend, is_gpu = large
    size = (1 << 31) + 4096 if is_gpu else 1 << 13
    queue = Queue(backend, 18)
    whole = queue.empty((size,), F16)
    filled(queue, whole, 1.0)
    part = whole.part((4096,), 2 * (size - 4096))
    filled(queue, part, 2.0)
    assert isinstance(queue.at(part), ctypes.c_void_p) and (part.array(backend) == 2).all()
    assert (whole.part((4096,), 2 * (size - 8192)).array(backend) == 1).all()
