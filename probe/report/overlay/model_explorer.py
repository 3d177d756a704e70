"""Node data files of Model Explorer (https://github.com/google-ai-edge/model-explorer): a file a measure.

The format: ``{"name", "results": {node id: {"value", "bgColor"}}, "thresholds": [{"value", "bgColor"}]}`` for the graph that is open, or the
same under the id of each graph. A value is a number or words; JSON has no NaN and no Inf, so these are words. Several keys that mean one
node are joined by the viewer, hence one key a node.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from probe.report.overlay.measures import Measure, Value, measures

# From small to large: the light scheme of the layer graph in reports.
RAMP = ("#fdf8e1", "#fbe9b7", "#f9d789", "#f5bd66", "#ee9c4f", "#e07b48", "#bb4242", "#8c2449", "#4c1141")
# Told apart by colour-blind readers, too (Okabe and Ito 2008).
_LABELS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00", "#999999")

NodeIds = Mapping[str, tuple[str, str]]  # node, by identity -> (graph id, node id)


def node_data_files(result: Any, ids: NodeIds | None = None) -> dict[str, str]:
    """File name -> its text.

    Args:
        ids: what the viewer calls each node. None: as probe does, for the graph that is open; that is what the viewer's ONNX adapter does,
            too, for nodes with a name of their own outside of bodies.

    Raises:
        InputError: a kind of result that says nothing of nodes.
    """
    return {
        f"{measure.key}.json": json.dumps(_node_data(measure, ids), indent=1) + "\n" for measure in measures(result)
    }


def _node_data(measure: Measure, ids: NodeIds | None) -> dict[str, Any]:
    colours = _label_colours(measure)
    told = {node: _told(value, colours) for node, value in measure.values.items()}
    if ids is None:
        return _graph_data(measure, told)
    graphs: dict[str, dict[str, dict[str, Value]]] = {}
    for node, one in told.items():
        if node in ids:
            graph, key = ids[node]
            graphs.setdefault(graph, {})[key] = one
    return {graph: _graph_data(measure, results) for graph, results in graphs.items()}


def _graph_data(measure: Measure, results: Mapping[str, dict[str, Value]]) -> dict[str, Any]:
    made: dict[str, Any] = {"name": f"probe: {measure.title}", "results": results}
    if measure.scale == "amount":
        made["gradient"] = [
            {"stop": 0, "bgColor": RAMP[0]},
            {"stop": 0.5, "bgColor": RAMP[4]},
            {"stop": 1, "bgColor": RAMP[7]},
        ]
    elif measure.scale == "label":
        made |= {"showExpandedSummaryOnGroupNode": True, "showLabelCountColumnsInChildrenStatsTable": True}
    else:
        bounds = (*measure.edges, sys.float_info.max)  # upper ones, which the viewer wants of all
        made["thresholds"] = [{"value": value, "bgColor": colour} for value, colour in zip(bounds, RAMP, strict=True)]
    if measure.key != "latency_us":
        made |= {
            "hideAggregatedStats": ["sum"],
            "hideInChildrenStatsTable": measure.scale != "label",
        }  # a sum of errors means nothing
    return made


def _told(value: Value, colours: Mapping[str, str]) -> dict[str, Value]:
    if isinstance(value, str):
        return {"value": value, "bgColor": colours[value]}
    if not math.isfinite(value):
        return {"value": "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf", "bgColor": RAMP[-1]}
    return {"value": float(f"{value:.4g}")}


def _label_colours(measure: Measure) -> dict[str, str]:
    """A colour a label, in the order in which they appear."""
    labels = dict.fromkeys(value for value in measure.values.values() if isinstance(value, str))
    return {label: _LABELS[at % len(_LABELS)] for at, label in enumerate(labels)}
