"""Damaged saved results: refused, or read as what they say; a regression in them is never passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from probe.compare.regression import diff_results
from probe.errors import InputError
from probe.report.terminal import render
from probe.results.diff import DiffResult
from probe.results.json import dumps, load, loads
from tests.fuzz.sandbox import WrongError

_RANK = ("passed", "warned", "not_judged", "failed")


def judge_result(original: Path, damaged: Path, seed: int) -> tuple[str, str]:
    """Load, show, save again, and compare with the original before and after.

    Raises:
        WrongError: another content than the file has, or a regression that passes.
    """
    before = load(original)
    try:
        after = load(damaged)
    except InputError as error:
        return "refused", error.what
    text = dumps(after)
    if dumps(loads(text)) != text:
        raise WrongError("a saved result does not come back as it was")
    render(after)
    render(after, verbose=True)
    render(after, quiet=True)
    render(after, rows=1)
    if isinstance(before, DiffResult) and isinstance(after, DiffResult):
        tree = json.loads(damaged.read_bytes())
        for first, second in ((before, after), (after, before)):
            render(diff_results(first, second))
        if diff_results(before, after):
            _no_regression(before, tree)
    return ("same" if dumps(before) == dumps(after) else "different"), ""


def _no_regression(before: DiffResult, tree: dict[str, Any]) -> None:
    """What the damaged file says, from its JSON alone: no output is gone, and none is worse."""
    if _RANK.index(tree["verdict"]) > _RANK.index(before.verdict):
        raise WrongError("passed, and the verdict is worse")
    after = {one["name"]: one for one in tree["tensors"]}
    for old in before.outputs:
        new = after.get(old.name)
        if new is None or new.get("status") == "not_recorded":
            raise WrongError(f"passed, and output {old.name!r} is gone")
        if new["role"] != "output":
            continue
        if _RANK.index(new["verdict"]) > _RANK.index(old.verdict):
            raise WrongError(f"passed, and the verdict of {old.name!r} is worse")
        if old.metrics is None or not new.get("metrics"):
            continue
        error = float(new["metrics"]["range_rel"])
        if not error <= max(2.001 * old.metrics.range_rel, 2.1e-6):
            raise WrongError(f"passed, and range_rel of {old.name!r} went from {old.metrics.range_rel} to {error}")
        if int(new["metrics"]["nonfinite_mismatch"]) and not old.metrics.nonfinite_mismatch:
            raise WrongError(f"passed, and {old.name!r} has NaN or Inf that golden lacks")
