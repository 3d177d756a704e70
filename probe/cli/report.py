"""``probe report``: a saved result as a document to look at, mail or paste."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from probe.errors import EXIT_FAILED, EXIT_PASSED, InputError


def report(
    results: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULT...",
            help="A result saved with --json; two of a run, a diff or a find are before and after.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE|DIR",
            help="Where to write it: .html, .md or .onnx, or a folder. Without: Markdown to standard output, HTML to report.html, "
            "an overlay to overlay/.",
        ),
    ] = None,
    format_: Annotated[
        Literal["html", "md", "overlay", "onnx"] | None,
        typer.Option(
            "--format",
            metavar="html|md|overlay|onnx",
            help="html: one file, self-contained. md: short, for a pull request. overlay: a folder of node data for Model Explorer. "
            "onnx: a copy of the model whose nodes say it, for Netron.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="overlay, onnx: the model of the result, where it is not where it was.",
            show_default=False,
        ),
    ] = None,
    worse_factor: Annotated[
        float, typer.Option(metavar="X", min=1.0, help="Two results: an error X times larger is a regression.")
    ] = 2.0,
) -> None:
    """Make a page of a saved result, to look at, mail or paste.

    HTML is one file that fetches nothing: the verdict, what to do, error along the network, outputs, layers, what find found and how it was
    proved, where all of it comes from. Markdown is the verdict, the outputs and what to do. Of two results: what got better or worse, part by
    part of the network, also where the fusions differ. An overlay colours each node in Model Explorer, a file a measure: errors, precision,
    tactic, time; with --model it knows nodes without names, too. FILE.onnx is the model with the same as metadata. Exit code 0: written; 1: of two results, the second is worse.

    Example: probe report run.json -o report.html
    """
    from probe.api.reports import form_of, joined, write
    from probe.cli.output import check_named_once
    from probe.report.text import escape
    from probe.results.json import check_target, write_text

    onnx = format_ is None and output is not None and output.lower().endswith(".onnx")
    if onnx or format_ in ("overlay", "onnx"):
        for line in _overlaid(results, output, model, onnx=format_ != "overlay"):
            print(escape(line))
        return
    if model is not None:
        raise InputError("--model belongs to overlays", where="--model", hint="add --format overlay, or -o FILE.onnx")
    form = form_of(output, format_)
    target = output if output is not None or form == "md" else "report.html"
    if target not in (None, "-"):
        check_target(target)
        check_named_once(target)
    result = joined(results, worse_factor=worse_factor)
    text = write(result, form)
    if target in (None, "-"):
        sys.stdout.write(text)
    else:
        write_text(text, target)
        print(f"wrote {escape(target)}")
    raise typer.Exit(EXIT_PASSED if len(results) == 1 or result else EXIT_FAILED)


def _overlaid(results: list[str], output: str | None, model: str | None, *, onnx: bool) -> list[str]:
    """Write an overlay or a copy of the model with metadata; what was written, a line each."""
    from probe.api.overlays import annotate, overlay

    if len(results) != 1:
        raise InputError(f"{len(results)} results cannot be laid over one model", hint="name one result")
    if not onnx:
        made = overlay(results[0], output or "overlay", model)
        lines = [f"wrote {one}" for one in made.paths]
        if made.nameless:
            why = "not in the file" if model else "without a name, or inside a body: found only with --model MODEL.onnx"
            lines.append(f"{len(made.nameless)} of the nodes are {why}, such as {made.nameless[0]}")
        return lines
    if output is None:
        raise InputError("the copy of the model needs a name", where="-o", hint="-o annotated.onnx")
    written = annotate(results[0], output, model)
    lines = [f"wrote {written.path}: metadata at {written.nodes} nodes"]
    if written.unknown:
        lines.append(f"{len(written.unknown)} nodes of the result are not in the file, such as {written.unknown[0]}")
    return lines
