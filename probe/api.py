"""What the commands do, as functions: the library behind ``probe dump``, ``diff``, ``run`` and ``convert``, and the names ``import probe`` offers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.results.diff import Criterion, DiffResult
from probe.store.feeds import InputSet
from probe.store.recording import Recording
from probe.store.source import TensorSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.engine.engine import Engine
    from probe.model import Model
    from probe.results.convert_result import ConvertResult
    from probe.results.run import RunResult
    from probe.runners.protocol import Runner, RunnerOptions

Tensors = str | Path | TensorSource | Mapping[str, Any]
Inputs = str | Path | Sequence[str | Path] | Mapping[str, Any]


def load(path: str | Path) -> Model:
    """Load an ONNX model: inputs, outputs, nodes, opset, numerics. Weights stay where they are until needed.

    Raises:
        InputError: not readable as a model; what, where, try.
    """
    from probe.model import load as load_model

    return load_model(path)


def load_result(path: str | Path) -> Any:
    """A result saved with ``--json`` or ``probe.results.json.save``, by the ``schema`` it names.

    Raises:
        InputError: not a result, a damaged one, or of a newer probe.
    """
    from probe.results.json import load as load_saved

    return load_saved(path)


def open_recording(path: str | Path) -> Recording:
    """Open a dump, ``.npz``, ``.npy`` or folder of them, ``.safetensors`` or Polygraphy JSON; ``recording[name]`` is an array.

    Raises:
        InputError: nothing there, or no format probe knows.
    """
    from probe.store.opening import open_source

    return Recording(open_source(path))


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
    from probe.results.tensors import InputInfo
    from probe.runners.protocol import DEFAULT_OPTIONS, open_runner
    from probe.store.opening import open_sink

    loaded = load(model) if isinstance(model, (str, Path)) else model
    sets, notes = _input_sets(loaded, inputs, seed, input_shapes, val_range)
    pattern = re.compile(select) if isinstance(select, str) else select
    wanted = None if pattern is None else lambda name: pattern.search(name) is not None
    with ExitStack() as opened:
        if isinstance(runner, str):
            settings = replace(options or DEFAULT_OPTIONS, select=wanted)
            runner = opened.enter_context(closing(open_runner(runner, loaded, settings)))
        sink = opened.enter_context(open_sink(out, runner.header, overwrite=overwrite, stats_only=stats_only))
        record(runner, sets, sink, select=wanted)
        header = runner.header  # read again: notes grow while running
        infos = tuple(InputInfo(one.id, one.sha256, one.source) for one in sets)
        sink.replace_header(replace(header, inputs=infos, notes=(*notes, *header.notes), command=command))
    return open_recording(out)


def _input_sets(
    model: Model,
    inputs: Inputs | None,
    seed: int,
    shapes: Mapping[str, Sequence[int]] | None,
    ranges: Mapping[str, tuple[float, float]] | None,
) -> tuple[list[InputSet], list[str]]:
    from probe.debug.record import collect_inputs

    if isinstance(inputs, Mapping):
        from probe.model.inputs import check_feeds

        notes: list[str] = []
        return [InputSet("arrays", check_feeds(model, inputs, notes=notes), "arrays in memory")], notes
    paths = [inputs] if isinstance(inputs, (str, Path)) else inputs or []
    return collect_inputs(model, paths, shapes=shapes, seed=seed, ranges=ranges)


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

    Raises:
        InputError: a recording or criterion cannot be read.

    >>> result = diff({"scores": [0.1, 0.6, 0.3]}, {"scores": [0.1, 0.7, 0.2]}, accept=["range_rel<=0.2"])
    >>> result.verdict, round(result.tensors[0].metrics.range_rel, 3)
    ('passed', 0.143)
    """
    from probe.compare.diff import diff_sources
    from probe.metrics.acceptance import parse_criterion

    acceptance = [parse_criterion(one) if isinstance(one, str) else one for one in accept]
    with ExitStack() as opened:
        return diff_sources(
            _source(actual, opened),
            _source(golden, opened),
            acceptance=acceptance,
            precision=precision,
            preset=preset,
            name_map=name_map,
            select=re.compile(select) if isinstance(select, str) else select,
            strict_layers=strict_layers,
            worst=worst,
            smallest_tolerance=smallest_tolerance,
            command=command,
        )


def compile(  # noqa: A001 - probe.compile is what users write, and nobody imports it by a star
    model: str | Path | Model,
    *,
    precision: str = "fp16",
    device: str = "cpu",
    passes: Literal["none", "safe", "all"] = "safe",
    fusion: Literal["none", "safe", "full"] = "safe",
    interior: Literal["storage", "fp32"] = "storage",
    passes_limit: int | None = None,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    keep: Iterable[str] = (),
) -> Engine:
    """Compile a model into layers that can run in any mix of precisions: ``engine(inputs)``, ``engine.run(inputs, assignment)``.

    Args:
        precision: ``fp32 tf32 fp16 bf16``: what tensors are stored in unless an assignment says otherwise.
        passes: clean-up of the graph; ``fusion``: what is computed together; ``interior``: how tensors inside fused layers are stored.
        passes_limit: stop after this many changes to the graph.
        keep: names of tensors, layers or nodes that stay FP32.

    Raises:
        InputError: the model cannot be compiled, or an option names nothing.
    """
    from probe.engine.build import compile_model

    return compile_model(
        load(model) if isinstance(model, (str, Path)) else model,
        precision=precision, device=device, passes=passes, fusion=fusion, interior=interior, passes_limit=passes_limit,
        threads=threads, libraries=[Path(one) for one in custom_op_libs], keep=keep,
    )  # fmt: skip


