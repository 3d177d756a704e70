"""Normalisations that are made of others, reductions of nothing and over no axis: every case of the table, on both devices."""

from __future__ import annotations

import pytest

from tests.engine.cuda.compared import check, table
from tests.engine.cuda.normalised_cases import NORMALISED, NOTHING


@pytest.mark.parametrize(("place", "case", "precision"), table(*NORMALISED))
def test_normalised(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*NOTHING))
def test_nothing(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)
