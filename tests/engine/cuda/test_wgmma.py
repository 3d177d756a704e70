"""Products on sm_90a's tensor cores: every tactic, edges, transposed operands and batches, against float64."""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.products import few, wgmma
from probe.engine.device.cuda.ops.products.ending import Ending
from probe.engine.device.cuda.ops.products.matmul import product
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.ops.products.wgmma import ARCH, refusal
from probe.engine.device.cuda.ops.products.wgmma_tactics import TACTICS, Tactic, choose, cycles
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from tests.engine.cuda.cases import _conv
from tests.engine.cuda.compared import check
from tests.engine.cuda.host_backend import HostBackend
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_endings import CASES as TAILS
from tests.engine.cuda.test_endings import Tailed
from tests.engine.cuda.test_endings import check as check_tail

# batch axes, m, n, k, whether a and b are stored transposed, whether a and b are the same for the whole batch
PROBLEMS = {
    "even": ((), 256, 512, 256, 0, 0, 0, 0),
    "edges": ((), 200, 328, 136, 0, 0, 0, 0),
    "many tiles": ((), 1544, 1416, 520, 0, 0, 0, 0),
    "b by k": ((), 200, 327, 200, 0, 1, 0, 0),
    "a by m": ((), 328, 136, 77, 1, 0, 0, 0),
    "both": ((), 136, 203, 1000, 1, 1, 0, 0),
    "a row": ((), 1, 1000, 2048, 0, 1, 0, 0),
    "a column": ((), 300, 1, 512, 0, 1, 0, 0),
    "short": ((), 130, 136, 8, 0, 0, 0, 0),
    "batch": ((5,), 72, 136, 72, 0, 0, 0, 0),
    "one b": ((2, 3), 72, 136, 520, 0, 1, 0, 1),
    "one a": ((2, 3), 72, 136, 520, 1, 0, 1, 0),
}


def operands(backend, problem, stored: Format):
    """Stacks of a and b, their values in float64, and the exact product."""
    batch, m, n, k, at, bt, one_a, one_b = problem
    random, queue, found = np.random.default_rng(3), Queue(backend, 18), []
    for rows, cols, transposed, one in ((m, k, at, one_a), (k, n, bt, one_b)):
        own = () if one else batch
        array = random.standard_normal((*own, *((cols, rows) if transposed else (rows, cols))), dtype=np.float32)
        tensor = queue.convert(host_tensor(array), stored, "tf32" if stored is F32 else "")
        steps = [0] * len(batch) if one else [rows * cols * math.prod(batch[at + 1 :]) for at in range(len(batch))]
        exact = tensor.array(backend).astype(np.float64)
        stack = Matrices(tensor, tuple(steps), *((1, rows) if transposed else (cols, 1)))
        found.append((stack, np.swapaxes(exact, -1, -2) if transposed else exact))
    (a, exact_a), (b, exact_b) = found
    return a, b, exact_a @ exact_b


def computed(backend, problem, stored: Format, out: Format, tactic: Tactic | None, c=None, **scales):
    """The product, in memory that was full of NaN and has something behind it."""
    batch, m, n, k, *_ = problem
    queue = Queue(backend, 18)
    a, b, exact = operands(backend, problem, stored)
    whole = queue.convert(host_tensor(np.full(math.prod(batch) * m * n + 64, np.nan, np.float32)), out)
    whole.address(backend)
    y = Tensor((*batch, m, n), out, buffer=whole._buffer)
    added = None if c is None else Matrices(host_tensor(c), (0,) * len(batch), 0, 1)
    tf32 = stored is F32
    described = describe(a, b, added, y.shape, k, Ending(y.shape, (y,)), tf32=tf32)
    if tf32:
        b = dataclasses.replace(b, fixed=True)
        described = dataclasses.replace(described, b=b)
    assert refusal(described, ARCH) is None
    product(queue, a, b, y, k, added, tile=tactic, tf32=tf32, **scales)
    short = tactic is None and few.chosen(described, backend.arch, backend.multiprocessors)
    assert queue.launches.get("matmul_few" if short else "matmul_wgmma")
    behind = Tensor((math.prod(batch) * m * n + 64,), out, buffer=whole._buffer).array(backend)[-64:]
    assert np.isnan(behind).all(), "something was written behind the result"
    return y.array(backend), exact


