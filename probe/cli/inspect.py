"""``probe inspect``: look at a model, a recording or a saved result."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from probe.cli.options import Json, Quiet, Select, Verbose


def inspect(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="THING",
            help="A model, a recording of any format, or a result saved with --json.",
            show_default=False,
        ),
    ],
    select: Select = None,
    values: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also print the first N values of each selected tensor.")
    ] = 0,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show what is in a model, a recording or a saved result.

    A model: inputs, outputs, operators, weights, numerics. A recording: where it came from, and every tensor with its range.

    Example: probe inspect golden --select "conv1" --values 8
    """
    from probe.cli.output import check_json, show

    check_json(json)
    show(_look_at(thing, select, values), json, verbose=verbose, quiet=quiet)


def _look_at(thing: str, select: str | None, values: int) -> Any:
    from probe.cli.options import parse_select, typed_command
    from probe.results.json import is_result, load

    if is_result(thing):
        return load(thing)
    from probe.debug.inspect import inspect_model, inspect_recording
    from probe.store.opening import is_recording

    if is_recording(thing):
        return inspect_recording(thing, select=parse_select(select), values=values, command=typed_command())
    return inspect_model(thing, select=parse_select(select), command=typed_command())
