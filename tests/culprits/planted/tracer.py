"""``Tracer``: writes an ONNX graph and computes every node as it is written, so that what is planted next is fitted to real values."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
Array = np.ndarray[Any, Any]


class Tracer:
    """A graph under construction, in the order of its nodes.

    Attributes:
        values: golden value (FP32, a node at a time) of every tensor by name, weights and graph inputs included.
        scope: what names of nodes, tensors and weights begin with: ``layers.3``.
    """

    def __init__(self, inputs: dict[str, Array]) -> None:
        self.inputs = dict(inputs)
        self.values: dict[str, Array] = dict(inputs)
        self.scope = ""
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, Array] = {}
        self._numbers: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._nodes)

    def weight(self, name: str, data: object) -> str:
        """An initialiser; float data are stored as float32. Its name is made unique."""
        array = np.asarray(data)
        array = array if array.dtype.kind in "ib" else array.astype(np.float32)
        unique = self._unique(f"{self.scope}.{name}")
        self._weights[unique] = self.values[unique] = array
        return unique

    def node(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Write and compute a node with one output; returns the output's name."""
        name = self._unique(f"/{self.scope}/{op}" if self.scope else f"/{op}")
        output = output or f"{name}_output_0"
        self._nodes.append(helper.make_node(op, list(inputs), [output], name, **attributes))
        self.values[output] = self.peek(op, *inputs, **attributes)
        return output

    def peek(self, op: str, *inputs: str, **attributes: Any) -> Array:
        """What a node would compute, without writing it."""
        arrays = [self.values[name] for name in inputs]
        kinds = tuple((x.dtype.name, x.ndim) for x in arrays)
        session = _session(op, kinds, helper.make_node(op, [], [], **attributes).SerializeToString())
        return cast(Array, session.run(None, {f"i{k}": x for k, x in enumerate(arrays)})[0])

    def rms(self, name: str) -> float:
        """Root mean square of a tensor's values."""
        return float(np.sqrt(np.mean(np.square(self.values[name], dtype=np.float64))))

    def peak(self, name: str) -> float:
        """Largest magnitude of a tensor's values."""
        return float(np.max(np.abs(self.values[name])))

    def model(self, name: str, outputs: list[str]) -> onnx.ModelProto:
        """The whole model; checked."""

        def port(tensor: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(tensor, TensorProto.FLOAT, self.values[tensor].shape)

        weights = [numpy_helper.from_array(array, key) for key, array in self._weights.items()]
        graph = helper.make_graph(self._nodes, name, [*map(port, self.inputs)], [*map(port, outputs)], weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made

    def _unique(self, name: str) -> str:
        self._numbers[name] += 1
        return name if self._numbers[name] == 1 else f"{name}_{self._numbers[name] - 1}"


@cache
def _session(op: str, kinds: tuple[tuple[str, int], ...], attributes: bytes) -> onnxruntime.InferenceSession:
    """One node as a network of its own, for inputs of the given types and ranks."""
    node = onnx.NodeProto.FromString(attributes)
    node.input[:] = [f"i{k}" for k in range(len(kinds))]
    node.output[:] = ["o"]
    given = [
        helper.make_tensor_value_info(f"i{k}", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), [None] * rank)
        for k, (kind, rank) in enumerate(kinds)
    ]
    graph = helper.make_graph([node], op, given, [onnx.ValueInfoProto(name="o")])
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 4
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), settings)
