"""``recorder()`` starts a new recording in the test's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compare.recorder import Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Callable[[], Recorder]:
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder(tmp_path / f"dump-{len(made)}"))
        return made[-1]

    return make