@pytest.mark.gpu
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_chosen_tactic(gpu, name):
    actual, exact = computed(gpu, PROBLEMS[name], BF16, F32, None)
    assert np.abs(actual - exact).max() <= 1e-4 * np.abs(exact).max()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["edges", "many tiles", "both", "one a", "one b"])
@pytest.mark.parametrize("tactic", TACTICS, ids=str)
def test_every_tactic(gpu, tactic, name):
    problem = PROBLEMS[name]
    _, m, n, k, *_ = problem
    if math.isinf(cycles(tactic, m, n, k, 1, 132)):
        pytest.skip("fewer tiles of k than blocks that share them")
    if tactic.swapped and name in ("both", "one a"):
        pytest.skip("rows that do not lie along k")
    actual, exact = computed(gpu, problem, F16, F32, tactic)
    assert np.linalg.norm(actual - exact) <= 1e-6 * np.linalg.norm(exact) * math.sqrt(k)
    assert np.abs(actual - exact).max() <= 1e-4 * np.abs(exact).max()
    again, _ = computed(gpu, problem, F16, F32, tactic)
    assert np.array_equal(actual, again)


@pytest.mark.gpu
@pytest.mark.parametrize("stored", [F16, BF16, F32], ids=lambda one: one.name)
@pytest.mark.parametrize("name", ["edges", "many tiles", "one b", "short"])
def test_a_swapped_product_has_the_bits_of_a_straight_one(gpu, name, stored):
    """Which operand the instruction takes for the left one changes no sum: tiles may be chosen by what follows."""
    golden, _ = computed(gpu, PROBLEMS[name], stored, F32, Tactic(128, 128))
    for tactic in (one for one in TACTICS if one.swapped):
        assert np.array_equal(computed(gpu, PROBLEMS[name], stored, F32, tactic)[0], golden), tactic


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("stored", "out"), list(itertools.product((F16, BF16), (F16, BF16, F32))), ids=lambda one: one.name
)
def test_types(gpu, stored, out):
    bias = np.random.default_rng(0).standard_normal(328).astype(np.float32)
    actual, exact = computed(gpu, PROBLEMS["edges"], stored, out, None, bias, alpha=0.5, beta=2.0)
    expected = 0.5 * exact + 2.0 * bias
    unit = {"f16": 2**-11, "bf16": 2**-8, "float": 0.0}[out.name]
    assert (np.abs(actual - expected) <= unit * np.abs(expected) + 1e-4).all()


# --- without a GPU -------------------------------------------------------------------------------------------------------


class HopperOnHost(HostBackend):
    """Kernels of sm_90a, run on the host: copies, barriers and products emulated, blocks one after the other."""

    arch, multiprocessors = ARCH, 1  # fewer than any cluster has blocks


@pytest.fixture(scope="session")
def hopper(request):
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile kernels for the host")
    return HopperOnHost(request.config.cache.mkdir("kernels-hopper"))


@pytest.mark.parametrize("name", ["edges", "b by k", "both", "one b", "one a", "short"])
@pytest.mark.parametrize("tactic", [Tactic(128, 128), Tactic(256, 64, 128), Tactic(64, 128, turns=2)], ids=str)
def test_tactics_on_the_host(hopper, tactic, name):
    actual, exact = computed(hopper, PROBLEMS[name], F16, F32, tactic)
    assert np.abs(actual - exact).max() <= 1e-4 * np.abs(exact).max()


