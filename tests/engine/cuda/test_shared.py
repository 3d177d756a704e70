"""Bytes copied by several threads are the same bytes, and nothing beside them is written."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.device.cuda.runs.shared import copy_bytes


@pytest.mark.parametrize("size", [0, 1, (2 << 20) - 1, 4 << 20, (4 << 20) + 1, 9_000_001, 19_000_003])
def test_bytes_are_copied_whole(size):
    origin = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    to = np.full(size + 16, 0xA5, np.uint8)
    copy_bytes(to[8 : 8 + size], origin)
    assert to[8 : 8 + size].tobytes() == origin.tobytes()
    assert (to[:8] == 0xA5).all() and (to[8 + size :] == 0xA5).all()
