"""``probe report``: a saved result as a document to look at, mail or paste."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from probe.errors import EXIT_FAILED, EXIT_PASSED


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...",
            help="A result saved with --json; two of a run or a diff are before and after.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where to write it: .html or .md. Without: Markdown to standard output, HTML to report.html.",
        ),
    ] = None,
    format_: Annotated[
        Literal["html", "md"] | None,
        typer.Option(
            "--format", metavar="html|md", help="html: one file, self-contained. md: short, for a pull request."
        ),
    ] = None,
    worse_factor: Annotated[
        float, typer.Option(metavar="X", min=1.0, help="Two results: an error X times larger is a regression.")
    ] = 2.0,
) -> None:
    """Make a page of a saved result, to look at, mail or paste.

    HTML is one file that fetches nothing: the verdict, what to do, error along the network, outputs, layers, what find found and how it was
    proved, where all of it comes from. Markdown is the verdict, the outputs and what to do. Results of run, find, diff and check have
    pages. Exit code 0: written; 1: of two results, the second is worse.

    Example: probe report run.json -o report.html
    """
    from probe.api.reports import form_of, joined, write
    from probe.report.text import escape
    from probe.results.json import check_target, write_text

    form = form_of(output, format_)
    target = output if output is not None or form == "md" else "report.html"
    if target not in (None, "-"):
        check_target(target)
    result = joined(results, worse_factor=worse_factor)
    text = write(result, form)
    if target in (None, "-"):
        sys.stdout.write(text)
    else:
        write_text(text, target)
        print(f"wrote {escape(target)}")
    raise typer.Exit(EXIT_PASSED if len(results) == 1 or result else EXIT_FAILED)
