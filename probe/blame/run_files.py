"""Files that say which tactics runs had: tactic files and Polygraphy's replay files, single or in folders of good and bad ones."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from probe.blame.polygraphy_replay import is_polygraphy_replay, read_polygraphy_replay
from probe.engine.tuning.tactic_file import read_tactic_file
from probe.errors import InputError
from probe.results.json import is_result
from probe.results.tactics import TacticFile

Kind = Literal["probe", "polygraphy"]
_HINT = "tactic files are written by: probe tactics record MODEL -o FILE"


@dataclass(frozen=True, slots=True)
class LayerKey:
    """A layer as files identify it: the tensors it makes, or, in Polygraphy's files, TensorRT's name of it."""

    layer: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class RunTactics:
    """What one run chose.

    Attributes:
        choices: tensors a layer makes (or its name, or both where branches make the same), as one string -> what was chosen, in words.
        layers: the same keys -> the layer.
        file: the tactic file; None for Polygraphy's.
        edited: it is not as it was written.
    """

    path: str
    kind: Kind
    choices: Mapping[str, str]
    layers: Mapping[str, LayerKey]
    file: TacticFile | None = None
    edited: bool = False

    @property
    def sha256(self) -> str:
        """Of the choices."""
        return hashlib.sha256(json.dumps(sorted(self.choices.items())).encode()).hexdigest()


def read_run(path: str | Path) -> RunTactics:
    """The choices in one file.

    Raises:
        InputError: neither a tactic file nor a replay of Polygraphy's, or a damaged one.
    """
    if is_polygraphy_replay(path):
        replay = read_polygraphy_replay(path)
        return RunTactics(
            str(path), "polygraphy", {name: str(one) for name, one in replay.items()},
            {name: LayerKey(name, ()) for name in replay},
        )  # fmt: skip
    file, whole = read_tactic_file(path)
    made = Counter(line.outputs for line in file.layers)
    keys = {
        json.dumps([line.outputs, line.layer] if made[line.outputs] > 1 else line.outputs): line for line in file.layers
    }
    return RunTactics(
        str(path), "probe", {key: f"{line.tactic} in {line.precision}" for key, line in keys.items()},
        {key: LayerKey(line.layer, line.outputs) for key, line in keys.items()}, file,
        edited=not whole,
    )  # fmt: skip


def files_below(path: str | Path) -> list[Path]:
    """A file itself; of a folder all tactic and replay files in it, at any depth, in the order of their names.

    Raises:
        InputError: nothing there, or a folder without any.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = [one for one in sorted(path.rglob("*")) if one.is_file() and _says_tactics(one)]
    if not found:
        raise InputError("no tactic files in this folder", where=str(path), hint=_HINT)
    return found


def _says_tactics(path: Path) -> bool:
    if is_polygraphy_replay(path):
        return True
    if not is_result(path):
        return False
    with open(path, "rb") as file:
        return b'"probe.tactics/1"' in file.read(4096)


def good_and_bad(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Files below the subfolders ``good`` and ``bad`` of a folder, at any depth: what Polygraphy's ``--dir`` takes.

    Raises:
        InputError: no such subfolder, or no files in one.
    """
    root = Path(folder)
    sides: list[list[Path]] = []
    for side in ("good", "bad"):
        named = [one for one in sorted(root.rglob(side)) if one.is_dir()]
        files = list(dict.fromkeys(file for one in named for file in files_below(one)))
        if not files:
            raise InputError(
                f"no folder called {side!r} with tactic files", where=str(folder), hint=f"or name them: --{side} FILE"
            )
        sides.append(files)
    return sides[0], sides[1]


def read_runs(paths: Iterable[str | Path]) -> list[RunTactics]:
    """All files named, those of folders included, each once.

    Raises:
        InputError: as ``read_run`` and ``files_below``.
    """
    return [read_run(one) for one in dict.fromkeys(file for path in paths for file in files_below(path))]


def check_comparable(runs: Sequence[RunTactics]) -> tuple[str, ...]:
    """Notes about what differs between runs beside their tactics.

    Raises:
        InputError: they are not of one model, or of two tools.
    """
    first = runs[0]
    notes = [f"{run.path} was edited after it was recorded" for run in runs if run.edited]
    for run in runs[1:]:
        if run.kind != first.kind:
            raise InputError(
                "files of two tools cannot be compared",
                where=f"{first.path} is {first.kind}'s, {run.path} {run.kind}'s",
            )
        if first.file is None or run.file is None:
            continue
        ours, theirs = first.file.fingerprint, run.file.fingerprint
        if ours.model_sha256 != theirs.model_sha256:
            raise InputError(
                f"runs of two models: {ours.model_sha256[:12]} and {theirs.model_sha256[:12]}",
                where=f"{first.path} and {run.path}", hint="compare runs of one model",
            )  # fmt: skip
        notes += [
            f"{run.path}: another {what} than {first.path}: {getattr(theirs, what)}"
            for what in ("device", "processor", "driver")
            if getattr(ours, what) != getattr(theirs, what)
        ]
        if ours.sources != theirs.sources:
            notes.append(f"{run.path}: another version of the tactics than {first.path}")
        notes += [
            f"{run.path}: {what} {getattr(run.file, what)}, not {getattr(first.file, what)}"
            for what in ("precision", "passes", "fusion", "interior")
            if getattr(first.file, what) != getattr(run.file, what)
        ]
    return tuple(dict.fromkeys(notes))


def least_different(
    good: Sequence[RunTactics], bad: Sequence[RunTactics]
) -> tuple[RunTactics, RunTactics, tuple[str, ...]]:
    """The good and the bad run with the fewest different choices, of equally different ones the first; and notes about that.

    Raises:
        InputError: a side without files, or files that cannot be compared.
    """
    if not good or not bad:
        raise InputError("a good and a bad run are needed", hint=_HINT)
    notes = check_comparable([*good, *bad])
    pairs = [(_apart(fine, wrong), fine, wrong) for wrong in bad for fine in good]
    apart = [pair for pair in pairs if pair[0]]
    differing, fine, wrong = min(apart or pairs, key=lambda pair: pair[0])
    if len(pairs) > 1:
        said = (
            f"of {len(good)} good and {len(bad)} bad files, {fine.path} and {wrong.path} differ least: in {differing}"
        )
        notes = (*notes, said)
    return fine, wrong, notes


def _apart(one: RunTactics, other: RunTactics) -> int:
    return sum(one.choices.get(key) != other.choices.get(key) for key in {*one.choices, *other.choices})
