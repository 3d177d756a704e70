"""The neutral evaluator: judges any typed ONNX model, whatever tool wrote it, by storing each tensor in the type it is declared in.

Node by node: a node's inputs are what its producers stored, it computes in FP32, each output is rounded to its declared type. The types come
from onnx's own inference. It shares no code with the engine or the ``typed`` runner, and needs neither.

    python tests/bench/neutral.py mixed.onnx inputs.npz --accept "range_rel<=0.02"      # in/NAME and out/NAME in the .npz
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
HALVES: dict[int, Any] = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
WITH_BODIES = ("If", "Loop", "Scan")
_LIMIT = re.compile(r"\s*(range_rel|cosine)\s*(<=|>=)\s*(\S+)\s*")


class UnsupportedError(Exception):
    """The model holds what this evaluator cannot compute; says what."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``error`` is the largest range_rel of the outputs, Inf where one has NaN or Inf that golden lacks; ``cosine`` the smallest."""

    passed: bool
    error: float
    cosine: float


class TypedModel:
    """A typed model, ready to be run.

    Attributes:
        types: tensor -> element type (TensorProto) of everything in the top-level graph.

    Raises:
        UnsupportedError: bodies, local functions, or a tensor whose type nobody knows.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        if model.functions:
            raise UnsupportedError("local functions")
        found = sorted({node.op_type for node in model.graph.node} & set(WITH_BODIES))
        if found:
            raise UnsupportedError(f"bodies of {', '.join(found)}")
        self.model = model
        self.types = declared_types(model)
        missing = [name for node in model.graph.node for name in node.output if name and name not in self.types]
        if missing:
            raise UnsupportedError(f"the type of {missing[0]!r} is not known, nor those of {len(missing) - 1} more")
        self._weights = {one.name: _wide(numpy_helper.to_array(one)) for one in model.graph.initializer}
        self._sessions: dict[int, onnxruntime.InferenceSession] = {}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every tensor by name, float tensors as float32 holding what is stored."""
        values = dict(self._weights)
        values |= {name: _stored(_wide(np.asarray(x)), self.types.get(name)) for name, x in feeds.items()}
        for at, node in enumerate(self.model.graph.node):
            given = {name: values[name] for name in node.input if name}
            for name, x in zip(_named(node.output), self._compute(at, node, given), strict=True):
                values[name] = _stored(x, self.types[name])
        return values

    def _compute(self, at: int, node: onnx.NodeProto, given: Mapping[str, Array]) -> list[Array]:
        if at not in self._sessions:
            self._sessions[at] = one_node(node, given, self.model.opset_import)
        session = self._sessions[at]
        feeds = {f"i{k}": given[name] for k, name in enumerate(dict.fromkeys(_named(node.input)))}
        return cast(list[Array], session.run(None, feeds))


def one_node(node: onnx.NodeProto, given: Mapping[str, Array], opsets: Sequence[Any]) -> onnxruntime.InferenceSession:
    """A node as a network of its own, in FP32: half-precision types in its attributes become FP32."""
    alias = {name: f"i{k}" for k, name in enumerate(dict.fromkeys(_named(node.input)))}
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [alias.get(name, "") for name in node.input]
    copy.output[:] = [f"o{k}" if name else "" for k, name in enumerate(node.output)]
    for attribute in copy.attribute:
        if attribute.name in ("to", "dtype") and attribute.i in HALVES:
            attribute.i = TensorProto.FLOAT
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in HALVES:
            attribute.t.CopyFrom(numpy_helper.from_array(_wide(numpy_helper.to_array(attribute.t))))
    inputs = [
        helper.make_tensor_value_info(
            alias[name], helper.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim if x.ndim else []
        )
        for name, x in given.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in copy.output if name]
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    graph = helper.make_graph([copy], "one", inputs, outputs)
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), settings)


def declared_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor of the top-level graph: what the file says, and what onnx infers where it says nothing."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
    ports = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {one.name: one.type.tensor_type.elem_type for one in ports if one.type.HasField("tensor_type")}
    types |= {one.name: one.data_type for one in inferred.initializer}
    return {name: kind for name, kind in types.items() if kind}


def judge(actual: Mapping[str, Array], golden: Mapping[str, Array], accept: Sequence[str]) -> Verdict:
    """By ``range_rel<=X`` and ``cosine>=X`` on every output. For goldens without sentinels and integers that are exact.

    Raises:
        ValueError: another criterion.
    """
    worst, straight, passed = 0.0, 1.0, True
    for name, wanted in golden.items():
        found = np.asarray(actual[name])
        if found.shape != wanted.shape or not np.array_equal(np.isfinite(found), np.isfinite(wanted)):
            return Verdict(False, math.inf, -1.0)
        if wanted.dtype.kind != "f":
            passed = passed and np.array_equal(found, wanted)
            continue
        finite = np.isfinite(wanted)
        a, g = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
        size, lengths = float(np.max(np.abs(g), initial=0.0)), float(np.linalg.norm(a) * np.linalg.norm(g))
        largest = float(np.max(np.abs(a - g), initial=0.0))
        worst = max(worst, largest / size if size else (math.inf if largest else 0.0))
        straight = min(straight, float(a @ g) / lengths if lengths else 1.0 - bool(largest))
    for text in accept:
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"the neutral evaluator judges by range_rel and cosine, not by {text!r}")
        limit = float(match[3])
        passed = passed and (worst <= limit if match[1] == "range_rel" else straight >= limit)
    return Verdict(passed, worst, straight)


def evaluate(
    model: onnx.ModelProto, inputs: Mapping[str, Array], golden: Mapping[str, Array], accept: Sequence[str]
) -> Verdict:
    """Run a typed model as its types say and judge its outputs. Outputs are met by place where a tool renamed them.

    Raises:
        UnsupportedError: see ``TypedModel``.
    """
    values = TypedModel(model).run(inputs)
    names = [one.name for one in model.graph.output]
    met = {wanted: wanted if wanted in names else names[k] for k, wanted in enumerate(golden)}
    return judge({wanted: values[name] for wanted, name in met.items()}, golden, accept)


def _named(names: Sequence[str]) -> list[str]:
    return [name for name in names if name]


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype in (np.float16, ml_dtypes.bfloat16) else x


def _stored(x: Array, kind: int | None) -> Array:
    if kind not in HALVES or x.dtype != np.float32:
        return x
    with np.errstate(over="ignore"):
        return x.astype(HALVES[kind]).astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path, help=".npz with in/NAME and out/NAME")
    parser.add_argument("--accept", action="append", default=[])
    options = parser.parse_args()
    with np.load(options.data) as data:
        inputs = {key[3:]: data[key] for key in data.files if key.startswith("in/")}
        golden = {key[4:]: data[key] for key in data.files if key.startswith("out/")}
    verdict = evaluate(onnx.load(options.model), inputs, golden, options.accept or ["range_rel<=0.02"])
    print(f"{'passed' if verdict.passed else 'failed'}: range_rel {verdict.error:.4g}, cosine {verdict.cosine:.6f}")
    return 0 if verdict.passed else 1


if __name__ == "__main__":
    sys.exit(main())
