"""cuBLASLt and cuDNN themselves: what their names promise, and that engines run them as they run kernels."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from probe.engine.device.cuda.library import cublaslt, cudnn_plans, installed
from probe.engine.device.cuda.library.conv_problem import ConvProblem
from probe.engine.device.cuda.library.cublaslt import Offer, ProductRoutine
from probe.engine.device.cuda.library.cudnn_plans import ConvRoutine
from probe.engine.device.cuda.library.product_problem import ProductProblem, Side
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, U8
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from tests.engine.cuda.test_library import convs_of, feeds, layers, products_of, residual_of

pytestmark = pytest.mark.gpu
FORMATS = {one.name: one for one in (F16, BF16, F32)}
RANDOM = np.random.default_rng(5)


@pytest.fixture
def queue(gpu):
    for found in (installed.find_cublaslt(), installed.find_cudnn()):
        if not found:
            pytest.skip(found.reason)
    return Queue(gpu, 18)


def stored(queue: Queue, array: np.ndarray, name: str = "f16") -> Tensor:
    return queue.convert(host_tensor(np.ascontiguousarray(array, np.float32)), FORMATS[name])


def square(m: int, n: int, k: int, name: str = "f16", out: str = "", **more) -> ProductProblem:
    return ProductProblem(
        m,
        n,
        k,
        1,
        Side(name, turned=False, line=k, batch=0),
        Side(name, turned=False, line=n, batch=0),
        out or name,
        **more,
    )


def multiplied(queue: Queue, problem: ProductProblem, offer: Offer, *given: Tensor | None) -> np.ndarray:
    """With canaries behind the result and the workspace."""
    a, b, c = (*given, None)[:3]
    guard = 64
    y = queue.empty((problem.m * problem.n + guard,), FORMATS[problem.stored])
    workspace = queue.empty((offer.workspace + guard,), U8)
    for one in (y, workspace):
        queue.backend.upload(one.address(queue.backend), np.full(one.nbytes, 0x5C, np.uint8))
    queue.call(ProductRoutine(problem, offer.algorithm, offer.workspace), *map(queue.at, (a, b, c, y, workspace)))
    for one, used in ((y, problem.m * problem.n * FORMATS[problem.stored].bytes), (workspace, offer.workspace)):
        raw = np.empty(one.nbytes, np.uint8)
        queue.backend.download(raw, one.address(queue.backend))
        assert (raw[used:] == 0x5C).all(), "something wrote behind its memory"
    return y.array(queue.backend)[: problem.m * problem.n].reshape(problem.m, problem.n)


@pytest.mark.parametrize("sizes", [(512, 512, 512), (128, 768, 3072), (7, 24, 40), (1, 4096, 512)])
@pytest.mark.parametrize("name", ["f16", "bf16", "float"])
def test_an_algorithm_is_made_from_its_name(queue, sizes, name):
    problem = square(*sizes, name=name)
    found = cublaslt.offers(problem)
    assert found
    described = cublaslt._Described(problem, "32f")
    results, count = (cublaslt._Found * 16)(), ctypes.c_int()
    described.lib.matmul_algo_get_heuristic(
        cublaslt._handle(), described.operation, *described.layouts, described.preference(), 16, ctypes.addressof(results), ctypes.addressof(count)
    )  # fmt: skip
    by_name = {one.algorithm.config: one for one in found}
    a, b = (RANDOM.standard_normal(shape) for shape in ((sizes[0], sizes[2]), (sizes[2], sizes[1])))
    left, right = stored(queue, a, name), stored(queue, b, name)
    exact = left.array(queue.backend).astype(np.float64) @ right.array(queue.backend)
    for one in results[: count.value]:
        offer = by_name[described.config(one.algorithm)]
        assert bytes(described.algorithm(offer.algorithm)) == bytes(one.algorithm)
        assert cublaslt.workspace_of(problem, offer.algorithm) == offer.workspace == one.workspace
        actual = multiplied(queue, problem, offer, left, right)
        assert np.linalg.norm(actual - exact) < {"f16": 5e-4, "bf16": 4e-3, "float": 1e-6}[name] * np.linalg.norm(exact)
        assert np.array_equal(actual, multiplied(queue, problem, offer, left, right))


def test_what_is_stored_is_rounded_once(queue):
    """2048 + 1 + 0.5: 2050 in FP16, and 2048 after two roundings."""
    a, b = np.zeros((64, 4096)), np.zeros((4096, 64))
    a[:, 0], a[:, 2100], b[:] = 2048, 1, 1
    left, right = stored(queue, a), stored(queue, b)
    row, whole = stored(queue, np.full(64, 0.5)), stored(queue, np.full((64, 64), 0.5))
    for more, added in (({"c": "row"}, row), ({"c": "matrix", "beta": 1.0}, whole), ({"c": "row", "relu": True}, row)):
        problem = square(64, 64, 4096, c_format="f16", **more)
        found = cublaslt.offers(problem)
        assert found and any(one.algorithm.splits > 1 for one in found)
        for one in found:
            assert (multiplied(queue, problem, one, left, right, added) == 2050).all(), one


def test_relu_hands_nan_on(queue):
    a = np.zeros((64, 64))
    a[:4, 0] = np.nan, -1, np.inf, -np.inf
    left, right = stored(queue, a), stored(queue, np.ones((64, 64)))
    problem = square(64, 64, 64, relu=True)
    for one in cublaslt.offers(problem):
        actual = multiplied(queue, problem, one, left, right)
        assert np.isnan(actual[0]).all() and (actual[1:5, 0] == [0, np.inf, 0, 0]).all()


def test_the_gelu_of_the_library_is_an_approximation(queue):
    """By tanh, and near it: why no network's Gelu is computed by it."""
    a, b = stored(queue, RANDOM.standard_normal((256, 64)) / 3), stored(queue, RANDOM.standard_normal((64, 320)) / 3)
    problem = square(256, 320, 64, out="float", gelu=True)
    x = a.array(queue.backend).astype(np.float64) @ b.array(queue.backend)
    by_tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    found = cublaslt.offers(problem)
    assert found
    for one in found:
        off = np.abs(multiplied(queue, problem, one, a, b) - by_tanh).max()
        print(f"{one.algorithm}: {off:.1e}")
        assert off < 1e-3


