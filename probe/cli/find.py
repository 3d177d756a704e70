"""``probe find``: what must stay FP32, found, proved and exported."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from probe.cli.options import (
    Accept,
    CustomOpLib,
    Device,
    Fusion,
    Golden,
    Inputs,
    InputShapes,
    Interior,
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


def find(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="OUT.onnx", help="Write the mixed-precision model here.", show_default=False
        ),
    ] = None,
    precision: Annotated[
        Literal["fp16", "bf16", "tf32"],
        typer.Option(metavar="NAME", help="Of all that need not stay FP32: fp16, bf16 or tf32."),
    ] = "fp16",
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    accept: Accept = None,
    preset: Preset = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="PROGRAM",
            help='Judges instead of --accept: "prog {dump}" is given a dump of the outputs; exit 0 accepts, 1 rejects.',
        ),
    ] = None,
    aggregate: Annotated[
        str, typer.Option(metavar="worst|mean|quantile:Q", help="How the values of several inputs are joined.")
    ] = "worst",
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|DIR", help="Inputs that the search does not see; the answer is tried on them. Repeatable."
        ),
    ] = None,
    split: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0.0, max=0.9, help="Hold out this share of --inputs instead, drawn by --seed."
        ),
    ] = None,
    granularity: Annotated[
        Literal["tensor", "layer", "block"], typer.Option(metavar="tensor|layer|block", help="What is kept or not.")
    ] = "tensor",
    objective: Annotated[
        Literal["count", "latency", "bytes"],
        typer.Option(
            metavar="count|latency|bytes", help="What is kept little of: how many, modelled latency, or bytes."
        ),
    ] = "count",
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX|@FILE", help="Tensors, layers and nodes that stay FP32 in any case. Repeatable."),
    ] = None,
    probes: Annotated[
        bool | None,
        typer.Option(
            "--probes/--no-probes", help="Evaluate each unit low by itself first; without, where that is cheap."
        ),
    ] = None,
    max_evals: Annotated[int | None, typer.Option(metavar="N", min=2, help="Evaluate no more than N times.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.0, help="Search no longer than S seconds.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append every evaluation to this file (JSON lines).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Take up what --log holds instead of starting anew.")
    ] = False,
    no_cures: Annotated[bool, typer.Option("--no-cures", help="Do not try other cures than FP32.")] = False,
    tactics: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Run with the kernel choices of a tactic file; more accurate ones are tried before FP32.",
        ),
    ] = None,
    device: Device = "auto",
    passes: Annotated[
        Literal["none", "safe", "all"],
        typer.Option(
            metavar="none|safe|all", help="Clean-up of the graph that is searched; the export is of the original."
        ),
    ] = "none",
    fusion: Fusion = "none",
    interior: Interior = "storage",
    overwrite: Overwrite = False,
    keep_list: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the names of what stays FP32, as --keep @FILE of run and convert takes them.",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all evaluations as .parquet or .csv.")
    ] = None,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find what must stay FP32, prove it, write the model.

    All-low and all-FP32 are evaluated first. Then the smallest set is searched of which nothing can be left out, each part with the
    failing evaluation that shows it is needed. The mixed-precision model is run as its types say and judged. Ctrl-C ends the search with
    the best set so far. Exit code 0: found and proved, or nothing needed; 1: not found, or a proof fails.

    Example: probe find model.onnx --precision fp16 --inputs data/ -o mixed.onnx
    """
    from probe import api
    from probe.cli.arguments import network_arguments
    from probe.cli.options import chosen_device, parse_keep
    from probe.cli.output import check_json, check_named_once, check_table, show
    from probe.cli.progress import Progress
    from probe.results.json import check_target, write_text

    check_json(json)
    if keep_list is not None:
        check_target(keep_list)
        check_named_once(keep_list)
    check_table(table)
    with Progress("finding", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = api.find(
            model,
            output,
            precision=precision,
            held_out=list(held_out) if held_out else None,
            split=split,
            accept=accept or (),
            preset=preset,
            check=check,
            aggregate=aggregate,
            granularity=granularity,
            objective=objective,
            keep=parse_keep(keep),
            probes=probes,
            max_evaluations=max_evals,
            max_seconds=max_seconds,
            log=log,
            resume=resume,
            lighter=not no_cures,
            tactics=tactics,
            device=chosen_device(device),
            passes=passes,
            fusion=fusion,
            interior=interior,
            overwrite=overwrite,
            **common,
        )
    if keep_list is None:
        files = []
    else:
        import json as standard

        names = [one.tensor or one.layer for one in result.keep]
        plain = all(name.strip() and "\n" not in name and "\r" not in name for name in names)
        text = "".join(f"{name}\n" for name in names) if plain else standard.dumps(names, indent=1) + "\n"
        files = [partial(write_text, text, keep_list)]
    show(result, json, table=table, files=files, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
