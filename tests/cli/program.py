"""Run ``probe`` as a user does: a process, its exit code, its two streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.cli.forked import forked

ROOT = Path(__file__).resolve().parents[2]


def environment(changed: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "PYTHONWARNINGS")}
    return kept | {"PYTHONPATH": str(ROOT)} | dict(changed or {})


def probe(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """``probe WORDS`` in ``cwd``; stdout and stderr as text, nothing raised whatever the exit code.

    Most calls are forks of one process that has imported already; other environments than ours, and other systems, start Python.
    """
    wanted = environment(env)
    if sys.platform == "linux" and forked().serves(wanted):
        return forked().run([str(word) for word in words], cwd, timeout)
    command = [sys.executable, "-m", "probe", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=wanted, capture_output=True, text=True, timeout=timeout, check=False)
