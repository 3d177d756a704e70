"""``probe check``: what will break in a low precision, from one golden pass."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from probe.cli.options import (
    CustomOpLib,
    Golden,
    Inputs,
    InputShapes,
    Json,
    Model,
    Quiet,
    Seed,
    Select,
    Threads,
    ValRange,
    Verbose,
)
from probe.errors import EXIT_FAILED, EXIT_PASSED


def check(
    model: Model,
    precision: Annotated[
        Literal["fp16", "bf16", "tf32", "int8"],
        typer.Option(
            metavar="NAME",
            help="What it is to be stored in: fp16, bf16, tf32 (products only); int8 reads the graph alone.",
        ),
    ] = "fp16",
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    select: Select = None,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help='Golden tensors held in memory: "2G"; more go to a temporary folder.'),
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say what will break in a low precision, in one pass.

    Every tensor of the FP32 golden is looked at, and the graph and its weights: overflow, underflow, sources of NaN, constants that
    vanish, masks, cancellation, coarse softmax logits, long sums, insides of composite operators, tensor-core advice. What looks wrong is
    rounded and followed downstream with all else in FP32: an error is still wrong there, a warning is not or depends on the runtime.
    Nothing runs in low precision; probe run tells what the whole network makes of it. Without --inputs, those of a recorded golden are
    taken, or realistic seeded data, which can hide failures. Exit code 0: no errors, 1: errors.

    Example: probe check model.onnx --precision fp16 --inputs cat.npz
    """
    from probe import api
    from probe.cli.arguments import network_arguments
    from probe.cli.options import parse_bytes, parse_select
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress

    check_json(json)
    with Progress("checking", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = api.check(
            model,
            precision=precision,
            select=parse_select(select),
            memory_limit=parse_bytes(memory_limit),
            **common,
        )
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
