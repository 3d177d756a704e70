"""Softmax, normalisation and reductions: every case of the table, on both devices."""

from __future__ import annotations

import pytest

from tests.engine.cuda.cases import NORMS, REDUCTIONS, SOFTMAX
from tests.engine.cuda.compared import check, table
from tests.versions import ort_before


@pytest.mark.parametrize(("place", "case", "precision"), table(*SOFTMAX))
def test_softmax(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*NORMS))
def test_norms(request, tmp_path, place, case, precision):
    given = case.inputs["x"]  # a shape, or an array
    if precision == "bf16" and getattr(given, "shape", given) == (1, 40000) and ort_before("1.29"):
        pytest.skip("this ONNX Runtime adds up long rows less exactly")
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*REDUCTIONS))
def test_reductions(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)
