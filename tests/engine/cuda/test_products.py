"""Matrix products, convolutions and pooling: every case of the table, on both devices."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.device.cuda.ops.products.matmul import MMA_TILES, TILES, product
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.ops.products.wgmma import ARCH
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from tests.engine.cuda.cases import CONVOLUTIONS, LARGE, POOLS, PRODUCTS
from tests.engine.cuda.compared import PRECISIONS, check, table


@pytest.mark.parametrize(("place", "case", "precision"), table(*PRODUCTS))
def test_products(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*CONVOLUTIONS))
def test_convolutions(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*POOLS))
def test_pools(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("by_k", [False, True])
@pytest.mark.parametrize("sizes", [(70, 72, 68), (33, 27, 19), (5, 136, 300)], ids=str)
def test_tf32_on_tensor_cores(backend, sizes, by_k):
    """What is rounded to TF32 is multiplied exactly, on tensor cores; the sums are FP32."""
    queue, random = Queue(backend, 18), np.random.default_rng(0)
    m, n, k = sizes
    a, b = (
        rounded_to_tf32(random.standard_normal(one, dtype=np.float32)) for one in ((m, k), (n, k) if by_k else (k, n))
    )
    y = queue.empty((m, n), F32)
    row, col = (1, k) if by_k else (n, 1)
    product(queue, Matrices(host_tensor(a), (), k, 1), Matrices(host_tensor(b), (), row, col), y, k, tf32=True)
    on_wgmma = backend.arch == ARCH and by_k and k % 4 == 0  # rows that divide by 16 bytes
    assert list(queue.launches) == ["matmul_wgmma" if on_wgmma else "matmul_mma"]
    exact = a.astype(np.float64) @ (b.T if by_k else b)
    assert np.abs(y.array(backend) - exact).max() < 1e-6 * np.sqrt(k) * np.abs(exact).max()


def rounded_to_tf32(x: np.ndarray) -> np.ndarray:
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0xFFF) + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("stored", [F32, F16, BF16], ids=lambda one: one.name)
@pytest.mark.parametrize("by_k", [False, True])
def test_large_products_on_every_tile(gpu, stored, by_k):
    """Sizes that the cases do not reach: every tile, with edges, against float64."""
    queue, random = Queue(gpu, 18), np.random.default_rng(0)
    m, n, k = 1544, 1416, 520
    left, right = (random.standard_normal(shape, dtype=np.float32) for shape in ((m, k), (n, k) if by_k else (k, n)))
    a, b = (queue.convert(host_tensor(one), stored) for one in (left, right))
    exact_a, exact_b = (one.array(gpu).astype(np.float64) for one in (a, b))
    expected = exact_a @ (exact_b.T if by_k else exact_b)
    for tile in TILES if stored is F32 else MMA_TILES:
        for tactic in ("exact", "acc16") if stored is F16 else ("exact",):
            y = queue.empty((m, n), F32)
            row, col = (1, k) if by_k else (n, 1)
            product(queue, Matrices(a, (), k, 1), Matrices(b, (), row, col), y, k, tactic=tactic, tile=tile)
            error = np.linalg.norm(y.array(gpu) - expected) / np.linalg.norm(expected)
            assert error < (1e-5 if tactic == "exact" else 3e-3), (tile, tactic, error)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_convolutions(gpu, tmp_path, case, precision):
    check(gpu, case, precision, tmp_path)
