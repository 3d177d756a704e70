"""Tables that sort and filter where scripts run, and are plain tables everywhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probe.report.html.element import Child, Markup, element
from probe.report.numbers import count

LONG = 80  # rows that fill a frame on any screen: those are laid out when they come into view, which halves the time to open a page


@dataclass(frozen=True, slots=True)
class Column:
    """``numeric`` columns are aligned right and sorted by value. ``about`` explains the title to whoever points at it.

    ``optional`` ones are left out where no row has anything to say in them.
    """

    title: str
    numeric: bool = False
    about: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """``mark`` is the style of the row (``failed``, ``warned`` or nothing), ``tags`` the filters that let it through."""

    cells: tuple[Child, ...]
    tags: tuple[str, ...] = ()
    mark: str = ""


def data_table(
    identity: str,
    caption: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    *,
    filters: Mapping[str, str] | None = None,
    numbered: bool = False,
) -> Markup:
    """A table in a frame of its own that scrolls sideways on a narrow screen.

    Args:
        caption: what is in it, for those who hear it and for the count ("27 layers").
        filters: tag -> words, for a choice beside the search field; those that no row carries are left out.
        numbered: rows get the ids ``identity-0``, ``identity-1``, ..., so that links and plots can point at them.
    """
    said = [not column.optional or any(row.cells[place] for row in rows) for place, column in enumerate(columns)]
    head = element("tr", (_heading(column) for column, shown in zip(columns, said, strict=True) if shown))
    body = [
        element(
            "tr",
            [_cell(cell, column) for cell, column, shown in zip(row.cells, columns, said, strict=True) if shown],
            id=f"{identity}-{position}" if numbered else None,
            class_=row.mark or None,
            data_tags=" ".join(row.tags) or None,
        )
        for position, row in enumerate(rows)
    ]
    table = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", body),
        id=identity,
        data_sortable=True,
    )
    style = "frame long" if len(rows) > LONG else "frame"
    framed = element("div", table, class_=style, tabindex=0, role="region", aria_label=caption)
    return element("div", _controls(identity, rows, filters or {}), framed, class_="table")


def _heading(column: Column) -> Markup:
    return element(
        "th", column.title, scope="col", class_="number" if column.numeric else None, title=column.about or None
    )


def _cell(cell: Child, column: Column) -> Markup:
    return element("td", cell, class_="number" if column.numeric else None)


def _controls(identity: str, rows: Sequence[Row], filters: Mapping[str, str]) -> Markup | None:
    """Hidden until the script that makes them work has run."""
    if len(rows) < 6:
        return None
    carried = {tag: sum(tag in row.tags for row in rows) for tag in filters}
    choices = [
        element("option", f"{words} ({count(carried[tag])})", value=tag)
        for tag, words in filters.items()
        if carried[tag]
    ]
    choice = element(
        "label",
        element("span", "Show", class_="word"),
        element("select", element("option", f"all ({count(len(rows))})", value=""), choices, data_choose=identity),
    )
    search = element(
        "label",
        element("span", "Find", class_="word"),
        element("input", type="search", placeholder="part of a name", data_filter=identity, autocomplete="off"),
    )
    shown = element("output", "", data_shown=identity, aria_live="polite")
    return element("div", search, choice if choices else None, shown, class_="controls", hidden=True)
