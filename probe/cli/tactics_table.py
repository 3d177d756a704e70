"""``probe tactics table``: every candidate of every layer, how fast, how wrong, what it does to the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from probe.cli.options import (
    Accept,
    CustomOpLib,
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
from probe.errors import EXIT_FAILED, EXIT_PASSED, InputError


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
    timing_cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measured times: reused where they are, added where they are not."),
    ] = None,
    precision: Annotated[
        Literal["fp16", "bf16", "tf32", "fp32"],
        typer.Option(metavar="NAME", help="What tensors are stored in: fp16, bf16, tf32 or fp32."),
    ] = "fp16",
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    accept: Accept = None,
    preset: Preset = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX|@FILE", help="Tensors, layers and nodes that stay FP32. Repeatable."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu"],
        typer.Option(metavar="auto|cpu", help="What runs it: the CPU, which emulates low-precision storage."),
    ] = "auto",
    passes: Annotated[
        Literal["none", "safe", "all"],
        typer.Option(metavar="none|safe|all", help="Clean-up of the graph before it runs."),
    ] = "safe",
    fusion: Annotated[
        Literal["none", "safe", "full"],
        typer.Option(metavar="none|safe|full", help="Which nodes are computed together."),
    ] = "safe",
    interior: Annotated[
        Literal["storage", "fp32"],
        typer.Option(metavar="storage|fp32", help="Tensors inside fused layers: rounded, or FP32."),
    ] = "storage",
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
    from probe.cli.options import parse_select, typed_command
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress
    from probe.model.feeds import parse_ranges, parse_shapes
    from probe.results.json import check_target

    check_json(json)
    if table is not None and table.suffix not in (".parquet", ".csv"):
        raise InputError(f"{table}: a table is written as .parquet or .csv", where="--table")
    if timing_cache is not None:
        check_target(timing_cache)
    kept = [pattern for one in keep or () if (pattern := parse_select(one, "--keep")) is not None]
    with Progress("measuring", quiet=quiet) as progress:
        result: Any = tactics_table(
            model,
            start=start,
            layers=parse_select(layers, "--layers"),
            tactics=parse_select(tactics, "--tactics"),
            measure=not no_times,
            flip=not no_flips,
            max_seconds=max_seconds,
            timing_cache=timing_cache,
            precision=precision,
            golden=golden,
            inputs=list(inputs) if inputs else None,
            seed=seed,
            input_shapes=parse_shapes(input_shapes or ()),
            val_range=parse_ranges(val_range or ()),
            accept=accept or (),
            preset=preset,
            keep=kept,
            device="cpu" if device == "auto" else device,
            passes=passes,
            fusion=fusion,
            interior=interior,
            threads=threads,
            custom_op_libs=custom_op_lib or (),
            command=typed_command(),
            progress=lambda phase, name: progress.step(f"{phase} {name}"),
        )
    if table is not None:
        from probe.results.frames import save_frame

        save_frame(result, table)
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
