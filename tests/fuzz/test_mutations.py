"""Damaged recordings, saved results and models: no traceback, no hang, no crash, no blown-up memory, no wrong pass.

450 cases here, 2,250 with PROBE_THOROUGH=1; ``python -m tests.fuzz.campaign`` runs as many as are asked for, and reports/ has its figures.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.forked import run_forked
from tests.fuzz import bases
from tests.thorough import THOROUGH

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not Path("/proc").exists(), reason="needs fork and memory limits"
)

ROOT = Path(__file__).resolve().parents[2]

# kind, first seed, cases; parts of a few seconds each, so that several processes share them well
PARTS = [
    (kind, 0, count * (5 if THOROUGH else 1)) for kind, count in (
        ("dump", 65), ("dump rows", 60), ("npz", 40), ("npz members", 80), ("npy folder", 30), ("safetensors", 40), ("polygraphy", 45),
        ("polygraphy inputs", 20), ("saved results", 50), ("models", 50), ("real models", 12),
    )
]  # fmt: skip


def run(kind: str, first: int, count: int, *options: str) -> dict[str, Any]:
    # One thread a process: forked children must not inherit half a thread pool.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = run_forked(["-m", "tests.fuzz.run", kind, str(first), str(count), *options], ROOT, environment)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_there_are_enough_cases() -> None:
    assert sum(count for _, _, count in PARTS) >= 450


@pytest.mark.parametrize(("kind", "first", "count"), PARTS, ids=str)
def test_damage_never_passes_for_something_else(kind: str, first: int, count: int) -> None:
    if kind == "real models" and not bases.real_models():
        pytest.skip("no public models: set PROBE_MODELS to their folder, or put them in ../shared/models")
    tally = run(kind, first, count)
    assert tally["cases"] == count
    repeat = [
        f'python -m tests.fuzz.run "{one["kind"]}" {one["seed"]} 1 --show   # {one["outcome"]}: {one["detail"]}'
        for one in tally["findings"]
    ]
    assert not repeat, "\n" + "\n".join(repeat)
    outcomes = {outcome for row in tally["table"].values() for outcome in row}
    assert "refused" in outcomes and len(outcomes) > 1, "damage that is always or never noticed tests nothing"


@pytest.mark.parametrize(
    "kind",
    [
        "dump",
        "npz",
        "npz members",
        "npy folder",
        "safetensors",
        "polygraphy",
        "polygraphy inputs",
        "saved results",
        "models",
    ],
)
def test_without_damage_everything_is_the_same(kind: str) -> None:
    """The judge itself, on sound files: every way of reading them works and every comparison passes or fails as it should."""
    tally = run(kind, 0, 8, "--sound")
    assert tally["table"] == {"none": {"same": 8}}, tally["findings"]
