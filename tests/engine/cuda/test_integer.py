"""Products and convolutions of 8-bit integers, and what makes them: every case of the table, on both devices, exact."""

from __future__ import annotations

import pytest

from tests.engine.cuda.compared import check, table
from tests.engine.cuda.integer_cases import CONVOLUTIONS_OF_INTEGERS, DYNAMIC, PRODUCTS_OF_INTEGERS


@pytest.mark.parametrize(("place", "case", "precision"), table(*PRODUCTS_OF_INTEGERS))
def test_products(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*CONVOLUTIONS_OF_INTEGERS))
def test_convolutions(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*DYNAMIC))
def test_dynamic(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)
