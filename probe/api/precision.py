"""What breaks in low precision, and what must stay FP32: ``check``, ``find``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.api.arguments import Inputs, criteria, input_sets, loaded_model, optional_path, pattern, patterns
from probe.api.signatures import as_annotated
from probe.results.diff import Criterion
from probe.store.feeds import InputSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.model import Model
    from probe.results.check import CheckResult
    from probe.results.find import FindResult


@as_annotated
def check(
    model: str | Path | Model,
    *,
    precision: Literal["fp16", "bf16", "tf32", "int8"] = "fp16",
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    select: str | re.Pattern[str] | None = None,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> CheckResult:
    """What will break in a low precision, or may, from one golden pass: nothing runs in that precision, nothing is searched.

    Args:
        precision: fp16, bf16; tf32 concerns products only; int8 reads the graph alone.
        golden: ``ort``, ``fp64``, or a recording with the tensors inside.
        inputs, seed, input_shapes, val_range, progress: as for ``run``.
        select: regular expression; only findings in whose tensor or node it is found.
        memory_limit: bytes of golden tensors held in memory at a time.

    Raises:
        InputError: the model, inputs, golden or options cannot be used.
    """
    from probe.debug.check import CheckOptions, check_network
    from probe.store.tape import DEFAULT_LIMIT

    loaded = loaded_model(model)
    sets, notes = ([], []) if precision == "int8" else input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    options = CheckOptions(
        precision=precision, golden=golden, select=pattern(select), threads=threads,
        custom_op_libs=tuple(Path(one) for one in custom_op_libs), memory_limit=memory_limit or DEFAULT_LIMIT, command=command,
    )  # fmt: skip
    return check_network(loaded, sets, options, notes=notes, progress=progress)


@as_annotated
def find(
    model: str | Path | Model,
    out: str | Path | None = None,
    *,
    precision: Literal["fp16", "bf16", "tf32"] = "fp16",
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    held_out: Inputs | None = None,
    split: float | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    accept: Iterable[str | Criterion] = (),
    preset: str | None = None,
    check: str | Callable[[Any], bool | float] | None = None,
    aggregate: str = "worst",
    granularity: Literal["tensor", "layer", "block"] = "tensor",
    objective: Literal["count", "latency", "bytes"] = "count",
    keep: Iterable[str | re.Pattern[str]] = (),
    probes: bool | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
    log: str | Path | None = None,
    resume: bool = False,
    lighter: bool = True,
    tactics: str | Path | None = None,
    device: str = "cpu",
    passes: Literal["none", "safe", "all"] = "none",
    fusion: Literal["none", "safe", "full"] = "none",
    interior: Literal["storage", "fp32"] = "storage",
    convert_io: bool = False,
    overwrite: bool = False,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> FindResult:
    """Find a 1-minimal set of tensors to keep in FP32, prove it, and write the mixed-precision model to ``out``.

    Args:
        out: where the model goes; None: it is made for the proof only.
        held_out: inputs that only the answer is tried on. ``split``: instead, this share of ``inputs``, drawn by ``seed``.
        check: judges in place of ``accept``: a command with ``{dump}`` in it (exit 0 accepts, 1 rejects), or a function of the outputs
            that returns whether they are good, or by how much (a float, negative: not).
        aggregate: how the values of several inputs are joined: ``worst``, ``mean``, ``quantile:0.95``.
        granularity: decide over tensors, layers or repeated blocks. ``objective``: keep few, what costs little latency, or few bytes.
        keep: regular expressions; tensors, layers and nodes that stay FP32 in any case.
        probes: evaluate every unit low by itself first; None: where that is cheap.
        max_evaluations, max_seconds: budget; the best passing set so far is returned.
        log: evaluations are appended here; ``resume`` goes on with what it holds.
        lighter: also try other cures than FP32.
        tactics: a tactic file to run with; more accurate tactics are tried before FP32.
        passes, fusion, interior: of the engine that is searched; as the file has it by default.
        golden, inputs, accept, preset, device, memory_limit, progress: as for ``run``. ``convert_io``, ``overwrite``: as for ``convert``.

    Raises:
        InputError: the model, inputs, golden or options cannot be used, or the export not written.
    """
    from probe.culprits.find import FindOptions, find_network
    from probe.debug.record import split_inputs
    from probe.store.tape import DEFAULT_LIMIT

    loaded = loaded_model(model)
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    unseen: Sequence[InputSet] = ()
    if held_out is not None:
        unseen, more = input_sets(loaded, held_out, seed, None, None)
        notes = [*notes, *more]
    if split is not None:
        sets, drawn = split_inputs(sets, split, seed)
        unseen = [*unseen, *drawn]
    options = FindOptions(
        precision=precision, device=device, granularity=granularity, objective=objective, golden=golden,
        acceptance=criteria(accept), preset=preset,
        aggregate=aggregate, check=check, keep=patterns(keep), interior=interior, passes=passes,
        fusion=fusion, probes=probes, max_evaluations=max_evaluations, max_seconds=max_seconds,
        log=optional_path(log), resume=resume, out=optional_path(out), overwrite=overwrite, convert_io=convert_io, lighter=lighter,
        tactics=optional_path(tactics),
        threads=threads, custom_op_libs=tuple(Path(one) for one in custom_op_libs),
        memory_limit=memory_limit or DEFAULT_LIMIT, command=command,
    )  # fmt: skip
    return find_network(loaded, sets, options, held_out=unseen, notes=notes, progress=progress)
