"""Products of 8-bit integers at every edge of their tiles: against numpy, which is exact, and against the kernel without tensor cores."""

from __future__ import annotations

import itertools
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.engine.device.cuda.ops import integer_product
from probe.engine.device.cuda.ops.integer_product import TILES, Bytes, Requantised, choose, product
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import I8, U8
from probe.engine.device.cuda.tensors.tensor import host_tensor

KINDS = {"u8": np.uint8, "i8": np.int8}
SIZES = (1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129)
# m, n, k: every size on every axis, others beside it
SHAPES = [
    *((size, SIZES[(at + 5) % 16], SIZES[(3 * at + 1) % 16]) for at, size in enumerate(SIZES)),
    *((SIZES[(5 * at + 2) % 16], size, SIZES[(at + 7) % 16]) for at, size in enumerate(SIZES)),
    (1, 768, 768), (16, 64, 3072), (3, 129, 3072), (129, 16, 768),
]  # fmt: skip
LARGE = [(1024, 768, 768), (128, 3072, 768), (1000, 777, 3072), (16, 3072, 768), (1, 768, 3072), (257, 640, 100)]
ZEROS = ("", "one", "each", "fixed 0")
MIXED = (("", ""), ("one", "each"), ("each", "fixed 0"), ("fixed 0", "one"), ("each", "each"))


def drawn(random: np.random.Generator, kind: str, *shape: int) -> np.ndarray:
    info = np.iinfo(KINDS[kind])
    return random.integers(info.min, info.max + 1, shape).astype(KINDS[kind])


def zeros_of(random: np.random.Generator, kind: str, which: str, count: int) -> np.ndarray | None:
    if which == "fixed 0":
        return np.zeros((), KINDS[kind])
    return {"": None, "one": drawn(random, kind, 1)[0], "each": drawn(random, kind, count)}[which]


def exact(a, b, a_zero, b_zero, batches: int) -> np.ndarray:
    """In 64 bits, of which the lower 32 are kept. The last axis of a and the one before it of b are multiplied."""
    left = a.astype(np.int64) - (
        0 if a_zero is None else a_zero.astype(np.int64).reshape((-1, *a.shape[1:2], 1) if a_zero.ndim else ())
    )
    right = b.astype(np.int64) - (0 if b_zero is None else b_zero.astype(np.int64))
    at = np.arange(batches)
    sums = left.astype(np.float64)[at % len(a)] @ right.astype(np.float64)[at % len(b)]  # below 2^53
    return sums.astype(np.int64).astype(np.uint64).astype(np.uint32).view(np.int32)


def computed(
    backend, a, b, zeros=(None, None), batches: int = 0, fixed=(False, False), ending=None, tile=None, small=False
):
    """What a kernel makes of factors [batches, rows, columns]."""
    queue = Queue(backend, 18)
    tensors = [None if zero is None else host_tensor(zero) for zero in zeros]
    factors = [
        Bytes(host_tensor(x), *x.shape, zero, weight, zero_fixed=weight)
        for x, zero, weight in zip((a, b), tensors, fixed, strict=True)
    ]
    with mock.patch.object(integer_product, "_is_small", return_value=small):
        made = product(queue, *factors, batches or max(len(a), len(b)), ending, tile=tile)
    assert set(queue.launches) & {"integer_product" if small or not a.shape[2] else "integer_mma"}
    return made.array(backend)


def check(backend, m, n, k, kinds, zeros, batches=(1, 1), fixed=(False, False), tile=None, seed=0) -> None:
    random = np.random.default_rng(seed)
    a, b = drawn(random, kinds[0], batches[0], m, k), drawn(random, kinds[1], batches[1], k, n)
    points = zeros_of(random, kinds[0], zeros[0], batches[0] * m), zeros_of(random, kinds[1], zeros[1], n)
    fixed = tuple(one or which == "fixed 0" for one, which in zip(fixed, zeros, strict=True))
    expected = exact(a, b, *points, max(batches))
    actual = computed(backend, a, b, points, 0, fixed, tile=tile)
    assert actual.dtype == np.int32 and np.array_equal(actual, expected)


