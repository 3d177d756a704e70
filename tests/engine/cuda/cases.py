"""One table of operators, shapes and attributes for the CUDA device: what is compared with the CPU device, and how near it has to be.

A bound has two parts, both in units in the last place of FP32 before storing: ``ulps`` of the element itself (what a function of CUDA's
library is off, and ONNX Runtime's of its own), and ``sum_ulps`` of the largest element (another order of a sum). Where it is not 0, what is
stored low may differ by one unit of its own as well: a sum near the middle between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, 65519.0, 65520.0, -7e4, 1e-7, 6e-8, 3e-5, 1e-40, 3e38, -3e38], np.float32
)
_OPSET = 18


@dataclass(frozen=True)
class Case:
    """One node.

    Attributes:
        inputs: shape of a random float input; an array is fed as it is; a tuple ("w", shape) or ("w", array) is a weight; what begins with
            a minus is omitted.
        low: least value of random inputs, for functions that are not defined everywhere.
        special: put infinities, NaN, subnormals and what overflows in FP16 among the values.
        runtime: an ONNX Runtime that computes it right, where older ones do not.
    """

    op: str
    inputs: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    ulps: float = 0.0
    sum_ulps: float = 0.0
    opset: int = _OPSET
    low: float | None = None
    special: bool = False
    scale: float = 2.0
    name: str = ""
    runtime: str = ""

    def __str__(self) -> str:
        shapes = ",".join(
            "x".join(map(str, v)) if isinstance(v, tuple) and v[:1] != ("w",) else k for k, v in self.inputs.items()
        )
        attributes = "".join(f" {k}={v}" for k, v in self.attributes.items())
        return (
            self.name
            or f"{self.op}({shapes}){attributes}{f' v{self.opset}' if self.opset != _OPSET else ''}".replace(" ", "_")
        )

    def save(self, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
        """The model as a file, and its feeds."""
        random = np.random.default_rng(7)
        feeds, weights, ports = {}, [], []
        ports_of = ["" if key.startswith("-") else key for key in self.inputs]
        for key, given in zip(ports_of, self.inputs.values(), strict=True):
            is_weight = isinstance(given, tuple) and given[:1] == ("w",)
            value = given[1] if is_weight else given
            array = np.asarray(value) if isinstance(value, (np.ndarray, np.generic)) else self._random(random, value)
            if is_weight:
                weights.append(numpy_helper.from_array(array, key))
            elif key:
                feeds[key] = array
                ports.append(
                    helper.make_tensor_value_info(
                        key, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
                    )
                )
        names = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, ports_of, names, "node", **self.attributes)
        graph = helper.make_graph([node], "g", ports, [onnx.ValueInfoProto(name=name) for name in names], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        model = onnx.shape_inference.infer_shapes(model)
        path = folder / "case.onnx"
        onnx.save(model, path)
        return path, feeds

    def _random(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        array = (random.standard_normal(shape) * self.scale).astype(np.float32)
        if self.low is not None:
            array = np.abs(array) + np.float32(self.low)
        if self.special and array.size:
            flat = array.reshape(-1)
            some = [*_SPECIAL, np.inf, -np.inf, np.nan]
            flat[: min(len(some), flat.size)] = some[: flat.size]
        return array

    def allowed(self, expected: np.ndarray, precision: str) -> np.ndarray:
        """How far each element may be off."""
        finite = np.where(np.isfinite(expected), np.abs(expected), 0).astype(np.float64)
        top = finite.max(initial=0.0)
        wide = self.ulps * _ulp(finite, 23, -126) + self.sum_ulps * _ulp(np.array(top), 23, -126)
        if not self.ulps and not self.sum_ulps:
            return np.zeros_like(finite)
        if precision == "fp16":
            return wide + _ulp(finite, 10, -14)
        return wide + _ulp(finite, 7, -126) if precision == "bf16" else wide


def _ulp(x: np.ndarray, mantissa: int, smallest: int) -> np.ndarray:
    exponent = np.floor(np.log2(np.maximum(x, 2.0**smallest)))
    return 2.0 ** (exponent - mantissa)


F = TensorProto.FLOAT
_N = (2, 5, 33)


def listed(*numbers: int) -> tuple[str, np.ndarray]:
    """A weight: axes, a shape, repeats."""
    return "w", np.array(numbers, np.int64)


def case_of(
    op: str,
    inputs: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
    outputs: int = 1,
    *,
    about: str,
    name: str = "",
    **more: Any,
) -> Case:
    """A row named after its operator, what it is ``about`` and its attributes."""
    options = "".join(f"_{key}{value}" for key, value in (attributes or {}).items()).replace(" ", "")
    return Case(op, inputs, attributes or {}, outputs, name=f"{op}_{about}{options}{name}", **more)


def _unary(op: str, ulps: float = 0.0, **more: Any) -> Case:
    return Case(op, {"x": _N}, ulps=ulps, **more)


POINTWISE = (
    *(_unary(op, special=True) for op in ("Relu", "Abs", "Neg", "Floor", "Ceil", "Round", "Reciprocal")),
    _unary("Sqrt", low=0.0), _unary("Sign"),
    *(_unary(op, 6) for op in ("Exp", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Erf", "Softplus", "Softsign")),
    _unary("Log", 6, low=0.1), _unary("Acosh", 8, low=1.1), _unary("Tan", 12), _unary("Tanh", 16), _unary("Sigmoid", 24, sum_ulps=2),
    _unary("Asin", 8, scale=0.2), _unary("Acos", 8, scale=0.2), _unary("Atanh", 8, scale=0.2),
    _unary("LeakyRelu", attributes={"alpha": 0.1}), _unary("Elu", 8, sum_ulps=2), _unary("Selu", 8, sum_ulps=2), _unary("Celu", 16, sum_ulps=2, attributes={"alpha": 0.7}),
    Case("Celu", {"x": np.array([np.nan, np.inf, -np.inf, 0.0, 2.0, -1.0], np.float32)}, {"alpha": 0.7}, ulps=16, sum_ulps=2, name="Celu_nan"),
    _unary("ThresholdedRelu"), _unary("HardSigmoid", 2), _unary("HardSwish", 4), _unary("Mish", 24, sum_ulps=2),
    _unary("Gelu", 32, sum_ulps=2, opset=20), _unary("Gelu", 32, sum_ulps=4, opset=20, attributes={"approximate": "tanh"}), _unary("Shrink"),
    Case("Clip", {"x": _N, "low": ("w", np.float32(-1)), "high": ("w", np.float32(1.5))}),
    Case("Clip", {"x": _N, "": (), "high": ("w", np.float32(1.5))}),
    *(
        Case("Clip", {"x": np.array([np.inf, -np.inf, np.nan, 3.4e38, -1, 0.5], np.float32), **bounds}, name=f"Clip_inf_{len(bounds)}")
        for bounds in ({}, {"low": ("w", np.float32(0))}, {"": (), "high": ("w", np.float32(0))})
    ),
    Case("PRelu", {"x": _N, "slope": ("w", (5, 1))}),
    *(Case(op, {"x": _N, "y": _N}) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    Case("Add", {"x": _N, "y": (33,)}), Case("Mul", {"x": (2, 5, 1), "y": _N}), Case("Sub", {"x": (5, 1), "y": (2, 1, 33)}),
    Case("Add", {"x": (1,), "y": _N}), Case("Add", {"x": (4, 64), "y": (64,)}), Case("Add", {"x": (3, 8, 16), "y": (3, 1, 16)}),
    Case("Add", {"x": (1001,), "y": (1001,)}), Case("Mul", {"x": (2, 3, 4, 8), "y": (3, 1, 1)}), Case("Add", {"x": (), "y": ()}),
    Case("Add", {"x": (0, 4), "y": (1, 4)}, name="Add_empty"), Case("Add", {"x": (7, 1, 3, 1, 5), "y": (1, 2, 1, 4, 5)}),
    Case("Pow", {"x": _N, "y": ("w", np.float32(2))}), Case("Pow", {"x": _N, "y": ("w", np.float32(3))}),
    Case("Pow", {"x": _N, "y": ("w", np.float32(0.7))}, ulps=8, low=0.1), Case("Pow", {"x": _N, "y": ("w", np.int64(2))}, name="Pow_int"),
    Case("Mod", {"x": _N, "y": _N}, {"fmod": 1}), Case("Sum", {"x": _N, "y": (33,), "z": _N}), Case("Mean", {"x": _N, "y": (5, 1), "z": _N}, ulps=2),
    *(Case(op, {"x": _N, "y": (33,)}) for op in ("Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual")),
    Case("IsNaN", {"x": _N}, special=True), Case("IsInf", {"x": _N}, {"detect_negative": 0}, special=True, opset=20),
    Case("Where", {"c": np.arange(33) % 3 == 0, "x": _N, "y": (5, 1)}, name="Where"),
    Case("Cast", {"x": np.arange(-20, 45).reshape(5, 13)}, {"to": F}, name="Cast_i64"), Case("Cast", {"x": _N}, {"to": TensorProto.BOOL}),
    Case("Cast", {"x": np.arange(12, dtype=np.int32)}, {"to": F}, name="Cast_i32"), Case("Cast", {"x": _N}, {"to": TensorProto.INT64}),
    Case("Cast", {"x": np.arange(12) % 2 == 0}, {"to": F}, name="Cast_bool"),
)  # fmt: skip

_MASKED = np.random.default_rng(9).standard_normal((1, 120001)).astype(np.float32)  # longer than shared memory
_MASKED[0, :3000] = -np.inf
SOFTMAX = (
    *(Case("Softmax", {"x": shape}, ulps=32, sum_ulps=2) for shape in ((4, 7), (3, 64), (2, 1000), (5, 1), (1, 4099), (130, 40), (3, 33001), (2, 36000))),
    Case("Softmax", {"x": _MASKED}, ulps=64, sum_ulps=4, name="Softmax_masked"),
    Case("Softmax", {"x": (2, 9, 12)}, {"axis": 1}, ulps=32, sum_ulps=2), Case("Softmax", {"x": (1, 20000)}, ulps=64, sum_ulps=4),
    Case("Softmax", {"x": (2, 3, 8)}, {"axis": 1}, opset=11, ulps=32, sum_ulps=2), Case("Softmax", {"x": (0, 8)}, name="Softmax_empty"),
    *(Case("LogSoftmax", {"x": shape}, ulps=8, sum_ulps=16) for shape in ((4, 7), (2, 1000))),
    Case("LogSoftmax", {"x": (2, 9, 12)}, {"axis": 1}, ulps=8, sum_ulps=16),
)  # fmt: skip


def _affine(*shape: int) -> dict[str, Any]:
    return {"scale": ("w", shape), "bias": ("w", shape)}


# Summed up in many parts whose means and variances differ.
_DRIFTING = np.linspace(-3, 5, 600000, dtype=np.float32).reshape(1, 1, -1)
_DRIFTING += np.random.default_rng(4).standard_normal(_DRIFTING.shape).astype(np.float32) * np.abs(_DRIFTING)

NORMS = (
    *(
        Case("LayerNormalization", {"x": shape, **_affine(*shape[1:])}, {"axis": 1}, ulps=16, sum_ulps=8)
        for shape in ((4, 7), (3, 768), (6, 520), (5, 2, 33), (2, 4100), (1, 40000), (129, 16))
    ),
    Case("LayerNormalization", {"x": (4, 6, 32), **_affine(32)}, {"axis": -1, "epsilon": 1e-3}, 3, ulps=16, sum_ulps=8),
    Case("LayerNormalization", {"x": (4, 33), "scale": ("w", (33,))}, {"axis": -1}, ulps=16, sum_ulps=8),
    Case("RMSNormalization", {"x": (4, 6, 64), "scale": ("w", (64,))}, {"axis": -1}, opset=23, ulps=16, sum_ulps=8),
    Case("InstanceNormalization", {"x": (2, 3, 5, 7), **_affine(3)}, ulps=16, sum_ulps=8),
    Case("InstanceNormalization", {"x": (1, 2, 20000), **_affine(2)}, ulps=32, sum_ulps=16),
    Case("InstanceNormalization", {"x": (1, 2, 33, 1111), **_affine(2)}, ulps=32, sum_ulps=16),
    Case(
        "InstanceNormalization",
        {"x": _DRIFTING, "scale": ("w", np.ones(1, np.float32)), "bias": ("w", np.zeros(1, np.float32))},
        ulps=32,
        sum_ulps=32,
        name="InstanceNormalization_drifting",
    ),
    Case("GroupNormalization", {"x": (2, 4, 33000), **_affine(4)}, {"num_groups": 2}, opset=21, ulps=32, sum_ulps=16),
    Case("GroupNormalization", {"x": (1, 4, 5, 7), **_affine(4)}, {"num_groups": 2}, opset=21, ulps=16, sum_ulps=8),
    Case("RMSNormalization", {"x": (2, 40003), "scale": ("w", (40003,))}, {"axis": -1}, opset=23, ulps=32, sum_ulps=16),
    Case("GroupNormalization", {"x": (2, 6, 5, 4), **_affine(6)}, {"num_groups": 3}, opset=21, ulps=16, sum_ulps=8),
)

NORMS += (
    Case(
        "BatchNormalization", {"x": (2, 3, 5, 7), **_affine(3), "mean": ("w", (3,)), "variance": ("w", np.array([0.5, 2.0, 1.0], np.float32))},
        ulps=4, sum_ulps=4,
    ),
    Case("BatchNormalization", {"x": (4, 3), **_affine(3), "mean": ("w", (3,)), "variance": ("w", np.array([0.5, 2.0, 1.0], np.float32))}, ulps=4, sum_ulps=4),
)  # fmt: skip

_AXES = ((-1,), (0,), (1,), (0, 2), (1, 2), (0, 1), (0, 1, 2))
REDUCTIONS = (
    *(Case("ReduceSum", {"x": (3, 5, 40), "axes": ("w", np.array(axes))}, sum_ulps=16, name=f"ReduceSum_{axes}") for axes in _AXES),
    *(
        Case(op, {"x": (3, 17, 40), "axes": ("w", np.array(axes))}, {"keepdims": keep}, ulps=8, sum_ulps=16, low=low, scale=0.5, name=f"{op}_{axes}")
        for op, low in (
            ("ReduceMean", None), ("ReduceL1", None), ("ReduceL2", None), ("ReduceSumSquare", None), ("ReduceLogSum", 0.1),
            ("ReduceLogSumExp", None),
        )
        for axes, keep in (((-1,), 0), ((1,), 1))
    ),
    *(
        Case(op, {"x": (3, 17, 40), "axes": ("w", np.array(axes))}, name=f"{op}_{axes}")
        for op in ("ReduceMax", "ReduceMin") for axes in ((-1,), (1,))
    ),
    Case("ReduceProd", {"x": (3, 9), "axes": ("w", np.array([1]))}, ulps=16), Case("ReduceSum", {"x": (2, 70001)}, sum_ulps=1024, scale=1.0),
    Case("ReduceMean", {"x": (1, 262144)}, sum_ulps=4096, scale=1.0), Case("ReduceL2", {"x": (262147,)}, sum_ulps=64, scale=1.0),
    Case("ReduceMean", {"x": (2, 3, 4, 5)}, {"axes": [2, 3]}, opset=13, ulps=4, sum_ulps=8),
    Case("GlobalAveragePool", {"x": (2, 3, 7, 7)}, ulps=4, sum_ulps=8), Case("GlobalMaxPool", {"x": (2, 3, 7, 7)}),
    *(
        Case(op, {"x": shape}, {"axis": axis, "keepdims": keep, "select_last_index": last}, special=special)
        for op, shape, axis, keep, last, special in (
            ("ArgMax", (3, 17, 40), -1, 1, 0, True), ("ArgMin", (3, 17, 40), -1, 0, 1, True), ("ArgMax", (3, 17, 40), 1, 0, 1, True),
            ("ArgMin", (3, 17, 40), 1, 1, 0, True), ("ArgMax", (40, 7), 0, 1, 0, True), ("ArgMax", (2, 5001), 1, 1, 0, False),
            ("ArgMin", (2, 4096), 1, 0, 1, False), ("ArgMax", (7,), 0, 0, 0, False), ("ArgMax", (2, 1, 3), 1, 1, 0, False),
        )
    ),
    *(
        Case(op, {"x": np.repeat(np.array([[value]], np.float32), 70, 1)}, {"axis": 1, "select_last_index": last}, name=f"{op}_{value}_{last}")
        for op, value in (("ArgMax", 2.0), ("ArgMax", -np.inf), ("ArgMin", np.inf), ("ArgMin", np.nan)) for last in (0, 1)
    ),
)  # fmt: skip


MOVES = (
    *(
        Case("Transpose", {"x": shape}, {"perm": list(perm)})
        for shape, perm in (
            ((5, 7), (1, 0)), ((33, 65), (1, 0)), ((3, 40, 50), (0, 2, 1)), ((2, 3, 4, 8), (0, 2, 1, 3)), ((2, 3, 4, 5), (3, 1, 0, 2)),
            ((2, 1, 6), (1, 0, 2)), ((72, 136), (1, 0)), ((2, 70, 66), (0, 2, 1)), ((130, 64), (1, 0)), ((3, 40, 200), (0, 2, 1)), ((4, 6, 32), (1, 0, 2)), ((2, 3, 4, 5, 6), (4, 0, 3, 1, 2)), ((2, 0, 3), (2, 1, 0)),
        )
    ),
    Case("Concat", {"x": (2, 3, 8), "y": (2, 5, 8)}, {"axis": 1}), Case("Concat", {"x": (2, 3), "y": (2, 5), "z": (2, 0)}, {"axis": -1}),
    Case("Concat", {"x": (2, 3, 4), "w": ("w", (1, 3, 4))}, {"axis": 0}),
    Case("Split", {"x": (4, 10)}, {"axis": 1, "num_outputs": 3}, 3), Case("Split", {"x": (4, 10), "split": listed(2, 8)}, {"axis": 1}, 2),
    Case("Slice", {"x": (5, 9), "starts": listed(1, -8), "ends": listed(4, 100), "axes": listed(0, 1), "steps": listed(1, 2)}, name="Slice_step"),
    Case("Slice", {"x": (5, 9), "starts": listed(-1), "ends": listed(-100), "axes": listed(1), "steps": listed(-1)}, name="Slice_back"),
    Case("Slice", {"x": (5, 9), "starts": listed(7), "ends": listed(2), "axes": listed(1), "steps": listed(-2)}, name="Slice_back2"),
    Case("Slice", {"x": (4, 3, 16), "starts": listed(8), "ends": listed(16), "axes": listed(2)}, name="Slice_half"),
    Case("Slice", {"x": (4, 9), "starts": listed(6), "ends": listed(2), "axes": listed(1)}, name="Slice_empty"),
    Case("Expand", {"x": (3, 1, 4), "shape": listed(2, 3, 5, 4)}), Case("Expand", {"x": (4,), "shape": listed(1)}),
    Case("Tile", {"x": (2, 3, 4), "repeats": listed(2, 1, 3)}),
    Case("Pad", {"x": (2, 3, 4), "pads": listed(0, 1, 2, 1, 0, 3)}), Case("Pad", {"x": (2, 8), "pads": listed(0, 3, 0, 1), "value": ("w", np.float32(-1.5))}),
    Case("Gather", {"x": ("w", (11, 8)), "i": np.array([[0, 3, -1], [10, 2, 2]])}, name="Gather_rows"),
    Case("Gather", {"x": (4, 6, 5), "i": np.array([5, 0, -6], np.int32)}, {"axis": 1}, name="Gather_axis"),
    Case("Gather", {"x": (4, 6, 5), "i": np.int64(-2)}, {"axis": 1}, name="Gather_scalar"),
    Case("DepthToSpace", {"x": (2, 8, 3, 2)}, {"blocksize": 2}), Case("DepthToSpace", {"x": (2, 8, 3, 2)}, {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", {"x": (2, 3, 4, 6)}, {"blocksize": 2}), Case("Reshape", {"x": (4, 6), "shape": listed(0, -1, 3)}),
    Case("Squeeze", {"x": (1, 4, 1), "axes": listed(-1)}), Case("Squeeze", {"x": (1, 4, 1)}), Case("Unsqueeze", {"x": (4, 2), "axes": listed(0, -1)}),
    Case("Flatten", {"x": (2, 3, 4)}, {"axis": 2}), Case("Identity", {"x": (3, 3)}), Case("Dropout", {"x": (3, 3)}),
)  # fmt: skip


def _product(op: str, inputs: Mapping[str, Any], attributes: Mapping[str, Any] | None = None, **more: Any) -> Case:
    return Case(op, inputs, attributes or {}, sum_ulps=16, scale=0.5, **more)


PRODUCTS = (
    *(
        _product("MatMul", {"a": a, "b": b})
        for a, b in (
            ((5, 7), (7, 3)), ((33, 65), (65, 40)), ((64, 64), (64, 64)), ((4, 9, 16), (16, 8)), ((2, 3, 5, 8), (2, 3, 8, 6)), ((3, 5, 8), (1, 8, 6)),
            ((1, 5, 8), (3, 8, 6)), ((2, 1, 5, 8), (3, 8, 4)), ((8,), (8, 5)), ((5, 8), (8,)), ((8,), (8,)), ((3, 5, 8), (8,)), ((1, 300), (300, 1)),
            ((5, 0), (0, 3)), ((0, 4), (4, 3)),
        )
    ),
    _product("MatMul", {"a": (6, 32), "b": ("w", (32, 24))}), _product("MatMul", {"a": (140, 200), "b": (200, 136)}),
    _product("MatMul", {"a": (2, 70, 168), "b": (2, 168, 72)}), _product("Gemm", {"a": (70, 200), "b": (72, 200)}, {"transB": 1}),
    _product("Gemm", {"a": (6, 32), "b": ("w", (24, 32)), "c": ("w", (24,))}, {"transB": 1}),
    _product("Gemm", {"a": (32, 6), "b": (32, 24), "c": (6, 1)}, {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    _product("Gemm", {"a": (6, 32), "b": (32, 24)}), _product("Gemm", {"a": (6, 5), "b": (5, 4), "c": ()}, {"beta": 0.3}),
)  # fmt: skip


def _conv(x: tuple[int, ...], w: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> Case:
    inputs: dict[str, Any] = {"x": x, "w": ("w", w)}
    if bias:
        inputs["b"] = ("w", (w[0],))
    return Case("Conv", inputs, attributes, sum_ulps=32, scale=0.5)


CONVOLUTIONS = (
    *(_conv((2, 3, 9, 11), (16, 3, 3, 3), pads=[1, 1, 1, 1], bias=bias) for bias in (True, False)),
    *(_conv((1, 16, 10, 10), (24, 16, 3, 3), strides=strides, dilations=dilations) for strides in ([1, 1], [2, 2]) for dilations in ([1, 1], [2, 1])),
    *(_conv((2, 8, 20, 20), (70, 8, 3, 3), pads=[1, 0, 2, 1]) for _ in range(3)),
    _conv((2, 24, 7, 7), (32, 24, 1, 1)), _conv((2, 24, 7, 7), (16, 12, 1, 1), group=2), _conv((2, 24, 8, 8), (16, 24, 1, 1), strides=[2, 2]),
    _conv((1, 8, 12, 12), (8, 1, 3, 3), group=8, pads=[1, 1, 1, 1]), _conv((1, 8, 12, 12), (16, 4, 3, 3), group=2),
    _conv((2, 3, 32, 48), (24, 3, 16, 16), strides=[16, 16]), _conv((2, 1, 6, 4), (9, 1, 3, 2), strides=[3, 2]), _conv((1, 3, 9, 8), (8, 3, 4, 4), strides=[4, 4]),
    _conv((1, 6, 12), (10, 6, 5), pads=[2, 2]), _conv((2, 4, 33), (3, 4, 8), strides=[4]), _conv((1, 3, 15, 17), (16, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3]),
    _conv((1, 4, 9, 9), (8, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]), _conv((1, 4, 9, 9), (8, 4, 4, 4), auto_pad="SAME_LOWER"),
    _conv((0, 4, 9, 9), (8, 4, 3, 3)),
)  # fmt: skip

LARGE = (  # sizes at which a GPU takes the large tiles
    _conv((8, 64, 57, 55), (136, 64, 3, 3), pads=[1, 1, 1, 1]), _conv((8, 136, 56, 56), (200, 136, 1, 1)),
    _conv((16, 32, 112, 112), (32, 1, 3, 3), group=32, pads=[1, 1, 1, 1], strides=[2, 2]),
)  # fmt: skip

POOLS = (
    *(
        Case(op, {"x": (2, 3, 9, 11)}, {"kernel_shape": [3, 2], **more}, ulps=0 if op == "MaxPool" else 4, sum_ulps=0 if op == "MaxPool" else 4)
        for op in ("MaxPool", "AveragePool")
        for more in ({}, {"strides": [2, 2]}, {"pads": [1, 0, 1, 1]}, {"strides": [2, 2], "ceil_mode": 1}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]})
    ),
    Case("AveragePool", {"x": (2, 3, 9, 11)}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, ulps=4, sum_ulps=4),
    Case("MaxPool", {"x": (2, 3, 14)}, {"kernel_shape": [3], "dilations": [2]}), Case("AveragePool", {"x": (2, 3, 14)}, {"kernel_shape": [3]}, ulps=4, sum_ulps=4),
)  # fmt: skip

CONVOLUTIONS += (
    *(
        Case("ConvTranspose", {"x": (2, 4, 5, 6), "w": ("w", (4, 3, 3, 2)), "b": ("w", (3 * more.get("group", 1),))}, more, sum_ulps=32, scale=0.5)
        for more in (
            {}, {"strides": [2, 3]}, {"strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 0]}, {"group": 2, "dilations": [2, 1]},
        )
    ),
    Case("ConvTranspose", {"x": (1, 3, 9), "w": ("w", (3, 2, 4))}, {"strides": [2], "pads": [1, 1]}, sum_ulps=32, scale=0.5),
)  # fmt: skip

MOVES += (
    *(
        Case("Resize", {"x": (1, 2, 5, 7), "": (), "scales": ("w", np.array([1, 1, *by], np.float32))}, {"mode": "nearest", **more}, name=f"Resize_{by}_{more}".replace(" ", ""))
        for by in ((2, 2), (1.5, 0.6), (3, 1))
        for more in (
            {}, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, {"coordinate_transformation_mode": "align_corners"},
            {"coordinate_transformation_mode": "pytorch_half_pixel", "nearest_mode": "round_prefer_ceil"}, {"nearest_mode": "ceil"},
        )
    ),
    *(
        Case(
            "Resize", {"x": (1, 2, 5, 7), "": (), "scales": ("w", np.array([1, 1, *by], np.float32))},
            {"mode": "linear", "coordinate_transformation_mode": how}, ulps=4, sum_ulps=4, name=f"Resize_linear_{by}_{how}".replace(" ", ""),
        )
        for by in ((2, 2), (1.5, 0.6)) for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    ),
    Case("Resize", {"x": (1, 2, 4, 6), "roi": ("w", np.zeros(0, np.float32)), "": (), "sizes": listed(1, 2, 8, 9)}, {"mode": "nearest"}, name="Resize_sizes"),
)  # fmt: skip
