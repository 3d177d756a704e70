"""A case is one node: operator, inputs, attributes. Tables of them are in ``cases_*.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    op: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any]
    opset: int = 21
    outputs: int = 1
    skip: tuple[int, ...] = ()  # outputs without a name
    tolerance: float = 3e-6  # |fp64 - FP32| / max |fp64|
    discrete: bool = False  # moving the inputs a little changes nothing
    ort: bool = True  # whether ONNX Runtime's CPU provider computes it
    double: bool = True  # whether its double kernel, where there is one, follows the definition

    @property
    def id(self) -> str:
        shapes = ",".join("-" if x is None else "x".join(map(str, x.shape)) or "scalar" for x in self.inputs)
        settings = " ".join(f"{name}={_short(value)}" for name, value in self.attributes.items())
        return f"{self.op}-{self.opset}({shapes}) {settings}".strip()

    def model(self, kind: int) -> onnx.ModelProto:
        """The node alone, with floats of this element type."""
        names = ["" if x is None else f"x{i}" for i, x in enumerate(self.inputs)]
        outputs = ["" if i in self.skip else f"y{i}" for i in range(self.outputs)]
        attributes = {
            name: onnx.numpy_helper.from_array(_typed(value, kind)) if isinstance(value, np.ndarray) else value
            for name, value in self.attributes.items()
        }
        if attributes.get("to") == TensorProto.FLOAT:
            attributes["to"] = kind
        node = helper.make_node(self.op, names, outputs, name="node", **attributes)
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(_typed(x, kind).dtype), list(x.shape))
            for name, x in zip(names, self.inputs, strict=True)
            if x is not None
        ]
        graph = helper.make_graph([node], "g", values, [onnx.ValueInfoProto(name=name) for name in outputs if name])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def feeds(self, kind: int = TensorProto.FLOAT) -> dict[str, Array]:
        return {f"x{i}": _typed(x, kind) for i, x in enumerate(self.inputs) if x is not None}


def _typed(array: Array, kind: int) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 and kind == TensorProto.DOUBLE else array


def _short(value: Any) -> str:
    return "array" if isinstance(value, np.ndarray) else str(value).replace(" ", "")


_SETTINGS = ("opset", "outputs", "skip", "tolerance", "discrete", "ort", "double")


def case(op: str, *inputs: Any, **settings: Any) -> Case:
    """``case("Conv", x, w, group=2, opset=11)``: lists become int64 arrays, numbers scalars, None an omitted input."""
    own = {name: settings.pop(name) for name in _SETTINGS if name in settings}
    return Case(op, tuple(_array(x) for x in inputs), settings, **own)


def _array(value: Any) -> Array | None:
    if value is None or isinstance(value, np.ndarray):
        return value
    if isinstance(value, float):
        return np.array(value, np.float32)
    return np.asarray(value) if isinstance(value, np.generic) else np.array(value, np.int64)


_rng = np.random.default_rng(7)


def f(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    """float32 numbers in a range."""
    return _rng.uniform(low, high, shape).astype(np.float32)


def ints(*shape: int, low: int = -9, high: int = 9, dtype: Any = np.int64) -> Array:
    return _rng.integers(low, high, shape, endpoint=True).astype(dtype)


def flags(*shape: int) -> Array:
    return _rng.random(shape) < 0.5
