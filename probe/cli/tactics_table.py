"""``probe tactics table``: every candidate of every layer, how fast, how wrong, what it does to the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    Keep,
    Model,
    Passes,
    Precision,
    Preset,
    Quiet,
    Seed,
    Threads,
    TimingCache,
    ValRange,
    Verbose,
)
from probe.errors import EXIT_FAILED, EXIT_PASSED


def table(
    model: Model,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A tactic file: what other layers run while one is flipped. Without, exact."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            "--select",
            metavar="REGEX|@FILE",
            help="Only layers of which a name (of the layer, a node or a tensor) is found so.",
        ),
    ] = None,
    tactics: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Only candidates with such a name, beside exact.")
    ] = None,
    no_times: Annotated[bool, typer.Option("--no-times", help="Do not time the candidates.")] = False,
    no_flips: Annotated[
        bool, typer.Option("--no-flips", help="Do not run the network with each single choice changed.")
    ] = False,
    max_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", min=0.0, help="Flip no longer than S seconds, the largest errors first."),
    ] = None,
    timing_cache: TimingCache = None,
    precision: Precision = "fp16",
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    accept: Accept = None,
    preset: Preset = None,
    keep: Keep = None,
    device: Device = "auto",
    passes: Passes = "safe",
    fusion: Fusion = "safe",
    interior: Interior = "storage",
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all candidates as .parquet or .csv.")
    ] = None,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure every candidate of every layer.

    Each gets its time, its error against float64 on the activations of these inputs, and the verdict of the whole network with this one choice
    flipped; then networks between the most accurate and the fastest. -v shows all layers in order. Exit code 0: the network passes as it
    is; 1: it fails.

    Example: probe tactics table model.onnx --inputs cat.npz --layers conv1
    """  # fmt: skip
    from probe.api.blaming import tactics_table
    from probe.cli.arguments import network_arguments
    from probe.cli.options import chosen_device, parse_keep, parse_select
    from probe.cli.output import check_json, check_table, show
    from probe.cli.progress import Progress
    from probe.results.json import check_target

    check_json(json)
    check_table(table)
    if timing_cache is not None:
        check_target(timing_cache)
    with Progress("measuring", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = tactics_table(
            model,
            start=start,
            layers=parse_select(layers, "--layers"),
            tactics=parse_select(tactics, "--tactics"),
            measure=not no_times,
            flip=not no_flips,
            max_seconds=max_seconds,
            timing_cache=timing_cache,
            precision=precision,
            accept=accept or (),
            preset=preset,
            keep=parse_keep(keep),
            device=chosen_device(device),
            passes=passes,
            fusion=fusion,
            interior=interior,
            **common,
        )
    show(result, json, table=table, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
