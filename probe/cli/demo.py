"""``probe demo``: a planted fault, found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.options import Json, Quiet, Verbose
from probe.errors import EXIT_FAILED, EXIT_PASSED


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Where the models and recordings are left to play with."),
    ] = Path("demo"),
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Plant a bad kernel in a built-in network, and find it.

    The network is recorded, then again as an engine with the bad kernel computes it, and the recordings are compared.

    Exit code 0: the planted fault was found.

    Example: probe demo -o demo
    """
    from probe.cli.output import check_json, narrate, show
    from probe.demo import run_demo

    check_json(json)
    done = run_demo(output)
    if not quiet and json != "-":
        narrate(
            f"In {output}: a small vision transformer, and the same network as an engine with one bad kernel computes it "
            f"({done.guilty_node} sums squares in FP16, which ends at 65504). Both were recorded and compared:",
            *(f"    {command}" for command in done.commands),
            "",
        )
    show(done.result, json, verbose=verbose, quiet=quiet)
    if not quiet and json != "-":
        found = "The planted fault was found." if done else "The planted fault was NOT found: please report this."
        narrate("", found)
    raise typer.Exit(EXIT_PASSED if done else EXIT_FAILED)
