"""``probe dump``: record every tensor of a model, or copy a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from probe.cli.options import CustomOpLib, Inputs, InputShapes, Json, Quiet, Seed, Select, Threads, ValRange, Verbose
from probe.errors import InputError

_OF_THE_ENGINE = ("precision", "device", "keep", "passes", "fusion", "interior")
_TAKE_NONE = ("ort", "fp64", "typed", "files", "python", "command")  # plugins may


def _check_engine_options(context: typer.Context, runner: str) -> None:
    """Refuse what would be ignored: a recording that was asked for in another precision, or on a GPU, is another recording."""
    kind = runner.partition(":")[0].strip()
    for name in _OF_THE_ENGINE if kind in _TAKE_NONE else ():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and context.params[name] not in ("auto", "cpu"):
            raise InputError(f"--{name} is of the engine, and the runner is {kind}", hint="--runner engine")


def dump(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="An ONNX model; a saved engine, with --runner engine; or a recording to copy into another format.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="DIR|X.npz|X.safetensors", help="Where the recording goes.", show_default=False
        ),
    ],
    runner: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help='What computes: ort, fp64, engine, typed, files:PATH, python:module.fn, "command: ...".',
        ),
    ] = "ort",
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    select: Select = None,
    stats_only: Annotated[
        bool, typer.Option("--stats-only", help="Ranges and hashes instead of values: small, and enough to look.")
    ] = False,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is", help="Run an FP16 or BF16 model as it is typed; else it is upcast to FP32 to make a fair golden."
        ),
    ] = False,
    precision: Annotated[
        Literal["fp16", "bf16", "tf32", "fp32"],
        typer.Option(metavar="NAME", help="Of the engine: what tensors are stored in."),
    ] = "fp16",
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(
            metavar="auto|cpu|cuda", help="Of the engine: what runs it, the CPU or the first GPU. auto: the CPU."
        ),
    ] = "auto",
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of the engine: a tensor, layer or node that stays FP32. Repeatable."),
    ] = None,
    passes: Annotated[
        Literal["none", "safe", "all"], typer.Option(metavar="none|safe|all", help="Of the engine: clean-up.")
    ] = "safe",
    fusion: Annotated[
        Literal["none", "safe", "full"], typer.Option(metavar="none|safe|full", help="Of the engine: fused layers.")
    ] = "safe",
    interior: Annotated[
        Literal["storage", "fp32"],
        typer.Option(metavar="storage|fp32", help="Of the engine: tensors inside fused layers, rounded or FP32."),
    ] = "storage",
    threads: Threads = 0,
    providers: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="ONNX Runtime execution providers, in order: cpu, cuda. Repeatable."),
    ] = None,
    custom_op_lib: CustomOpLib = None,
    memory_limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help='Record in several sessions to stay below: "2G", "512MiB".')
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=0.0, help="Of one run of a command: runner; none without.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing recording.")] = False,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Record every tensor of a model, or copy a recording.

    Tensors stand in execution order, with ranges and hashes. The runner is ONNX Runtime with optimisation off, which makes a golden; or your own engine. Without --inputs, realistic seeded data is
    made up, which can hide failures. The recording appears when it is whole, or not at all.

    Example: probe dump model.onnx --inputs cat.npz -o golden
    """
    import time

    from probe.cli.options import chosen_device, parse_bytes, parse_select, typed_command
    from probe.cli.output import check_json, show
    from probe.cli.saved import takes_saved
    from probe.debug.inspect import describe_dump
    from probe.store.opening import is_recording

    check_json(json)
    pattern, limit, started = parse_select(select), parse_bytes(memory_limit), time.perf_counter()
    command = typed_command()
    header, made_up = None, False
    if is_recording(model):
        from probe.debug.convert import convert

        if runner != "ort" or inputs:
            raise InputError(f"{model} is a recording: it is copied, and takes no --runner and no --inputs")
        convert(model, output, select=pattern, stats_only=stats_only, overwrite=overwrite)
    else:
        from contextlib import closing
        from typing import cast

        from probe import api
        from probe.cli.progress import Progress, WatchedRunner
        from probe.model.feeds import parse_ranges, parse_shapes
        from probe.runners.protocol import DEFAULT_OPTIONS, Runner, RunnerOptions, open_runner

        _check_engine_options(context, runner)
        shapes, ranges = parse_shapes(input_shapes or ()), parse_ranges(val_range or ())
        options = RunnerOptions(
            providers=tuple(providers) if providers else DEFAULT_OPTIONS.providers,
            threads=threads,
            custom_op_libs=tuple(custom_op_lib or ()),
            as_is=as_is,
            memory_limit=limit,
            select=None if pattern is None else lambda name: pattern.search(name) is not None,
            timeout=timeout,
            precision=precision,
            device=chosen_device(device),
            passes=passes,
            fusion=fusion,
            interior=interior,
            keep=tuple(keep or ()),
        )
        if takes_saved(context, model):
            from probe.api.saved import engine_runner

            computes = engine_runner(model, runner, options)
            loaded = computes.engine.model
        else:
            loaded = api.load(model)
            computes = open_runner(runner, loaded, options)
        with closing(computes) as opened, Progress("recording", quiet=quiet) as progress:
            api.dump(
                loaded,
                output,
                inputs=list(inputs) if inputs else None,
                runner=cast(Runner, WatchedRunner(opened, progress)),
                seed=seed,
                input_shapes=shapes,
                val_range=ranges,
                select=pattern,
                stats_only=stats_only,
                overwrite=overwrite,
                command=command,
            ).close()
            header, made_up = opened.header, not inputs and bool(loaded.inputs)
    seconds = time.perf_counter() - started
    result = describe_dump(output, header=header, seconds=seconds, command=command, random_inputs=made_up)
    show(result, json, verbose=verbose, quiet=quiet)
