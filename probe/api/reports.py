"""Saved results as documents: ``report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from probe.api.signatures import as_annotated
from probe.errors import InputError

Format = Literal["html", "md"]
PAIRED = ("probe.run/1", "probe.diff/1", "probe.find/1")  # schemas of results that are compared as before and after


@as_annotated
def report(
    results: Any | Sequence[Any],
    out: str | Path | None = None,
    *,
    format: Format | None = None,  # noqa: A002 - as on the command line
    worse_factor: float = 2.0,
) -> str:
    """A result as one HTML file that needs nothing else, or as Markdown for a pull request. Returns its text.

    Args:
        results: a result, or the path of a saved one; or two of a run, a diff or a find, before and after.
        out: where to write it; None: nowhere. The file appears whole or not at all.
        format: ``html`` or ``md``; None: what ``out`` ends in, ``html`` without one.
        worse_factor: of two, an error this many times larger is a regression.

    Raises:
        InputError: not a result, a kind that has no report, two that cannot be compared, or ``out`` cannot be written.
    """
    from probe.results.json import check_target, write_text

    form = form_of(out, format)
    if out is not None:
        check_target(out)
    text = write(joined(results, worse_factor=worse_factor), form)
    if out is not None:
        write_text(text, out)
    return text


@as_annotated
def form_of(out: str | Path | None, given: Format | None) -> Format:
    """The format that was asked for, or that the name of the file says; HTML where neither does.

    Raises:
        InputError: a name that ends otherwise than .html, .htm, .md or .markdown.
    """
    if given is not None:
        return given
    ending = Path(out).suffix.lower() if out is not None else ""
    if ending in ("", ".html", ".htm"):
        return "html"
    if ending in (".md", ".markdown"):
        return "md"
    raise InputError(
        f"a report is HTML or Markdown, not {ending}", where=str(out), hint="name it report.html or report.md"
    )


@as_annotated
def write(result: Any, form: Format) -> str:
    """The text of one result.

    Raises:
        InputError: a kind of result that has no report.
    """
    if form == "md":
        from probe.report.markdown import markdown

        return markdown(result)
    from probe import __version__
    from probe.report.html.page import html_page

    return html_page(result, version=__version__)


@as_annotated
def joined(results: Any | Sequence[Any], *, worse_factor: float = 2.0) -> Any:
    """What is reported: the result itself, or of two, what changed from the first to the second.

    Raises:
        InputError: see ``report``.
    """
    several = list(results) if isinstance(results, (list, tuple)) else [results]
    if not several or len(several) > 2:
        raise InputError(
            f"{len(several)} results cannot be one report",
            hint="name one, or two of a run, a diff or a find: before and after",
        )
    loaded = [_loaded(one) for one in several]
    if len(loaded) == 1:
        return loaded[0]
    from probe.compare.regression import diff_results

    names = [
        str(one) if isinstance(one, (str, Path)) else word
        for one, word in zip(several, ("before", "after"), strict=True)
    ]
    for one, where in zip(loaded, names, strict=True):
        if getattr(one, "schema", "") not in PAIRED:
            raise InputError(
                f"{where} holds a {getattr(one, 'schema', type(one).__name__)}",
                hint="two results are compared where probe run, probe diff or probe find saved them",
            )
    return diff_results(*loaded, worse_factor=worse_factor, names=(names[0], names[1]))


def _loaded(one: Any) -> Any:
    from probe.results.json import load

    return load(one) if isinstance(one, (str, Path)) else one
