"""How much is run. Some tests go through thousands of cases of one kind; here they take a share of them, PROBE_THOROUGH=1 takes all."""

from __future__ import annotations

import os
import zlib

import pytest

THOROUGH = bool(os.environ.get("PROBE_THOROUGH"))
# Long, and of what others show as well
longest = pytest.mark.skipif(not THOROUGH, reason="takes longest; PROBE_THOROUGH=1 runs it")


def chosen(name: str, one_in: int) -> bool:
    """Whether a case is run: one in so many, the same ones every time, whatever the order of the others."""
    return THOROUGH or zlib.crc32(name.encode()) % one_in == 0
