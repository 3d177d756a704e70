"""Normalisations that are made of others, reductions of nothing, over no axis and of integers: every case of the table, on both devices."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.device.cuda.ops.reduce import reduced
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import I64
from probe.engine.device.cuda.tensors.tensor import host_tensor
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.normalised_cases import INTEGERS, NORMALISED, NOTHING


@pytest.mark.parametrize(("place", "case", "precision"), table(*NORMALISED))
def test_normalised(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*NOTHING))
def test_nothing(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*INTEGERS))
def test_integers(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("axis", [0, 1])
def test_integers_are_exact(backend, axis):
    """Beyond what ONNX Runtime computes right: modulo 2^64, as numpy does."""
    x = np.random.default_rng(axis).integers(-(1 << 62), 1 << 62, (40, 300))
    queue = Queue(backend, 18)
    for op, expected in (("SUM", x.sum(axis)), ("PROD", x.prod(axis)), ("MAX", x.max(axis)), ("MIN", x.min(axis))):
        assert np.array_equal(reduced(queue, host_tensor(x), [axis], op, I64).array(backend), expected), op
