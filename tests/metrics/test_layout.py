"""Where items, channels and classes lie: shapes at the limits of what tables hold."""

from __future__ import annotations

import numpy as np
import pytest

from probe.metrics.formulas import metrics_of
from probe.metrics.layout import MAX_CHANNELS
from probe.metrics.measure import InMemory, Spec, measure


@pytest.mark.parametrize("shape", [(3, MAX_CHANNELS + 1), (2, 2, MAX_CHANNELS + 5), (1, MAX_CHANNELS + 1)], ids=str)
def test_more_channels_than_a_table_holds_are_no_channels(shape: tuple[int, ...]) -> None:
    golden = np.ones(shape, np.float32)
    actual = golden.copy()
    actual[-1, ..., 7] = 1.5
    found = metrics_of(measure(InMemory(actual), InMemory(golden), Spec()))
    assert (found.channel, found.channel_axis, found.channel_worst) == (None, None, None)
    assert (found.range_rel_item, found.max_abs) == (0.5, 0.5)
    assert found.top1 is not None, "classes are still looked at"