@pytest.mark.parametrize(("name", "added"), [("edges", True), ("one b", False)])
@pytest.mark.parametrize(
    "tactic", [Tactic(144, 256, 128, swapped=True), Tactic(144, 64, turns=2, swapped=True)], ids=str
)
def test_swapped_tactics_on_the_host(hopper, tactic, name, added):
    """Tiles whose rows are no multiple of 32, columns of y along the instruction's rows, and a row that is added."""
    bias = np.random.default_rng(0).standard_normal(PROBLEMS[name][2]).astype(np.float32) if added else None
    actual, exact = computed(hopper, PROBLEMS[name], F16, F32, tactic, bias)
    exact = exact if bias is None else exact + bias
    assert np.abs(actual - exact).max() <= 1e-4 * np.abs(exact).max()


@pytest.mark.parametrize("name", ["taller", "mask"])
def test_tails_of_swapped_products_on_the_host(hopper, monkeypatch, name):
    monkeypatch.setattr(wgmma, "choose", lambda *_, **__: Tactic(144, 128, 128, turns=2, swapped=True))
    check_tail(hopper, TAILS[name], F16, rounded=True)


@pytest.mark.parametrize("name", ["odd columns", "mask", "window"])
def test_tails_on_the_host(hopper, name):
    """Rows that are finished eight by eight, and value by value; a batch; pixels."""
    odd = Tailed("Gemm", ((70, 64), (27, 64), (27,)), ((70, 27), (27,)), (("transB", 1), ("alpha", 0.5)))
    check_tail(hopper, odd if name == "odd columns" else TAILS[name], F16, rounded=True)


@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_weight_of_an_odd_number_of_columns(request, place):
    """Its rows do not begin on 16 bytes: it is turned once, and kept so."""
    backend = request.getfixturevalue(place)
    random, queue = np.random.default_rng(2), Queue(backend, 18)
    m, n, k = 70, 27, 40
    a, b = (queue.convert(host_tensor(random.standard_normal(one, dtype=np.float32)), F16) for one in ((m, k), (k, n)))
    exact = a.array(backend).astype(np.float64) @ b.array(backend)
    for _ in range(2):
        y = queue.empty((m, n), F32)
        product(queue, Matrices(a, (), k, 1), Matrices(b, (), n, 1, fixed=True), y, k)
        assert np.abs(y.array(backend) - exact).max() <= 1e-4 * np.abs(exact).max()
    assert queue.launches["matmul_wgmma"] == 2
    assert queue.launches["transpose"] == 1
    assert b.kept is not None and b.kept["along k"].shape[-2:] == (n, k)


@pytest.mark.parametrize("name", ["edges", "b by k", "one b", "short"])
@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_tf32(request, place, name):
    """Operands that hold TF32 are multiplied exactly, whatever their order; sums are FP32."""
    backend = request.getfixturevalue(place)
    actual, exact = computed(backend, PROBLEMS[name], F32, F32, Tactic(128, 128) if place == "hopper" else None)
    assert np.abs(actual - exact).max() <= 1e-4 * np.abs(exact).max()
    assert np.linalg.norm(actual - exact) <= 2e-6 * np.linalg.norm(exact) * math.sqrt(PROBLEMS[name][3])


CONVOLUTIONS = (
    _conv((2, 24, 9, 11), (40, 24, 3, 3), pads=[1, 1, 1, 1]), _conv((3, 8, 10, 10), (24, 8, 3, 3), strides=[2, 2], dilations=[2, 1]),
    _conv((2, 72, 6, 7), (16, 72, 2, 3), pads=[1, 2, 0, 1], strides=[1, 2]), _conv((2, 24, 7, 7), (32, 24, 1, 1)),
    _conv((2, 64, 8, 8), (16, 64, 1, 1), strides=[2, 2]), _conv((2, 24, 9, 8), (24, 1, 3, 3), group=24, pads=[1, 1, 1, 1]),
    _conv((2, 3, 17, 14), (24, 3, 7, 7), pads=[3, 3, 3, 3], strides=[2, 2]), _conv((3, 4, 13, 12), (16, 4, 3, 4), pads=[1, 0, 1, 2], strides=[2, 2]),
    _conv((2, 1, 9, 10), (8, 1, 2, 8), pads=[0, 3, 1, 4], strides=[2, 2]), _conv((2, 3, 11, 10), (16, 3, 5, 5), pads=[2, 2, 2, 2], strides=[1, 2]), _conv((2, 1, 12, 13), (8, 1, 3, 5), pads=[0, 2, 1, 1], dilations=[2, 1]),
    _conv((2, 8, 9, 8), (8, 1, 5, 3), group=8, pads=[2, 0, 1, 1], strides=[1, 2], dilations=[1, 2]),
)  # fmt: skip


