"""``diff_tactics``: the choices of good and bad runs compared, suspects ranked. Runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from probe.blame.run_files import RunTactics, check_comparable, read_runs
from probe.blame.suspects import PRIOR, Suspicion, same_everywhere, suspects_of
from probe.errors import InputError
from probe.results.blame import RunFile, TacticsDiffResult, TacticSuspect


def diff_tactics(good: Sequence[str | Path], bad: Sequence[str | Path], *, command: str = "") -> TacticsDiffResult:
    """Rank the choices by how suspect they are.

    Args:
        good, bad: tactic files, or replay files of Polygraphy; folders stand for all such files in them.

    Raises:
        InputError: a side without files, a file that cannot be read, the same file on both sides, files of two models or tools.
    """
    for side, paths in (("good", good), ("bad", bad)):
        if not paths:
            raise InputError(f"no {side} run is named", where=f"--{side}", hint="a tactic file, or a folder of them")
    fine, wrong = read_runs(good), read_runs(bad)
    both = {Path(one.path).resolve() for one in fine} & {Path(one.path).resolve() for one in wrong}
    if both:
        raise InputError(f"{min(map(str, both))} is named as a good and as a bad run")
    notes = list(check_comparable([*fine, *wrong]))
    twins = {one.sha256 for one in fine} & {one.sha256 for one in wrong}
    if twins:
        bad_twins = [one.path for one in wrong if one.sha256 in twins]
        notes.append(
            f"{len(bad_twins)} of {len(wrong)} bad runs have exactly the choices of a good one ({bad_twins[0]}): "
            "something else than tactics plays a part"
        )
    builds, more = zip(*(_distinct(side, runs) for side, runs in (("good", fine), ("bad", wrong))), strict=True)
    notes += [note for note in more if note]
    found, unexplained = suspects_of(*([one.choices for one in runs] for runs in builds))
    layers, same = same_everywhere([one.choices for one in (*fine, *wrong)])
    shown = _Words([*fine, *wrong])
    return TacticsDiffResult(
        good=tuple(_run_file(one, bad=False) for one in fine), bad=tuple(_run_file(one, bad=True) for one in wrong),
        suspects=tuple(map(shown.suspect, found)), unexplained=unexplained, prior=PRIOR, layers=layers, same=same,
        kind=fine[0].kind, notes=tuple(notes), command=command,
    )  # fmt: skip


def _distinct(side: str, runs: Sequence[RunTactics]) -> tuple[list[RunTactics], str]:
    """Runs with different choices, and a note where there are fewer of them. The same choices run again ended as they did before: counted
    twice they would be evidence that nobody has."""
    builds = list({one.sha256: one for one in reversed(runs)}.values())[::-1]
    if len(builds) == len(runs):
        return builds, ""
    return builds, f"{len(runs)} {side} runs are {len(builds)} by their choices: the same ones again count once"


class _Words:
    """Suspicions in the words of the files: precisions are left out where all runs have the same."""

    def __init__(self, runs: Sequence[RunTactics]) -> None:
        self._layers = {key: layer for run in runs for key, layer in run.layers.items()}
        precisions = {line.precision for run in runs if run.file is not None for line in run.file.layers}
        self._suffix = f" in {precisions.pop()}" if len(precisions) == 1 else ""

    def suspect(self, one: Suspicion) -> TacticSuspect:
        layer = self._layers[one.layer]
        return TacticSuspect(
            layer.layer, layer.outputs, self._word(one.choice), one.bad, one.good, one.bad_runs, one.good_runs, one.p_value,
            one.posterior, one.alike, {self._word(choice): count for choice, count in one.instead.items()},
        )  # fmt: skip

    def _word(self, choice: object) -> str:
        return str(choice).removesuffix(self._suffix) if self._suffix else str(choice)


def _run_file(run: RunTactics, *, bad: bool) -> RunFile:
    return RunFile(run.path, bad, len(run.choices), run.sha256)
