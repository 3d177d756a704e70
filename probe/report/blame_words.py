"""What the pages about guilty tactics share: evaluations in words, facts at the foot, tables with a bound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from probe.report.diff_facts import acceptance_in_words, fact_lines
from probe.report.numbers import number, seconds
from probe.report.steps import exactly, inputs_of, on_device
from probe.report.text import Column, Page, elide, escape, table
from probe.report.words import inputs_in_words
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


def recorded_with(
    result: Described, option: Literal["--allow", "--deny"], rules: Iterable[tuple[str, Sequence[str]]], out: str
) -> tuple[str, ...]:
    """The command that chooses tactics again, under a rule for each (tactic, outputs of its layer), and writes them to ``out``."""
    words = ["probe", "tactics", "record", result.model, "--precision", result.precision, *inputs_of(result.inputs)]
    words += on_device(result.device)
    for tactic, outputs in rules:
        words += [option, f"{exactly([tactic])[1:-1]} @ {exactly(outputs[:1])}"]
    return (*words, "-o", out)


def foot(result: Described, page: Page, facts: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Facts of a result, its own first."""
    return fact_lines(described(result, facts), page)


def described(result: Described, facts: Sequence[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Label and sentence of each fact of a result, its own first; what is not known is left out. Texts are escaped."""
    golden = result.golden
    said = [
        *facts,
        ("model", escape(result.model)),
        ("device", escape(result.device)),
        ("golden", "" if golden is None else escape(golden.source.path if golden.kind == "file" else golden.kind)),
        ("inputs", inputs_in_words(result.inputs)),
        ("acceptance", escape(acceptance_in_words(result.acceptance)) if result.acceptance else ""),
        *(("note", whole(note)) for note in result.notes),
        ("took", seconds(sum(result.seconds.values())) if result.seconds else ""),
    ]
    return [(label, text) for label, text in said if text]
