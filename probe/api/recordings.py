"""Models, recordings and comparisons: ``load``, ``open_recording``, ``dump``, ``diff``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.api.arguments import Inputs, Tensors, criteria, input_sets, loaded_model, pattern
from probe.api.saved import engine_runner, is_saved_engine
from probe.api.signatures import as_annotated
from probe.results.diff import Criterion, DiffResult
from probe.store.recording import Recording
from probe.store.source import TensorSource

if TYPE_CHECKING:
    from probe.model import Model
    from probe.runners.protocol import Runner, RunnerOptions


@as_annotated
def load(path: str | Path) -> Model:
    """Load an ONNX model: inputs, outputs, nodes, opset, numerics. Weights stay where they are until needed.

    Raises:
        InputError: not readable as a model; what, where, try.
    """
    from probe.model import load as load_model

    return load_model(path)


@as_annotated
def load_result(path: str | Path) -> Any:
    """A result saved with ``--json`` or ``probe.results.json.save``, by the ``schema`` it names.

    Raises:
        InputError: not a result, a damaged one, or of a newer probe.
    """
    from probe.results.json import load as load_saved

    return load_saved(path)


@as_annotated
def open_recording(path: str | Path) -> Recording:
    """Open a dump, ``.npz``, ``.npy`` or folder of them, ``.safetensors`` or Polygraphy JSON; ``recording[name]`` is an array.

    Raises:
        InputError: nothing there, or no format probe knows.
    """
    from probe.store.opening import open_source

    return Recording(open_source(path))


@as_annotated
def dump(
    model: str | Path | Model,
    out: str | Path,
    *,
    inputs: Inputs | None = None,
    runner: str | Runner = "ort",
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    select: str | re.Pattern[str] | None = None,
    stats_only: bool = False,
    overwrite: bool = False,
    options: RunnerOptions | None = None,
    command: str = "",
) -> Recording:
    """Record the tensors of a model into ``out``: a dump folder, ``.npz`` or ``.safetensors``. Returns it, open for reading.

    Args:
        model: an ONNX model; or a saved engine, for the runner ``engine``.
        inputs: a file, folder or dump of inputs, several of those, or arrays by input name; None: realistic data made from ``seed``.
        runner: what computes: ``ort``, ``files:PATH``, ``python:module.fn``, ``command: ...``, or an open runner, which stays open.
        input_shapes: extents of dynamic inputs by name, for made-up data.
        val_range: (low, high) of made-up values by input name, "" for all.
        select: regular expression; only tensors whose name it is found in. Inputs are always recorded.
        stats_only: ranges and hashes instead of values.
        options: providers, threads, memory limit and the like, for a runner given by its spec.

    Raises:
        InputError: the model, inputs, runner or target cannot be used. Nothing is left behind.
    """
    from probe.debug.record import record
    from probe.runners.protocol import DEFAULT_OPTIONS, open_runner
    from probe.store.feeds import input_infos
    from probe.store.opening import open_sink

    if is_saved_engine(model) and isinstance(runner, str):
        runner = engine_runner(str(model), runner, options or DEFAULT_OPTIONS)
        loaded: Model = runner.engine.model
    else:
        loaded = loaded_model(model, outputs=False)
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range)
    regex = pattern(select)
    wanted = None if regex is None else lambda name: regex.search(name) is not None
    with ExitStack() as opened:
        if isinstance(runner, str):
            settings = replace(options or DEFAULT_OPTIONS, select=wanted)
            runner = opened.enter_context(closing(open_runner(runner, loaded, settings)))
        sink = opened.enter_context(open_sink(out, runner.header, overwrite=overwrite, stats_only=stats_only))
        record(runner, sets, sink, select=wanted)
        header = runner.header  # read again: notes grow while running
        sink.replace_header(replace(header, inputs=input_infos(sets), notes=(*notes, *header.notes), command=command))
    return open_recording(out)


@as_annotated
def diff(
    actual: Tensors,
    golden: Tensors,
    *,
    accept: Iterable[str | Criterion] = (),
    precision: str | None = None,
    preset: str | None = None,
    name_map: dict[str, str] | None = None,
    select: str | re.Pattern[str] | None = None,
    strict_layers: bool = False,
    worst: int = 5,
    smallest_tolerance: bool = False,
    details: int = 24,
    command: str = "",
) -> DiffResult:
    """Compare two sets of tensors: paths of recordings, open recordings, or arrays by name.

    Args:
        accept: what is good enough, as on the command line: ``"cosine>=0.999"``, ``"range_rel<=0.01 @ logits"``. Empty: the default
            for ``precision``.
        precision: ``fp32 tf32 fp16 bf16``, when ``actual`` does not say.
        preset: judge as ``torch numpy trtexec polygraphy`` do.
        name_map: {name in actual: name in golden} where they differ. Nothing is ever paired by position.
        select: regular expression; only tensors whose name it is found in.
        strict_layers: tensors inside the network count in the verdict as outputs do.
        worst: elements with the largest error kept of each tensor.
        details: tensors with distributions, channels and pictures for a drill-down, at most: outputs and the worst.

    Raises:
        InputError: a recording or criterion cannot be read.

    >>> result = diff({"scores": [0.1, 0.6, 0.3]}, {"scores": [0.1, 0.7, 0.2]}, accept=["range_rel<=0.2"])
    >>> result.verdict, round(result.tensors[0].metrics.range_rel, 3)
    ('passed', 0.143)
    """
    from probe.compare.diff import diff_sources

    acceptance = criteria(accept)
    with ExitStack() as opened:
        return diff_sources(
            _source(actual, opened),
            _source(golden, opened),
            acceptance=acceptance,
            precision=precision,
            preset=preset,
            name_map=name_map,
            select=pattern(select),
            strict_layers=strict_layers,
            worst=worst,
            smallest_tolerance=smallest_tolerance,
            details=details,
            command=command,
        )


def _source(tensors: Tensors, opened: ExitStack) -> TensorSource:
    """A source for whatever was given; what is opened here closes with ``opened``, what was open stays so."""
    from probe.store.memory import Arrays
    from probe.store.opening import open_source

    if isinstance(tensors, (str, Path)):
        return opened.enter_context(closing(open_source(tensors)))
    if isinstance(tensors, Mapping) and not isinstance(tensors, Recording):
        return Arrays(tensors)
    return tensors
