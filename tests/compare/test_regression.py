"""Two saved results, before and after."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from probe.compare.regression import diff_results
from probe.results.diff import DiffResult
from tests.compare.recorder import GOLDEN, diff


class TestRegression:
    def result(self, recorder: Any, **errors: float) -> DiffResult:
        golden = dict.fromkeys(errors, GOLDEN)
        actual = {name: GOLDEN + np.float32(error) for name, error in errors.items()}
        return diff(recorder, actual, golden, precision="fp16")

    @pytest.mark.parametrize(
        ("before", "after", "verdict", "status"),
        [
            (1e-3, 1e-3, "passed", "same"),
            (1e-3, 1.5e-3, "passed", "same"),
            (1e-3, 5e-3, "failed", "worse"),
            (5e-3, 1e-3, "passed", "better"),
            (1e-3, 1.0, "failed", "worse"),
            (1e-3, math.nan, "failed", "worse"),
            (math.nan, 1e-3, "passed", "better"),
            (0.0, 1e-7, "passed", "same"),
        ],
    )
    def test_outputs(self, recorder: Any, before: float, after: float, verdict: str, status: str) -> None:
        found = diff_results(self.result(recorder, y=before), self.result(recorder, y=after))
        assert (found.verdict, found.changes[0].status, bool(found)) == (verdict, status, verdict == "passed")

    def test_an_output_that_is_gone_is_a_regression(self, recorder: Any) -> None:
        found = diff_results(self.result(recorder, y=0.0, z=0.0), self.result(recorder, y=0.0))
        assert (found.verdict, found.reasons) == ("failed", ("z is gone",))
