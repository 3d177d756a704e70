"""``probe diff``: two recordings, or two saved results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from probe.cli.options import Accept, Json, Preset, Quiet, Select, StrictLayers, Verbose, Worst
from probe.errors import EXIT_FAILED, EXIT_PASSED, InputError

if TYPE_CHECKING:
    from probe.results.diff import DiffResult
    from probe.results.regression import RegressionResult


def diff(
    actual: Annotated[
        str,
        typer.Argument(metavar="ACTUAL", help="What is judged; of two saved results, the earlier.", show_default=False),
    ],
    golden: Annotated[
        str,
        typer.Argument(metavar="GOLDEN", help="The reference; of two saved results, the later.", show_default=False),
    ],
    accept: Accept = None,
    preset: Preset = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="fp32, tf32, fp16 or bf16: which default acceptance applies, when ACTUAL does not say."
        ),
    ] = None,
    map_: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help='Names that differ: JSON {"name in ACTUAL": "name in GOLDEN"}.'),
    ] = None,
    select: Select = None,
    worst: Worst = 10,
    metrics: Annotated[
        Literal["default", "all"], typer.Option(metavar="default|all", help="all: every metric of the tensors shown.")
    ] = "default",
    smallest_tolerance: Annotated[
        bool, typer.Option("--smallest-tolerance", help="Also find the smallest atol and rtol that would pass.")
    ] = False,
    strict_layers: StrictLayers = False,
    worse_factor: Annotated[
        float, typer.Option(metavar="X", min=1.0, help="Two saved results: an error X times larger is a regression.")
    ] = 2.0,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all tensors x metrics as .parquet or .csv.")
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Compare two recordings, or two saved results.

    Recordings are folders made by probe dump, .npz, .npy or folders of them, .safetensors, and Polygraphy's JSON. Two results that
    run, diff or find saved with --json are compared as before and after; a regression fails. Exit code 0: passed or warned, 1: failed or not judged.

    Example: probe diff engine-fp16 golden --accept "range_rel<=0.02" --json diff.json
    """
    from probe.cli.output import check_json, check_table, show
    from probe.results.json import is_result

    check_json(json)
    check_table(table)
    saved = [path for path in (actual, golden) if is_result(path)]
    if len(saved) == 1:
        raise InputError(
            f"{saved[0]} is a saved result and the other is not",
            hint="compare two recordings, or two results saved with --json",
        )
    if saved and table is not None:
        raise InputError("--table is for recordings", hint="name two recordings, or leave --table out")
    if saved:
        result: DiffResult | RegressionResult = _results(actual, golden, worse_factor)
    else:
        result = _recordings(
            actual, golden, accept=accept or [], preset=preset, precision=precision, map_file=map_, select=select, worst=worst,
            smallest_tolerance=smallest_tolerance, strict_layers=strict_layers, quiet=quiet,
        )  # fmt: skip
    show(result, json, table=table, rows=worst, all_metrics=metrics == "all", verbose=verbose, quiet=quiet)
    raise typer.Exit(EXIT_PASSED if result else EXIT_FAILED)


def _results(before: str, after: str, worse_factor: float) -> RegressionResult:
    from probe.api.reports import joined

    return joined([before, after], worse_factor=worse_factor)


def _recordings(
    actual: str,
    golden: str,
    *,
    accept: list[str],
    preset: str | None,
    precision: str | None,
    map_file: Path | None,
    select: str | None,
    worst: int,
    smallest_tolerance: bool,
    strict_layers: bool,
    quiet: bool,
) -> DiffResult:
    from contextlib import closing

    from probe import api
    from probe.cli.options import parse_select, typed_command
    from probe.cli.progress import Progress, watched
    from probe.compare.align import read_map
    from probe.store.opening import open_source

    pattern, name_map = parse_select(select), read_map(map_file) if map_file is not None else None
    with closing(open_source(golden)) as theirs, Progress("comparing", len(theirs.rows()), quiet=quiet) as progress:
        return api.diff(
            actual,
            watched(theirs, "open", progress),
            accept=accept,
            precision=precision,
            preset=preset,
            name_map=name_map,
            select=pattern,
            strict_layers=strict_layers,
            worst=worst,
            smallest_tolerance=smallest_tolerance,
            command=typed_command(),
        )
