"""``probe run``: compile a model, run it in low precision, judge every layer against a golden."""

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
    StrictLayers,
    Threads,
    ValRange,
    Verbose,
    Worst,
)
from probe.errors import EXIT_FAILED, EXIT_PASSED, InputError


def run(
    model: Model,
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
            help="Measure and show only layers of which a name (of the layer, a node or a tensor) is found so.",
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu"],
        typer.Option(metavar="auto|cpu", help="What runs it: the CPU, which emulates low-precision storage."),
    ] = "auto",
    passes: Annotated[
        Literal["none", "safe", "all"],
        typer.Option(metavar="none|safe|all", help="Clean-up of the graph before it runs."),
    ] = "safe",
    passes_limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Stop after N changes to the graph, to find one that does harm."),
    ] = None,
    fusion: Annotated[
        Literal["none", "safe", "full"],
        typer.Option(metavar="none|safe|full", help="Which nodes are computed together."),
    ] = "safe",
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

    It is compiled, run, and compared with a golden. Every layer gets its own error on golden inputs beside what has accumulated; the first NaN, Inf or divergence gets a cause with numbers
    and a cure that was tried. The CPU stores tensors in the precision and computes in FP32. Without --inputs, those of a recorded golden
    are taken, or realistic seeded data, which can hide failures. Exit code 0: passed or warned, 1: failed or not judged.

    Example: probe run model.onnx --precision fp16 --inputs cat.npz
    """
    from probe import api
    from probe.cli.options import parse_bytes, parse_select, typed_command
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress
    from probe.model.feeds import parse_ranges, parse_shapes

    check_json(json)
    if table is not None and table.suffix not in (".parquet", ".csv"):
        raise InputError(f"{table}: a table is written as .parquet or .csv", where="--table")
    kept = [pattern for one in keep or () if (pattern := parse_select(one, "--keep")) is not None]
    if builds is not None:
        looking = {"--layers": layers, "--passes-limit": passes_limit, "--observe": observe, "--no-cure": no_cure,
                   "--strict-layers": strict_layers, "--table": table}  # fmt: skip
        foreign = [name for name, value in looking.items() if value not in (None, False)]
        if foreign:
            raise InputError(f"{foreign[0]} is about one build", where="--builds", hint="leave one of both out")
    with Progress("running", quiet=quiet) as progress:
        common: dict[str, Any] = {
            "precision": precision, "golden": golden, "inputs": list(inputs) if inputs else None, "seed": seed,
            "input_shapes": parse_shapes(input_shapes or ()), "val_range": parse_ranges(val_range or ()), "accept": accept or (),
            "preset": preset, "keep": kept, "device": "cpu" if device == "auto" else device, "passes": passes, "fusion": fusion,
            "interior": interior, "threads": threads, "custom_op_libs": custom_op_lib or (),
            "memory_limit": parse_bytes(memory_limit), "command": typed_command(),
            "progress": lambda phase, name: progress.step(f"{phase} {name}"),
        }  # fmt: skip
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
                try_cure=not no_cure,
                strict_layers=strict_layers,
                worst=worst,
                **common,
            )
    if table is not None:
        from probe.results.frames import save_frame

        save_frame(result, table)
    show(result, json, rows=worst, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)