def test_stored_narrow_is_stored_wide_and_rounded(queue):
    a, b = stored(queue, RANDOM.standard_normal((256, 1024))), stored(queue, RANDOM.standard_normal((1024, 320)))
    row, problem = stored(queue, RANDOM.standard_normal(320)), square(256, 320, 1024)
    taken = replace(problem, c="row", c_format="f16", relu=True)
    for one in cublaslt.offers(taken):
        nbytes = cublaslt.workspace_of(replace(problem, stored="float"), one.algorithm)
        if isinstance(nbytes, str):
            continue
        wide = multiplied(queue, replace(problem, stored="float"), Offer(one.algorithm, nbytes), a, b)
        apart = np.maximum(wide + row.array(queue.backend), 0).astype(np.float16)
        assert np.array_equal(multiplied(queue, taken, one, a, b, row), apart.astype(np.float32)), one


def convolved(queue: Queue, problem: ConvProblem, plan, *given: Tensor | None) -> np.ndarray:
    y = queue.empty(tuple(problem.y[0]), FORMATS[problem.stored])
    workspace = queue.empty((max(plan.workspace, 1),), U8)
    queue.call(ConvRoutine(problem, plan.plan), *map(queue.at, (*given, y, workspace)))
    made = y.array(queue.backend)
    return made.reshape(problem.images, *problem.out, problem.outputs).transpose(0, 3, 1, 2) if problem.last else made


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_plans_round_once_and_repeat(queue, last, relu):
    problem = ConvProblem(
        1, 64, 64, 1, (8, 8), (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), (8, 8), last, "f16", "f16", bias="f16", relu=relu
    )  # fmt: skip
    x, w = np.zeros((1, 64, 8, 8)), np.zeros((64, 64, 1, 1))
    x[:, 0], x[:, 1], w[:, :2] = 2048, 1, 1
    x[0, 0, 0, 0] = np.nan
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)
    given = stored(queue, x.transpose(order)), stored(queue, w.transpose(order)), stored(queue, np.full(64, 0.5))
    found = cudnn_plans.plan_offers(problem, 6)
    assert found
    for one in found:
        assert cudnn_plans.plan_workspace(problem, one.plan) == one.workspace
        actual = convolved(queue, problem, one, *given, None)
        assert np.isnan(actual[0, :, 0, 0]).all() and (actual[0, :, 1:] == 2050).all(), one
        assert np.array_equal(actual, convolved(queue, problem, one, *given, None), equal_nan=True)


@pytest.mark.parametrize("interior", ["storage", "fp32"])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32", "tf32"])
@pytest.mark.parametrize(
    ("make", "shape"), [(products_of, (2, 5, 12)), (convs_of, (2, 16, 7, 6)), (residual_of, (2, 16, 7, 6))]
)
def test_engines_run_every_name_that_is_offered(tmp_path, queue, make, shape, precision, interior):
    engine, device = make(tmp_path, queue.backend, precision=precision, interior=interior)
    device.replays.enabled = False
    device.queue.offers = []
    expected = engine.run(feeds(shape))
    offers, device.queue.offers, device.replays.enabled = device.queue.offers, None, True
    concerned = layers(engine, "matmul", "gemm", "conv")
    ran = 0
    for layer, names in zip(concerned, offers[-len(concerned) :], strict=True):
        theirs = [name for name in names if name.startswith(("cublaslt", "cudnn"))]
        for name in theirs[:2] + theirs[-2:]:
            assignment = engine.assignment.with_tactics({layer: name})
            for seed in (0, 0, 1):
                actual, again = engine.run(feeds(shape, seed), assignment), {}
                anew = engine.run(
                    feeds(shape, seed), assignment, tap=lambda one, into=again: into.__setitem__(one.name, 1)
                )
                assert all(np.array_equal(actual[key], one) for key, one in anew.items()), name
            actual = engine.run(feeds(shape), assignment)
            within = {"fp16": 4e-3, "bf16": 3e-2}.get(precision, 2e-5)
            assert all(
                np.abs(actual[key] - one).max() <= within * np.abs(one).max() for key, one in expected.items()
            ), name
            ran += 1
    assert ran and not device.fallen and not device.replays.notes
