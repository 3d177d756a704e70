"""Networks in low precision: ``compile``, ``run``, ``convert``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.api.arguments import Inputs, criteria, input_sets, loaded_model, pattern, patterns, several
from probe.api.saved import saved_engine
from probe.api.signatures import as_annotated
from probe.results.diff import Criterion
from probe.store.feeds import InputSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.engine.engine import Engine
    from probe.model import Model
    from probe.results.convert_result import ConvertResult
    from probe.results.run import RunResult


@as_annotated
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
    ``engine.save("engine.probe")`` writes what came of it; named here as the model, that file is loaded, and nothing is compiled.

    Args:
        model: an ONNX model; or a saved engine, which has its precision, passes, fusion and interior: any but those and the usual are refused.
        precision: ``fp32 tf32 fp16 bf16``: what tensors are stored in unless an assignment says otherwise.
        passes: clean-up of the graph; ``fusion``: what is computed together; ``interior``: how tensors inside fused layers are stored.
        passes_limit: stop after this many changes to the graph.
        keep: names of tensors, layers or nodes that stay FP32.

    Raises:
        InputError: the model cannot be compiled, or an option names nothing; a saved engine that is damaged, built otherwise, or for another
            device or version.
    """
    from probe.engine.build import compile_model, resolve_keep

    saved = saved_engine(
        model, threads=threads, libraries=custom_op_libs,
        precision=(precision, "fp16"), device=(device, "cpu"), passes=(passes, "safe"), fusion=(fusion, "safe"),
        interior=(interior, "storage"), passes_limit=(passes_limit, None),
    )  # fmt: skip
    if saved is not None:
        saved.assignment = resolve_keep(saved.assignment, several(keep), saved.layers, saved.network)
        return saved
    return compile_model(
        loaded_model(model),
        precision=precision, device=device, passes=passes, fusion=fusion, interior=interior, passes_limit=passes_limit,
        threads=threads, libraries=[Path(one) for one in custom_op_libs], keep=several(keep),
    )  # fmt: skip


@as_annotated
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
    repeat: int | None = None,
    bitwise: bool = False,
    try_cure: bool = True,
    strict_layers: bool = False,
    worst: int = 5,
    details: int = 24,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> RunResult:
    """Compile a model, run it in low precision, judge it against a golden, layer by layer, and say why it fails.

    Args:
        model: an ONNX model; or a saved engine, which is judged as it was built.
        golden: ``ort`` (ONNX Runtime, FP32, optimisation off), ``fp64``, a recording, or arrays by output name.
        inputs: as for ``dump``; None: those that a recorded golden holds, else realistic data made from ``seed``.
        accept, preset, strict_layers, worst, details: as for ``diff``.
        keep: regular expressions; tensors, layers and nodes whose name one is found in stay FP32.
        layers: regular expression; only layers it is found in are measured by themselves (``(?!)``: none). All by default.
        observe: run once more without looking inside, and compare.
        repeat, bitwise: run so often (3 by default) and compare every tensor bit by bit; the result is false when one differs.
        try_cure: run again with what the findings would keep in FP32; this also decides which findings are fatal.
        memory_limit: bytes of tensors each recording holds in memory; above, they go to a temporary folder.
        progress: called with a phase and the name of what is worked on.

    Raises:
        InputError: the model, inputs, golden or options cannot be used.
    """
    from probe.debug.repeats import check_runs
    from probe.debug.run import RunOptions, run_network
    from probe.store.tape import DEFAULT_LIMIT

    saved = saved_engine(
        model, threads=threads, libraries=custom_op_libs,
        precision=(precision, "fp16"), device=(device, "cpu"), passes=(passes, "safe"), fusion=(fusion, "safe"),
        interior=(interior, "storage"), passes_limit=(passes_limit, None),
    )  # fmt: skip
    loaded: Model
    if saved is not None:
        built: Any = saved.settings
        loaded, precision, device, passes = saved.model, built.precision, built.device, built.passes
        fusion, interior = built.fusion, built.interior
    else:
        loaded = loaded_model(model)
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    options = RunOptions(
        precision=precision, device=device, golden=golden, engine=saved,
        acceptance=criteria(accept),
        preset=preset, keep=patterns(keep), layers=pattern(layers),
        interior=interior, passes=passes, fusion=fusion, passes_limit=passes_limit, threads=threads,
        custom_op_libs=tuple(Path(one) for one in custom_op_libs), observe=observe, try_cure=try_cure, repeats=check_runs(repeat, bitwise),
        strict_layers=strict_layers, worst=worst, details=details, memory_limit=memory_limit or DEFAULT_LIMIT, command=command,
    )  # fmt: skip
    return run_network(loaded, sets, options, notes=notes, progress=progress)


@as_annotated
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

    loaded = loaded_model(model)
    sets: list[InputSet] = []
    notes: list[str] = []
    if prove:
        sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    options = ConvertOptions(
        precision=precision, keep=patterns(keep), keep_tensors=several(keep_tensors), keep_nodes=several(keep_nodes),
        convert_io=convert_io, prove=prove, golden=golden,
        acceptance=criteria(accept), preset=preset, threads=threads,
        custom_op_libs=tuple(Path(one) for one in custom_op_libs), overwrite=overwrite, command=command,
    )  # fmt: skip
    return convert_network(loaded, out, sets, options, notes=notes, progress=progress)
