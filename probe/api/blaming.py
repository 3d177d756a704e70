"""Which tactic is to blame: ``diff_tactics``, ``bisect_tactics``, ``tactics_table``, ``compare_builds``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.api.arguments import Inputs, input_sets, loaded_model, optional_path, pattern, tactic_options
from probe.api.signatures import as_annotated
from probe.results.diff import Criterion

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.blame.run_files import RunTactics
    from probe.engine.tuning.selector import Selector
    from probe.model import Model
    from probe.results.blame import BuildsResult, TacticsBisectResult, TacticsDiffResult, TacticsTableResult

Paths = str | Path | Sequence[str | Path]


@as_annotated
def diff_tactics(good: Paths, bad: Paths, *, command: str = "") -> TacticsDiffResult:
    """Rank the choices that bad runs have more often than good ones. Runs nothing.

    Args:
        good, bad: tactic files, replay files of Polygraphy, or folders of them.

    Raises:
        InputError: as ``probe.blame.diff.diff_tactics``.
    """
    from probe.blame.diff import diff_tactics as compared

    return compared(_several(good), _several(bad), command=command)


@as_annotated
def diff_tactics_in(folder: str | Path, *, command: str = "") -> TacticsDiffResult:
    """``diff_tactics`` of what is below the folders ``good`` and ``bad`` of a folder.

    Raises:
        InputError: there are none.
    """
    from probe.blame.run_files import good_and_bad

    return diff_tactics(*good_and_bad(folder), command=command)


@as_annotated
def bisect_tactics(
    good: Paths,
    bad: Paths,
    model: str | Path | Model,
    *,
    pinned: str | Path | None = None,
    denied: str | Path | None = None,
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    accept: Iterable[str | Criterion] = (),
    preset: str | None = None,
    max_evaluations: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> TacticsBisectResult:
    """Find which of the choices that two tactic files differ in make the bad run fail, and confirm it by flipping them both ways.

    Args:
        good, bad: tactic files; of several (or folders of them) the good and the bad one that differ least.
        pinned: where the bad tactic file with the guilty choices pinned goes. ``denied``: where the deny-list goes.
        max_evaluations: budget of the search.
        golden, inputs, accept, preset, memory_limit, progress: as for ``run``. Settings of the engine are those of the files.

    Raises:
        InputError: files that do not fit the model or each other, or the model, inputs, golden or options cannot be used.
    """
    from probe.blame.bisect import BisectOptions
    from probe.blame.bisect import bisect_tactics as bisected
    from probe.blame.run_files import least_different, read_runs

    loaded = loaded_model(model)
    fine, wrong, said = least_different(read_runs(_several(good)), read_runs(_several(bad)))
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    run = tactic_options(
        golden=golden, accept=accept, preset=preset, device=device, overwrite=overwrite, threads=threads,
        custom_op_libs=custom_op_libs, memory_limit=memory_limit, command=command,
    )  # fmt: skip
    options = BisectOptions(run, optional_path(pinned), optional_path(denied), max_evaluations)
    return bisected(fine, wrong, loaded, sets, options, notes=(*notes, *said), progress=progress)


@as_annotated
def tactics_table(
    model: str | Path | Model,
    *,
    start: str | Path | None = None,
    layers: str | re.Pattern[str] | None = None,
    tactics: str | re.Pattern[str] | None = None,
    measure: bool = True,
    flip: bool = True,
    max_seconds: float | None = None,
    timing_cache: str | Path | None = None,
    precision: Literal["fp16", "bf16", "tf32", "fp32"] = "fp16",
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    accept: Iterable[str | Criterion] = (),
    preset: str | None = None,
    keep: Iterable[str | re.Pattern[str]] = (),
    device: str = "cpu",
    passes: Literal["none", "safe", "all"] = "safe",
    fusion: Literal["none", "safe", "full"] = "safe",
    interior: Literal["storage", "fp32"] = "storage",
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> TacticsTableResult:
    """Measure every candidate of every layer: time, error against float64 on real activations, and what the network becomes with it.

    Args:
        start: a tactic file: what the other layers run while one is flipped, and how the network is compiled; None: exact.
        layers: regular expression; only layers it is found in (name, nodes, tensors). ``tactics``: matched against whole names.
        measure: time the candidates. ``flip``: run the network with each choice changed, ``max_seconds`` at most.
        timing_cache: file of measured times.
        golden, inputs, accept, preset, keep, passes, fusion, interior, memory_limit, progress: as for ``run``.

    Raises:
        InputError: the model, file, inputs, golden or options cannot be used.
    """
    from probe.blame.run_files import read_run
    from probe.blame.table import TableOptions
    from probe.blame.table import tactics_table as measured

    loaded = loaded_model(model)
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    run = tactic_options(
        precision=precision, golden=golden, accept=accept, preset=preset, device=device, passes=passes, fusion=fusion,
        interior=interior, keep=keep, threads=threads, custom_op_libs=custom_op_libs,
        memory_limit=memory_limit, timing_cache=timing_cache, command=command,
    )  # fmt: skip
    options = TableOptions(
        run, pattern(layers), pattern(tactics), measure=measure,
        flip=flip, max_seconds=max_seconds,
    )  # fmt: skip
    begin: RunTactics | None = None if start is None else read_run(start)
    return measured(loaded, sets, options, start=begin, notes=notes, progress=progress)


@as_annotated
def compare_builds(
    model: str | Path | Model,
    builds: int,
    *,
    selectors: Callable[[int], Sequence[Selector]] = lambda _build: (),
    precision: Literal["fp16", "bf16", "tf32", "fp32"] = "fp16",
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    accept: Iterable[str | Criterion] = (),
    preset: str | None = None,
    keep: Iterable[str | re.Pattern[str]] = (),
    device: str = "cpu",
    passes: Literal["none", "safe", "all"] = "safe",
    fusion: Literal["none", "safe", "full"] = "safe",
    interior: Literal["storage", "fp32"] = "storage",
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> BuildsResult:
    """Choose the tactics of a network several times, each from new measurements, and compare what comes of it.

    Args:
        builds: how many, at least 2.
        selectors: of a build, by its number from 0, asked behind the fastest.
        golden, inputs, accept, preset, keep, passes, fusion, interior, memory_limit, progress: as for ``run``.

    Raises:
        InputError: the model, inputs, golden or options cannot be used.
    """
    from probe.blame.builds import compare_builds as compared

    loaded = loaded_model(model)
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    options = tactic_options(
        precision=precision, golden=golden, accept=accept, preset=preset, device=device, passes=passes, fusion=fusion,
        interior=interior, keep=keep, threads=threads, custom_op_libs=custom_op_libs,
        memory_limit=memory_limit, command=command,
    )  # fmt: skip
    return compared(loaded, sets, builds, options, selectors=selectors, notes=notes, progress=progress)


def _several(paths: Paths) -> Sequence[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else paths
