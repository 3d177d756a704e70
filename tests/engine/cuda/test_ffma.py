"""Products and convolutions in FP32 by fused multiply-adds: every tile gives the same bits, whatever its operands' order, alignment and edges."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions.conv_nhwc import conv, refusal
from probe.engine.device.cuda.ops.convolutions.window import window_of
from probe.engine.device.cuda.ops.products.ending import storing, through
from probe.engine.device.cuda.ops.products.ffma import TACTICS, Ffma, choose, clusters, microseconds
from probe.engine.device.cuda.ops.products.matmul import TILES, product, run
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from tests.engine.cuda import cases
from tests.engine.cuda.assembled import assembled
from tests.engine.cuda.compared import check
from tests.engine.cuda.null_backend import NullBackend

WHOLE = [one for one in TACTICS if one.splits == 1]
MANY = 132

# m, n, k; whether the lines of a lie along k, those of b along n
PROBLEMS = (
    (70, 72, 68, 1, 1),
    (33, 27, 19, 1, 1),
    (5, 136, 300, 1, 0),
    (130, 200, 40, 0, 1),
    (33, 27, 19, 0, 0),
    (72, 68, 64, 0, 0),
    (1, 1, 1, 1, 1),
)


def multiplied(backend, problem, tile, batch: int = 1):
    """A product on a tile, and in FP64."""
    m, n, k, by_k, by_n = problem
    queue, random = Queue(backend, 18), np.random.default_rng(0)
    a = random.standard_normal((batch, *((m, k) if by_k else (k, m))), dtype=np.float32)
    b = random.standard_normal((batch, *((k, n) if by_n else (n, k))), dtype=np.float32)
    y = queue.empty((batch, m, n), F32)
    left = Matrices(host_tensor(a), (m * k,), *((k, 1) if by_k else (1, m)))
    right = Matrices(host_tensor(b), (n * k,), *((n, 1) if by_n else (1, k)))
    product(queue, left, right, y, k, tile=tile)
    exact = (a if by_k else a.swapaxes(1, 2)).astype(np.float64) @ (b if by_n else b.swapaxes(1, 2))
    return y.array(backend), exact, list(queue.launches)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_a_tile_changes_no_bit(backend, problem):
    expected, exact, launched = multiplied(backend, problem, TILES[-1])
    assert launched == ["matmul_simt"]
    assert np.abs(expected - exact).max() < 1e-6 * problem[2]
    for tile in WHOLE if backend.name != "host" else (Ffma(32, 32, 4, 4), Ffma(128, 256, 8, 16)):
        found, _, launched = multiplied(backend, problem, tile)
        assert launched == ["matmul_ffma"]
        assert np.array_equal(found, expected), tile


def test_batches(backend):
    expected, _, _ = multiplied(backend, (40, 36, 44, 1, 0), TILES[-1], batch=3)
    found, _, _ = multiplied(backend, (40, 36, 44, 1, 0), None, batch=3)
    assert np.array_equal(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "problem", [(70, 72, 2052, 1, 1), (33, 27, 515, 1, 1), (130, 200, 1000, 0, 1), (72, 68, 640, 0, 0)], ids=str
)
def test_ranges_of_k_are_added_in_order(gpu, problem):
    """Tiles that cut k alike give the same bits, which are those of the ranges added one after the other."""
    k = problem[2]
    for splits in sorted({one.splits for one in TACTICS if one.splits > 1}):
        units = -(-k // 32)
        ends = [min(k, units * at // splits * 32) for at in range(splits + 1)]
        queue, random, (m, n, _, by_k, by_n) = Queue(gpu, 18), np.random.default_rng(0), problem
        a = random.standard_normal((m, k) if by_k else (k, m), dtype=np.float32)
        b = random.standard_normal((k, n) if by_n else (n, k), dtype=np.float32)
        total = None
        for first, last in pairwise(ends):
            part_a = np.ascontiguousarray(a[:, first:last] if by_k else a[first:last])
            part_b = np.ascontiguousarray(b[first:last] if by_n else b[:, first:last])
            y, deep = queue.empty((m, n), F32), last - first
            left = Matrices(host_tensor(part_a), (), *((deep, 1) if by_k else (1, m)))
            right = Matrices(host_tensor(part_b), (), *((n, 1) if by_n else (1, deep)))
            product(queue, left, right, y, deep, tile=TILES[-1])
            made = y.array(gpu)
            total = made if total is None else total + made
        assert total is not None
        for tile in (one for one in TACTICS if one.splits == splits):
            y = queue.empty((m, n), F32)
            left = Matrices(host_tensor(a), (), *((k, 1) if by_k else (1, m)))
            right = Matrices(host_tensor(b), (), *((n, 1) if by_n else (1, k)))
            product(queue, left, right, y, k, tile=tile)
            assert np.array_equal(y.array(gpu), total), tile


# x, w, strides, pads, dilations
CONVOLUTIONS = (
    ((2, 8, 9, 8), (24, 8, 3, 3), (1, 1), (1, 1, 1, 1), (1, 1)), ((2, 3, 15, 17), (16, 3, 7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    ((3, 20, 11, 6), (10, 20, 3, 2), (2, 1), (0, 2, 1, 0), (2, 1)), ((2, 36, 5, 5), (20, 36, 1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((5, 12, 7, 7), (33, 12, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)), ((1, 5, 6, 6), (9, 5, 5, 5), (1, 1), (4, 4, 4, 4), (1, 1)),
)  # fmt: skip


def convolved(backend, case, tile, *, tailed: bool = False):
    """A convolution with a bias on a tile, and in FP64."""
    x_shape, w_shape, strides, pads, dilations = case
    queue, random = Queue(backend, 18), np.random.default_rng(1)
    x, w, bias = (random.standard_normal(one, dtype=np.float32) for one in (x_shape, w_shape, w_shape[:1]))
    node = ir.node(
        "Conv", [ir.Value(name=one) for one in "xwb"], {"strides": strides, "pads": pads, "dilations": dilations}
    )
    call = Call(node, [host_tensor(one) for one in (x, w, bias)], [F32], 18)
    window = window_of(call, x_shape[2:], w_shape[2:])
    assert refusal(queue, call, window) is None
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), pads[::2], pads[1::2]))
    exact = np.broadcast_to(bias[:, None, None].astype(np.float64), (x_shape[0], w_shape[0], *window.out)).copy()
    for i in range(w_shape[2]):
        for j in range(w_shape[3]):
            down, right = i * dilations[0], j * dilations[1]
            taken = padded[:, :, down:, right:][
                :,
                :,
                : (window.out[0] - 1) * strides[0] + 1 : strides[0],
                : (window.out[1] - 1) * strides[1] + 1 : strides[1],
            ]
            exact += np.einsum("bchw,oc->bohw", taken, w[:, :, i, j].astype(np.float64))
    readings, steps = [], []
    if tailed:
        beside = random.standard_normal(exact.shape, dtype=np.float32)
        readings, steps = (
            [("x0", Reading(host_tensor(beside)))],
            [Step("y", "float", "op_relu(op_add(sum, x0))", "", F32)],
        )
        exact = np.maximum(exact + beside, 0)
    (y,) = conv(queue, call, window, readings, steps, tile)
    assert "matmul_ffma" in queue.launches and ("pack_channels" in queue.launches) == (x_shape[1] == 3)
    return y.array(backend), exact


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions(backend, case):
    expected = None
    for tile in [None, *WHOLE] if backend.name != "host" else (None, Ffma(64, 64, 4, 8)):
        found, exact = convolved(backend, case, tile)
        assert np.abs(found - exact).max() < 2e-6 * math.prod(case[1][1:]) ** 0.5 * np.abs(exact).max(), tile
        expected = found if expected is None else expected
        assert tile is None or tile.splits > 1 or np.array_equal(found, expected) or choose_splits(case) > 1, tile
    found, exact = convolved(backend, case, None, tailed=True)
    assert np.abs(found - exact).max() < 2e-6 * math.prod(case[1][1:]) ** 0.5 * np.abs(exact).max()


def choose_splits(case) -> int:
    """Ranges of k that a convolution of the table is cut into on an H200."""
    x, w, strides, pads, dilations = case
    out = [
        (n + pads[at] + pads[at + 2] - (size - 1) * dilations[at] - 1) // strides[at] + 1
        for at, (n, size) in enumerate(zip(x[2:], w[2:], strict=True))
    ]
    return choose(x[0] * math.prod(out), w[0], math.prod(w[1:]), 1, MANY).splits


@pytest.mark.gpu
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_in_ranges(gpu, case):
    """Tiles that cut k alike give the same bits."""
    units = -(-math.prod(case[1][1:]) // 32)
    for splits in (one for one in (2, 3, 4, 6, 8) if one <= units):
        found = [convolved(gpu, case, one) for one in TACTICS if one.splits == splits]
        for one, exact in found:
            assert np.abs(one - exact).max() < 2e-6 * math.prod(case[1][1:]) ** 0.5 * np.abs(exact).max()
            assert np.array_equal(one, found[0][0])


def test_a_weight_is_turned_once(backend):
    queue, random = Queue(backend, 18), np.random.default_rng(0)
    a, b = (random.standard_normal(one, dtype=np.float32) for one in ((40, 64), (36, 64)))
    weight, made = host_tensor(b), []
    for _ in range(2):
        y = queue.empty((40, 36), F32)
        product(queue, Matrices(host_tensor(a), (), 64, 1), Matrices(weight, (), 1, 64, fixed=True), y, 64)
        made.append(y.array(backend))
    assert queue.launches["transpose"] == 1 and queue.launches["matmul_ffma"] == 2
    assert np.array_equal(*made) and np.allclose(made[0], a @ b.T, atol=1e-4)


def test_what_is_made_of_a_weight_outlives_its_views(host, tmp_path):
    """The second run repeats what the first one launched."""
    case = next(one for one in cases.CONVOLUTIONS if one.inputs["x"] == (2, 3, 32, 48))
    check(host, case, "fp32", tmp_path)


def test_ranges_depend_on_the_product_alone():
    for m, n, k, batch in ((256, 768, 3072, 1), (64, 197, 64, 192), (49, 512, 4608, 1), (8, 128, 64, 32)):
        one = choose(m, n, k, batch, MANY, one_b=True)
        assert one.splits == choose(m * batch, n, k, 1, MANY).splits
        assert choose(m, n, k, batch, MANY, split=False).splits == 1
    assert choose(49, 512, 4608, 1, MANY).splits > 1
    assert choose(8192, 8192, 8192, 1, MANY).splits == 1


def test_a_range_is_never_empty():
    assert math.isinf(microseconds(Ffma(64, 64, 4, 8, 8), 64, 64, 7 * 32, 1, MANY))


@pytest.mark.parametrize(
    ("arch", "can"), [("sm_80", False), ("sm_89", False), ("sm_90a", True), ("sm_120", True), ("host", False)]
)
def test_who_shares_tiles(arch, can):
    assert clusters(arch) is can


def sources(tile: Ffma, *, ragged: bool, by: tuple[int, int] = (1, 1), tailed: bool = False):
    """A product and a convolution on a tile, as they are compiled."""
    backend = NullBackend()
    backend.arch = "sm_90a"
    queue = Queue(backend, 18)
    m, n, k = (301, 257, 1023) if ragged else (256, 256, 1024)
    a, b, beside = queue.empty((m, k), F32), queue.empty((k, n), F32), queue.empty((m, n), F32)
    steps = (Step("v", "float", "op_relu(op_add(sum, x0))", "", F32),)
    ending = through(queue, (m, n), [("x0", Reading(beside))], steps) if tailed else storing(queue, (m, n), F32)
    left = Matrices(a, (), *((k, 1) if by[0] else (1, m)))
    right = Matrices(b, (), *((n, 1) if by[1] else (1, k)))
    run(queue, describe(left, right, Matrices(queue.empty((n,), F32), (), 0, 1), (m, n), k, ending), tile)
    channels = 3 if ragged else 64
    node = ir.node("Conv", [ir.Value(name=one) for one in "xwb"], {})
    call = Call(node, [queue.empty(one, F32) for one in ((2, channels, 30, 30), (n, channels, 3, 3), (n,))], [F32], 18)
    conv(queue, call, window_of(call, (30, 30), (3, 3)), [], [], tile)
    return [(source, shape) for source, shape in backend.launched if source.entry == "matmul_ffma"]


def fine(tile: Ffma, **how) -> None:
    for source, shape in sources(tile, **how):
        _, used = assembled(source)
        assert used.spilled_bytes == 0, (tile, how, used)
        assert shape.shared_bytes <= 227 << 10


@pytest.mark.parametrize("tile", [Ffma(128, 256, 8, 16), Ffma(64, 64, 4, 8, 4)], ids=str)
def test_nothing_is_spilled(nvrtc, tile):
    fine(tile, ragged=False, tailed=True)


@pytest.mark.slow
@pytest.mark.parametrize("tile", WHOLE, ids=str)
def test_no_tile_spills(nvrtc, tile):
    for ragged in (False, True):
        fine(tile, ragged=ragged)
    fine(tile, ragged=False, by=(0, 0))
