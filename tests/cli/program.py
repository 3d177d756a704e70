"""Run ``probe`` as a user does: a process, its exit code, its two streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.forked import run_forked

ROOT = Path(__file__).resolve().parents[2]


def environment(changed: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "PYTHONWARNINGS")}
    return kept | {"PYTHONPATH": str(ROOT)} | dict(changed or {})


def probe(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """``probe WORDS`` in ``cwd``; stdout and stderr as text, nothing raised whatever the exit code.

    Calls are forks of a process that has imported already; those in another environment, which may be read when Python starts, start it.
    """
    words = ("-m", "probe", *map(str, words))
    if env is None and sys.platform == "linux":
        return run_forked(words, cwd, environment(), timeout)
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment(env), capture_output=True, text=True, timeout=timeout, check=False
    )  # fmt: skip
