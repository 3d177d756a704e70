"""``probe tactics diff``: choices of good and bad runs, suspects ranked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.options import Json, Quiet, Verbose
from probe.errors import EXIT_FAILED, EXIT_PASSED, InputError

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[GOOD BAD | DIR]",
        help="A good and a bad file, or folders of them; or one folder with folders good and bad in it.",
        show_default=False,
    ),
]


def diff(
    files: Files = None,
    good: Annotated[
        list[Path] | None, typer.Option(metavar="FILE|DIR", help="Tactic files of good runs. Repeatable.")
    ] = None,
    bad: Annotated[
        list[Path] | None, typer.Option(metavar="FILE|DIR", help="Tactic files of bad runs. Repeatable.")
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Rank the choices that bad runs have and good ones lack.

    Reads tactic files, and the replay files that Polygraphy wrote for TensorRT up to version 10. Each choice gets how often it is in bad and
    in good runs, and a confidence that says what few files can tell. Nothing is run: bisect makes sure. Exit code 0: there are suspects,
    1: there are none.

    Example: probe tactics diff --good monday/ --good tuesday.tactics --bad friday.tactics
    """
    from probe.api.blaming import diff_tactics, diff_tactics_in
    from probe.cli.options import typed_command
    from probe.cli.output import check_json, show

    check_json(json)
    named = files or []
    if named and (good or bad):
        raise InputError("files are named with and without --good and --bad", hint="use one of both")
    if len(named) == 1:
        result = diff_tactics_in(named[0], command=typed_command())
    elif len(named) == 2:
        result = diff_tactics(named[0], named[1], command=typed_command())
    elif named:
        raise InputError(
            f"{len(named)} files without a side", hint="probe tactics diff --good FILE --good FILE --bad FILE"
        )
    else:
        result = diff_tactics(good or [], bad or [], command=typed_command())
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
