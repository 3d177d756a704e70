"""Operators that are others put together, on kernels, against the CPU device."""

from __future__ import annotations

import pytest

from tests.engine.cuda.compared import check, table
from tests.engine.cuda.function_cases import FUNCTIONS, LOSSES


@pytest.mark.parametrize(("place", "case", "precision"), table(*FUNCTIONS, *LOSSES))
def test_they_compute_what_the_cpu_does(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)
