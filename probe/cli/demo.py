"""``probe demo``: the whole story on a built-in network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.options import Json, Quiet, Verbose
from probe.errors import EXIT_FAILED, EXIT_PASSED


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where the models are left to play with.")
    ] = Path("demo"),
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Tell the whole story on a built-in network that FP16 breaks.

    A transformer encoder with outlier channels, as trained ones have, is run in FP16 and fails without a NaN; the tensor to blame is
    named, kept in FP32, and a mixed-precision model is written and proved. --json saves the last result, -v shows every page whole.

    Exit code 0: what was planted was found, and nothing else.

    Example: probe demo -o demo
    """
    from probe.cli.output import check_json, narrate, show
    from probe.cli.progress import Progress
    from probe.demo import CHAPTERS, FAULTY_NODE, Demo, prepare, record_and_compare

    check_json(json)
    tell = not quiet and json != "-"
    folder = prepare(output)
    if tell:
        narrate(
            f"In {folder}: model.onnx, a small vision transformer. As in trained ones, a few channels are hundreds of times larger than "
            "the rest. FP16 holds them, but not every square of them."
        )
    steps = []
    for chapter in CHAPTERS:
        last = chapter is CHAPTERS[-1]
        if tell:
            narrate("", chapter.about, f"    {chapter.command(folder)}", "")
        with Progress("demo:", quiet=quiet) as progress:
            step = chapter.tell(folder, progress.tell)
        if json != "-" or last:
            show(step.result, json if last else None, verbose=verbose, quiet=quiet or not (last or verbose))
        if tell and step.noticed:
            narrate(*step.noticed)
        steps.append(step)
    done = Demo(folder, tuple(steps))
    if tell:
        found = "What was planted was found." if done else "What was planted was NOT found: please report this."
        narrate(
            "", found, "", f"Also there: engine.onnx, the same network as an engine with one bad kernel computes it ({FAULTY_NODE}). "
            "Recorded and compared, it is found by name:",
            *(f"    {command}" for command in record_and_compare(folder)),
        )  # fmt: skip
    raise typer.Exit(EXIT_PASSED if done else EXIT_FAILED)
