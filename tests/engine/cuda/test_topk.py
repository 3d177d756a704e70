"""TopK: every case of the table, on both devices; what ONNX Runtime leaves to chance; which kernels take which rows."""

from __future__ import annotations

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.ranking import Ranking
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.ops.topk import ranked
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, I64
from probe.engine.device.cuda.tensors.tensor import host_tensor
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.ranked_cases import COMBINED, TOP_K


@pytest.mark.parametrize(("place", "case", "precision"), table(*TOP_K))
def test_top_k(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*COMBINED))
def test_combined(request, tmp_path, place, case, precision):
    """Bit for bit: sums are added up in ONNX Runtime's order."""
    check(request.getfixturevalue(place), case, precision, tmp_path)


def best(x: np.ndarray, k: int, *, least: bool) -> np.ndarray:
    """Places of the k best of each row, by numpy: of equal elements the first, NaN larger than every number."""
    sign = 1 if least else -1
    keys = (
        np.broadcast_to(np.arange(x.shape[-1]), x.shape),
        sign * np.nan_to_num(x, nan=0),
        sign * np.isnan(x).astype(int),
    )
    return np.lexsort(keys, axis=-1)[..., :k]


@pytest.mark.parametrize("stored", [F32, F16, BF16], ids=lambda one: one.name)
@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize(("cols", "k"), [(40, 9), (900, 12), (9500, 70)])
def test_nan_is_larger_than_every_number(backend, cols, k, least, stored):
    """Of either sign; ONNX Runtime's answer depends on which of its algorithms it takes."""
    x = np.random.default_rng(cols).integers(-9, 9, (2, cols)).astype(np.float32)
    x[0, [3, 30]], x[1, [4, 20]], x[:, 9] = np.nan, -np.nan, np.inf
    queue = Queue(backend, 18)
    y, places = queue.empty((2, k), stored), queue.empty((2, k), I64)
    ranked(queue, Ranking(queue.convert(host_tensor(x), stored), y, places, 2, cols, k, least))
    wanted = best(x, k, least=least)
    assert np.array_equal(places.array(backend), wanted)
    assert np.array_equal(y.array(backend), np.take_along_axis(x, wanted, -1), equal_nan=True)


@pytest.mark.parametrize(
    ("shape", "k", "launches"),
    [
        ((4096, 60), 5, {"topk_sort": 1}),
        ((4096, 100), 5, {"topk_few": 1}),
        ((4096, 50257), 50, {"topk_few": 2}),
        ((1, 1 << 20), 100, {"topk_few": 2}),
        ((1000, 1000), 200, {"topk_select": 1}),
        ((1, 1 << 20), 1000, {"topk_select": 4}),
        ((1000, 1000), 1000, {"radix_tile": 1}),
        ((1, 1 << 20), 1 << 20, {"radix_clear": 1, "radix_count": 1, "radix_pass": 4}),
    ],
)
def test_which_kernels_take_rows(shape, k, launches):
    queue = Queue(NullBackend(), 18)
    y, places = queue.empty((shape[0], k), F32), queue.empty((shape[0], k), I64)
    ranked(queue, Ranking(queue.empty(shape, F32), y, places, shape[0], shape[1], k, least=False))
    assert queue.launches == launches


def test_no_rows_have_no_best(backend):
    """ONNX Runtime 1.30 crashes."""
    node = ir.node("TopK", [ir.Value(name=one) for one in "xk"], {}, outputs=[ir.Value(name=one) for one in "vi"])
    given = [host_tensor(np.zeros((0, 8), np.float32)), host_tensor(np.array([3]))]
    made = OPS["TopK"].compute(Queue(backend, 18), Call(node, given, [F32, I64], 18))
    assert [one.shape for one in made if one is not None] == [(0, 3), (0, 3)]
