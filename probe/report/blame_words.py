"""What the pages about guilty tactics share: evaluations in words, facts at the foot, tables with a bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import count, number, seconds
from probe.report.steps import Step
from probe.report.text import Column, Page, command, elide, escape, table, wrap
from probe.results.diff import Criterion
from probe.results.find import Evaluated
from probe.results.run import GoldenInfo
from probe.results.tensors import InputInfo

_LONG = 120  # cells of a word that a sentence shows whole
UNBOUND = 1 << 30


class Described(Protocol):
    """What results about a network have in common."""

    @property
    def model(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def golden(self) -> GoldenInfo | None: ...
    @property
    def inputs(self) -> tuple[InputInfo, ...]: ...
    @property
    def acceptance(self) -> tuple[Criterion, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def seconds(self) -> dict[str, float]: ...


def outcome(one: Evaluated | None) -> str:
    """``passes, range_rel 0.0034``, ``fails: y: range_rel 0.17 > 0.05``."""
    if one is None:
        return "not evaluated"
    if one.passed:
        return "passes" + (f", range_rel {number(one.metric)}" if one.metric is not None else "")
    return "fails" + (f": {whole(one.reasons[0])}" if one.reasons else "")


def short(one: Evaluated | None) -> str:
    """``pass`` or ``FAIL`` for a column; ``-`` where it was not evaluated."""
    return "-" if one is None else "pass" if one.passed else "FAIL"


def times(factor: float) -> str:
    """``14x``, ``1.3x``, ``infx`` as ``infinitely``."""
    return f"{factor:.1f}x" if factor < 10 else f"{factor:.0f}x" if factor < 1e6 else "more than a million times"


def whole(text: str) -> str:
    """A sentence, escaped; only words that no terminal would show are cut."""
    return " ".join(elide(word, _LONG) if word else "" for word in escape(text).split(" "))


def bounded(columns: Sequence[Column], cells: Sequence[Sequence[str]], page: Page, rows: int) -> list[str]:
    """A table of at most so many rows, and how many more there are."""
    lines = table(columns, cells[:rows], page)
    return lines if len(cells) <= rows else [*lines, f"  and {len(cells) - rows} more (-v)"]


def steps_in_lines(steps: Sequence[Step], page: Page) -> list[str]:
    """What to do, each with its command."""
    lines = [page.paint("what to do", "bold")] if steps else []
    for step in steps:
        lines += [*wrap(step.why, page.width, first="  "), *command(step.words, page.width)]
    return lines


def listed(facts: Sequence[tuple[str, str]], page: Page) -> list[str]:
    """Facts by name; those without text are left out."""
    return [line for name, text in facts if text for line in wrap(text, page.width, first=f"{name:<12}")]


def foot(result: Described, page: Page, facts: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Facts of a result, its own first."""
    return listed(described(result, facts), page)


def described(result: Described, facts: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Label and sentence of each fact of a result, its own first; what is not known is left out. Texts are escaped."""
    golden = result.golden
    sources = list(dict.fromkeys(one.source for one in result.inputs))
    inputs = ", ".join(elide(one, 48) for one in sources[:3]) + (" ..." if len(sources) > 3 else "")
    made_up = "; random data can hide failures" if any(one.startswith("seed") for one in sources) else ""
    said = [
        *facts,
        ("model", escape(result.model)),
        ("device", escape(result.device)),
        ("golden", "" if golden is None else escape(golden.source.path if golden.kind == "file" else golden.kind)),
        ("inputs", f"{count(len(result.inputs), 'input set')}: {inputs}{made_up}" if result.inputs else ""),
        ("acceptance", escape(acceptance_in_words(result.acceptance)) if result.acceptance else ""),
        *(("note", whole(note)) for note in result.notes),
        ("took", seconds(sum(result.seconds.values())) if result.seconds else ""),
    ]
    return [(label, text) for label, text in said if text]
