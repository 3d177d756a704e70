"""The errors of each layer by itself: what it adds (local, injected), what is not precision (floor), what it does to errors (gain)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

from probe.debug.layer_means import Means, Tensors, floats_of, means_of
from probe.engine.assignment import FP32
from probe.errors import InputError
from probe.metrics.formulas import nmse, range_rel
from probe.metrics.sums import Sums
from probe.results.run import LayerError

if TYPE_CHECKING:
    from probe.debug.evidence import Evidence
    from probe.engine.layers import Layer

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
    means = means_of(evidence)
    found: list[LayerError] = []
    for layer in evidence.engine.layers:
        base = _described(evidence, layer)
        if measured is not None and not measured(layer):
            found.append(replace(base, note="not selected"))
        elif layer.moves or layer.kind in _UNMEASURED:
            note = _UNMEASURED.get(layer.kind, "moves data: no error of its own")
            # What only moves data is right or wrong: worth evaluating where what it hands on is wrong.
            floor = _floor_of(evidence, layer, means) if base.beyond and layer.kind != "if" else None
            found.append(replace(base, note=note, floor=floor))
        else:
            if progress is not None:
                progress(layer.name)
            found.append(_measured(evidence, layer, base, means))
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


def _measured(evidence: Evidence, layer: Layer, base: LayerError, means: Means) -> LayerError:
    totals = _Totals()
    notes: list[str] = []
    ran = False
    for input_id in evidence.pairs:
        reads = means.golden_reads(layer, input_id)
        if isinstance(reads, str):
            notes.append(reads)
            continue
        try:
            _add_input(evidence, layer, reads, input_id, totals, means)
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


def _floor_of(evidence: Evidence, layer: Layer, means: Means) -> float | None:
    totals = _Totals()
    names = [value.name or "" for value in layer.outputs]
    for input_id in evidence.pairs:
        reads = means.golden_reads(layer, input_id)
        if isinstance(reads, str):
            continue
        golden = means.golden(names, input_id)
        with suppress(InputError):  # golden inputs of another shape than this network's: the divergence itself says so
            _add(totals.floor, *means.sums(names, [(means.evaluate(layer, reads, FP32), golden)]))
    return _worst(totals.floor)


def _add_input(evidence: Evidence, layer: Layer, reads: Tensors, input_id: str, totals: _Totals, means: Means) -> None:
    assignment = evidence.assignment
    choice, kept = assignment.of(layer.name), assignment.kept
    names = [value.name or "" for value in layer.outputs]
    wide = means.evaluate(layer, reads, FP32)
    low = wide if choice == FP32 else means.evaluate(layer, reads, choice, kept=kept)
    golden = means.golden(names, input_id)
    pairs = [(totals.injected, low, golden), (totals.floor, wide, golden)]
    if choice.precision != "fp32":
        rounded = means.evaluate(layer, reads, FP32, read_as=choice.precision, kept=kept)
        pairs.append((totals.local, low, rounded))
    elif choice != FP32:
        pairs.append((totals.local, low, wide))  # another tactic in FP32
    found = means.sums(names, [(actual, expected) for _, actual, expected in pairs])
    for (into, _, _), sums in zip(pairs, found, strict=True):
        _add(into, sums)
    arrived = means.actual_reads(layer, input_id)
    if arrived is None:
        return
    floats = floats_of(arrived)
    if not floats or any(tuple(arrived[name].shape) != tuple(reads[name].shape) for name in reads):
        return  # without numbers that arrive there is no noise to pass on
    noise = means.noise(floats, arrived, reads)
    if noise is not None:
        _add(totals.noise_in, noise)
        _add(totals.noise_out, *means.sums(names, [(means.evaluate(layer, arrived, FP32), wide)]))


def _add(into: dict[str, Sums], found: Mapping[str, Sums]) -> None:
    for name, sums in found.items():
        into[name] = into[name].merge(sums) if name in into else sums


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
