"""Rows of the table for strange floats: infinities, NaN of both signs, both zeros, what is below the normal numbers of each format, the edges of FP16 and
ties of BF16, through every family. As cases.py."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.engine.cuda.cases import case_of, listed

_BITS = np.array([0x7FC00000, 0xFFC00000, 0x7FC12345, 0xFFFFFFFF], np.uint32).view(np.float32)  # NaN
_EDGES = (
    # FP16: the largest, what rounds to it, what rounds to Inf; the least normal number, the least, half of it (to even: 0) and a little more
    65504.0, 65519.996, 65520.0, 65536.0, 2.0**-14, 2.0**-14 - 2.0**-25, 2.0**-24, 2.0**-25, 2.0**-25 * 1.0001, 3 * 2.0**-25, 1e-7,
    # FP16 and BF16: ties to even, down and up
    1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-8, 1 + 3 * 2.0**-8,
    # BF16 and FP32: the largest, what rounds to Inf; the least normal number, below it, the least of each
    3.3895314e38, 3.3961775e38, 3.4028235e38, 2.0**-126, 1e-40, 9.18e-41, 4.6e-41, 1.4e-45,
)  # fmt: skip
_PLAIN = (1.0, 0.5, 3.0, 7.25, 100.0)
STRANGE = np.array([0.0, np.inf, *_EDGES, *_PLAIN], np.float32)
STRANGE = np.concatenate([STRANGE, -STRANGE, _BITS])
FINITE = STRANGE[np.isfinite(STRANGE)]
_SMALL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1.0, -2.0, 6e-8, -3e-5, 65504.0, 1e-40, 3e38, -3e38, 0.5], np.float32
)
_MILD = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1.0, -2.0, 6e-8, -3e-5, 1e-40], np.float32
)  # sums of the others stay near
_NUMBERS = np.array([0.0, -0.0, np.inf, -np.inf, 1.0, -2.0, 6e-8, -3e-5, 65504.0, 1e-40, 3e38, -3e38], np.float32)
_RANDOM = np.random.default_rng(17)


def _some(*shape: int, odd: float = 0.1, of: np.ndarray = _MILD) -> np.ndarray:
    """Plain numbers, strange ones among them."""
    made = _RANDOM.standard_normal(shape).astype(np.float32)
    places = _RANDOM.random(shape) < odd
    made[places] = _RANDOM.choice(of, int(places.sum()))
    return made


_case = partial(case_of, about="strange")
_BOTH = {"x": STRANGE.reshape(-1, 1), "y": STRANGE.reshape(1, -1)}
POINTWISE = (
    *(_case(op, {"x": STRANGE}) for op in ("Relu", "Abs", "Neg", "Floor", "Ceil", "Round", "Reciprocal", "Sqrt", "Sign", "Identity", "IsNaN", "IsInf")),
    *(_case(op, {"x": STRANGE}, ulps=24) for op in ("Exp", "Log", "Erf", "Atan", "Sinh", "Cosh", "Asinh", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "LeakyRelu", "ThresholdedRelu", "Shrink")),
    # of what is next to 0 ONNX Runtime loses digits: test_strange.py compares them with numpy
    _case("Gelu", {"x": STRANGE}, opset=20, ulps=512), *(_case(op, {"x": np.where(abs(STRANGE) < 1e-3, np.float32(1), STRANGE)}, opset=20, ulps=512) for op in ("Tanh", "Elu", "Selu", "Sigmoid")),
    *(_case(op, _BOTH) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual")),
    _case("Clip", {"x": STRANGE, "low": ("w", np.float32(-1)), "high": ("w", np.float32(2))}), _case("Clip", {"x": STRANGE, "low": ("w", np.float32(0))}, name="_0"),
    _case("Where", {"c": np.arange(STRANGE.size) % 2 > 0, "x": STRANGE, "y": STRANGE[::-1].copy()}), _case("PRelu", {"x": STRANGE, "slope": ("w", np.array([0.25], np.float32))}),
    _case("Pow", {"x": STRANGE, "y": ("w", np.float32(2))}, name="_2"), _case("Pow", {"x": STRANGE, "y": ("w", np.float32(0.5))}, ulps=8, name="_half"), _case("Mean", {"x": STRANGE, "y": STRANGE[::-1].copy()}, ulps=2),
)  # fmt: skip
MOVED = (
    _case("Transpose", {"x": _some(33, 40, of=_SMALL)}, {"perm": [1, 0]}), _case("Concat", {"x": STRANGE, "y": STRANGE}, {"axis": 0}), _case("Slice", {"x": STRANGE, "starts": listed(-1), "ends": listed(-999), "axes": listed(0), "steps": listed(-1)}),
    _case("Gather", {"x": STRANGE, "i": np.arange(STRANGE.size)[::-1].copy()}), _case("Expand", {"x": STRANGE, "shape": listed(3, STRANGE.size)}), _case("Tile", {"x": STRANGE, "repeats": listed(2)}),
    *(_case("Pad", {"x": STRANGE, "pads": listed(3, 2), "value": ("w", np.float32(value))}, name=f"_{value}") for value in (np.inf, -np.inf, np.nan, -0.0, 6e-8, 65520.0)),
    _case("Pad", {"x": STRANGE, "pads": listed(3, 2)}, {"mode": "reflect"}), _case("ScatterElements", {"x": STRANGE, "i": np.array([3, 1]), "u": _SMALL[4:6]}), _case("GatherElements", {"x": STRANGE, "i": np.array([30, 1, 2])}), _case("ReverseSequence", {"x": _some(6, 5, of=_SMALL), "l": np.array([6, 1, 3, 2, 5])}),
    _case("Resize", {"x": _some(1, 2, 5, 7, of=_SMALL), "": (), "scales": ("w", np.array([1, 1, 2, 3], np.float32))}, {"mode": "nearest"}), _case("Trilu", {"x": _some(9, 9, of=_SMALL)}), _case("DepthToSpace", {"x": _some(1, 4, 3, 3, of=_SMALL)}, {"blocksize": 2}),
)  # fmt: skip
REDUCED = (
    *(_case(op, {"x": _some(40, 70, odd=0.02), "axes": listed(axis)}, name=f"_{axis}", ulps=8, sum_ulps=32) for op in ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSumExp") for axis in (0, 1)),
    *(_case(op, {"x": _some(40, 70, odd=0.02, of=_NUMBERS), "axes": listed(axis)}, name=f"_{axis}") for op in ("ReduceMax", "ReduceMin") for axis in (0, 1)),
    *(_case(op, {"x": np.full((2, 40), value, np.float32), "axes": listed(1)}, name=f"_{value}", ulps=4, sum_ulps=8) for op in ("ReduceSum", "ReduceMax", "ReduceMean", "ReduceLogSumExp") for value in (-0.0, 6e-8, 1e-40, -np.inf, 65504.0)),
    *(_case(op, {"x": _some(40, 70, odd=0.02)}, {"axis": 1}) for op in ("ArgMax", "ArgMin")), _case("ArgMax", {"x": _some(40, 70, odd=0.02)}, {"axis": 0}), _case("Hardmax", {"x": _some(40, 70, odd=0.02, of=_NUMBERS)}),
    *(_case(op, {"x": _some(*shape, odd=0.02)}, {"axis": axis}, ulps=64, sum_ulps=4) for op in ("Softmax", "LogSoftmax") for shape, axis in (((60, 40), 1), ((20, 50), 0), ((3, 9000), 1))),
    _case("Softmax", {"x": np.array([[np.inf, 1, 2], [-np.inf, -np.inf, 3], [np.nan, 0, 1], [3e38, -3e38, 3e38], [-np.inf] * 3], np.float32)}, ulps=64, sum_ulps=4, name="_rows"),
    _case("CumSum", {"x": _some(20, 40, odd=0.02), "axis": ("w", np.int64(1))}, sum_ulps=32), _case("LayerNormalization", {"x": _some(60, 33, odd=0.01), "s": ("w", (33,)), "b": ("w", (33,))}, ulps=16, sum_ulps=16), _case("LayerNormalization", {"x": np.full((3, 40), 6e-8, np.float32), "s": ("w", (40,)), "b": ("w", (40,))}, ulps=16, sum_ulps=16, name="_least"),
    _case("InstanceNormalization", {"x": _some(12, 3, 4, 5, odd=0.01), "s": ("w", (3,)), "b": ("w", (3,))}, ulps=16, sum_ulps=16), _case("BatchNormalization", {"x": _some(12, 3, 5), "s": ("w", (3,)), "b": ("w", (3,)), "m": ("w", (3,)), "v": ("w", np.ones(3, np.float32))}, ulps=4, sum_ulps=4), _case("LpNormalization", {"x": _some(60, 33, odd=0.01)}, ulps=8),
    _case("LRN", {"x": _some(4, 5, 6, 7, odd=0.05, of=np.array([0.0, 6e-8, 1e-40, 8.0], np.float32))}, {"size": 3}, ulps=16), *(_case(op, {"x": _some(2, 3, 9, 11, odd=0.05)}, {"kernel_shape": [2, 2], "strides": [2, 2]}, ulps=4, sum_ulps=4) for op in ("AveragePool", "LpPool")), _case("GlobalAveragePool", {"x": _some(9, 5, 4, 4, odd=0.02)}, ulps=4, sum_ulps=8), _case("GlobalMaxPool", {"x": _some(9, 5, 4, 4, odd=0.02, of=_NUMBERS)}),
    _case("MaxPool", {"x": _some(2, 3, 9, 11, odd=0.05, of=_NUMBERS)}, {"kernel_shape": [2, 2], "strides": [2, 2]}), _case("MaxPool", {"x": _some(2, 8, 9, 11, odd=0.05, of=_NUMBERS)}, {"kernel_shape": [3, 3]}, name="_overlapping"),
    *(_case("TopK", {"x": STRANGE[:-4], "k": listed(STRANGE.size // 2)}, {"largest": largest}, 2) for largest in (0, 1)), _case("Det", {"x": _some(12, 3, 3, odd=0.05)}, ulps=64),
)  # fmt: skip
_LITTLE = (_RANDOM.integers(1, 40, (8, 16)) * 2.0**-24).astype(np.float32)  # below the normal numbers of FP16
MULTIPLIED = (
    *(_case("MatMul", {"a": _some(*a, odd=0.004), "b": _some(*b, odd=0.0)}, name=f"_{b}".replace(" ", ""), sum_ulps=64) for a, b in (((64, 40), (40, 24)), ((64, 40), (40, 5)), ((3, 64, 40), (3, 40, 8)))),
    _case("MatMul", {"a": _LITTLE, "b": np.full((16, 8), 1.0, np.float32)}, sum_ulps=4, name="_little"), _case("MatMul", {"a": _LITTLE, "b": np.full((16, 8), 256.0, np.float32)}, sum_ulps=4, name="_little_more"), _case("MatMul", {"a": np.full((8, 16), 60000, np.float32), "b": np.full((16, 8), 60000, np.float32)}, sum_ulps=4, name="_much"),
    *(_case("MatMul", {"a": np.full((m, 32), 2e-39, np.float32), "b": np.full((32, n), 3.0, np.float32)}, sum_ulps=4, name=f"_least_{m}") for m, n in ((8, 5), (64, 64), (300, 256))),
    _case("MatMul", {"a": np.array([[np.inf, 0], [0, np.inf]], np.float32), "b": np.array([[0, 1], [1, -np.inf]], np.float32)}, name="_inf"), _case("Gemm", {"a": _some(20, 16, odd=0.01), "b": ("w", (16, 8)), "c": ("w", np.array([np.inf, -np.inf, np.nan, 0, -0.0, 1, 65504, 6e-8], np.float32))}, sum_ulps=64),
    *(_case("Conv", {"x": _some(*x, odd=0.004), "w": ("w", w)}, {"pads": [1, 1, 1, 1], "group": group}, name=f"_{x[1]}", sum_ulps=64, scale=0.5) for x, w, group in (((1, 3, 9, 9), (8, 3, 3, 3), 1), ((1, 16, 9, 9), (8, 16, 3, 3), 1), ((1, 16, 9, 9), (16, 1, 3, 3), 16), ((1, 8, 6, 6), (3, 8, 3, 3), 1))),
    _case("ConvTranspose", {"x": _some(1, 8, 5, 5, odd=0.02), "w": ("w", (8, 8, 2, 2))}, {"strides": [2, 2]}, sum_ulps=64, scale=0.5), _case("Resize", {"x": _some(1, 2, 9, 9, odd=0.02), "": (), "scales": ("w", np.array([1, 1, 1.5, 1.7], np.float32))}, {"mode": "linear"}, ulps=4, sum_ulps=4),
    _case("GridSample", {"x": _some(1, 2, 6, 6, odd=0.05), "g": (_RANDOM.integers(-60, 60, (1, 5, 5, 2)) / 64).astype(np.float32)}, ulps=4, sum_ulps=2), _case("QuantizeLinear", {"x": STRANGE[~np.isnan(STRANGE)], "s": ("w", np.float32(0.5)), "z": ("w", np.uint8(3))}),
    _case("RNN", {"x": _some(3, 4, 8, odd=0.02), "w": ("w", (1, 8, 8)), "r": ("w", (1, 8, 8))}, {"hidden_size": 8}, 2, ulps=64, sum_ulps=64, scale=0.3),
    _case("Attention", {"q": _some(1, 2, 20, 16, odd=0.001), "k": _some(1, 2, 24, 16, odd=0.0), "v": _some(1, 2, 24, 16, odd=0.0)}, opset=23, ulps=64, sum_ulps=64),
    _case("Attention", {"q": _some(1, 2, 20, 16, odd=0.0), "k": _some(1, 2, 24, 16, odd=0.0), "v": _some(1, 2, 24, 16, odd=0.002)}, opset=23, ulps=64, sum_ulps=64, name="_values"),
)  # fmt: skip
STRANGELY = (*POINTWISE, *MOVED, *REDUCED, *MULTIPLIED)
