"""Pointwise operators, one at a time: every case of the table, on both devices."""

from __future__ import annotations

import pytest

from tests.engine.cuda.cases import POINTWISE
from tests.engine.cuda.compared import check, table


@pytest.mark.parametrize(("place", "case", "precision"), table(*POINTWISE))
def test_pointwise(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)