@pytest.mark.parametrize(
    ("at", "shape"), list(enumerate(SHAPES)), ids=lambda one: "x".join(map(str, one)) if isinstance(one, tuple) else ""
)
def test_every_edge_of_a_tile(host, at, shape):
    """On the host every shape meets one tile, one pair of signs and one kind of zero points; on a GPU all of them, below."""
    kinds = list(itertools.product(KINDS, KINDS))[at % 4]
    zeros = list(itertools.product(ZEROS, ZEROS))[(5 * at + 3) % 16]
    tile = TILES[at % len(TILES)] if at % 4 else None
    check(host, *shape, kinds, zeros, fixed=(at % 3 == 0, at % 2 == 0), tile=tile, seed=at)


@pytest.mark.gpu
@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, KINDS)), ids="-".join)
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=lambda one: "x".join(map(str, one)))
def test_every_edge_of_every_tile(gpu, shape, kinds):
    for at, tile in enumerate(TILES):
        zeros = MIXED[(sum(shape) + 2 * at) % len(MIXED)]
        check(gpu, *shape, kinds, zeros, fixed=(at % 2 == 0, at % 2 == 1), tile=tile, seed=at)
    check(gpu, *shape, kinds, ("one", "each"), fixed=(False, True))


@pytest.mark.parametrize("batches", [(3, 3), (1, 3), (2, 6)], ids=str)
def test_batches(backend, batches):
    check(backend, 18, 20, 50, ("u8", "i8"), ("each", "one"), batches)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    m=st.integers(0, 70), n=st.integers(0, 70), k=st.integers(0, 200), kinds=st.tuples(*[st.sampled_from(sorted(KINDS))] * 2),
    zeros=st.tuples(*[st.sampled_from(ZEROS)] * 2), fixed=st.tuples(st.booleans(), st.booleans()), seed=st.integers(0, 99),
)  # fmt: skip
def test_any(host, m, n, k, kinds, zeros, fixed, seed):
    check(host, m, n, k, kinds, zeros, fixed=fixed, tile=TILES[seed % len(TILES)], seed=seed) if m and n else None


@pytest.mark.parametrize("tile", [None, *TILES], ids=lambda one: f"{one.m}x{one.n}" if one else "dp4a")
def test_sums_wrap(backend, tile):
    a, b = np.full((1, 2, 40000), 255, np.uint8), np.full((1, 40000, 3), 255, np.uint8)
    expected = exact(a, b, None, None, 1)
    assert (expected < 0).all()
    assert np.array_equal(computed(backend, a, b, tile=tile, small=tile is None), expected)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("scales", [(1, 1), (0, 1), (1, 0)], ids=["one", "rows", "columns"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_scaled_as_what_lies_in_memory(backend, kind, scales, bias):
    """The kernel's own ending has the bits of sums that are scaled by a kernel behind it."""
    random = np.random.default_rng(3)
    m, n, k = 37, 43, 90
    a, b = drawn(random, "u8", 1, m, k), drawn(random, kind, 1, k, n)
    count = {0: m, 1: 1}, {0: n, 1: 1}
    a_scale, b_scale = (np.float32(random.uniform(1e-4, 4e-3, count[at][one])) for at, one in enumerate(scales))
    extra = host_tensor(random.integers(-90000, 90000, m).astype(np.int32)) if bias else None
    ending = Requantised(
        U8 if kind == "u8" else I8, host_tensor(a_scale), host_tensor(b_scale), host_tensor(np.float32(0.0011)),
        host_tensor(KINDS[kind](11)), extra,
    )  # fmt: skip
    points = np.uint8(120), drawn(random, kind, n)
    actual, expected = (computed(backend, a, b, points, ending=ending, small=small) for small in (False, True))
    assert np.array_equal(actual, expected) and len(np.unique(actual)) > 100


def test_tiles_follow_the_shape():
    """What was fastest on an H200."""
    fastest = {
        (4096, 4096, 4096): 128,
        (1024, 3072, 768): 128,
        (1024, 768, 3072): 64,
        (128, 768, 768): 16,
        (1, 768, 3072): 16,
    }
    assert {shape: choose(*shape, 1, 132).m for shape in fastest} == fastest
