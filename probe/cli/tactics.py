"""``probe tactics``: which kernel computes each layer: recorded, pinned, compared. A typer application of its own, a function a command."""

from __future__ import annotations

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
    Keep,
    Model,
    Overwrite,
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
from probe.cli.tactics_bisect import bisect
from probe.cli.tactics_diff import diff
from probe.cli.tactics_table import table
from probe.errors import EXIT_FAILED, EXIT_PASSED

HELP = ("-h", "--help")

tactics = typer.Typer(
    name="tactics",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": list(HELP)},
)

Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE|@FILE",
        help='Only tactics that a rule names, on the layers it is about: "TACTICS" or "TACTICS @ LAYERS", regular expressions. Repeatable.',
    ),
]
Deny = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RULE|@FILE", help='None of the tactics that a rule names: "winograd_.* @ ^conv1". Repeatable.'
    ),
]


@tactics.callback()
def group() -> None:
    """Record, replay and compare which tactic computes each layer.

    A tactic is one way to compute a layer: its accumulator, its order of a sum, its algorithm. When answers change from build to build, a
    choice between them is to blame.

    Example: probe tactics record model.onnx --inputs cat.npz -o good.tactics
    """


@tactics.command(context_settings={"help_option_names": list(HELP)})
def record(
    model: Model,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The tactic file to write.", show_default=False)
    ],
    choose: Annotated[
        Literal["fastest", "accurate", "deterministic", "random"],
        typer.Option(
            metavar="fastest|accurate|deterministic|random",
            help="What comes first: by measured time, by what tactics promise, same bits run for run, or drawn.",
        ),
    ] = "fastest",
    choose_seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the order that is drawn.")] = 0,
    allow: Allow = None,
    deny: Deny = None,
    timing_cache: TimingCache = None,
    no_times: Annotated[
        bool, typer.Option("--no-times", help="Measure nothing: what no rule or order says otherwise is exact.")
    ] = False,
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
    overwrite: Overwrite = False,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Choose a tactic for each layer, run, judge, and write them down.

    Candidates are timed on the activations of the first input; rules and an order decide which is taken. The file holds one line a layer
    and the hash of the outputs, so that a replay can say whether it makes the same bits. It is written whatever the verdict: good and bad
    runs are what a comparison needs. Exit code 0: passed or warned, 1: failed or not judged.

    Example: probe tactics record model.onnx --inputs cat.npz -o good.tactics
    """
    from probe.api.tactics import record_tactics
    from probe.cli.arguments import network_arguments
    from probe.cli.options import chosen_device, parse_keep
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress

    check_json(json)
    with Progress("recording", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = record_tactics(
            model,
            output,
            choose=choose,
            choose_seed=choose_seed,
            allow=allow or (),
            deny=deny or (),
            measure=False if no_times else None,
            timing_cache=timing_cache,
            precision=precision,
            accept=accept or (),
            preset=preset,
            keep=parse_keep(keep),
            device=chosen_device(device),
            passes=passes,
            fusion=fusion,
            interior=interior,
            overwrite=overwrite,
            **common,
        )
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)


@tactics.command(context_settings={"help_option_names": list(HELP)})
def replay(
    model: Model,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A tactic file; with --lenient also Polygraphy's tactic replay JSON.",
            show_default=False,
        ),
    ],
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Choose anew for what the file does not fit, and say so.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write what ran as a new tactic file.")
    ] = None,
    allow: Allow = None,
    deny: Deny = None,
    timing_cache: TimingCache = None,
    precision: Annotated[
        Literal["fp16", "bf16", "tf32", "fp32"],
        typer.Option(metavar="NAME", help="Of Polygraphy's files, which do not say it; a tactic file does."),
    ] = "fp16",
    inputs: Inputs = None,
    input_shapes: InputShapes = None,
    seed: Seed = 0,
    val_range: ValRange = None,
    golden: Golden = "ort",
    accept: Accept = None,
    preset: Preset = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    threads: Threads = 0,
    custom_op_lib: CustomOpLib = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run with the tactics of a file; say whether the bits are the same.

    The network is compiled as the file says. Anything that is not as it was recorded (another model or device, a layer that is missing, new
    or another problem, a tactic that is unknown, an edited file) is refused, and all of it listed; --lenient takes what fits. Exit code 0:
    passed or warned, with the recorded bits; 1: failed, not judged, or other bits; 2: the file does not fit.

    Example: probe tactics replay model.onnx good.tactics --inputs cat.npz
    """
    from probe.api.tactics import replay_tactics
    from probe.cli.arguments import network_arguments
    from probe.cli.output import check_json, show
    from probe.cli.progress import Progress

    check_json(json)
    with Progress("replaying", quiet=quiet) as progress:
        common = network_arguments(
            progress, golden=golden, inputs=inputs, seed=seed, input_shapes=input_shapes, val_range=val_range, threads=threads,
            custom_op_lib=custom_op_lib,
        )  # fmt: skip
        result = replay_tactics(
            model,
            file,
            strict=not lenient,
            out=output,
            allow=allow or (),
            deny=deny or (),
            precision=precision,
            accept=accept or (),
            preset=preset,
            timing_cache=timing_cache,
            device=device,
            overwrite=overwrite,
            **common,
        )
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)


@tactics.command(context_settings={"help_option_names": list(HELP)})
def log(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="TensorRT's verbose log of a build.", show_default=False)],
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="The log of another build.", show_default=False)
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show what TensorRT tried and took, from its verbose log.

    The log of a build with an editable timing cache and detailed verbosity: operators, candidates with times, kernels and hashes, the
    choice. With a second log, what the two builds chose differently. Exit code 1: a choice differs.

    Example: probe tactics log good-build.log bad-build.log
    """
    from probe.api.tactics import read_trt_log
    from probe.cli.options import typed_command
    from probe.cli.output import check_json, show

    check_json(json)
    result = read_trt_log(log, other, command=typed_command())
    show(result, json, verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)


for _command in (diff, table, bisect):
    tactics.command(context_settings={"help_option_names": list(HELP)})(_command)
