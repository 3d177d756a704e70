"""Drawn tactics recorded in one process and replayed strictly in another, on the public models: the same choices, the same bits?

    python tests/bench/tactics_models.py
    python tests/bench/tactics_models.py --precisions fp16 --models ../shared/models ../shared/exports --seed 1

Each model is recorded with an order drawn from a seed (nothing is timed) on the first of its data sets, and replayed by a process of its own. A
row a precision; a model that the two do not agree on is named. Exit 1 where one is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = "| precision | models | the same choices and bits | layers | of them not exact | tactics | s |"


def probe(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "probe", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )


def recorded_and_replayed(model: Path, data: Path, precision: str, seed: int, folder: Path) -> list[str] | None:
    """The tactics of the layers; None: another process did not make the same of them."""
    file, result = folder / "tactics", folder / "replay.json"
    done = probe(
        "tactics", "record", model, "--inputs", data, "--precision", precision, "--no-times", "--choose", "random", "--choose-seed",
        str(seed), "-o", file, "--overwrite", "-q",
    )  # fmt: skip
    if done.returncode > 1:
        raise RuntimeError(done.stderr)
    again = probe("tactics", "replay", model, file, "--inputs", data, "--json", result, "-q")
    if again.returncode > 1:
        return None
    run = json.loads(result.read_text())
    said = [line["tactic"] for line in json.loads(file.read_text())["layers"]]
    return said if run["identical"] and [one["tactic"] for one in run["run"]["layers"]] == said else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared"
    parser.add_argument("--models", type=Path, nargs="+", default=[shared / "models", shared / "exports"])
    parser.add_argument("--precisions", nargs="+", default=["fp16", "bf16", "tf32", "fp32"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cases = [
        (folder / one["file"], min((folder / "data").glob(f"{one['name']}__*.npz")))
        for folder in options.models
        for one in json.loads((folder / "MANIFEST.json").read_text())["models"]
    ]
    print(HEAD, "|---" * 7 + "|", sep="\n", flush=True)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in options.precisions:
            begin, used, layers = time.perf_counter(), Counter[str](), 0
            for model, data in cases:
                found = recorded_and_replayed(model, data, precision, options.seed, Path(folder))
                if found is None:
                    wrong.append(f"{model.stem} in {precision}")
                    continue
                used.update(found)
                layers += len(found)
            failed = sum(one.endswith(f" in {precision}") for one in wrong)
            odd = layers - used.pop("exact", 0)
            cells = [
                precision,
                len(cases),
                f"{len(cases) - failed} of {len(cases)}",
                layers,
                odd,
                len(used),
                f"{time.perf_counter() - begin:.0f}",
            ]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print("", *(f"not the same: {one}" for one in wrong), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
