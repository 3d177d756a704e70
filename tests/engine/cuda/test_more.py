"""Recurrent cells, indexed elements, tensors made from numbers, scans, quantisation: every case of the table, on both devices."""

from __future__ import annotations

import pytest

from tests.engine.cuda.compared import check, table
from tests.engine.cuda.more_cases import GENERATED, INDEXED, QUANTISED, RECURRENT


@pytest.mark.parametrize(("place", "case", "precision"), table(*RECURRENT))
def test_recurrent(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*INDEXED))
def test_indexed(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*GENERATED))
def test_generated(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*QUANTISED))
def test_quantised(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)