def test_what_follows_reads_channels_last(backend):
    """Pooling of what lies channels last gives the same bits, and asks for no other order."""
    queue, random = Queue(backend, 18), np.random.default_rng(4)
    x = queue.convert(host_tensor(random.standard_normal((2, 24, 9, 11), dtype=np.float32)), F16)
    images = dense_when_asked(queue, channels_last(queue, x))
    attributes = {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 2]}
    for op, given in (("MaxPool", attributes), ("AveragePool", attributes), ("GlobalMaxPool", {})):
        made = []
        for one in (x, images):
            node = ir.node(op, [ir.Value(name="x")], given)
            (y,) = OPS[op].compute(queue, Call(node, [one], [F16], 18))
            assert y is not None
            made.append(y.array(backend))
        assert np.array_equal(*made), op
    assert images.memory is None


@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_channels_last(request, tmp_path, case, precision, place):
    backend = request.getfixturevalue(place)
    few = precision == "tf32" and case in (
        CONVOLUTIONS[0],
        CONVOLUTIONS[5],
        CONVOLUTIONS[6],
    )  # a window, depthwise, a stem
    if place == "hopper" and precision != "fp16" and not few:
        pytest.skip("compiling takes longest; the GPU computes all")
    check(backend, case, precision, tmp_path)


def test_the_choice():
    """Large tiles where they fill the machine, shared tiles where k is long and there are few."""
    assert choose(4096, 4096, 4096, 1, 132).m * choose(4096, 4096, 4096, 1, 132).n == 128 * 256
    assert choose(128, 768, 3072, 1, 132).splits > 1
    assert choose(16384, 64, 576, 1, 132).n == 64
    for m, n, k, batch in itertools.product((1, 8, 100, 5000), (8, 100, 5000), (8, 100, 5000), (1, 3, 100)):
        many = {
            choose(m, n, k, batch, 132, by_n=by_n, tail=tail).splits
            for by_n in (False, True)
            for tail in (0.0, 0.365, 0.5, 0.85)
        }
        assert len(many) == 1, "what follows a product changes its bits"
        assert choose(m, n, k, batch, 132).splits <= -(-k // 64)
        assert choose(m, n, k, batch, 132, one_b=True).splits == choose(m * batch, n, k, 1, 132).splits


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None), ({"k": 0}, "no products"), ({"arch": "sm_100"}, "of sm_90a"), ({"stored": F32}, "FP16"), ({"tactic": "acc16"}, "FP32"), ({"k": 100}, "divide"),
        ({"n": 100}, "divide"),
    ],
)  # fmt: skip
def test_what_is_refused_has_a_reason(change, reason):
    backend = NullBackend()
    sizes = {"m": 128, "n": 128, "k": 128, "stored": F16, "tactic": "exact", "arch": ARCH} | change
    queue, stored = Queue(backend, 18), sizes["stored"]
    a, b = queue.empty((sizes["m"], sizes["k"]), stored), queue.empty((sizes["k"], sizes["n"]), stored)
    y = queue.empty((sizes["m"], sizes["n"]), stored)
    left, right = Matrices(a, (), sizes["k"], 1), Matrices(b, (), sizes["n"], 1)
    found = refusal(
        describe(left, right, None, y.shape, sizes["k"], Ending(y.shape, (y,)), tactic=sizes["tactic"]), sizes["arch"]
    )
    assert (found is None) == (reason is None) and (reason is None or reason in found)
