"""``probe inspect``: look at a model, a recording or a saved result."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from probe.cli.options import Json, Quiet, Select, Verbose


def inspect(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="THING",
            help="A model, a recording of any format, a result saved with --json, or the word ops.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="With ops: whose operators.", show_default=False)
    ] = None,
    select: Select = None,
    values: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also print the first N values of each selected tensor.")
    ] = 0,
    fusion: Annotated[
        Literal["none", "safe", "full"],
        typer.Option(metavar="none|safe|full", help="Which nodes of a model the engine computes together."),
    ] = "safe",
    passes: Annotated[
        Literal["none", "safe", "all"],
        typer.Option(metavar="none|safe|all", help="Clean-up of a model's graph before that."),
    ] = "safe",
    input_shapes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:[N,...]",
            help='Extents of dynamic inputs, for what layers cost: "x:[1,3,224,224]". Repeatable.',
        ),
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show what is in a model, a recording, a saved engine or result.

    A model: inputs, outputs, operators, weights, numerics; the layers the engine makes of it, their shapes, operations and bytes; what was
    not fused and why. A recording: where it came from, and every tensor with its range. The word ops: the operators the engine knows and
    how each is run; with a model, its own, and which of its layers have no kernel (a file of that name is ./ops).

    Example: probe inspect golden --select "conv1" --values 8
    """
    from probe.cli.output import check_json, show
    from probe.errors import InputError

    check_json(json)
    if thing == "ops" or model is not None:
        if values or select is not None or (fusion, passes, input_shapes) != ("safe", "safe", None):
            raise InputError("operators are listed whole, from the graph as it is", hint="leave the options out")
        show(_look_at_ops(thing, model), json, verbose=verbose, quiet=quiet)
        return
    compiled = {"fusion": fusion, "passes": passes, "input_shapes": input_shapes}
    show(_look_at(thing, select, values, compiled), json, verbose=verbose, quiet=quiet)


def _look_at_ops(thing: str, model: str | None) -> Any:
    from probe.cli.options import typed_command
    from probe.debug.inspect_ops import inspect_ops
    from probe.errors import InputError

    if thing != "ops":
        raise InputError(
            f"one thing is inspected, not {thing} and {model}", hint="probe inspect ops MODEL takes two words"
        )
    return inspect_ops(model, command=typed_command())


def _look_at(thing: str, select: str | None, values: int, compiled: dict[str, Any]) -> Any:
    """
    Args:
        compiled: how a model's layers are formed.
    """
    from probe.cli.options import parse_select, typed_command
    from probe.errors import InputError
    from probe.results.json import is_result, load

    changed = compiled != {"fusion": "safe", "passes": "safe", "input_shapes": None}
    no_model = InputError(
        f"{thing} is no model", hint="--fusion, --passes and --input-shapes are about the layers of a model"
    )
    if is_result(thing):
        if changed:
            raise no_model
        if values or select is not None:
            raise InputError(f"{thing} is a saved result: it is shown whole", hint="leave the options out")
        return load(thing)
    from probe.api.saved import is_saved_engine

    if is_saved_engine(thing):
        if changed or values or select is not None:
            raise InputError(f"{thing} is a saved engine: its layers are formed", hint="leave the options out")
        from probe.api.building import inspect_engine

        return inspect_engine(thing, command=typed_command())
    from probe.debug.inspect import inspect_model, inspect_recording
    from probe.store.opening import is_recording

    if is_recording(thing):
        if changed:
            raise no_model
        return inspect_recording(thing, select=parse_select(select), values=values, command=typed_command())
    from probe.model.feeds import parse_shapes

    if values:
        raise InputError(
            f"{thing} is no recording", hint="--values is about the tensors of a recording: probe dump makes one"
        )
    compiled["input_shapes"] = parse_shapes(compiled["input_shapes"] or ())
    return inspect_model(thing, select=parse_select(select), command=typed_command(), **compiled)
