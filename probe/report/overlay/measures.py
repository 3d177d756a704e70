"""What a result says of each ONNX node, a measure at a time: errors, precision, tactic, findings, time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from probe.errors import InputError
from probe.report.html.graph_scale import error_scale
from probe.results.bench import BenchResult, LayerTime
from probe.results.find import FindResult
from probe.results.run import LayerError, RunFinding, RunResult

Value = float | str
_GAINS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e3)  # around 1, which passes error on as it came
OVERLAID = ("probe.run/1", "probe.find/1", "probe.bench/1")  # schemas of results that speak of nodes


@dataclass(frozen=True, slots=True)
class Measure:
    """One value a node.

    Attributes:
        key: of the file and of the metadata: ``accumulated``.
        title: in words, with the unit.
        scale: how values are coloured: ``error`` and ``gain`` by classes, ``amount`` from least to most, ``label`` by words.
        values: node, by identity -> a number, or words. NaN and Inf are numbers here.
        edges: where the next class begins, increasing; of errors those of the layer graph, around the limit of the acceptance.
    """

    key: str
    title: str
    scale: Literal["error", "gain", "amount", "label"]
    values: dict[str, Value] = field(default_factory=dict)
    edges: tuple[float, ...] = ()


def measures(result: Any) -> tuple[Measure, ...]:
    """All that hold a value for some node.

    What a fused layer says goes for each of its nodes, except its time, which stands at the last one, so that sums over nodes are right.

    Raises:
        InputError: a kind of result that says nothing of nodes.
    """
    if isinstance(result, RunResult):
        made = _of_run(result)
    elif isinstance(result, FindResult):
        made = _of_find(result)
    elif isinstance(result, BenchResult):
        made = _of_bench(result)
    else:
        raise InputError(
            f"a {getattr(result, 'schema', type(result).__name__)} says nothing of single nodes",
            hint=f"overlays are made of {', '.join(OVERLAID)}",
        )
    return tuple(measure for measure in made if measure.values)


def node_metadata(result: Any) -> dict[str, dict[str, str]]:
    """Node, by identity -> key -> value, as text: ``{"conv1": {"probe.accumulated": "0.0031", "probe.precision": "fp16"}}``.

    Raises:
        InputError: a kind of result that says nothing of nodes.
    """
    found: dict[str, dict[str, str]] = {}
    for measure in measures(result):
        for node, value in measure.values.items():
            found.setdefault(node, {})[f"probe.{measure.key}"] = value if isinstance(value, str) else f"{value:.6g}"
    return found


def _of_run(result: RunResult) -> list[Measure]:
    layers = [layer for layer in result.layers if layer.note != "not selected"]
    first = set(result.first_divergence)
    edges = error_scale(result.acceptance).edges

    def errors(key: str, title: str, value: Callable[[LayerError], float | None]) -> Measure:
        return Measure(key, f"{title} (range_rel)", "error", _each_node(layers, value), edges)

    return [
        errors("accumulated", "accumulated error", lambda layer: layer.accumulated),
        errors("injected", "injected error", lambda layer: layer.injected),
        errors("local", "local error", lambda layer: layer.local),
        Measure("gain", "gain of error (noise to signal, out / in)", "gain", _each_node(layers, lambda layer: layer.gain), _GAINS),
        Measure("status", "what stands out", "label", _each_node(layers, lambda layer: _status(layer, first))),
        Measure("finding", "findings", "label", _findings(result.findings)),
        *_common(layers),
    ]  # fmt: skip


def _of_find(result: FindResult) -> list[Measure]:
    kept: dict[str, Value] = {}
    needed: dict[str, Value] = {}
    for one in result.keep:
        for node in one.nodes_fp32:
            kept[node] = "fp32"
            if one.certificate is not None and one.certificate.metric is not None:
                needed[node] = _larger(needed.get(node), one.certificate.metric)
    edges = error_scale(result.acceptance).edges
    return [
        Measure("keep", f"stays in FP32, not {result.precision}", "label", kept),
        Measure("certificate", "error of the output without it (range_rel)", "error", needed, edges),
        Measure("finding", "findings of the all-low run", "label", _findings(result.findings)),
    ]


def _of_bench(result: BenchResult) -> list[Measure]:
    layers = [layer for layer in result.layers if layer.nodes]
    latency: dict[str, Value] = {}
    for layer in layers:
        if layer.median is not None:
            latency[layer.nodes[-1]] = float(latency.get(layer.nodes[-1], 0.0)) + 1e6 * layer.median
    return [
        Measure("latency_us", "median time of the layer (us)", "amount", latency),
        Measure("roofline", "least possible time / time", "amount", _each_node(layers, lambda layer: layer.roofline)),
        Measure("bound", "what bounds it", "label", _each_node(layers, lambda layer: layer.bound or None)),
        *_common(layers),
    ]  # fmt: skip


def _common(layers: Iterable[LayerError] | Iterable[LayerTime]) -> list[Measure]:
    several = list(layers)
    fused = [layer for layer in several if len(layer.nodes) > 1]
    return [
        Measure("precision", "precision", "label", _each_node(several, lambda layer: layer.precision)),
        Measure("tactic", "tactic", "label", _each_node(several, lambda layer: layer.tactic or None)),
        Measure("layer", "fused layer", "label", _each_node(fused, lambda layer: layer.name)),
    ]


def _each_node(layers: Iterable[Any], value: Callable[[Any], Value | None]) -> dict[str, Value]:
    """Of a node in several layers, the largest number or the first words."""
    found: dict[str, Value] = {}
    for layer in layers:
        said = value(layer)
        if said is not None:
            for node in layer.nodes:
                found[node] = _larger(found.get(node), said)
    return found


def _larger(before: Value | None, now: Value) -> Value:
    """NaN is larger than any number; of words, the first."""
    if before is None:
        return now
    if isinstance(before, str) or isinstance(now, str):
        return before
    return before if math.isnan(before) or before >= now else now


def _status(layer: LayerError, first: set[str]) -> str | None:
    """What one must not miss about a layer; None where nothing stands out."""
    said = [words for words, holds in (("first divergence", layer.name in first), ("NaN or Inf", layer.nonfinite > 0),
                                       ("beyond the acceptance", layer.beyond)) if holds]  # fmt: skip
    return ", ".join(said) or None


def _findings(several: Iterable[RunFinding]) -> dict[str, Value]:
    """The first finding of each node, fatal ones first as results list them."""
    found: dict[str, Value] = {}
    for finding in several:
        if finding.node:
            found.setdefault(finding.node, finding.kind if finding.fatal else f"{finding.kind} (harmless)")
    return found
