"""``probe build``: compile a model once, and save the engine into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from probe.cli.options import (
    CustomOpLib,
    Device,
    FusionOrFile,
    Inputs,
    InputShapes,
    InteriorOrFile,
    Json,
    Keep,
    Model,
    Overwrite,
    PassesLimit,
    PassesOrFile,
    Quiet,
    Seed,
    Threads,
    ValRange,
    Verbose,
)
from probe.errors import EXIT_PASSED


def build(
    model: Model,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the engine goes.", show_default=False)
    ],
    precision: Annotated[
        Literal["fp16", "bf16", "tf32", "fp32"] | None,
        typer.Option(metavar="NAME", help="What tensors are stored in: fp16, the default; bf16, tf32 or fp32."),
    ] = None,
    keep: Keep = None,
    tactics: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take the kernel choices of a tactic file, compiled as it says."),
    ] = None,
    device: Device = "auto",
    passes: PassesOrFile = None,
    passes_limit: PassesLimit = None,
    fusion: FusionOrFile = None,
    interior: InteriorOrFile = None,
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    overwrite: Overwrite = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compile a model, and save the engine into one file.

    It holds the model, the network after its clean-up, weights, precision and kernel choices, each byte checked when it is read; it loads
    without compiling again and computes the same bits. run, bench and inspect take it where they take a model, and dump with --runner
    engine. It is refused where it was not built for: another device, GPU or version of probe. For a GPU it also holds the machine code of
    all kernels, for inputs of these shapes; others are compiled when they come. On the CPU inputs are of use with --tactics only, whose
    choices hold for their shapes. Exit code 0: written.

    Example: probe build model.onnx -o engine.probe --precision fp16 --keep "^logits$"
    """
    from probe.api.building import build as build_engine
    from probe.cli.arguments import network_arguments
    from probe.cli.options import chosen_device, parse_keep
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress

    check_json(json)
    with Progress("building", quiet=quiet) as progress:
        common = network_arguments(
            progress, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads, custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = build_engine(
            model, output, precision=precision, keep=parse_keep(keep), tactics=tactics, device=chosen_device(device), passes=passes,
            fusion=fusion, interior=interior, passes_limit=passes_limit, overwrite=overwrite, **common,
        )  # fmt: skip
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED)
