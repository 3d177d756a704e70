"""``probe convert``: a mixed-precision ONNX model, written and proved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from probe.cli.options import (
    Accept,
    CustomOpLib,
    Golden,
    InputShapes,
    Json,
    Model,
    Overwrite,
    Preset,
    Quiet,
    Seed,
    Threads,
    ValRange,
    Verbose,
)
from probe.errors import EXIT_FAILED, EXIT_PASSED


def convert(
    model: Model,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT.onnx", help="Where the converted model goes.", show_default=False),
    ],
    precision: Annotated[
        Literal["fp16", "bf16"], typer.Option(metavar="NAME", help="What is not kept becomes: fp16 or bf16.")
    ] = "fp16",
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX|@FILE",
            help="Tensors and nodes that stay FP32: a regular expression, or a file of names, one a line. Repeatable.",
        ),
    ] = None,
    convert_io: Annotated[
        bool,
        typer.Option("--convert-io", help="Give graph inputs and outputs the low type, too; they keep theirs without."),
    ] = False,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Network inputs for the proof: .npz, a folder of them, a dump, Polygraphy JSON. Repeatable.",
        ),
    ] = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    accept: Accept = None,
    preset: Preset = None,
    no_proof: Annotated[bool, typer.Option("--no-proof", help="Write the model and do not run it.")] = False,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    overwrite: Overwrite = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a mixed-precision ONNX model, and prove it.

    All becomes FP16 or BF16 but for what is to be kept. A kept tensor is never rounded, and the nodes that make and read it run in FP32; a kept node runs in FP32. Casts stand where types meet and
    nowhere else. The proof runs the written model with every tensor rounded to the type it declares, which ONNX Runtime's CPU provider does
    not do, and judges it against a golden. Exit code 0: proved (or --no-proof), 1: written, but it fails.

    Example: probe convert model.onnx -o mixed.onnx --keep @keep.txt --inputs cat.npz
    """
    from probe import api
    from probe.cli.arguments import network_arguments
    from probe.cli.options import parse_keep
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress

    check_json(json)
    with Progress("converting", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = api.convert(
            model,
            output,
            precision=precision,
            keep=parse_keep(keep),
            convert_io=convert_io,
            prove=not no_proof,
            accept=accept or (),
            preset=preset,
            overwrite=overwrite,
            **common,
        )
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result or no_proof else EXIT_FAILED)
