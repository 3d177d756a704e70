"""Rows of the table for what is hardly there: axes of no element, of one, tensors without axes. As cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tests.engine.cuda.cases import Case, F, case_of, listed


def _case(op: str, inputs: dict[str, Any], *rest: Any, **more: Any) -> Case:
    shapes = "_".join(
        "x".join(map(str, one)) or "scalar" for one in inputs.values() if isinstance(one, tuple) and one[:1] != ("w",)
    )
    return case_of(op, inputs, *rest, about=shapes, **more)


def _floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def _ints(*shape: int, most: int = 1) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, most, shape)


_ONES = (1, 1, 1, 1)
_NORM = {"ulps": 16.0, "sum_ulps": 8.0}
_SUM: dict[str, Any] = {"sum_ulps": 32, "scale": 0.5}


def _affine(size: int) -> dict[str, Any]:
    return {"scale": ("w", (size,)), "bias": ("w", (size,))}


POINTWISE = (
    *(_case("Add", {"x": x, "y": y}) for x, y in (((0,), (1,)), ((), (0, 3)), ((3, 0), (1, 1)), ((1, 0, 5), (2, 1, 1)), (_ONES, ()), ((1,), ()), ((0, 0), (0, 0)), ((4, 1), (1, 0)))),
    *(_case(op, {"x": shape}) for op in ("Relu", "Neg", "Not") for shape in ((), (0,), _ONES) if op != "Not"),
    _case("Cast", {"x": ()}, {"to": TensorProto.INT64}), _case("Cast", {"x": (0, 2)}, {"to": F}), _case("Cast", {"x": np.zeros((0, 3), np.int64)}, {"to": F}, name="i64"),
    _case("Where", {"c": np.zeros((0,), bool), "x": (1,), "y": (1,)}), _case("Where", {"c": np.array(True), "x": (), "y": (3,)}),
    _case("Clip", {"x": (0, 4), "low": ("w", np.float32(0)), "high": ("w", np.float32(1))}), _case("PRelu", {"x": (2, 0, 3), "slope": ("w", (1,))}),
    _case("Sum", {"x": (0,)}), _case("Max", {"x": ()}), _case("Mean", {"x": (), "y": (2,)}, ulps=2), _case("IsNaN", {"x": (0, 1)}), _case("Pow", {"x": (), "y": ("w", np.float32(2))}),
)  # fmt: skip
REDUCED = (
    *(_case(op, {"x": ()}, **({"low": 0.1} if "Log" in op else {}), ulps=4, sum_ulps=2) for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceProd", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")),
    *(_case("ReduceSum", {"x": shape, "axes": listed(*axes)}, {"keepdims": keep}, name=f"_{axes}") for shape, axes in (((1, 1), (0,)), (_ONES, (0, 1, 2, 3)), ((0, 4), (1,)), ((4, 0, 3), (0, 2)), ((1, 5), (0,)), ((5, 1), (1,)), ((0,), (0,))) for keep in (0, 1)),
    *(_case(op, {"x": (0, 4), "axes": listed(1)}) for op in ("ReduceMax", "ReduceMean", "ReduceProd", "ReduceLogSumExp")),
    _case("ReduceMax", {"x": np.zeros((0, 2), np.int64), "axes": listed(1)}, opset=20, name="i64"), _case("ReduceMin", {"x": np.full((1, 1), 7), "axes": listed(0)}, opset=20, name="i64"),
    _case("GlobalAveragePool", {"x": (0, 3, 4, 4)}), _case("GlobalAveragePool", {"x": (2, 3, 1, 1)}), _case("GlobalMaxPool", {"x": (1, 1, 1)}),
    _case("GlobalLpPool", {"x": (1, 1, 1, 1)}), _case("GlobalLpPool", {"x": (0, 1, 2, 2)}),
    _case("ArgMax", {"x": (1, 1)}, {"axis": 0}), _case("ArgMin", {"x": (5, 1)}, {"axis": 1}), _case("ArgMax", {"x": (1,)}, {"axis": 0, "keepdims": 0}),
    *(_case(op, {"x": shape}, {"axis": axis}, **_NORM) for op in ("Softmax", "LogSoftmax") for shape, axis in (((0,), 0), ((1,), 0), ((3, 0), 1), ((3, 0), 0), ((5, 1), 1), ((1, 1, 1), 1))),
    _case("Softmax", {"x": (2, 0, 3)}, {"axis": 1}, opset=11), _case("Hardmax", {"x": (1, 1)}), _case("Hardmax", {"x": (0,)}),
    _case("LpNormalization", {"x": (4, 1)}, ulps=2), _case("LpNormalization", {"x": (0, 4)}), _case("LpNormalization", {"x": (4, 0)}),
    *(_case("LayerNormalization", {"x": shape, **_affine(shape[-1])}, **_NORM) for shape in ((0, 8), (1, 8), (4, 1), (1, 1))),
    _case("LayerNormalization", {"x": (2, 0, 8), **_affine(8)}, outputs=3), _case("LayerNormalization", {"x": (1, 8), **_affine(8)}, outputs=3, **_NORM),
    _case("RMSNormalization", {"x": (0, 8), "scale": ("w", (8,))}, opset=23), _case("RMSNormalization", {"x": (5, 1), "scale": ("w", (1,))}, opset=23, **_NORM),
    *(_case("InstanceNormalization", {"x": shape, **_affine(shape[1])}, **_NORM) for shape in ((0, 3, 4, 4),)), *(_case("InstanceNormalization", {"x": shape, **_affine(shape[1])}, sum_ulps=512) for shape in ((2, 3, 1, 1), (1, 1, 1, 1))),
    *(_case("GroupNormalization", {"x": shape, **_affine(4)}, {"num_groups": groups}, opset=21, **_NORM) for shape, groups in (((1, 4, 1, 1), 1), ((1, 4, 1, 2), 2))), _case("GroupNormalization", {"x": (1, 4, 1, 1), **_affine(4)}, {"num_groups": 4}, opset=21, sum_ulps=512),
    *(_case("BatchNormalization", {"x": shape, **_affine(3), "m": ("w", (3,)), "v": ("w", np.ones(3, np.float32))}, ulps=4, sum_ulps=4) for shape in ((0, 3, 2), (1, 3), (2, 3, 0, 1))),
    _case("LRN", {"x": (0, 3, 2, 2)}, {"size": 3}), _case("LRN", {"x": (1, 1, 1, 1)}, {"size": 3}, ulps=8), _case("MeanVarianceNormalization", {"x": (0, 2, 3, 3)}), _case("MeanVarianceNormalization", {"x": (2, 1, 2, 1)}, **_NORM),
    *(_case("CumSum", {"x": shape, "axis": ("w", np.int64(axis))}) for shape, axis in (((0,), 0), ((3, 0), 0), ((3, 0), 1), ((1, 1), 1), ((5, 1), 1))),
    *(_case("TopK", {"x": shape, "k": listed(k)}, {"axis": axis}, 2, name=f"_{k}") for shape, k, axis in (((5, 1), 1, 1), ((1,), 1, 0), ((4, 3), 0, 1), ((3, 0, 2), 0, 1), ((0,), 0, 0), ((1, 7), 7, 1), ((2, 3), 1, 0))),
)  # fmt: skip
MOVED = (
    *(_case("Transpose", {"x": shape}, {"perm": list(perm)}) for shape, perm in (((0, 3), (1, 0)), ((1, 1, 1), (2, 0, 1)), ((1, 5), (1, 0)), ((5, 1, 3), (1, 0, 2)), ((1,), (0,)))), _case("Transpose", {"x": ()}),
    _case("Concat", {"x": (0,), "y": (0,)}, {"axis": 0}), _case("Concat", {"x": (0, 3), "y": (2, 3)}, {"axis": 0}), _case("Concat", {"x": (2, 0), "y": (2, 0)}, {"axis": 0}), _case("Concat", {"x": (1,)}, {"axis": 0}),
    _case("Split", {"x": (0, 4)}, {"axis": 1, "num_outputs": 2}, 2), _case("Split", {"x": (4,), "split": listed(0, 4)}, {"axis": 0}, 2), _case("Split", {"x": (1,), "split": listed(1)}, {"axis": 0}, 1),
    _case("Split", {"x": (0,), "split": listed(0, 0)}, {"axis": 0}, 2), _case("Split", {"x": (1, 5)}, {"axis": 0, "num_outputs": 1}, 1),
    *(_case("Slice", {"x": shape, "starts": listed(a), "ends": listed(b), "axes": listed(0), "steps": listed(step)}, name=f"_{a}_{b}_{step}") for shape, a, b, step in (((0,), 0, 9, 1), ((1,), 0, 1, 1), ((5,), 3, 3, 1), ((5,), 9, 2, -1), ((5,), 0, -9, -1), ((0,), -1, -9, -1), ((1,), -1, -9, -1), ((5, 0), 1, 3, 1))),
    _case("Slice", {"x": (3, 4), "starts": ("w", np.zeros(0, np.int64)), "ends": ("w", np.zeros(0, np.int64)), "axes": ("w", np.zeros(0, np.int64))}, name="_no_axis"),
    *(_case("Expand", {"x": shape, "shape": listed(*to)}, name=f"_{to}") for shape, to in (((1,), (0,)), ((), (2, 3)), ((1, 3), (0, 3)), ((0, 1), (0, 4)), ((1,), (1, 1, 1)))), _case("Expand", {"x": (), "shape": ("w", np.zeros(0, np.int64))}),
    *(_case("Tile", {"x": shape, "repeats": listed(*times)}, name=f"_{times}") for shape, times in (((0, 3), (2, 2)), ((2, 3), (0, 1)), ((1, 1), (1, 1)), ((1,), (5,)))),
    *(_case("Pad", {"x": shape, "pads": listed(*pads)}, name=f"_{pads}") for shape, pads in (((0,), (2, 1)), ((0, 3), (1, 0, 0, 2)), ((1,), (0, 0)), ((2, 0), (0, 0, 0, 0)))),
    *(_case("Pad", {"x": (1, 4), "pads": listed(0, 0, 0, 0)}, {"mode": mode}, opset=19) for mode in ("edge", "reflect", "wrap")), _case("Pad", {"x": (1,), "pads": listed(2, 2)}, {"mode": "edge"}),
    *(_case("Gather", {"x": shape, "i": i}, {"axis": axis}, name=f"_{i.shape}".replace(" ", "")) for shape, i, axis in (((5, 3), _ints(0), 0), ((0, 3), _ints(0), 0), ((5, 0), _ints(2), 0), ((5, 3), _ints(0, 2), 1), ((1,), _ints(), 0), ((1,), _ints(1), 0), ((1, 1), _ints(3), 1))),
    *(_case("Reshape", {"x": shape, "shape": listed(*to)}, {"allowzero": zero}, name=f"_{to}") for shape, to, zero in (((0, 3), (3, 0), 1), ((0,), (5, 0), 1), ((1,), (1, 1), 0), ((0, 2), (0, 2), 0))), _case("Reshape", {"x": (1, 1), "shape": ("w", np.zeros(0, np.int64))}),
    _case("Squeeze", {"x": _ONES}), _case("Squeeze", {"x": (0, 1), "axes": listed(1)}), _case("Squeeze", {"x": ()}), _case("Unsqueeze", {"x": (), "axes": listed(0)}), _case("Unsqueeze", {"x": (0,), "axes": listed(0, 2)}),
    *(_case("Flatten", {"x": shape}, {"axis": axis}) for shape, axis in (((0, 3), 1), ((), 0), ((2, 0, 3), 0), ((1,), 1))), _case("Identity", {"x": ()}), _case("Identity", {"x": (0,)}),
    _case("DepthToSpace", {"x": (0, 4, 2, 2)}, {"blocksize": 2}), _case("DepthToSpace", {"x": (1, 4, 1, 1)}, {"blocksize": 2}), _case("SpaceToDepth", {"x": (1, 1, 2, 2)}, {"blocksize": 2}), _case("SpaceToDepth", {"x": (1, 1, 1, 1)}, {"blocksize": 1}), _case("DepthToSpace", {"x": (1, 4, 0, 2)}, {"blocksize": 2}),
    _case("GatherND", {"x": (3, 4), "i": np.zeros((0, 2), np.int64)}), _case("GatherND", {"x": (3, 0), "i": np.array([[1]])}), _case("GatherND", {"x": (1,), "i": np.array([[0]])}), _case("GatherND", {"x": (0, 3), "i": np.zeros((0, 1), np.int64)}),
    _case("GatherElements", {"x": (3, 4), "i": np.zeros((0, 4), np.int64)}), _case("GatherElements", {"x": (0, 4), "i": np.zeros((0, 4), np.int64)}), _case("GatherElements", {"x": (1,), "i": np.array([0])}),
    _case("ScatterND", {"x": (3, 4), "i": np.zeros((0, 1), np.int64), "u": (0, 4)}), _case("ScatterND", {"x": (0, 4), "i": np.zeros((0, 1), np.int64), "u": (0, 4)}), _case("ScatterND", {"x": (1,), "i": np.array([[0]]), "u": (1,)}), _case("ScatterND", {"x": (3, 0), "i": np.array([[1]]), "u": (1, 0)}),
    *(_case("ScatterND", {"x": (3, size), "i": np.zeros((count, 1), np.int64), "u": (count, size)}, {"reduction": "add"}) for count, size in ((0, 2), (1, 0), (1, 1))),
    _case("ScatterElements", {"x": (3,), "i": np.zeros(0, np.int64), "u": (0,)}), _case("ScatterElements", {"x": (0,), "i": np.zeros(0, np.int64), "u": (0,)}), _case("ScatterElements", {"x": (1,), "i": np.array([0]), "u": (1,)}, {"reduction": "max"}), _case("ScatterElements", {"x": (0, 2), "i": np.zeros((0, 2), np.int64), "u": (0, 2)}, {"reduction": "add"}),
    _case("ReverseSequence", {"x": (0, 3), "l": np.zeros(3, np.int64)}, {"time_axis": 0, "batch_axis": 1}), _case("ReverseSequence", {"x": (3, 0), "l": np.zeros(0, np.int64)}), _case("ReverseSequence", {"x": (1, 1), "l": np.array([1])}), _case("ReverseSequence", {"x": (3, 2, 0), "l": np.array([1, 2])}),
    _case("NonZero", {"x": (0,)}), _case("NonZero", {"x": np.array([0.0], np.float32)}, name="_none"), _case("NonZero", {"x": np.array([[2.0]], np.float32)}, name="_one"),
    _case("OneHot", {"i": np.zeros((0,), np.int64), "d": ("w", np.int64(3)), "v": ("w", np.array([0, 1], np.float32))}), _case("OneHot", {"i": np.array([0]), "d": ("w", np.int64(1)), "v": ("w", np.array([0, 1], np.float32))}, name="_one"),
    *(_case("Trilu", {"x": shape}) for shape in ((0, 3), (3, 0), (1, 1), (0, 2, 2))), _case("EyeLike", {"x": (0, 3)}), _case("EyeLike", {"x": (1, 1)}), _case("Range", {"a": np.float32(3), "b": np.float32(1), "c": np.float32(1)}, name="_none"), _case("Range", {"a": np.float32(3), "b": np.float32(4), "c": np.float32(1)}, name="_one"), _case("ConstantOfShape", {"s": listed(0, 3)}), _case("ConstantOfShape", {"s": ("w", np.zeros(0, np.int64))}, name="_scalar"),
)  # fmt: skip
MULTIPLIED = (
    *(_case("MatMul", {"a": a, "b": b}, **_SUM) for a, b in (((1, 1), (1, 1)), ((1, 5), (5, 1)), ((5, 1), (1, 5)), ((0, 4), (4, 0)), ((3, 0), (0, 1)), ((0, 0), (0, 3)), ((2, 0, 4), (4, 3)), ((0, 3, 4), (4, 3)), ((2, 3, 4), (2, 4, 0)), ((0, 3, 4), (0, 4, 5)), ((1, 0), (0, 1)), ((1,), (1,)), ((0,), (0,)), ((0,), (0, 3)), ((1, 1, 1, 1), (1, 1, 1, 1)), ((16, 0), (0, 16)), ((64, 1), (1, 64)))),
    *(_case("Gemm", {"a": a, "b": b, **({"c": c} if c is not None else {})}, {"beta": 2.0}, **_SUM) for a, b, c in (((1, 1), (1, 1), (1,)), ((0, 3), (3, 4), (4,)), ((3, 0), (0, 4), None), ((3, 4), (4, 0), None), ((2, 3), (3, 2), ()), ((1, 1), (1, 1), ()))),
    *(_case("Conv", {"x": x, "w": ("w", w), "b": ("w", (w[0],))}, {"pads": [pad] * 2 * (len(x) - 2)}, name=f"_{w}".replace(" ", ""), **_SUM) for x, w, pad in (((0, 3, 5, 5), (4, 3, 3, 3), 0), ((1, 1, 1, 1), (1, 1, 1, 1), 0), ((1, 8, 1, 1), (8, 8, 1, 1), 0), ((1, 8, 1, 1), (8, 8, 3, 3), 1), ((1, 3, 1), (2, 3, 1), 0), ((0, 8, 4, 4), (8, 8, 1, 1), 0), ((1, 1, 3, 3), (1, 1, 3, 3), 0), ((0, 4, 3, 3, 3), (8, 4, 1, 1, 1), 0))),
    _case("Conv", {"x": (0, 8, 4, 4), "w": ("w", (8, 1, 3, 3))}, {"group": 8}, **_SUM), _case("Conv", {"x": (1, 8, 1, 1), "w": ("w", (8, 1, 1, 1))}, {"group": 8}, **_SUM),
    *(_case("ConvTranspose", {"x": x, "w": ("w", w)}, name=f"_{w}".replace(" ", ""), **_SUM) for x, w in (((0, 3, 2, 2), (3, 2, 2, 2)), ((1, 1, 1, 1), (1, 1, 1, 1)), ((1, 8, 1, 1), (8, 8, 2, 2)), ((1, 1, 1), (1, 1, 1)))),
    *(_case(op, {"x": x}, {"kernel_shape": kernel}, ulps=2, sum_ulps=2) for op in ("MaxPool", "AveragePool", "LpPool") for x, kernel in (((0, 3, 4, 4), [2, 2]), ((1, 1, 1, 1), [1, 1]), ((1, 8, 2, 2), [2, 2]))), _case("MaxPool", {"x": (0, 3, 4, 4)}, {"kernel_shape": [2, 2]}, 2),
    *(_case("Resize", {"x": x, "": (), "scales": ("w", np.array([1, 1, *by], np.float32))}, {"mode": mode}, name=f"_{by}", ulps=4, sum_ulps=4) for mode in ("nearest", "linear") for x, by in (((0, 2, 3, 3), (2, 2)), ((1, 1, 1, 1), (3, 2)), ((1, 1, 4, 4), (0.25, 0.25)), ((1, 1, 1, 1), (1, 1)))),
    _case("GridSample", {"x": (0, 2, 3, 3), "g": (0, 2, 2, 2)}), _case("GridSample", {"x": (1, 1, 1, 1), "g": np.zeros((1, 1, 1, 2), np.float32)}, ulps=2), _case("GridSample", {"x": (1, 0, 3, 3), "g": np.zeros((1, 2, 2, 2), np.float32)}), _case("GridSample", {"x": (1, 1, 1, 1), "g": np.array([[[[0.5, -2]]]], np.float32)}, {"padding_mode": "reflection", "align_corners": 1}, ulps=2, name="_reflected"),
    _case("RoiAlign", {"x": (1, 2, 4, 4), "r": np.zeros((0, 4), np.float32), "i": np.zeros(0, np.int64)}), _case("RoiAlign", {"x": (1, 1, 1, 1), "r": np.array([[0, 0, 1, 1]], np.float32), "i": np.array([0])}, ulps=4),
    _case("QuantizeLinear", {"x": (0,), "s": ("w", np.float32(0.1)), "z": ("w", np.uint8(3))}), _case("QuantizeLinear", {"x": (), "s": ("w", np.float32(0.1)), "z": ("w", np.uint8(3))}), _case("DequantizeLinear", {"x": np.zeros((0, 2), np.uint8), "s": ("w", np.float32(0.1))}),
    _case("DynamicQuantizeLinear", {"x": (1,)}, {}, 3), _case("MatMulInteger", {"a": np.zeros((0, 4), np.uint8), "b": np.zeros((4, 3), np.uint8)}), _case("MatMulInteger", {"a": np.full((1, 1), 3, np.uint8), "b": np.full((1, 1), 5, np.uint8)}, name="_one"),
    _case("Det", {"x": (1, 1)}), _case("Det", {"x": (0, 3, 3)}), _case("Det", {"x": (2, 1, 1)}),
    *(_case(op, {"x": (steps, batch, 3), "w": ("w", (1, cols, 3)), "r": ("w", (1, cols, 1))}, {"hidden_size": 1}, 2, ulps=64, sum_ulps=64) for op, cols in (("RNN", 1), ("GRU", 3), ("LSTM", 4)) for steps, batch in ((1, 1),)),
    *(_case("Attention", {"q": q, "k": k, "v": k}, opset=23, ulps=64, sum_ulps=64) for q, k in (((1, 1, 1, 8), (1, 1, 1, 8)), ((2, 1, 5, 8), (2, 1, 1, 8)), ((1, 1, 1, 1), (1, 1, 1, 1)))),
    _case("RotaryEmbedding", {"x": (1, 1, 1, 2), "c": ("w", (1, 1, 1)), "s": ("w", (1, 1, 1))}, opset=23, ulps=4, sum_ulps=4),
)  # fmt: skip
DEGENERATE = (*POINTWISE, *REDUCED, *MOVED, *MULTIPLIED)
