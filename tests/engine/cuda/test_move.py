"""Data movement: the same bits in another place: every case of the table, on both devices."""

from __future__ import annotations

import pytest

from tests.engine.cuda.cases import MOVES
from tests.engine.cuda.compared import check, table


@pytest.mark.parametrize(("place", "case", "precision"), table(*MOVES))
def test_movement(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)