def run(
    model: str | Path | Model,
    *,
    precision: str = "fp16",
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    accept: Iterable[str | Criterion] = (),
    preset: str | None = None,
    keep: Iterable[str | re.Pattern[str]] = (),
    layers: str | re.Pattern[str] | None = None,
    device: str = "cpu",
    passes: Literal["none", "safe", "all"] = "safe",
    fusion: Literal["none", "safe", "full"] = "safe",
    interior: Literal["storage", "fp32"] = "storage",
    passes_limit: int | None = None,
    observe: bool = False,
    try_cure: bool = True,
    strict_layers: bool = False,
    worst: int = 5,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> RunResult:
    """Compile a model, run it in low precision, judge it against a golden, layer by layer, and say why it fails.

    Args:
        golden: ``ort`` (ONNX Runtime, FP32, optimisation off), ``fp64``, a recording, or arrays by output name.
        inputs: as for ``dump``; None: those that a recorded golden holds, else realistic data made from ``seed``.
        accept, preset, strict_layers, worst: as for ``diff``.
        keep: regular expressions; tensors, layers and nodes whose name one is found in stay FP32.
        layers: regular expression; only layers it is found in are measured by themselves. All by default.
        observe: run once more without looking inside, and compare.
        try_cure: run again with what the findings would keep in FP32; this also decides which findings are fatal.
        memory_limit: bytes of tensors each recording holds in memory; above, they go to a temporary folder.
        progress: called with a phase and the name of what is worked on.

    Raises:
        InputError: the model, inputs, golden or options cannot be used.
    """
    from probe.debug.run import RunOptions, inputs_of_golden, run_network
    from probe.metrics.acceptance import parse_criterion
    from probe.store.tape import DEFAULT_LIMIT

    loaded = load(model) if isinstance(model, (str, Path)) else model
    if inputs is None and not input_shapes and not val_range:
        inputs = inputs_of_golden(golden) or None
    sets, notes = _input_sets(loaded, inputs, seed, input_shapes, val_range)
    options = RunOptions(
        precision=precision, device=device, golden=golden,
        acceptance=tuple(parse_criterion(one) if isinstance(one, str) else one for one in accept),
        preset=preset, keep=tuple(re.compile(one) for one in keep), layers=re.compile(layers) if layers is not None else None,
        interior=interior, passes=passes, fusion=fusion, passes_limit=passes_limit, threads=threads,
        custom_op_libs=tuple(Path(one) for one in custom_op_libs), observe=observe, try_cure=try_cure,
        strict_layers=strict_layers, worst=worst, memory_limit=memory_limit or DEFAULT_LIMIT, command=command,
    )  # fmt: skip
    return run_network(loaded, sets, options, notes=notes, progress=progress)


def convert(
    model: str | Path | Model,
    out: str | Path,
    *,
    precision: Literal["fp16", "bf16"] = "fp16",
    keep: Iterable[str | re.Pattern[str]] = (),
    keep_tensors: Iterable[str] = (),
    keep_nodes: Iterable[str] = (),
    convert_io: bool = False,
    prove: bool = True,
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    accept: Iterable[str | Criterion] = (),
    preset: str | None = None,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    overwrite: bool = False,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> ConvertResult:
    """Write a mixed-precision ONNX model, typed strongly, and prove it: run as its types say, judged against a golden.

    Args:
        keep: regular expressions; tensors and nodes whose name one is found in stay FP32. ``keep_tensors``, ``keep_nodes``: by exact name.
        convert_io: give graph inputs and outputs the low type, too.
        prove: run the written model; without, the verdict is ``not_judged``.
        golden, inputs, seed, input_shapes, val_range, accept, preset, progress: as for ``run``.

    Raises:
        InputError: the model cannot be converted, a name or pattern is nowhere, the target exists or cannot be written.
    """
    from probe.debug.convert_model import ConvertOptions, convert_network
    from probe.debug.run import inputs_of_golden
    from probe.metrics.acceptance import parse_criterion

    loaded = load(model) if isinstance(model, (str, Path)) else model
    sets: list[InputSet] = []
    notes: list[str] = []
    if prove:
        if inputs is None and not input_shapes and not val_range:
            inputs = inputs_of_golden(golden) or None
        sets, notes = _input_sets(loaded, inputs, seed, input_shapes, val_range)
    options = ConvertOptions(
        precision=precision, keep=tuple(re.compile(one) for one in keep), keep_tensors=tuple(keep_tensors), keep_nodes=tuple(keep_nodes),
        convert_io=convert_io, prove=prove, golden=golden,
        acceptance=tuple(parse_criterion(one) if isinstance(one, str) else one for one in accept), preset=preset, threads=threads,
        custom_op_libs=tuple(Path(one) for one in custom_op_libs), overwrite=overwrite, command=command,
    )  # fmt: skip
    return convert_network(loaded, out, sets, options, notes=notes, progress=progress)


def _source(tensors: Tensors, opened: ExitStack) -> TensorSource:
    """A source for whatever was given; what is opened here closes with ``opened``, what was open stays so."""
    from probe.store.memory import Arrays
    from probe.store.opening import open_source

    if isinstance(tensors, (str, Path)):
        return opened.enter_context(closing(open_source(tensors)))
    if isinstance(tensors, Mapping) and not isinstance(tensors, Recording):
        return Arrays(tensors)
    return tensors
