"""Products of few rows: every tactic, how operands lie, edges, batches and tails, against float64 and against each other."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from typing import Any

import numpy as np
import pytest

from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.convolutions import conv_few
from probe.engine.device.cuda.ops.products import few
from probe.engine.device.cuda.ops.products.ending import storing, through
from probe.engine.device.cuda.ops.products.few import TACTICS, Few
from probe.engine.device.cuda.ops.products.few_family import name_of
from probe.engine.device.cuda.ops.products.ffma import clusters
from probe.engine.device.cuda.ops.products.matmul import run
from probe.engine.device.cuda.ops.products.product import Matrices, Product, describe
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.tactics import tactic_of
from probe.engine.tactics.kernels import kernel_tactic
from tests.engine.cuda.assembled import assembled
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_endings import Tailed
from tests.engine.cuda.test_endings import check as check_tail
from tests.engine.cuda.test_wgmma import hopper  # noqa: F401 - a fixture

WHOLE = Few(4)


@dataclasses.dataclass(frozen=True)
class Case:
    """A product.

    Attributes:
        by_n: the lines of b lie along n.
        batch: axes in front; ``one_b``: the right operand has none of them.
        apart: elements between the rows of a, beside those of k; -1: a lies along m.
        added: rows of c: 0 none; m, or 1.
    """

    m: int
    n: int
    k: int
    by_n: bool = True
    batch: tuple[int, ...] = ()
    one_b: bool = False
    apart: int = 0
    added: int = 0

    def __str__(self) -> str:
        words = [
            f"{self.m}x{self.n}x{self.k}",
            "n" if self.by_n else "k",
            *("b" + "x".join(map(str, self.batch)) for _ in self.batch[:1]),
        ]
        words += ["one" * self.one_b, f"apart{self.apart}" * (self.apart != 0), f"c{self.added}" * (self.added > 0)]
        return "-".join(filter(None, words))


CASES = (
    Case(1, 72, 200), Case(1, 72, 200, by_n=False), Case(3, 136, 96, added=1), Case(8, 64, 264, by_n=False, added=8), Case(16, 200, 520), Case(9, 64, 1000, by_n=False, added=1),
    Case(2, 27, 40), Case(2, 27, 40, by_n=False, added=1), Case(5, 130, 77), Case(5, 130, 77, by_n=False), Case(16, 66, 100, by_n=False), Case(4, 68, 100), Case(4, 1, 513, by_n=False), Case(1, 1, 1),
    Case(2, 72, 136, batch=(3,)), Case(4, 68, 72, by_n=False, batch=(2, 3), added=1), Case(2, 72, 64, batch=(2, 2), one_b=True), Case(3, 40, 64, apart=8), Case(3, 40, 64, by_n=False, apart=3),
    Case(12, 16, 2048, by_n=False), Case(7, 192, 33),
    Case(12, 72, 80, apart=-1), Case(5, 40, 77, batch=(2,), by_n=False, apart=-1),
)  # fmt: skip
STORED = {"f16": (F16, False), "bf16": (BF16, False), "tf32": (F32, True), "fp32": (F32, False)}
OFF = {"f16": 2e-6, "bf16": 2e-6, "tf32": 2e-6, "fp32": 1e-6}  # of the sum's root of k times the largest result


def problem_of(
    queue: Queue, case: Case, kind: str, *, by_n: bool | None = None, fixed: bool = False, rows: int = 0
) -> tuple[Product, np.ndarray]:
    """A case, or its first rows, as a product, and what is exact."""
    stored, tf32 = STORED[kind]
    random, backend = np.random.default_rng(7), queue.backend
    m, n, k = case.m, case.n, case.k
    by_n = case.by_n if by_n is None else by_n
    of_b = () if case.one_b else case.batch

    def tensor(values: np.ndarray) -> Tensor:
        return queue.convert(host_tensor(values), stored, "tf32" if tf32 else "")

    row = k + max(case.apart, 0)
    wide = random.standard_normal((*case.batch, m, row), dtype=np.float32)
    plain = random.standard_normal((*of_b, k, n), dtype=np.float32)
    wide[..., k:] = np.nan  # who reads there shows
    if case.apart < 0:
        wide = np.ascontiguousarray(np.swapaxes(wide[..., :k], -1, -2))
    a, b = tensor(wide), tensor(plain if by_n else np.ascontiguousarray(np.swapaxes(plain, -1, -2)))
    right = b.array(backend).astype(np.float64)
    rows_of = a.array(backend).astype(np.float64)
    exact = (np.swapaxes(rows_of, -1, -2) if case.apart < 0 else rows_of[..., :k]) @ (
        right if by_n else np.swapaxes(right, -1, -2)
    )
    steps = [math.prod(case.batch[at + 1 :]) for at in range(len(case.batch))]
    left = Matrices(a, tuple(one * m * row for one in steps), *((1, m) if case.apart < 0 else (row, 1)))
    along = Matrices(b, tuple(0 if case.one_b else one * n * k for one in steps), *((n, 1) if by_n else (1, k)), fixed)
    c, alpha, beta = None, 1.0, 1.0
    if case.added:
        held = random.standard_normal((case.added, n), dtype=np.float32)
        c = Matrices(host_tensor(held), (0,) * len(case.batch), n if case.added > 1 else 0, 1)
        alpha, beta = 0.5, 2.0
        exact = alpha * exact + beta * held
    if rows:
        m, exact = rows, exact[..., :rows, :]
    ending = storing(queue, (*case.batch, m, n), F32)
    return describe(left, along, c, (*case.batch, m, n), k, ending, tf32=tf32, alpha=alpha, beta=beta), exact


def computed(backend, case: Case, kind: str, tactic: Few, **how) -> tuple[np.ndarray, np.ndarray]:
    queue = Queue(backend, 18)
    product, exact = problem_of(queue, case, kind, **how)
    assert few.refusal(product) is None
    run(queue, product, tactic)
    assert queue.launches["matmul_few"] == 1
    return product.ending.stored[0].array(backend), exact


def close(actual: np.ndarray, exact: np.ndarray, case: Case, kind: str) -> None:
    assert np.isfinite(actual).all()
    assert np.abs(actual - exact).max() <= OFF[kind] * math.sqrt(case.k) * max(np.abs(exact).max(), 1.0)


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_products(backend, case, kind):
    actual, exact = computed(backend, case, kind, WHOLE)
    close(actual, exact, case, kind)


@pytest.mark.parametrize("kind", STORED)
@pytest.mark.parametrize(
    "case", [Case(8, 200, 1000, added=1), Case(16, 72, 520, by_n=False), Case(3, 27, 333, by_n=False)], ids=str
)
@pytest.mark.parametrize("tactic", TACTICS, ids=str)
def test_every_tactic(backend, tactic, case, kind):
    """Ranges that are empty, too; a second run gives the same bits."""
    if backend.name == "host" and (tactic.splits > 1 or kind == "bf16"):
        pytest.skip("blocks run one after the other; BF16 is as FP16")
    actual, exact = computed(backend, case, kind, tactic)
    close(actual, exact, case, kind)
    if backend.name != "host":
        assert np.array_equal(computed(backend, case, kind, tactic)[0], actual)


@pytest.mark.parametrize("kind", ["f16", "tf32", "fp32"])
def test_neither_how_weights_lie_nor_rows_change_a_bit(backend, kind):
    """Nor accesses that are narrow: 266 columns begin anywhere."""
    for n in (264, 266) if backend.name != "host" else (74,):
        golden, _ = computed(backend, Case(16, n, 360), kind, WHOLE)
        assert np.array_equal(computed(backend, Case(16, n, 360), kind, WHOLE, by_n=False)[0], golden)
        for m in (1, 2, 3, 8) if backend.name != "host" else (1, 3):
            rows, _ = computed(backend, Case(16, n, 360), kind, WHOLE, rows=m)
            assert np.array_equal(rows, golden[:m]), m


@pytest.mark.parametrize("kind", ["f16", "fp32"])
@pytest.mark.parametrize("by_n", [True, False])
def test_what_is_not_finite_stays_where_it_is(backend, kind, by_n):
    """Inf in a row of a, NaN in a column of b: no other row or column has them, k that ends within a step and columns that end within a tile included."""
    queue, case = Queue(backend, 18), Case(3, 72, 40, by_n=by_n)
    random = np.random.default_rng(3)
    a, b = (random.standard_normal(one, dtype=np.float32) for one in ((3, 40), (40, 72) if by_n else (72, 40)))
    a[1, 7] = np.inf
    b[(20, 70) if by_n else (70, 20)] = np.nan
    stored = STORED[kind][0]
    left, right = (queue.convert(host_tensor(one), stored) for one in (a, b))
    ending = storing(queue, (3, 72), F32)
    right = Matrices(right, (), *((72, 1) if by_n else (1, 40)))
    run(queue, describe(Matrices(left, (), 40, 1), right, None, (3, 72), 40, ending), WHOLE)
    finite = np.ones((3, 72), bool)
    finite[1], finite[:, 70] = False, False
    assert np.array_equal(np.isfinite(ending.stored[0].array(backend)), finite), case


SPILLS = {"sm_100": 16, "sm_120": 16}  # bytes: eight rows in FP32
TAILS = {
    "rows": Tailed("MatMul", ((7, 40), (40, 24)), ((7, 24), (24,))),
    "odd": Tailed("MatMul", ((5, 40), (40, 27)), ((5, 27), (5, 1))),
    "taller": Tailed("MatMul", ((2, 4, 16), (16, 72)), ((2, 4, 72), (72,))),
    "one for each": Tailed("MatMul", ((2, 4, 16), (16, 8)), ((2, 1, 8), (2, 1, 1))),
    "mask": Tailed("MatMul", ((2, 3, 4, 8), (2, 3, 8, 16)), ((2, 1, 1, 16), (1, 3, 4, 16))),
    "gemm": Tailed("Gemm", ((13, 64), (56, 64), (56,)), ((13, 56), (56,)), (("transB", 1), ("alpha", 0.5))),
}


@pytest.mark.parametrize("name", TAILS)
def test_an_ending_changes_no_bit(backend, monkeypatch, name):
    asked = []

    def chosen(product: Product, *_: Any) -> Few:
        asked.append(product)
        return WHOLE

    monkeypatch.setattr(few, "chosen", chosen)
    for stored in (F16,) if backend.name == "host" else (F16, BF16, F32):
        check_tail(backend, TAILS[name], stored, rounded=True)
    assert len(asked) == 2 * (1 if backend.name == "host" else 3)


@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("stored", [F16, F32], ids=lambda one: one.name)
def test_convolutions_of_few_pixels(request, monkeypatch, place, stored):
    """Single pixels of two images, as squeeze-and-excitation has them, and a tail that reads beside it; in 16 bits where conv_few has too many channels."""
    asked = []

    def chosen(product: Product, *_: Any) -> Few:
        asked.append(product)
        return WHOLE

    monkeypatch.setattr(few, "chosen", chosen)
    monkeypatch.setattr(conv_few, "is_chosen", lambda *_: False)
    shapes = ((2, 72, 1, 1), (40, 72, 1, 1), (40,)), ((2, 40, 1, 1), (40, 1, 1))
    check_tail(request.getfixturevalue(place), Tailed("Conv", *shapes), stored, rounded=stored is F16)
    assert len(asked) == 2


def test_a_weight_of_an_odd_number_of_columns(backend):
    """Its rows do not begin on 16 bytes: it is turned once, and kept so; with the same bits."""
    queue, case = Queue(backend, 18), Case(4, 27, 40)
    free, _ = problem_of(queue, case, "f16")
    run(queue, free, WHOLE)
    fixed, exact = problem_of(queue, case, "f16", fixed=True)
    for _ in range(2):
        run(queue, dataclasses.replace(fixed, ending=storing(queue, (4, 27), F32)), WHOLE)
    run(queue, fixed, WHOLE)
    assert queue.launches["transpose"] == 1 and queue.launches["matmul_few"] == 4
    close(fixed.ending.stored[0].array(backend), exact, case, "f16")
    assert np.array_equal(fixed.ending.stored[0].array(backend), free.ending.stored[0].array(backend))


# --- without a GPU -------------------------------------------------------------------------------------------------------

CHANGES = [
    ({}, None), ({"m": 17}, "more than 16 rows"), ({"k": 0}, "no products"), ({"tactic": "acc16"}, "sums are kept in FP32"), ({"other": F32}, "not both"),
    ({"b": (3, 5)}, "neither axis"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), CHANGES, ids=str)
def test_what_is_refused_has_a_reason(change, reason):
    given = {"m": 8, "k": 128, "tactic": "exact", "other": F16, "b": None} | change
    queue, m, k, n = Queue(NullBackend(), 18), given["m"], given["k"], 64
    a, b = queue.empty((m, k), F16), queue.empty((k, n), given["other"])
    row, col = given["b"] or (n, 1)
    left, right = Matrices(a, (), k, 1), Matrices(b, (), row, col)
    found = few.refusal(describe(left, right, None, (m, n), k, storing(queue, (m, n), F16), tactic=given["tactic"]))
    assert found is None if reason is None else reason in found


def test_ranges_over_blocks_need_clusters():
    assert few.refusal_of(Few(8), "sm_80") is None and few.refusal_of(Few(8, 2), "sm_90a") is None
    assert "shared memory" in (few.refusal_of(Few(8, 2), "sm_89") or "")


def product_of(
    m: int, n: int, k: int, stored=F16, *, by_n: bool = True, batch: int = 1, one_b: bool = False, beside: bool = False
) -> Product:
    queue = Queue(NullBackend(), 18)
    a, b = queue.empty((batch, m, k), stored), queue.empty((1 if one_b else batch, k, n), stored)
    shape = (batch, m, n)
    steps = (Step("v", "float", "op_gelu(op_add(sum, x0))", "", F32),)
    ending = (
        through(queue, shape, [("x0", Reading(queue.empty(shape, F32)))], steps)
        if beside
        else storing(queue, shape, F32)
    )
    right = Matrices(b, (0 if one_b else n * k,), *((n, 1) if by_n else (1, k)), fixed=True)
    return describe(Matrices(a, (m * k,), k, 1), right, None, shape, k, ending)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a", "sm_120"])
def test_the_choice_follows_from_the_product_alone(arch):
    """Neither from how weights lie nor from what follows; a batch of one right operand is a taller product. Not where rows are many, weights short."""
    for m, n, k, stored in itertools.product((1, 3, 16), (768, 4096, 50264), (768, 4096), (F16, F32)):
        found = few.chosen(product_of(m, n, k, stored), arch, 132)
        assert found is None or few.refusal_of(found, arch) is None
        for how in ({"by_n": False}, {"beside": True}):
            assert few.chosen(product_of(m, n, k, stored, **how), arch, 132) == found
    for stored in (F16, F32):
        tall = few.chosen(product_of(8, 4096, 4096, stored), arch, 132)
        assert tall is not None
        assert few.chosen(product_of(2, 4096, 4096, stored, batch=4, one_b=True), arch, 132) == tall
        for m, n, k in ((17, 4096, 4096), (1, 64, 64), (256, 768, 768)):
            assert few.chosen(product_of(m, n, k, stored), arch, 132) is None
        assert few.chosen(product_of(2, 4096, 4096, stored, batch=9, one_b=True), arch, 132) is None


def test_every_variant_has_a_name_and_every_name_one_meaning():
    names = [name_of(one) for one in TACTICS]
    assert len(set(names)) == len(names)
    for one, name in zip(TACTICS, names, strict=True):
        row = tactic_of(name)
        assert (row.name, row.splits, row.device, row.accumulator) == (name, one.warps * one.splits, "cuda", "fp32")
    for name in ("few", "few_0", "few_8_splitk1", "few_8x64", "few_8_acc16"):
        assert kernel_tactic(name) is None


def source_of(case: Case, kind: str, tactic: Few, *, tailed: bool, arch: str):
    backend = NullBackend()
    backend.arch = arch
    queue, (stored, tf32) = Queue(backend, 18), STORED[kind]
    a, b, beside = (queue.empty(one, stored) for one in ((case.m, case.k), (case.k, case.n), (case.m, case.n)))
    rounding = "" if stored is F32 else stored.name
    steps = (Step("p", "float", "sum", rounding), Step("v", "float", "op_gelu(op_add(p, x0))", rounding, stored))
    shape = case.m, case.n
    ending = through(queue, shape, [("x0", Reading(beside))], steps) if tailed else storing(queue, shape, stored)
    right = Matrices(b, (), *((case.n, 1) if case.by_n else (1, case.k)))
    run(queue, describe(Matrices(a, (), case.k, 1), right, None, shape, case.k, ending, tf32=tf32), tactic)
    ((source, launched),) = backend.launched
    return source, launched


def fine(case: Case, kind: str, tactic: Few, *, tailed: bool, arch: str) -> None:
    source, launched = source_of(case, kind, tactic, tailed=tailed, arch=arch)
    _, used = assembled(source, arch)
    wanted = int(dict(source.defines)["RESIDENT"])
    assert used.spilled_bytes <= SPILLS.get(arch, 0), (case, kind, tactic, arch, used)
    assert used.registers * launched.block * wanted <= 65536 and launched.shared_bytes <= 227 << 10


@pytest.mark.parametrize("kind", STORED)
def test_nothing_is_spilled(nvrtc, kind):
    fine(Case(8, 768, 768), kind, Few(8, 4), tailed=True, arch="sm_90a")
    fine(Case(16, 768, 768, by_n=False), kind, Few(4), tailed=True, arch="sm_80")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"])
def test_no_variant_spills(nvrtc, arch):
    """Every variant for sm_90a; a third of them in turn for the others, all with PROBE_ALL_KERNELS=1."""
    rows, step = (1, 2, 4, 8, 16), 1 if arch == "sm_90a" or os.environ.get("PROBE_ALL_KERNELS") else 3
    for at, (kind, m, by_n, wide) in enumerate(itertools.product(STORED, rows, (True, False), (True, False))):
        if (at + sum(map(ord, arch))) % step:
            continue
        if kind == "bf16" or (kind != "fp32" and m < 8):
            continue
        case = Case(m, 768, 768, by_n=by_n) if wide else Case(m, 771, 765, by_n=by_n)
        splits = 4 if clusters(arch) and at % 2 else 1
        fine(case, kind, Few((4, 8)[at // 2 % 2], splits), tailed=at % 3 == 0, arch=arch)
