"""What is asked of a pair beside its sums, made on the device, against numpy's: histograms, the largest errors, rows, columns. All exact."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums.agreement import Agreements
from probe.engine.device.cuda.sums.comparing import Comparing, Held
from probe.engine.device.cuda.sums.counts import Counts
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor, host_tensor
from probe.engine.device.pairs import Agreement, Asked, Measure, Rows
from probe.metrics.measure import InMemory, Spec
from probe.metrics.measure import measure as on_host
from probe.metrics.sums import Sums
from probe.precision import round_to
from tests.engine.cuda.null_backend import NullBackend

STORED = {"float32": F32, "float16": F16, "bfloat16": BF16}


def made(shape: tuple[int, ...], stored: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(shape[-1])
    golden = random.standard_normal(shape).astype(np.float32)
    actual = golden + (random.standard_normal(shape) * 1e-2).astype(np.float32)
    if kind == "rows":
        golden = np.exp(2 * golden)
        golden /= golden.sum(-1, keepdims=True)
        actual = golden * np.exp(random.standard_normal(shape) / 10).astype(np.float32)
    if kind == "far":  # errors of all sizes, signs that differ, some exactly right
        actual = golden * np.exp2(random.integers(-90, 90, shape)).astype(np.float32)
        actual.reshape(-1)[::3] = golden.reshape(-1)[::3]
    if kind == "odd":
        actual.reshape(-1)[[2, 5, 70, 71]] = np.nan, np.inf, -np.inf, np.nan
        golden.reshape(-1)[70] = np.nan
    low = {"float16": "fp16", "bfloat16": "bf16"}.get(stored)
    with np.errstate(over="ignore", invalid="ignore"):
        return (round_to(actual, low) if low else actual), golden


def both(backend, shape, stored, kind) -> tuple[Queue, tuple[Tensor, Tensor], Sums]:
    actual, golden = made(shape, stored, kind)
    queue = Queue(backend, 18)
    pair = queue.convert(host_tensor(actual), STORED[stored]), host_tensor(golden)
    with np.errstate(all="ignore"):
        return queue, pair, on_host(InMemory(actual), InMemory(golden), Spec(storage=stored, rows=True))


@pytest.mark.parametrize("kind", ["near", "far", "odd"])
@pytest.mark.parametrize("stored", STORED)
def test_histograms(backend, stored, kind):
    queue, pair, expected = both(backend, (3, 1111), stored, kind)
    counts = Counts(queue)
    for at in range(2):
        assert counts.add(*pair, stored, threshold=np.inf, range_=expected.range) == at
    first, second = counts.fetch()
    assert expected.ulps is not None
    for found, histogram in ((first.errors, expected.errors), (first.ulps, expected.ulps)):
        np.testing.assert_array_equal(found[0], histogram.occupied())
        np.testing.assert_array_equal(found[1], histogram.counts[found[0]])
    assert first.ulp_max == second.ulp_max == expected.ulp_max


@pytest.mark.parametrize(("shape", "kind"), [((40000,), "near"), ((3, 1111), "odd"), ((2,), "near"), ((9, 400), "far")])
def test_largest_errors(backend, shape, kind):
    queue, pair, expected = both(backend, shape, "float32", kind)
    pairs = Pairs(queue, most=5)
    pairs.add(*pair, Measure(floor=1e-3))
    pairs.add(*pair, Measure(floor=1e-3), worst=True)
    (_, none), (_, found) = pairs.fetch()
    assert none == ()
    assert [(one.error, one.actual, one.golden) for one in found] == [
        (np.float32(one.error), one.actual, one.golden) for one in expected.worst
    ]
    assert [tuple(map(int, np.unravel_index(one.place, shape))) for one in found] == [w.place for w in expected.worst]


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((70, 33), "rows"), ((5, 1500), "rows"), ((40, 4), "near"), ((2, 3, 50), "odd"), ((1, 3000), "odd")],
)
@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_rows_and_columns(backend, shape, stored, kind):
    queue, pair, expected = both(backend, shape, stored, kind)
    looks = Agreements(queue)
    found = looks.rows_of(looks.rows(*pair, Agreement(shape[-1], kind == "rows")))
    for name in ("rows", "top1", "rows5", "top5", "kl_rows"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.kl == pytest.approx(expected.kl, abs=1e-9) and found.kl_max == pytest.approx(
        expected.kl_max, abs=1e-12
    )
    assert expected.channels is not None
    for pending in [looks.columns(*pair, shape[-1], np.inf) for _ in range(2)]:  # fetched together
        error, extent = looks.columns_of(pending)
        np.testing.assert_array_equal(error, np.float32(expected.channels.max_abs))
        np.testing.assert_array_equal(extent, expected.channels.range)


def large(*shape: int) -> Tensor:
    """Of no memory that anybody touches."""
    backend = NullBackend()
    return Tensor(shape, F32, buffer=Buffer(backend, 4))


def test_what_counters_and_sums_of_kernels_do_not_hold_is_left_to_numpy():
    queue = Queue(NullBackend(), 18)
    pair = Held(large(1 << 16, 1 << 16), queue.backend), Held(large(1 << 16, 1 << 16), queue.backend)
    comparing = Comparing(queue, 5)
    assert comparing.add(*pair, Asked(Measure(), Rows())) is None, "2^32 elements may all be NaN"
    few, many = (large(rows, 8) for rows in (600_000, 600_001))
    Agreements(queue).rows(few, few, Agreement(8, kl=True))
    Agreements(queue).rows(many, many, Agreement(8))
    with pytest.raises(Unsupported, match="divergence of 600001 rows"):
        Agreements(queue).rows(many, many, Agreement(8, kl=True))
