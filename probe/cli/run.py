"""``probe run``: compile a model, run it in low precision, judge every layer against a golden."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from probe.cli.options import (
    Accept,
    CustomOpLib,
    Device,
    Fusion,
    Golden,
    Inputs,
    InputShapes,
    Json,
    Passes,
    Precision,
    Preset,
    Quiet,
    Runnable,
    Seed,
    StrictLayers,
    Threads,
    ValRange,
    Verbose,
    Worst,
)
from probe.errors import EXIT_FAILED, EXIT_PASSED, InputError


def run(
    context: typer.Context,
    model: Runnable,
    precision: Precision = "fp16",
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    accept: Accept = None,
    preset: Preset = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX|@FILE",
            help="Tensors, layers and nodes that stay FP32: their names, as with --layers. Repeatable.",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            "--select",
            metavar="REGEX|@FILE",
            help="Measure and show only layers of which a name (of the layer, a node or a tensor) is found so; (?!) means none.",
        ),
    ] = None,
    device: Device = "auto",
    passes: Passes = "safe",
    passes_limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Stop after N changes to the graph, to find one that does harm."),
    ] = None,
    fusion: Fusion = "safe",
    interior: Annotated[
        Literal["storage", "fp32"],
        typer.Option(
            metavar="storage|fp32", help="Tensors inside fused layers: rounded, as where nothing is fused, or FP32."
        ),
    ] = "storage",
    observe: Annotated[
        bool,
        typer.Option("--observe", help="Run once more without looking inside, and say whether that changes anything."),
    ] = False,
    repeat: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="With --bitwise: how often it runs; 3 by default.")
    ] = None,
    bitwise: Annotated[
        bool,
        typer.Option(
            "--bitwise", help="Run again: every tensor must have the same bits, or the first that differs is named."
        ),
    ] = False,
    no_cure: Annotated[
        bool, typer.Option("--no-cure", help="Do not run again with what the findings would keep in FP32.")
    ] = False,
    builds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            help="Instead: choose kernels N times by measured time; say what flips, what that does, what to pin.",
        ),
    ] = None,
    strict_layers: StrictLayers = False,
    worst: Worst = 10,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all layers with their errors as .parquet or .csv.")
    ] = None,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help='Tensors held in memory, of each recording: "2G"; more go to a temporary folder.'
        ),
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Judge a model in low precision, layer by layer, with causes.

    It is compiled (a saved engine was already), run, and compared with a golden. Every layer gets its own error on golden inputs beside what has accumulated; the first NaN, Inf or divergence gets a cause with numbers
    and a cure that was tried. The CPU stores tensors in the precision and computes in FP32. Without --inputs, those of a recorded golden
    are taken, or realistic seeded data, which can hide failures. Exit code 0: passed or warned, 1: failed, not judged, or (--bitwise) other bits from run to run.

    Example: probe run model.onnx --precision fp16 --inputs cat.npz
    """
    from probe import api
    from probe.cli.arguments import network_arguments
    from probe.cli.options import chosen_device, parse_bytes, parse_keep, parse_select
    from probe.cli.output import check_json, check_table, show
    from probe.cli.progress import Progress
    from probe.cli.saved import takes_saved

    check_json(json)
    check_table(table)
    takes_saved(context, model)
    if builds is not None:
        looking = {"--layers": layers, "--passes-limit": passes_limit, "--observe": observe, "--bitwise": bitwise, "--no-cure": no_cure,
                   "--strict-layers": strict_layers, "--table": table}  # fmt: skip
        foreign = [name for name, value in looking.items() if value not in (None, False)]
        if foreign:
            raise InputError(f"{foreign[0]} is about one build", where="--builds", hint="leave one of both out")
    with Progress("running", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib, precision=precision, accept=accept or (), preset=preset, keep=parse_keep(keep),
            device=chosen_device(device), passes=passes, fusion=fusion, interior=interior,
            memory_limit=parse_bytes(memory_limit),
        )  # fmt: skip
        result: Any
        if builds is not None:
            from probe.api.blaming import compare_builds

            result = compare_builds(model, builds, **common)
        else:
            result = api.run(
                model,
                layers=parse_select(layers, "--layers"),
                passes_limit=passes_limit,
                observe=observe,
                repeat=repeat,
                bitwise=bitwise,
                try_cure=not no_cure,
                strict_layers=strict_layers,
                worst=worst,
                **common,
            )
    show(result, json, table=table, rows=worst, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
