"""A small compiled network with products, sums and layers that have one tactic only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.model import load
from tests.debug import faulty


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faulty.build(tmp_path_factory.mktemp("tuning") / "model.onnx")


@pytest.fixture(scope="session")
def engine(path: Path) -> Engine:
    """Shared: nobody changes it."""
    return compile_model(load(path))


@pytest.fixture(scope="session")
def feeds() -> dict[str, np.ndarray]:
    return faulty.feeds()
