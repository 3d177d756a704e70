"""The engine that tests of saving share."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.engine.engine import Engine
from tests.engine.saved.small import small_engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A small engine; its model is ``tmp_path/m.onnx``."""
    return small_engine(tmp_path)
