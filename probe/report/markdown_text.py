"""Markdown put together from names and sentences. Names are code, never markup; words that a site could take for anything else, too."""

from __future__ import annotations

import re
from collections.abc import Sequence

from probe.report.numbers import count
from probe.report.steps import Step
from probe.report.text import command, elide

ROWS = 10  # of a table: a comment is read in passing
_COMPARED = {">": "&gt;", "<": "&lt;", ">=": "&gt;=", "<=": "&lt;="}
_WIDTH = 80  # cells of a name
_BAR = "\\|"  # inside a table a bar ends a cell, even in code
_PLAIN = re.compile(r"[A-Za-z0-9.,:;%()+/'=-]*")


def code(text: str, width: int = _WIDTH) -> str:
    """A name as a code span, whatever backticks it holds; cut in the middle to ``width`` cells."""
    shown = elide(text, width)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def prose(text: str) -> str:
    """A sentence: words that Markdown, or a site that renders it, could take for anything else become code."""
    return " ".join(
        word if _PLAIN.fullmatch(word) and "//" not in word and "www." not in word else _code_word(word)
        for word in text.split(" ")
    )


def _code_word(word: str) -> str:
    if word in _COMPARED:
        return _COMPARED[word]
    tail = re.search(r"[.,:;]*$", word)
    end = len(word) - len(tail[0]) if tail else len(word)
    return code(word[:end]) + word[end:] if end else word


def verdict(word: str, sentence: str, what: str, more: Sequence[str] = ()) -> list[str]:
    lines = [f"### {word}: {prose(sentence)}", "", what]
    return [*lines, *([""] if more else []), *(f"- {prose(reason)}" for reason in more[:4])]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """``left`` rows more than are shown."""
    if not rows:
        return []
    lines = [f"| {' | '.join(titles)} |", f"|{'|'.join(':--' if i == 0 else '--:' for i in range(len(titles)))}|"]
    lines += [f"| {' | '.join(cell.replace('|', _BAR) for cell in row)} |" for row in rows]
    return [*lines, "", f"and {count(left)} more"] if left > 0 else lines


def to_do(steps: Sequence[Step]) -> list[str]:
    lines: list[str] = []
    for step in steps:
        lines += ["", prose(step.why)]
        written = [step.raw] if step.raw else command(step.words, 100, indent="") if step.words else []
        if written:
            fence = "`" * (1 + max((len(run) for run in re.findall("`{2,}", "\n".join(written))), default=2))
            lines += ["", f"{fence}sh", *written, fence]
    return ["**What to do**", *lines] if lines else []


def folded(title: str, part: Sequence[str]) -> list[str]:
    """A part that opens on a click; nothing where it is empty. ``title`` is words of ours and numbers, never a name."""
    return [f"<details><summary>{title}</summary>", "", *part, "", "</details>"] if part else []
