"""A measurement in the JSON layouts that trtexec writes (``--exportProfile``, ``--exportLayerInfo``, ``--exportTimes``), for scripts that read those.

Layer names and shapes are ours; a key whose meaning does not exist on the device is there with null, so that no script takes it for a number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from probe.results.bench import BenchResult, InferenceTimes, LayerTime
from probe.results.inspect import PortReport

_TYPES = {
    "conv": "Convolution", "matmul": "MatrixMultiply", "gemm": "MatrixMultiply", "pointwise": "PointWise", "reduce": "Reduce",
    "norm": "Normalization", "softmax": "SoftMax", "attention": "Attention", "pool": "Pooling", "recurrent": "Recurrence", "move": "Shuffle",
    "shape": "Shape", "loop": "Loop", "quantise": "Quantize",
}  # fmt: skip
_ELEMENTS = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "float64": "FP64", "bool": "Bool"}


def profile_text(result: BenchResult) -> str:
    """``[{"count": passes}, {"name", "timeMs", "averageMs", "medianMs", "percentage"}, ...]``: layers that ran, in execution order."""
    ran = [layer for layer in result.layers if layer.runs]
    total = sum(_total_ms(layer) for layer in ran)
    rows: list[dict[str, Any]] = [{"count": max((layer.runs for layer in ran), default=0)}]
    rows += [
        {
            "name": layer.name,
            "timeMs": _total_ms(layer),
            "averageMs": _ms(layer.mean),
            "medianMs": _ms(layer.median),
            "percentage": 100 * _total_ms(layer) / total if total else 0.0,
        }
        for layer in ran
    ]
    return _text(rows)


def layers_text(result: BenchResult) -> str:
    """``{"Layers": [...], "Bindings": [...]}`` as with ``--profilingVerbosity=detailed``."""
    ports = {port.name: port for port in result.tensors}
    location = "Host" if result.device.startswith("cpu") else "Device"
    layers = [_layer(layer, ports, location) for layer in result.layers]
    return _text({"Layers": layers, "Bindings": [*result.graph_inputs, *result.graph_outputs]})


def times_text(result: BenchResult) -> str:
    """A row an inference: when each of its phases began and ended, and what they took, in ms."""
    return _text([_inference(one) for one in result.times])


def _layer(layer: LayerTime, ports: Mapping[str, PortReport], location: str) -> dict[str, Any]:
    kind = _TYPES.get(layer.kind, layer.kind.capitalize())
    return {
        "Name": layer.name,
        "LayerType": kind,
        "Inputs": [_tensor(name, ports, location) for name in layer.reads],
        "Outputs": [_tensor(name, ports, location) for name in layer.outputs],
        "ParameterType": kind,
        "Precision": layer.precision.upper(),
        "TacticName": layer.tactic,
        "StreamId": 0,
        "Metadata": "\x1e".join(
            f"[ONNX Layer: {node}]" for node in layer.nodes
        ),  # the separator TensorRT puts between them
    }


def _tensor(name: str, ports: Mapping[str, PortReport], location: str) -> dict[str, Any]:
    """A tensor whose shape is not known, as of a branch that did not run, has null for it."""
    port = ports.get(name)
    if port is None:
        return {"Name": name, "Location": location, "Dimensions": None, "Format/Datatype": None}
    element = _ELEMENTS.get(port.dtype, port.dtype.capitalize())
    return {
        "Name": name, "Location": location, "Dimensions": list(port.shape or ()), "Format/Datatype": f"Row major linear {element}",
    }  # fmt: skip


def _inference(one: InferenceTimes) -> dict[str, Any]:
    sent = one.begin if one.sent is None else one.sent
    back = one.end if one.back is None else one.back
    issuing = one.fed if one.issuing is None else one.issuing
    return {
        "startEnqMs": _ms(issuing) if one.enqueued is not None else None,
        "endEnqMs": _ms(one.enqueued),
        "startH2dMs": _ms(sent),
        "endH2dMs": _ms(one.fed),
        "startComputeMs": _ms(one.fed),
        "endComputeMs": _ms(one.computed),
        "startD2hMs": _ms(one.computed),
        "endD2hMs": _ms(back),
        "h2dMs": _ms(one.fed - sent),
        "computeMs": _ms(one.computed - one.fed),
        "d2hMs": _ms(back - one.computed),
        "latencyMs": _ms(one.latency),
    }


def _total_ms(layer: LayerTime) -> float:
    return 1e3 * (layer.mean or 0.0) * layer.runs


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False) + "\n"
