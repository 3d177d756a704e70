"""Run cases: ``python -m tests.fuzz.run KIND FIRST COUNT`` prints what came out, and exits 1 when any of it is a finding.

``--show`` leaves the damaged file of case FIRST in ``fuzz-case`` and prints the traceback. ``--sound`` damages nothing: every case must
then be ``same``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.fuzz.kinds import KINDS, prepare
from tests.fuzz.sandbox import Outcome, run


@dataclass(slots=True)
class Tally:
    """``table``: damage -> outcome -> how often. ``findings``: kind, seed, damage, outcome and detail of what is not good."""

    kind: str
    cases: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_seed: int = 0
    peak_mb: int = 0
    peak_seed: int = 0
    table: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, seed: int, damage: str, outcome: Outcome) -> None:
        self.cases += 1
        self.seconds += outcome.seconds
        if outcome.seconds > self.slowest:
            self.slowest, self.slowest_seed = outcome.seconds, seed
        if outcome.peak_mb > self.peak_mb:
            self.peak_mb, self.peak_seed = outcome.peak_mb, seed
        row = self.table.setdefault(damage, {})
        row[outcome.kind] = row.get(outcome.kind, 0) + 1
        if not outcome.good:
            self.findings.append(
                {"kind": self.kind, "seed": seed, "damage": damage, "outcome": outcome.kind, "detail": outcome.detail}
            )


def cases(kind: str, first: int, count: int, folder: Path, *, until_found: bool = False) -> Tally:
    """Cases ``first`` to ``first + count`` of a kind, each in a child of its own. Nothing is left in ``folder``.

    Args:
        until_found: stop at the first finding.
    """
    _import_everything()
    originals = _originals(kind, folder)
    tally = Tally(kind)
    if not originals:
        return tally
    for seed in range(first, first + count):
        tally.add(seed, *one_case(kind, seed, originals, folder / "work"))
        if until_found and tally.findings:
            break
    return tally


def one_case(kind: str, seed: int, originals: list[Path], work: Path, *, keep: bool = False) -> tuple[str, Outcome]:
    """What was done to the file, and what came of it."""
    (work / "out").mkdir(parents=True)
    original, damaged, damage = prepare(kind, seed, originals, work)
    outcome = run(lambda: KINDS[kind].judge(original, damaged, work / "out", seed), work / "log")
    if not keep:
        shutil.rmtree(work)
    return damage, outcome


def _originals(kind: str, folder: Path) -> list[Path]:
    """The sound files, made in a child: making them starts threads, which a process that forks must not have."""
    home = folder / "originals"
    home.mkdir()
    listing = folder / "listing.json"

    def make() -> tuple[str, str]:
        listing.write_text(json.dumps([str(path) for path in KINDS[kind].make(home)]))
        return "same", ""

    outcome = run(make, folder / "log", seconds=120)
    assert outcome.good, outcome
    return [Path(path) for path in json.loads(listing.read_text())]


def _import_everything() -> None:
    import onnx  # noqa: F401
    import onnxruntime
    import safetensors.numpy  # noqa: F401

    import tests.fuzz.judge
    import tests.fuzz.judge_models
    import tests.fuzz.judge_results  # noqa: F401

    onnxruntime.set_default_logger_severity(4)


def main() -> int:
    options = [argument for argument in sys.argv[1:] if argument.startswith("--")]
    kind, first, count = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    if "--sound" in options:
        KINDS[kind] = replace(KINDS[kind], damage=lambda _path, _rng: "none")
    with _folder() as name:
        if "--show" in options:
            return show(kind, int(first), Path(name))
        tally = cases(kind, int(first), int(count), Path(name))
    print(json.dumps(asdict(tally)))
    return 1 if tally.findings else 0


def show(kind: str, seed: int, folder: Path) -> int:
    """Repeat one case and leave its damaged file in ``fuzz-case``."""
    _import_everything()
    damage, outcome = one_case(kind, seed, _originals(kind, folder), Path("fuzz-case"), keep=True)
    print(f"{damage}: {outcome}\nfuzz-case/log:\n{Path('fuzz-case/log').read_text(errors='replace')}")
    return 0 if outcome.good else 1


def _folder() -> tempfile.TemporaryDirectory[str]:
    memory = Path("/dev/shm")  # cases write many small files
    return tempfile.TemporaryDirectory(prefix="probe-fuzz-", dir=memory if os.access(memory, os.W_OK) else None)


if __name__ == "__main__":
    sys.exit(main())
