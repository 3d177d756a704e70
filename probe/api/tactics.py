"""Tactics from Python: choose, record and replay them, and read what TensorRT logged of its own. Heavy imports are inside the functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.api.arguments import Inputs, input_sets, loaded_model, tactic_options
from probe.api.blaming import bisect_tactics, compare_builds, diff_tactics, tactics_table
from probe.api.signatures import as_annotated

if TYPE_CHECKING:
    from collections.abc import Callable

    from probe.engine.tuning.selector import Selector
    from probe.model import Model
    from probe.results.diff import Criterion
    from probe.results.tactics import TacticsLogResult, TacticsRecordResult, TacticsReplayResult

__all__ = [
    "bisect_tactics", "compare_builds", "diff_tactics", "read_trt_log", "record_tactics", "replay_tactics", "tactics_table",
]  # fmt: skip

Choice = Literal["fastest", "accurate", "deterministic", "random"]


@as_annotated
def record_tactics(
    model: str | Path | Model,
    out: str | Path,
    *,
    choose: Choice = "fastest",
    choose_seed: int = 0,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    selectors: Sequence[Selector] = (),
    measure: bool | None = None,
    timing_cache: str | Path | None = None,
    precision: str = "fp16",
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
    overwrite: bool = False,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> TacticsRecordResult:
    """Choose a tactic for every layer, run once with them, judge, and write them to ``out``.

    Args:
        choose: what comes first: the fastest; the most accurate by what tactics promise; the deterministic; or an order drawn by ``choose_seed``.
        allow, deny: rules ``"TACTICS"`` or ``"TACTICS @ LAYERS"``, regular expressions; asked before ``choose``.
        selectors: objects of your own (``probe.engine.tuning.selector.Selector``), asked last.
        measure: time candidates on the activations of the first input; None: unless the order is drawn.
        timing_cache: file of measured times, reused and added to.
        golden, inputs, seed, input_shapes, val_range, accept, preset, keep, passes, fusion, interior, progress: as for ``run``.

    Raises:
        InputError: something cannot be used, nothing is left of a layer, or ``out`` is there already. Nothing is written then.
    """
    from probe.blame.choosing import record_tactics as record

    loaded = loaded_model(model)
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    options = tactic_options(
        precision=precision, device=device, golden=golden, accept=accept, preset=preset,
        keep=keep, interior=interior, passes=passes, fusion=fusion, threads=threads,
        custom_op_libs=custom_op_libs, timing_cache=timing_cache, overwrite=overwrite, memory_limit=memory_limit, command=command,
    )  # fmt: skip
    chain = [*_ruled(allow, deny), *_ordering(choose, choose_seed), *selectors]
    timed = choose != "random" if measure is None else measure
    return record(loaded, sets, out, options, selectors=chain, measure=timed, notes=notes, progress=progress)


@as_annotated
def replay_tactics(
    model: str | Path | Model,
    file: str | Path,
    *,
    strict: bool = True,
    out: str | Path | None = None,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    precision: str = "fp16",
    golden: str | Path | Mapping[str, Any] = "ort",
    inputs: Inputs | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    val_range: Mapping[str, tuple[float, float]] | None = None,
    accept: Iterable[str | Criterion] = (),
    preset: str | None = None,
    timing_cache: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    threads: int = 0,
    custom_op_libs: Sequence[str | Path] = (),
    memory_limit: int | None = None,
    command: str = "",
    progress: Callable[[str, str], None] | None = None,
) -> TacticsReplayResult:
    """Run a model with the tactics of a file, judge it, and compare its outputs with those recorded, bit for bit.

    Args:
        file: written by ``record_tactics``; or, with ``strict=False``, Polygraphy's tactic replay JSON. The network is compiled as the file says.
        strict: whatever is not as recorded is an error that lists all of it. Otherwise what does not fit is chosen anew, and listed.
        out: write what ran as a new tactic file.
        precision: of a replay of Polygraphy, which does not say it.
        timing_cache: with ``strict=False``, what does not fit is measured, and the fastest taken; without, exact is.
        device: ``auto``: the file's.
        allow, deny, golden, inputs, seed, input_shapes, val_range, accept, preset, progress: as for ``record_tactics``.

    Raises:
        InputError: the file is none, does not fit, or something cannot be used. Nothing is written then.
    """
    from probe.blame.replaying import replay_tactics as replay

    loaded = loaded_model(model)
    sets, notes = input_sets(loaded, inputs, seed, input_shapes, val_range, golden)
    options = tactic_options(
        precision=precision, device=device, golden=golden, accept=accept, preset=preset, threads=threads,
        custom_op_libs=custom_op_libs, timing_cache=timing_cache, overwrite=overwrite, memory_limit=memory_limit, command=command,
    )  # fmt: skip
    return replay(
        loaded,
        sets,
        file,
        options,
        strict=strict,
        out=out,
        selectors=_ruled(allow, deny),
        notes=notes,
        progress=progress,
    )


@as_annotated
def read_trt_log(log: str | Path, other: str | Path | None = None, *, command: str = "") -> TacticsLogResult:
    """The tactics that TensorRT tried and took, from its verbose log; with ``other``, what that build chose differently.

    Raises:
        InputError: not readable, or no operator is autotuned in it.
    """
    from probe.blame.trt_log import read_trt_log as read

    return read(log, other, command=command)


def _ruled(allow: Iterable[str], deny: Iterable[str]) -> list[Selector]:
    from probe.engine.tuning.rules import read_rules
    from probe.engine.tuning.selector import Allow, Deny

    found: list[Selector] = []
    if allowed := read_rules(allow, "--allow"):
        found.append(Allow(*allowed))
    if denied := read_rules(deny, "--deny"):
        found.append(Deny(*denied))
    return found


def _ordering(choose: str, seed: int) -> list[Selector]:
    from probe.engine.tuning.selector import PreferAccurate, PreferDeterministic, Random
    from probe.errors import InputError

    orders: dict[str, list[Selector]] = {
        "fastest": [], "accurate": [PreferAccurate()], "deterministic": [PreferDeterministic()], "random": [Random(seed)],
    }  # fmt: skip
    if choose not in orders:
        raise InputError(f"no choice is called {choose!r}", where="--choose", hint=", ".join(orders))
    return orders[choose]
