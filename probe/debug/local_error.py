"""The errors of each layer by itself: what it adds (local, injected), what is not precision (floor), what it does to errors (gain)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.debug.causes import is_float
from probe.engine.assignment import FP32
from probe.errors import InputError
from probe.metrics.formulas import nmse, range_rel
from probe.metrics.measure import InMemory, Spec, Workspace, measure
from probe.metrics.plain import plain_sums
from probe.metrics.sums import Sums
from probe.results.run import LayerError

if TYPE_CHECKING:
    from probe.debug.evidence import Evidence
    from probe.engine.layers import Layer

Array = np.ndarray[Any, Any]
Tensors = Mapping[str, Array]

_NOISE = frozenset(("power",))  # beside the largest error all that range_rel and nmse are made of
_UNMEASURED = {"if": "an If: its branches' layers are measured", "shape": "integers only"}


def layer_errors(
    evidence: Evidence,
    *,
    measured: Callable[[Layer], bool] | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[LayerError]:
    """Every layer of the engine, in execution order.

    Definitions, with g golden inputs, R rounding to the layer's precision p, f_p the layer in p and metric = range_rel of its worst
    output: local = metric(f_p(R(g)), f_32(R(g))); injected = metric(f_p(g), golden); floor = metric(f_32(g), golden);
    gain = NSR(f_32(engine inputs), f_32(g)) / NSR(engine inputs, g), where NSR is noise over signal power, added over tensors.
    Sums are merged over the inputs of a dataset. Layers that only move data, and those that compute integers, have no error of their
    own; where what they hand on is wrong, their floor says whether they made it so.

    Args:
        measured: layers that are evaluated; the others keep their accumulated error. All by default.
        progress: called with the name of each layer before it is evaluated.
    """
    space = Workspace()
    found: list[LayerError] = []
    for layer in evidence.engine.layers:
        base = _described(evidence, layer)
        if layer.moves or layer.kind in _UNMEASURED:
            note = _UNMEASURED.get(layer.kind, "moves data: no error of its own")
            # What only moves data is right or wrong: worth evaluating where what it hands on is wrong.
            floor = _floor_of(evidence, layer, space) if base.beyond and layer.kind != "if" else None
            found.append(replace(base, note=note, floor=floor))
        elif measured is not None and not measured(layer):
            found.append(replace(base, note="not selected"))
        else:
            if progress is not None:
                progress(layer.name)
            found.append(_measured(evidence, layer, base, space))
    return found


def _described(evidence: Evidence, layer: Layer) -> LayerError:
    """A layer with its accumulated error, which comparing the recordings gave."""
    choice = evidence.assignment.of(layer.name)
    outputs = [value.name or "" for value in layer.outputs]
    compared = [(name, t) for name in outputs if (t := evidence.tensor(name)) is not None and t.metrics is not None]
    base = LayerError(
        name=layer.name, kind=layer.kind, pattern=layer.pattern, nodes=layer.origin,
        reads=tuple(value.name or "" for value in layer.reads), outputs=tuple(outputs), precision=choice.precision,
        tactic=choice.tactic, scope=layer.scope, beyond=any(t.beyond for _, t in compared),
    )  # fmt: skip
    if not compared:
        return base
    errors = {}
    for name, t in compared:
        m = t.metrics
        assert m is not None
        errors[name] = math.inf if m.nonfinite_mismatch else m.range_rel
    worst = max(errors, key=lambda name: errors[name])
    of_worst = dict(compared)[worst]
    return replace(
        base,
        accumulated=errors[worst],
        worst_output=worst,
        worst_input=of_worst.worst_input,
        nonfinite=sum(t.metrics.nonfinite_mismatch for _, t in compared if t.metrics is not None),
    )


@dataclass(slots=True)
class _Totals:
    """Sums over the inputs of a dataset, by output."""

    local: dict[str, Sums] = field(default_factory=dict)
    injected: dict[str, Sums] = field(default_factory=dict)
    floor: dict[str, Sums] = field(default_factory=dict)
    noise_out: dict[str, Sums] = field(default_factory=dict)
    noise_in: dict[str, Sums] = field(default_factory=dict)


def _measured(evidence: Evidence, layer: Layer, base: LayerError, space: Workspace) -> LayerError:
    totals = _Totals()
    notes: list[str] = []
    ran = False
    for input_id in evidence.pairs:
        reads = evidence.golden_reads(layer, input_id)
        if isinstance(reads, str):
            notes.append(reads)
            continue
        try:
            _add_input(evidence, layer, reads, input_id, totals, space)
            ran = True
        except InputError as error:
            notes.append(f"fails on golden inputs: {error.what}")
    local = _worst(totals.local)
    if local is None and ran and totals.floor:
        local = 0.0  # FP32: both sides are the same computation
    return replace(
        base,
        local=local,
        injected=_worst(totals.injected),
        floor=_worst(totals.floor),
        gain=_gain(totals),
        note="; ".join(dict.fromkeys(notes)),
    )


def _floor_of(evidence: Evidence, layer: Layer, space: Workspace) -> float | None:
    totals = _Totals()
    names = [value.name or "" for value in layer.outputs]
    for input_id in evidence.pairs:
        reads = evidence.golden_reads(layer, input_id)
        if isinstance(reads, str):
            continue
        golden = {name: array for name in names if (array := evidence.golden_array(name, input_id)) is not None}
        with suppress(InputError):  # golden inputs of another shape than this network's: the divergence itself says so
            _add(totals.floor, names, evidence.engine.evaluate(layer, reads, FP32), golden, space)
    return _worst(totals.floor)


def _add_input(
    evidence: Evidence, layer: Layer, reads: Tensors, input_id: str, totals: _Totals, space: Workspace
) -> None:
    engine, assignment = evidence.engine, evidence.assignment
    choice, kept = assignment.of(layer.name), assignment.kept
    names = [value.name or "" for value in layer.outputs]
    wide = engine.evaluate(layer, reads, FP32)
    low = wide if choice == FP32 else engine.evaluate(layer, reads, choice, kept=kept)
    if choice.precision != "fp32":
        rounded = engine.evaluate(layer, reads, FP32, read_as=choice.precision, kept=kept)
        _add(totals.local, names, low, rounded, space)
    elif choice != FP32:
        _add(totals.local, names, low, wide, space)  # another tactic in FP32
    golden = {name: array for name in names if (array := evidence.golden_array(name, input_id)) is not None}
    _add(totals.injected, names, low, golden, space)
    _add(totals.floor, names, wide, golden, space)
    arrived = evidence.actual_reads(layer, input_id)
    if arrived is None:
        return
    floats = [name for name, array in arrived.items() if is_float(array)]
    if not floats or any(arrived[name].shape != reads[name].shape for name in reads):
        return  # without numbers that arrive there is no noise to pass on
    if all(np.array_equal(arrived[name], reads[name]) for name in floats):
        return
    if all(np.isfinite(arrived[name]).all() for name in floats):
        _add(totals.noise_in, floats, arrived, reads, space)
        _add(totals.noise_out, names, engine.evaluate(layer, arrived, FP32), wide, space)


def _add(into: dict[str, Sums], names: Sequence[str], actual: Tensors, golden: Tensors, space: Workspace) -> None:
    for name, sums in _sums(names, actual, golden, space):
        into[name] = into[name].merge(sums) if name in into else sums


def _sums(names: Sequence[str], actual: Tensors, golden: Tensors, space: Workspace) -> Iterator[tuple[str, Sums]]:
    for name in names:
        a, g = actual.get(name), golden.get(name)
        if a is None or g is None or a.shape != g.shape or a.dtype.kind in "OSUT":
            continue  # shapes that depend on data may differ: then nothing can be subtracted
        yield name, plain_sums(a, g, _NOISE) or measure(InMemory(a), InMemory(g), Spec(worst=1), space)


def _worst(sums: Mapping[str, Sums]) -> float | None:
    """range_rel of the worst output; Inf where NaN or Inf are on one side only."""
    return max((math.inf if s.nonfinite_mismatch else range_rel(s) for s in sums.values()), default=None)


def _gain(totals: _Totals) -> float | None:
    """None where no error arrives, or where it cannot be told (NaN, an all-zero reference)."""
    if not totals.noise_in or not totals.noise_out:
        return None
    noise_in = reduce(lambda total, s: total + nmse(s), totals.noise_in.values(), 0.0)
    noise_out = reduce(lambda total, s: total + nmse(s), totals.noise_out.values(), 0.0)
    if any(s.nonfinite_mismatch for s in totals.noise_out.values()) or not (0 < noise_in < math.inf):
        return None
    return noise_out / noise_in
