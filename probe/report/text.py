"""Plain text for terminals and pipes: escaping, widths, wrapping, tables, colour. Nothing in a name is ever interpreted."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_CODES = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}


@dataclass(frozen=True, slots=True)
class Page:
    """Where text goes. ``width`` in terminal cells; 80 unless the terminal says otherwise."""

    width: int = 80
    colour: bool = False

    def paint(self, text: str, *styles: str) -> str:
        """``text`` in ANSI styles (``bold red green yellow dim``); unchanged without colour. Paint last: widths ignore codes."""
        if not self.colour or not text:
            return text
        return f"\x1b[{';'.join(_CODES[s] for s in styles)}m{text}\x1b[0m"


def escape(text: str) -> str:
    r"""Visible ASCII escapes for every character that could move the cursor, hide or reorder text: ``a\x1b[31m``, ``\n``.

    Letters of any script stay. The empty string is shown as ``""``, a space at either end as ``\x20``.
    """
    if text == "":
        return '""'
    if not (text.isascii() and text.isprintable()):
        text = "".join(_visible(c) for c in text)
    if text[0] == " " or text[-1] == " ":
        inner = text.strip(" ")
        before = len(text) - len(text.lstrip(" "))
        return r"\x20" * before + inner + r"\x20" * (len(text) - before - len(inner))
    return text


def _visible(character: str) -> str:
    if character.isprintable():  # control, bidi, zero-width, surrogate, private and odd spaces are not
        return character
    named = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character)
    if named:
        return named
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cells(text: str) -> int:
    """Terminal columns of escaped text: two for wide East Asian characters, none for combining marks."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(c) for c in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def elide(text: str, width: int) -> str:
    """``text`` escaped and cut in the middle to at most ``width`` cells: ``encoder/layer.0/...t/dense/MatMul``."""
    text = escape(text)
    if cells(text) <= width:
        return text
    if width <= 3:
        return "." * width
    tail = (width - 3) * 3 // 5  # the end of an ONNX name tells more than its beginning
    return _fit(text, width - 3 - tail) + "..." + _fit(text[::-1], tail)[::-1]


def _fit(text: str, width: int) -> str:
    used = 0
    for position, character in enumerate(text):
        used += _cells_of(character)
        if used > width:
            return text[:position]
    return text


def pad(text: str, width: int, align: str = "<") -> str:
    """Fill with spaces to ``width`` cells, ``<`` or ``>``."""
    space = " " * max(0, width - cells(text))
    return space + text if align == ">" else text + space


def wrap(text: str, width: int, *, first: str = "", rest: str | None = None) -> list[str]:
    """Lines of at most ``width`` cells, broken at spaces, a longer word broken hard. ``first`` and ``rest`` are indents.

    ``text`` must be escaped already; runs of spaces inside are kept only where no line ends.
    """
    rest = " " * cells(first) if rest is None else rest
    lines: list[str] = []
    line, room, empty = first, width - cells(first), True
    for word in text.split(" "):
        glue = "" if empty else " "
        if cells(word) + len(glue) <= room:
            line, room, empty = line + glue + word, room - cells(word) - len(glue), False
            continue
        if not empty:
            lines.append(line)
            line, room, empty = rest, width - cells(rest), True
        while cells(word) > room:
            part = _fit(word, max(room, 1)) or word[:1]
            lines.append(line + part)
            word, line, room = word[len(part) :], rest, width - cells(rest)
        line, room, empty = line + word, room - cells(word), False
    lines.append(line)
    return [one.rstrip() for one in lines]


def command(words: Sequence[str], width: int, *, indent: str = "    ") -> list[str]:
    r"""A shell command to copy: quoted, broken before options with ``\``. A single word longer than the line stays whole."""
    lines: list[str] = []
    line = indent
    for position, word in enumerate(words):
        quoted = quote(word)
        glue = "" if position == 0 else " "
        room = width - cells(line) - len(glue) - (0 if position == len(words) - 1 else 2)
        value = quote(words[position + 1]) if word.startswith("--") and position + 1 < len(words) else ""
        belongs = position > 0 and words[position - 1].startswith(
            "--"
        )  # an option and its value share a line, however long
        if position and not belongs and cells(quoted) + (cells(value) + 1 if value else 0) > room and line.strip():
            lines.append(line + " \\")
            line, glue = indent + "  ", ""
        line += glue + quoted
    return [*lines, line]


def quote(word: str) -> str:
    r"""One shell word; control characters as ``$'\x1b'``, so that pasting it is safe and means the same."""
    if escape(word) == word or word == "":
        return shlex.quote(word)
    body = "".join(
        c if c not in "\\'" and _visible(c) == c else "".join(f"\\x{b:02x}" for b in c.encode("utf-8", "surrogatepass"))
        for c in word
    )
    return f"$'{body}'"


def sections(*parts: Sequence[str]) -> list[str]:
    """Parts of a page with an empty line between them; empty parts are left out."""
    lines: list[str] = []
    for part in parts:
        if part:
            lines += [*([""] if lines else []), *part]
    return lines


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` in cells; 0 takes what is left (exactly one column of a table)."""

    title: str
    width: int = 0
    align: str = ">"


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], page: Page, *, indent: str = "  ") -> list[str]:
    """Aligned lines no wider than the page; cells are escaped and middle-elided to their column."""
    taken = sum(c.width for c in columns) + len(columns) - 1 + cells(indent)
    widths = [c.width or max(8, page.width - taken) for c in columns]

    def line(values: Sequence[str]) -> str:
        return (
            indent
            + " ".join(
                pad(elide(v, w) if v else "", w, c.align) for v, w, c in zip(values, widths, columns, strict=True)
            )
        ).rstrip()

    return [page.paint(line([c.title for c in columns]), "dim"), *(line(row) for row in rows)]


def fitted(title: str, values: Iterable[str], *, align: str = ">", least: int = 0, most: int = 99) -> Column:
    """A column as wide as its widest value, within ``least`` and ``most``."""
    widest = max((cells(escape(v)) for v in values), default=0)
    return Column(title, max(least, cells(title), min(most, widest)), align)
