"""Many cases of every kind, and a report: ``python -m tests.fuzz.campaign --cases 20000 -o reports/DATE-mutations.md``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench.machine import commit, describe, versions
from tests.fuzz import bases
from tests.fuzz.kinds import KINDS

ROOT = Path(__file__).resolve().parents[2]
SLICE = 250  # cases of one process
OUTCOMES = ("refused", "same", "different", "wrong", "traceback", "memory", "crash", "hang")
_PACKAGES = ("numpy", "ml_dtypes", "msgspec", "onnx", "onnxruntime-gpu", "onnxruntime", "safetensors")
_SAYS = {
    "dump": "bytes of a dump's files",
    "dump rows": "fields and lines of its manifest, the manifest's own hash made right again",
    "npz": "bytes of an archive",
    "npz members": "bytes of its arrays, the archive's checksums made right again",
    "npy folder": "bytes of one of its files",
    "safetensors": "bytes, or fields of the header",
    "polygraphy": "bytes, fields, or what is inside a base64 text of saved outputs",
    "polygraphy inputs": "the same of saved inputs",
    "saved results": "bytes or fields of what `--json` wrote: diff, regression, inspect, dump",
    "models": f"bytes, message fields, or nodes, types, shapes, attributes and weights of {len(bases.SMALL_MODELS) + 1} small models",
    "real models": f"the same of public models: {', '.join(bases.REAL_MODELS)}",
}


def run(total: int, first: int, workers: int) -> list[dict[str, Any]]:
    """Tallies of slices of cases, every kind by its share."""
    shares = {name: kind.share for name, kind in KINDS.items() if name != "real models" or bases.real_models()}
    whole = sum(shares.values())
    slices = []
    for name, share in shares.items():
        count = -(-total * share // whole)
        slices += [(name, first + start, min(SLICE, count - start)) for start in range(0, count, SLICE)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_slice, slices))


def _slice(part: tuple[str, int, int]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", *map(str, part)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    if not done.stdout:
        raise SystemExit(f"{part}: {done.stderr}")
    print(f"{part[0]} {part[1]}-{part[1] + part[2] - 1}", file=sys.stderr)
    return json.loads(done.stdout)


def report(tallies: Sequence[dict[str, Any]], command: str, seconds: float) -> str:
    """The tables as Markdown."""
    cases = sum(one["cases"] for one in tallies)
    findings = [finding for one in tallies for finding in one["findings"]]
    lines = [
        f"# {cases} damaged files",
        "",
        "Every case damages a copy of a sound file and runs probe on it in a process of its own (4 GiB of address space, 20 s). What counts: no",
        "traceback, no crash, no hang, no blown-up memory, and no answer that is wrong. Recordings are read by every way there is and by a second",
        "reader that shares nothing with probe; they are compared with the original both ways round, with the default acceptance and with",
        "`max_abs<=0`; a pass is wrong unless every output is equal. Models are loaded, exposed and recorded, and the outputs recorded must be those a",
        "plain ONNX Runtime session computes, bit by bit.",
        "",
        "| | |",
        "|---|---|",
        f"| command | `{command}` |",
        f"| commit | {commit()} |",
        *(f"| {key} | {value} |" for key, value in describe().items()),
        f"| versions | {versions(sys.executable, _PACKAGES)} |",
        f"| time | {seconds / 60:.0f} min |",
        "",
        "`refused`: InputError, exit code 2. `same`: nothing that matters was changed, and probe says so. `different`: read as what it now is, and",
        "seen to differ from the original.",
        "",
        "## By kind of file",
        "",
        *_table(
            ("kind", "damaged is", "cases", *OUTCOMES, "slowest s", "peak MB"),
            ((name, _SAYS[name], *_row([one for one in tallies if one["kind"] == name])) for name in KINDS),
        ),
        "",
        "## By damage",
        "",
        *_table(("damage", "cases", *OUTCOMES), _by_damage(tallies)),
        "",
        "## Findings of this run",
        "",
        *([f"- `{one['kind']}` case {one['seed']}, {one['damage']}: {one['outcome']}: {one['detail']}" for one in findings] or ["None."]),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(tallies: Sequence[dict[str, Any]]) -> Iterable[object]:
    if not tallies:
        return ("not run: no models", *[""] * (len(OUTCOMES) + 2))
    outcomes: Counter[str] = Counter()
    for one in tallies:
        for row in one["table"].values():
            outcomes.update(row)
    slowest, peak = max(one["slowest"] for one in tallies), max(one["peak_mb"] for one in tallies)
    return sum(one["cases"] for one in tallies), *(outcomes[name] for name in OUTCOMES), f"{slowest:.1f}", peak


def _by_damage(tallies: Sequence[dict[str, Any]]) -> Iterable[Sequence[object]]:
    table: dict[str, Counter[str]] = {}
    for one in tallies:
        for damage, row in one["table"].items():
            table.setdefault(damage, Counter()).update(row)
    return ((name, sum(row.values()), *(row[outcome] for outcome in OUTCOMES)) for name, row in sorted(table.items()))


def _table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=100_000, help="first seed; the tests run those from 0")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-o", "--output", type=Path, help="Markdown report; standard output without it")
    options = parser.parse_args()
    begun = time.monotonic()
    tallies = run(options.cases, options.first, options.workers)
    text = report(tallies, "python -m tests.fuzz.campaign " + shlex.join(sys.argv[1:]), time.monotonic() - begun)
    if options.output:
        options.output.write_text(text)
    else:
        print(text)
    return 1 if any(one["findings"] for one in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
