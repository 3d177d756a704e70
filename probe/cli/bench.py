"""``probe bench``: how fast a model runs here, where the time goes, and what the machine would allow."""

from __future__ import annotations

from functools import partial
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
    PassesLimit,
    PassesOrFile,
    Quiet,
    Runnable,
    Seed,
    Threads,
    ValRange,
    Verbose,
)
from probe.errors import EXIT_PASSED


def bench(
    context: typer.Context,
    model: Runnable,
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "bf16"] | None,
        typer.Option(
            metavar="NAME",
            help="fp32, the default; or tf32, fp16, bf16, which the CPU emulates: their times are the emulation's.",
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(metavar="N", help="Measure at least N inferences; without --duration just so many. At least 2."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=0.0, help="Measure for at least S seconds; 3 without --iterations.")
    ] = None,
    warmup: Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds before, which do not count.")] = 0.5,
    streams: Annotated[
        int, typer.Option(metavar="N", min=1, help="Inferences side by side, each on a thread with its own tensors.")
    ] = 1,
    no_graph: Annotated[
        bool, typer.Option("--no-graph", help="On a GPU: launch kernel by kernel, not as a CUDA graph.")
    ] = False,
    nvtx: Annotated[
        bool,
        typer.Option("--nvtx", help="On a GPU: NVTX ranges of inferences; with --no-graph, of layers, too."),
    ] = False,
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    keep: Keep = None,
    tactics: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Run with the kernel choices of a tactic file, compiled as it says."),
    ] = None,
    device: Device = "auto",
    passes: PassesOrFile = None,
    passes_limit: PassesLimit = None,
    fusion: FusionOrFile = None,
    interior: InteriorOrFile = None,
    no_layers: Annotated[
        bool, typer.Option("--no-layers", help="Measure latency only: no time by layer, ceilings or memory.")
    ] = False,
    worst: Annotated[int, typer.Option(metavar="N", min=1, help="Layers the table shows, the slowest first.")] = 10,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all layers with their times as .parquet or .csv.")
    ] = None,
    export_profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write time by layer as trtexec --exportProfile does.")
    ] = None,
    export_layers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the layers as trtexec --exportLayerInfo does.")
    ] = None,
    export_times: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write each inference as trtexec --exportTimes does (at most 10,000 of them)."
        ),
    ] = None,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure how fast a model runs here, and where the time goes.

    Latency with percentiles, throughput, compute and copies; then, in a pass of its own, every layer with FLOP/s, bytes/s and its share of
    what this machine reached in the same run (the roofline), and memory along the network. What makes times unstable is said. A batch is
    chosen by --input-shapes. The CPU computes in FP32: lower precisions are emulated, and their times say nothing of a GPU. With --device
    cuda copies and kernels are timed on the GPU, inferences repeat a CUDA graph. Exit code 0: measured, stable or not.

    Example: probe bench model.onnx --duration 10 --json bench.json
    """
    from probe.api.timing import bench as measure
    from probe.cli.arguments import network_arguments
    from probe.cli.options import chosen_device, parse_keep
    from probe.cli.output import check_json, check_named_once, check_table, show
    from probe.cli.progress import Progress
    from probe.cli.saved import takes_saved
    from probe.errors import InputError
    from probe.results.json import check_target, write_text

    check_json(json)
    check_table(table)
    takes_saved(context, model)
    exports = {"profile": export_profile, "layers": export_layers, "times": export_times}
    for name, path in exports.items():
        if path is not None:
            check_target(path)
            check_named_once(path)
            if no_layers and name != "times":
                raise InputError(
                    f"without layers there is nothing to write to {path}",
                    where=f"--export-{name}",
                    hint="leave --no-layers out",
                )
    with Progress("measuring", quiet=quiet) as progress:
        common = network_arguments(
            progress, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads, custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = measure(
            model, precision=precision, iterations=iterations, duration=duration, warmup=warmup, streams=streams, graphs=not no_graph, nvtx=nvtx,
            by_layer=not no_layers,
            keep=parse_keep(keep), tactics=tactics, device=chosen_device(device), passes=passes, fusion=fusion, interior=interior,
            passes_limit=passes_limit, **common,
        )  # fmt: skip
    from probe.report import trtexec_files as layouts

    texts = {"profile": layouts.profile_text, "layers": layouts.layers_text, "times": layouts.times_text}
    files = [partial(write_text, texts[name](result), path) for name, path in exports.items() if path is not None]
    show(result, json, table=table, files=files, rows=worst, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED)
