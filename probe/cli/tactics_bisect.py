"""``probe tactics bisect``: which choice of a bad build is guilty."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probe.cli.options import (
    Accept,
    CustomOpLib,
    Device,
    Golden,
    Inputs,
    InputShapes,
    Json,
    Model,
    Preset,
    Quiet,
    Seed,
    Threads,
    ValRange,
    Verbose,
)
from probe.errors import EXIT_FAILED, EXIT_PASSED


def bisect(
    good: Annotated[
        Path, typer.Argument(metavar="GOOD", help="Tactic file of a good run, or a folder.", show_default=False)
    ],
    bad: Annotated[
        Path, typer.Argument(metavar="BAD", help="Tactic file of a bad run, or a folder.", show_default=False)
    ],
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the bad tactic file with the guilty choices pinned.",
            show_default=False,
        ),
    ] = None,
    deny_list: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the guilty choices as rules, for --deny @FILE of record and replay."),
    ] = None,
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    accept: Accept = None,
    preset: Preset = None,
    max_evals: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Search with no more than N evaluations.")
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find the guilty choices between a good and a bad build.

    What the two tactic files differ in is switched, part by part, until the choices are certain without which the bad run passes: one, several,
    or some that only break things together. They are confirmed by flipping them both ways. Exit code 0: found and confirmed; 1: not.

    Example: probe tactics bisect good.tactics bad.tactics model.onnx --inputs cat.npz -o pinned.tactics
    """  # fmt: skip
    from probe.api.blaming import bisect_tactics
    from probe.cli.arguments import network_arguments
    from probe.cli.options import chosen_device
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress

    check_json(json)
    with Progress("bisecting", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = bisect_tactics(
            good,
            bad,
            model,
            pinned=output,
            denied=deny_list,
            accept=accept or (),
            preset=preset,
            max_evaluations=max_evals,
            device=chosen_device(device),
            overwrite=overwrite,
            **common,
        )
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
