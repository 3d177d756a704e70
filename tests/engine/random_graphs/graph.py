"""``Graph``: an ONNX model while it is drawn, every node computed by ONNX Runtime as it is added, so that shapes and sizes are known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
EDGES = (
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    9,
    12,
    15,
    16,
    17,
    24,
    31,
    32,
    33,
    48,
    63,
    64,
    65,
    96,
    127,
    128,
    129,
)  # tiles' edges and what lies between
ELEMENTS, PRODUCTS = (
    1 << 14,
    1 << 21,
)  # of a tensor; multiplications of a node: a kernel on the host runs a fiber a thread
LOUDEST = 2e3  # of a value that others may be made of: what overflows in FP16 is all the same from then on


class Unfit(Exception):  # noqa: N818 - no error: another block is drawn
    """A block does not fit what it was given."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a model that is being drawn, and what it is with the feeds that were drawn."""

    name: str
    array: Array
    constant: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim

    @property
    def is_float(self) -> bool:
        return self.array.dtype == np.float32


class Graph:
    """A model and its feeds, so far.

    Attributes:
        values: what nodes and inputs made, in that order; constants are none.
        opset: 17 as most exporters write it, 18 where axes became inputs, 20 with Gelu, 21 and
            23 with norms by their names.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random, self.noise = Random(seed), np.random.default_rng(seed)
        self.opset = self.random.choice((13, 17, 17, 18, 20, 21, 23))
        self.values: list[Value] = []
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[Value] = []
        self._options = onnxruntime.SessionOptions()
        self._options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._options.intra_op_num_threads = 1
        self._options.log_severity_level = 4

    # --- chance ------------------------------------------------------------------------------------------------------

    def size(self, most: int = 129, least: int = 1) -> int:
        return self.random.choice([one for one in EDGES if least <= one <= most] or [least])

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def another(self, suits: Any) -> Value:
        """A value that suits, one of the last ones rather than another."""
        found = [one for one in self.values if suits(one)]
        if not found:
            raise Unfit
        return self.random.choice(found[-4:] if self.chance(0.6) else found)

    # --- what a model is made of -------------------------------------------------------------------------------------

    def input(self, array: Array) -> Value:
        value = Value(f"in{len(self.inputs)}", np.asarray(array))
        self.inputs.append(value)
        self.values.append(value)
        return value

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        return np.asarray(self.noise.standard_normal(shape) * scale, np.float32)

    def weight(self, *shape: int, scale: float = 1.0) -> Value:
        return self.constant(self.normal(*shape, scale=scale))

    def constant(self, array: Any, dtype: Any = None) -> Value:
        made = np.asarray(array, dtype)
        if made.dtype == np.float64 and dtype is None:
            made = made.astype(np.float32)
        if not self.chance(0.15):
            name = f"w{len(self.weights)}"
            self.weights.append(numpy_helper.from_array(made, name))
            return Value(name, made, constant=True)
        name = f"c{len(self.nodes)}"  # some exporters write constants as nodes
        self.nodes.append(helper.make_node("Constant", [], [name], name, value=numpy_helper.from_array(made)))
        return Value(name, made, constant=True)

    def ints(self, *numbers: int) -> Value:
        return self.constant(numbers, np.int64)

    def op(self, op: str, *inputs: Value | None, **attributes: Any) -> Value:
        return self.ops(op, 1, *inputs, **attributes)[0]

    def ops(self, op: str, outputs: int, *inputs: Value | None, **attributes: Any) -> list[Value]:
        """Add a node.

        Raises:
            Unfit: ONNX Runtime does not take it, or what comes out is too large.
        """
        at = len(self.nodes)
        names = [f"v{at}" if outputs == 1 else f"v{at}_{i}" for i in range(outputs)]
        node = helper.make_node(
            op, ["" if one is None else one.name for one in inputs], names, f"{op}{at}", **attributes
        )
        given = {one.name: one.array for one in inputs if one is not None}
        arrays = self._computed(node, given)
        if any(array.size > ELEMENTS for array in arrays):
            raise Unfit
        self.nodes.append(node)
        made = [Value(name, array) for name, array in zip(names, arrays, strict=True)]
        self.values += made
        return made

    def _computed(self, node: onnx.NodeProto, given: dict[str, Array]) -> list[Array]:
        ports = [port(name, array) for name, array in given.items()]
        graph = helper.make_graph([node], "g", ports, [onnx.ValueInfoProto(name=name) for name in node.output])
        try:
            session = onnxruntime.InferenceSession(
                self._model(graph).SerializeToString(), self._options, providers=["CPUExecutionProvider"]
            )
            return [np.asarray(one) for one in session.run(None, given)]
        except Exception as error:
            raise Unfit(str(error)) from error

    def _model(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def reduce(self, op: str, x: Value, axes: Sequence[int], *, keep: bool) -> Value:
        """Axes as an attribute or an input, as the opset has it."""
        if op == "ReduceSum" or self.opset >= 18:
            return self.op(op, x, self.ints(*axes), keepdims=int(keep))
        return self.op(op, x, axes=list(axes), keepdims=int(keep))

    # --- going back --------------------------------------------------------------------------------------------------

    def mark(self) -> tuple[int, int, int, int]:
        return len(self.values), len(self.nodes), len(self.weights), len(self.inputs)

    def rollback(self, mark: tuple[int, int, int, int]) -> None:
        values, nodes, weights, inputs = mark
        del self.values[values:], self.nodes[nodes:], self.weights[weights:], self.inputs[inputs:]

    # --- the end -----------------------------------------------------------------------------------------------------

    def model(self, outputs: Sequence[Value], *, symbolic: bool) -> onnx.ModelProto:
        """The model that makes these values: what else was drawn and they do not need stays now and then, for dead code is there to be found.

        Args:
            symbolic: first dims of inputs have names and not numbers.
        """
        ports = [port(one.name, one.array, symbolic=symbolic) for one in self.inputs]
        wanted = [port(one.name, one.array, symbolic=symbolic) for one in outputs]
        nodes = self.nodes if self.chance(0.2) else needed(self.nodes, [one.name for one in outputs])
        read = {name for node in nodes for name in node.input} | {one.name for one in outputs}
        graph = helper.make_graph(
            nodes, f"seed{self.seed}", [one for one in ports if one.name in read], wanted, [one for one in self.weights if one.name in read]
        )  # fmt: skip
        made = self._model(graph)
        onnx.checker.check_model(made)
        if not symbolic:
            # onnx counts a pool's last window that begins in the padding, ONNX Runtime does not: then no shapes are declared
            with suppress(onnx.shape_inference.InferenceError):
                made = onnx.shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)
        return made


def port(name: str, array: Array, *, symbolic: bool = False) -> onnx.ValueInfoProto:
    shape: list[int | str] = list(array.shape)
    if symbolic:
        shape = [f"{name}_{axis}" if axis in {0, len(shape) - 1} else extent for axis, extent in enumerate(shape)]
    kind = TensorProto.FLOAT if array.dtype == np.float32 else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, shape)


def needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes without which these tensors are not made."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
