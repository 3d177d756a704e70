"""A layer in float64, from the numbers it reads in a low precision: the reference that candidates are measured against.

The nodes of the layer become a model of their own, weights as inputs, and the ``fp64`` runner evaluates it: an own code path, no kernel shared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe import ir
from probe.engine.network import bodies_of
from probe.engine.rounding import is_float
from probe.errors import InputError
from probe.model.load import read_model
from probe.precision import round_to
from probe.runners.fp64.runner import Fp64Runner

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

Array = np.ndarray[Any, Any]
_IR_VERSION = 10


class ExactLayer:
    """f_64(R(x), R(w)) of one layer: what it reads and its weights rounded to a precision as the engine rounds them, the rest in float64.

    Tensors inside the layer are not rounded, nor what it makes: that belongs to the error.

    Args:
        kept: tensors that are not rounded.

    Raises:
        InputError: a layer with bodies (Loop, Scan), which may read what is around them.
    """

    def __init__(self, engine: Engine, layer: Layer, precision: str, kept: frozenset[str] = frozenset()) -> None:
        if any(bodies_of(node) for node in layer.nodes):
            raise InputError(f"{layer.name} has a body: no reference in float64 is made of it")
        self._layer, self._precision = layer, precision
        sites = engine.rounding.sites(layer, precision)
        gates = engine.rounding.gates(layer, precision, kept)
        self._rounded = {
            value.name for (kind, value), on in zip(sites.gates, gates, strict=True) if on and kind != "store"
        }
        weights = {value.name or "": _array(value) for value in layer.weights}
        self._weights = {name: self._given(name, array) for name, array in weights.items()}
        content = _alone(engine, layer)
        model = read_model(Path(f"layer {layer.name}"), memoryview(content), content=content)
        self._runner = Fp64Runner(model)

    def __call__(self, reads: Mapping[str, Array]) -> dict[str, Array]:
        """What the layer makes of activations in FP32, in float64, by name.

        Raises:
            InputError: an operator that cannot be evaluated in float64.
        """
        wanted = {value.name or "" for value in self._layer.outputs}
        feeds = {name: self._given(name, array) for name, array in reads.items()} | self._weights
        made = self._runner.run(feeds, "")
        return {one.info.name: one.array for one in made if one.info.name in wanted and one.array is not None}

    def _given(self, name: str, array: Array) -> Array:
        return round_to(array, self._precision) if name in self._rounded and self._precision != "fp32" else array


def _array(value: ir.Value) -> Array:
    if value.const_value is None:
        raise InputError(f"the weight {value.name!r} has no numbers")
    array = value.const_value.numpy()
    return array.astype(np.float32) if is_float(value) else array


def _alone(engine: Engine, layer: Layer) -> bytes:
    """The layer as a model: what it reads, weights included, are its inputs, without shapes."""
    values: dict[int, ir.Value] = {}

    def copy(value: ir.Value | None) -> ir.Value | None:
        if value is None:
            return None
        if id(value) not in values:
            dtype = ir.TensorType(ir.DataType.FLOAT) if is_float(value) else value.type
            values[id(value)] = ir.Value(name=value.name, type=dtype)
        return values[id(value)]

    inputs = [copy(value) for value in (*layer.reads, *layer.weights)]
    nodes = [
        ir.Node(
            node.domain, node.op_type, [copy(value) for value in node.inputs], list(node.attributes.values()),
            overload=node.overload, outputs=[made for value in node.outputs if (made := copy(value)) is not None], name=node.name,
        )
        for node in layer.nodes
    ]  # fmt: skip
    graph = ir.Graph(
        [value for value in inputs if value is not None], [values[id(value)] for value in layer.outputs], nodes=nodes,
        opset_imports=dict(engine.network.ir.opset_imports), name=layer.name,
    )  # fmt: skip
    return ir.model_proto(ir.Model(graph, ir_version=_IR_VERSION)).SerializeToString()
