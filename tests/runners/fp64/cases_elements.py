"""Elementwise operators, reductions, selections, moves, casts and quantisation."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import TensorProto as T

from tests.runners.fp64.cases import case, f, flags, ints

_X, _Y = f(3, 4, 5), f(4, 1)
_POSITIVE, _UNIT = f(3, 4, low=0.1, high=5), f(3, 4, low=-0.99, high=0.99)
_ODD = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e-30, 0.5, -2.5, 89.0, -104.0, 700.0], np.float32)

UNARY = [
    *(
        case(op, _X)
        for op in "Abs Neg Exp Sin Cos Tan Sinh Cosh Tanh Atan Asinh Erf Relu Sigmoid Softplus Softsign Reciprocal "
        "HardSwish Mish Identity Elu Selu Celu LeakyRelu ThresholdedRelu HardSigmoid Shrink Gelu".split()
    ),
    *(case(op, _X, discrete=True) for op in "Floor Ceil Round Sign IsNaN IsInf".split()),
    *(case(op, _POSITIVE) for op in ("Log", "Sqrt")),
    *(case(op, _UNIT) for op in ("Asin", "Acos", "Atanh")),
    *(
        case(op, _ODD, discrete=True)
        for op in "Abs Neg Floor Ceil Sign Round IsNaN IsInf Reciprocal Sigmoid Tanh Erf Softsign".split()
    ),
    case("Round", np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32), discrete=True),
    case("Acosh", f(3, 4, low=1.1, high=9)),
    case("Gelu", _X, approximate="tanh", opset=20, double=False),
    case("Elu", _X, alpha=0.4),
    case("Celu", _X, alpha=0.7),
    case("LeakyRelu", _X, alpha=0.2),
    case("Selu", _X, alpha=1.1, gamma=0.9),
    case("ThresholdedRelu", _X, alpha=0.3),
    case("HardSigmoid", _X, alpha=0.3, beta=0.4),
    case("Shrink", _X, lambd=0.8, bias=0.2, double=False),
    case("IsInf", _ODD, detect_negative=0, discrete=True),
    case("Swish", _X, alpha=1.5, opset=24, ort=False),
    case("Abs", ints(5, dtype=np.int8), discrete=True),
    case("Neg", ints(5, dtype=np.int32), discrete=True),
    case("Relu", ints(5, dtype=np.int32), discrete=True),
    case("Sign", ints(5), discrete=True),
    case("Not", flags(4), discrete=True),
    case("BitwiseNot", ints(5, dtype=np.int16), discrete=True),
]

_N, _M = ints(3, 4), np.where(ints(4) == 0, 3, ints(4))
BINARY = [
    *(case(op, _X, _Y) for op in ("Add", "Sub", "Mul", "Div", "PRelu")),
    *(case(op, _X, _Y, f(1)) for op in ("Sum", "Mean", "Max", "Min")),
    *(case(op, _X, _Y, discrete=True) for op in "Equal Less LessOrEqual Greater GreaterOrEqual".split()),
    *(case(op, flags(3, 4), flags(4), discrete=True) for op in "And Or Xor Equal".split()),
    *(
        case(op, ints(4), ints(3, 4), discrete=True)
        for op in "BitwiseAnd BitwiseOr BitwiseXor Add Mul Max Less".split()
    ),
    case("Max", _X),
    case("Div", _N, _M, discrete=True),
    case("Div", _N.astype(np.int32), _M.astype(np.int32), discrete=True),
    case("Div", np.array([7, 200], np.uint8), np.array([2, 7], np.uint8), discrete=True),
    case("Add", np.array([2**31 - 1], np.int32), np.array([1], np.int32), discrete=True),
    case("Mul", np.array([2**62], np.int64), np.array([3], np.int64), discrete=True),
    case("Mod", _N, _M, discrete=True),
    case("Mod", _N, _M, fmod=1, discrete=True),
    case("Mod", _X, _Y, fmod=1, tolerance=1e-5),
    case("Pow", _POSITIVE, f(4)),
    case("Pow", _X, np.int64(3)),
    case("Pow", _X, 2.0, discrete=True),
    case("Pow", ints(4, low=0), np.int64(2), discrete=True),
    case("Pow", ints(4, low=1), 0.5, discrete=True),
    case("BitShift", np.array([1, 200], np.uint8), np.array([3, 1], np.uint8), direction="LEFT", discrete=True),
    case("BitShift", np.array([16, 200], np.uint32), np.array([3, 1], np.uint32), direction="RIGHT", discrete=True),
    case("Clip", _X, -0.5, 0.7),
    case("Clip", _X, None, 0.7),
    case("Clip", _X, 1.0, -1.0, discrete=True),
    case("Clip", _X),
    case("Clip", _X, min=-0.3, max=0.4, opset=7),
    case("Clip", ints(9), np.int64(-2), np.int64(5), discrete=True),
    case("Where", flags(3, 4, 1), _X, f(5)),
]

_FOUR = f(2, 3, 4, 5)
_REDUCE = "ReduceSum ReduceMean ReduceProd ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare".split()
REDUCTION = [
    *(case(op, _FOUR, [1, -1], opset=18) for op in _REDUCE),
    *(case(op, _FOUR, opset=18, keepdims=0) for op in (*_REDUCE, "ReduceLogSumExp")),
    *(case(op, _FOUR, axes=[0, 2], opset=11, keepdims=0) for op in (*_REDUCE, "ReduceLogSumExp")),
    case("ReduceLogSum", f(3, 4, low=0.2, high=3), [1], opset=18),
    case("ReduceLogSumExp", _FOUR * 100, [2, 3], opset=18),
    case("ReduceSum", _FOUR, np.zeros(0, np.int64), noop_with_empty_axes=1),
    case("ReduceSum", _FOUR, axes=[1], opset=11),
    case("ReduceSum", ints(3, 4, dtype=np.int32), [0], discrete=True),
    case("ReduceMean", ints(3, 4), [1], discrete=True, opset=18),
    case("ReduceMax", ints(3, 4, dtype=np.int8), [1], discrete=True, opset=18),
    case("ReduceProd", ints(3, 4), [0], discrete=True, opset=18),
    *(
        case(op, np.round(_FOUR * 2), axis=axis, keepdims=keep, select_last_index=last, discrete=True)
        for op in ("ArgMax", "ArgMin")
        for axis, keep, last in ((1, 1, 0), (-1, 0, 1))
    ),
    case("TopK", np.round(_FOUR * 4), [3], outputs=2, axis=-1),
    case("TopK", _FOUR, [2], outputs=2, axis=1, largest=0),
    case("TopK", ints(3, 9, low=-5, high=5), [4], outputs=2, discrete=True),
    case("TopK", _FOUR, [2], outputs=2, axis=2, opset=10),
    case("CumSum", _FOUR, np.int64(2)),
    case("CumSum", _FOUR, np.int64(-1), exclusive=1, reverse=1),
    case("CumSum", ints(4), np.int64(0), discrete=True),
]

_IMAGE = f(2, 8, 3, 2)
MOVE = [
    case("Reshape", _X, [0, -1]),
    case("Reshape", _X, [2, 2, -1]),
    case("Reshape", f(0, 3), [3, 0], allowzero=1, discrete=True),
    case("Transpose", _X),
    case("Transpose", _X, perm=[1, 2, 0]),
    case("Squeeze", f(1, 3, 1)),
    case("Squeeze", f(1, 3, 1), [-1]),
    case("Squeeze", f(1, 3, 1), axes=[0], opset=11),
    case("Unsqueeze", _X, [0, -1]),
    case("Unsqueeze", _X, axes=[1, 3], opset=11),
    case("Flatten", _X),
    case("Flatten", _X, axis=-1),
    case("Flatten", _X, axis=0),
    case("Expand", _Y, [2, 1, 3]),
    case("Expand", _X, [1]),
    case("Concat", _X, f(3, 2, 5), axis=1),
    case("Tile", _Y, [2, 3]),
    case("Shape", _X, discrete=True),
    case("Shape", _X, start=-2, end=3, discrete=True),
    case("Size", _X, discrete=True),
    case("Split", f(7, 2), outputs=3, axis=0, num_outputs=3, opset=18),
    case("Split", f(2, 6), [1, 3, 2], axis=1, outputs=3),
    case("Split", f(2, 6), outputs=2, axis=-1, opset=11),
    case("Split", f(2, 6), split=[4, 2], outputs=2, axis=1, opset=7),
    case("Slice", _X, [1, 0], [9, -1]),
    case("Slice", _X, [-1], [-9], [1], [-1]),
    case("Slice", _X, [3, 4], [0, -99], [1, 2], [-2, -1]),
    case("Slice", _X, [0], [2**31], [-1], [2]),
    case("Slice", _X, [2], [1], [0], discrete=True),
    case("Slice", _X, starts=[1], ends=[3], axes=[1], opset=9),
    case("Slice", _X, [0], [3], [1], [-1], discrete=True),
    case("Slice", _X, [9], [0], [1], [-1]),
    case("Pad", _X, [0, 1, 0, 2, 0, 1], 0.5),
    case("Pad", _X, [1, -1, 0, 0, 2, -1]),
    case("Pad", _X, [1, 2], None, [1], opset=18),
    *(case("Pad", _X, [0, 2, 1, 0, 1, 3], mode=mode, opset=19) for mode in ("reflect", "edge", "wrap")),
    case("Pad", _X, pads=[0, 1, 0, 0, 0, 1], value=0.25, opset=7),
    case("DepthToSpace", _IMAGE, blocksize=2),
    case("DepthToSpace", _IMAGE, blocksize=2, mode="CRD"),
    case("SpaceToDepth", f(1, 2, 4, 6), blocksize=2),
    case("Range", 1.0, 4.0, 0.4),
    case("Range", np.int64(9), np.int64(0), np.int64(-2), discrete=True),
    case("ConstantOfShape", [2, 3], discrete=True),
    case("ConstantOfShape", [2, 3], value=np.array([0.3], np.float32), discrete=True),
    case("EyeLike", f(3, 4), k=1, discrete=True),
    case("EyeLike", ints(3, 3), dtype=T.FLOAT, discrete=True, double=False),
    case("Trilu", _X),
    case("Trilu", _X, np.int64(-1), upper=0),
    case("ReverseSequence", f(4, 3, 2), [1, 4, 2]),
    case("ReverseSequence", f(3, 4), [1, 4, 2], batch_axis=0, time_axis=1),
    case("Dropout", _X, outputs=2, opset=13),
    case("Dropout", _X, outputs=2, opset=10),
    case("Dropout", _X, outputs=2, opset=7),
    case("CenterCropPad", f(5, 4), [3, 7], opset=18),
    case("CenterCropPad", f(5, 4), [2], axes=[1], opset=18),
    case("Gather", _X, np.array([[0, -1], [2, 1]]), axis=1),
    case("Gather", _X, np.int64(1)),
    case("GatherElements", _X, ints(3, 4, 2, low=-5, high=4), axis=2),
    case("GatherND", _X, np.array([[0, 1], [2, -1]])),
    case("GatherND", _X, ints(3, 2, 1, low=0, high=3), batch_dims=1),
    case("ScatterElements", _X, ints(1, 4, 5, low=-3, high=2), f(1, 4, 5)),
    case("Scatter", f(5), np.array([3, 0]), f(2), opset=9),
    *(
        case("ScatterElements", _X, ints(3, 9, 5, low=0, high=3), f(3, 9, 5), axis=1, reduction=how, opset=18)
        for how in ("add", "mul", "max", "min")
    ),
    case("ScatterND", _X, np.array([[0], [2]]), f(2, 4, 5)),
    case("ScatterND", _X, np.array([[0], [0]]), f(2, 4, 5), reduction="add", opset=18),
    case("NonZero", ints(3, 4, low=0, high=1), discrete=True),
    case("NonZero", np.float32(3), discrete=True, ort=False),
    case("OneHot", np.array([1, -1, 7]), np.int64(4), np.array([0.5, 2.5], np.float32)),
    case("OneHot", ints(2, 3, low=0, high=3), np.int64(4), np.array([0, 1]), axis=0, discrete=True),
    case("Compress", _X, np.array([True, False, True]), axis=0),
    case("Compress", _X, flags(9)),
]

_WIDE = np.array([0.4, -0.6, 1.5, -1.5, 2.5, 127.5, 254.6, -130.2, 300.0, -1e9, 1e9], np.float32)
_ZERO = np.zeros(2, np.int8)
QUANTISED = [
    *(
        case("Cast", np.array([0.9, -0.9, 1.5, -7.99, 100.2], np.float32), to=to, discrete=True)
        for to in (T.INT8, T.INT16, T.INT32, T.INT64, T.BOOL)
    ),
    case("Cast", ints(5), to=T.FLOAT, discrete=True),
    case("Cast", flags(5), to=T.INT32, discrete=True),
    case("Cast", ints(5, low=-500, high=500), to=T.UINT8, discrete=True),
    *(
        case("Cast", np.array([0.3, 500.0, -1e9, 1e-9, 17.3], np.float32), to=to, opset=19, discrete=True)
        for to in (T.FLOAT8E4M3FN, T.FLOAT8E5M2, T.FLOAT8E4M3FNUZ, T.FLOAT8E5M2FNUZ)
    ),
    case("CastLike", ints(4), f(1), opset=19, discrete=True),
    case("QuantizeLinear", _WIDE, 1.0, np.int8(0), discrete=True),
    case("QuantizeLinear", _WIDE, 1.0, np.uint8(128), discrete=True),
    case("QuantizeLinear", _WIDE, 1.0, opset=10, discrete=True),
    case("QuantizeLinear", _WIDE, 0.01, np.int16(5), discrete=True),
    case("QuantizeLinear", f(3, 2, 4) * 100, np.array([0.5, 2.0], np.float32), _ZERO, discrete=True),
    case("QuantizeLinear", f(3, 2) * 100, np.array([0.5, 2.0], np.float32), _ZERO, axis=-1, discrete=True),
    case(
        "QuantizeLinear",
        f(4, 6),
        f(2, 6, low=0.1, high=0.3),
        np.zeros((2, 6), np.int8),
        axis=0,
        block_size=2,
        discrete=True,
    ),
    case("QuantizeLinear", _WIDE, 1.0, np.zeros((), ml_dtypes.int4), discrete=True),
    case("QuantizeLinear", _WIDE, 1.0, output_dtype=T.INT8, discrete=True),
    case("QuantizeLinear", _WIDE, 1.0, np.zeros((), ml_dtypes.float8_e4m3fn), discrete=True),
    case("DequantizeLinear", ints(3, 2, dtype=np.int8), np.array([0.5, 0.2], np.float32), np.array([1, -3], np.int8)),
    case("DequantizeLinear", ints(6, dtype=np.uint8, low=0, high=255), 0.1, np.uint8(100)),
    case("DequantizeLinear", ints(6, dtype=np.int32), 0.1),
    case("DequantizeLinear", ints(4, 6, dtype=np.int8), f(2, 6, low=0.1, high=0.3), axis=0, block_size=2),
    case("DynamicQuantizeLinear", f(4, 5), outputs=3, discrete=True, double=False),
]

_WORDS = np.array(["one two", "three", ""], object)
SIGNALS = [
    case("TensorScatter", f(2, 5, 3), f(2, 2, 3), [1, 3], axis=1, opset=24),
    case("StringConcat", _WORDS, np.array(["!"], object), opset=20, discrete=True),
    case("RegexFullMatch", _WORDS, pattern="[a-z]+", opset=20, discrete=True),
    case("StringNormalizer", _WORDS, case_change_action="UPPER", opset=10, discrete=True, ort=False),
    case("StringSplit", _WORDS, outputs=2, opset=20, discrete=True),
    case("DFT", f(2, 8, 1), opset=17),
    case("DFT", f(2, 7, 2), np.int64(10), opset=17),
    case("DFT", f(2, 8, 1), onesided=1, opset=17),
    case("DFT", f(2, 8, 2), inverse=1, opset=17),
    case("DFT", f(2, 6, 4, 1), None, np.int64(2), opset=20),
    case("STFT", f(1, 40, 1), np.int64(5), f(16), opset=17, tolerance=1e-5),
    case("STFT", f(1, 40, 1), np.int64(8), None, np.int64(16), onesided=0, opset=17, tolerance=1e-5),
    *(
        case(op, np.int64(10), periodic=periodic, opset=17, discrete=True, double=False)
        for op in ("HannWindow", "HammingWindow", "BlackmanWindow")
        for periodic in (0, 1)
    ),
    case(
        "MelWeightMatrix",
        np.int64(8),
        np.int64(64),
        np.int64(8000),
        20.0,
        3800.0,
        opset=17,
        discrete=True,
        double=False,
    ),
    case("NonMaxSuppression", f(2, 30, 4, low=0, high=1), f(2, 3, 30), np.int64(5), 0.3, 0.1, discrete=True),
    case("NonMaxSuppression", f(1, 30, 4, low=0, high=1), f(1, 2, 30), [9], 0.2, center_point_box=1, discrete=True),
    case("NonMaxSuppression", f(1, 9, 4, low=0, high=1), f(1, 2, 9), discrete=True),
    case(
        "RoiAlign",
        f(1, 2, 8, 8),
        np.array([[0, 0, 5, 6], [1, 2, 7, 7]], np.float32),
        [0, 0],
        output_height=3,
        output_width=2,
        sampling_ratio=2,
        opset=16,
        tolerance=1e-5,
    ),
    case("Unique", ints(9), outputs=4, discrete=True),
    case("Unique", np.round(f(9)), sorted=1, discrete=True),
    case("Col2Im", f(1, 8, 9), [4, 4], [2, 2], opset=18),
    case("SoftmaxCrossEntropyLoss", f(3, 5), np.array([0, 4, 2]), opset=13),
    case("NegativeLogLikelihoodLoss", f(3, 5), np.array([0, 4, 2]), opset=13),
]
