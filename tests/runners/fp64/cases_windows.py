"""Convolutions, poolings, resampling."""

from __future__ import annotations

import numpy as np

from tests.runners.fp64.cases import case, f, ints

_X1, _X2, _X3 = f(2, 4, 11), f(2, 4, 9, 8), f(1, 4, 6, 5, 7)
_U8, _I8 = ints(1, 4, 7, 6, low=0, high=255, dtype=np.uint8), ints(6, 4, 3, 3, low=-128, high=127, dtype=np.int8)

CONVOLUTION = [
    case("Conv", _X1, f(6, 4, 3)),
    case("Conv", _X1, f(6, 4, 3), f(6), pads=[2, 1], strides=[2], dilations=[2]),
    case("Conv", _X1, f(8, 1, 5), group=4, auto_pad="SAME_UPPER"),
    case("Conv", _X1, f(6, 4, 1)),
    case("Conv", _X2, f(6, 4, 3, 3), f(6), pads=[1, 1, 1, 1]),
    case("Conv", _X2, f(6, 4, 3, 2), pads=[0, 1, 2, 1], strides=[2, 3]),
    case("Conv", _X2, f(6, 4, 3, 3), dilations=[2, 1], auto_pad="SAME_LOWER", strides=[2, 2], ort=False),
    case("Conv", _X2, f(6, 4, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", _X2, f(6, 4, 3, 3), auto_pad="VALID"),
    case("Conv", _X2, f(6, 2, 3, 3), f(6), group=2),
    case("Conv", _X2, f(4, 1, 3, 3), f(4), group=4, pads=[1, 1, 1, 1], strides=[2, 1]),
    case("Conv", _X2, f(8, 1, 3, 3), group=4, kernel_shape=[3, 3]),
    case("Conv", _X2, f(6, 4, 1, 1), strides=[2, 2], opset=7),
    case("Conv", f(0, 4, 5, 5), f(6, 4, 3, 3), discrete=True),
    case("Conv", f(7, 4, 90, 90), f(2, 4, 7, 7)),  # several items, more than one block of copied windows
    case("Conv", f(1, 8, 200, 200), f(2, 8, 11, 11)),  # one item in several blocks of rows
    case("Conv", _X3, f(6, 4, 3, 2, 3), f(6), pads=[1, 0, 1, 0, 1, 1], strides=[1, 2, 2]),
    case("Conv", _X3, f(4, 2, 2, 2, 2), group=2, dilations=[2, 1, 2], strides=[1, 2, 1]),
    case("ConvTranspose", _X1, f(4, 3, 3)),
    case("ConvTranspose", _X1, f(4, 3, 4), f(3), strides=[2], pads=[1, 2], output_padding=[1]),
    case("ConvTranspose", _X2, f(4, 3, 3, 3), f(3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    case("ConvTranspose", _X2, f(4, 3, 3, 2), dilations=[2, 2], strides=[1, 2]),
    case("ConvTranspose", _X2, f(4, 2, 3, 3), f(4), group=2, strides=[3, 2]),
    case("ConvTranspose", _X2, f(4, 1, 3, 3), group=4, strides=[2, 2]),
    case("ConvTranspose", _X2, f(4, 3, 4, 4), strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", _X2, f(4, 3, 3, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
    case("ConvTranspose", _X2, f(4, 3, 3, 3), strides=[2, 2], output_shape=[18, 17]),
    case("ConvTranspose", _X2, f(4, 3, 3, 3), strides=[2, 2], output_shape=[17, 16], auto_pad="SAME_UPPER"),
    case("ConvTranspose", _X3, f(4, 2, 3, 2, 3), strides=[2, 1, 2], pads=[1, 0, 1, 1, 0, 1]),
    case("ConvInteger", _U8, _I8.astype(np.uint8), np.uint8(3), np.uint8(120), pads=[1, 1, 1, 1], discrete=True),
    case("ConvInteger", _U8, _I8.astype(np.uint8), discrete=True, opset=10),
    case(
        "QLinearConv",
        _U8,
        0.05,
        np.uint8(120),
        _I8 // 2,  # 7 bits: without VNNI, ONNX Runtime's sums of two products saturate at 16
        f(6, low=0.02, high=0.06),
        np.zeros(6, np.int8),
        0.5,
        np.uint8(110),
        ints(6, low=-300, high=300, dtype=np.int32),
        discrete=True,
        strides=[2, 1],
    ),
]

_D = f(2, 4, 7, 6)
DEFORMABLE = [
    case("DeformConv", _D, f(3, 4, 2, 2), f(2, 8, 6, 5), f(3)),
    case(
        "DeformConv",
        _D,
        f(4, 2, 3, 3),
        f(2, 36, 4, 6),
        None,
        f(2, 18, 4, 6),
        group=2,
        offset_group=2,
        pads=[1, 1, 1, 1],
        strides=[2, 1],
        opset=19,
    ),
    case("DeformConv", _D, f(3, 4, 2, 3), f(2, 12, 5, 2), dilations=[2, 2]),
]

_P = f(2, 3, 10, 9)
POOLING = [
    *(
        case(op, f(1, 2, 7, 7), kernel_shape=[2, 2], strides=[4, 4], ceil_mode=1)  # the last window would start outside
        for op in ("MaxPool", "AveragePool", "LpPool")
    ),
    case("MaxPool", f(2, 3, 10), kernel_shape=[3], strides=[2]),
    case("MaxPool", _P, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("MaxPool", _P, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("MaxPool", _P, kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1, pads=[0, 1, 0, 1]),
    case("MaxPool", _P, kernel_shape=[3, 3], dilations=[2, 3], strides=[1, 2]),
    case("MaxPool", _P, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("MaxPool", _P, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER", opset=8),
    case("MaxPool", _P, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], outputs=2),
    case("MaxPool", np.round(_P), kernel_shape=[3, 3], strides=[2, 2], outputs=2),  # ties
    case("MaxPool", _P, kernel_shape=[3, 2], strides=[2, 1], storage_order=1, outputs=2),
    case("MaxPool", f(1, 2, 6, 5, 4), kernel_shape=[2, 3, 2], strides=[2, 1, 2], outputs=2),
    case("MaxPool", ints(1, 2, 6, 6, dtype=np.int8), kernel_shape=[2, 2], pads=[1, 1, 0, 0], discrete=True),
    case("AveragePool", f(2, 3, 10), kernel_shape=[4], strides=[3], pads=[1, 2]),
    case("AveragePool", _P, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("AveragePool", _P, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1),
    case("AveragePool", _P, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    case("AveragePool", _P, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1], count_include_pad=1),
    case("AveragePool", _P, kernel_shape=[3, 3], dilations=[2, 1], pads=[1, 1, 1, 1]),
    case("AveragePool", _P, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("AveragePool", _P, kernel_shape=[4, 3], strides=[3, 2], auto_pad="SAME_LOWER", opset=7),
    case("AveragePool", f(1, 2, 6, 5, 4), kernel_shape=[2, 3, 2], strides=[2, 1, 2], pads=[1, 1, 1, 0, 1, 0]),
    case("LpPool", _P, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
    case("LpPool", _P, kernel_shape=[3, 2], p=1, opset=18),
    case("LpPool", _P, kernel_shape=[3, 2], p=3, dilations=[2, 1], opset=18),
    case("GlobalAveragePool", _P),
    case("GlobalMaxPool", f(2, 3, 4, 3, 2)),
    case("GlobalLpPool", _P, p=3),
    case("MaxUnpool", f(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]]), kernel_shape=[2, 2], strides=[2, 2]),
    case(
        "MaxUnpool",
        f(1, 1, 2, 2),
        np.array([[[[6, 8], [16, 18]]]]),
        [1, 1, 5, 5],
        kernel_shape=[2, 2],
        strides=[2, 2],
        double=False,
    ),
]

_R, _EMPTY = f(1, 2, 5, 7), np.zeros(0, np.float32)


def _resize(scales=None, sizes=None, x=_R, **attributes):
    given = np.array(scales, np.float32) if scales is not None else None
    # ONNX Runtime computes places in float32: up to 1e-6 of an element, times the steepest slope.
    return case("Resize", x, None, given, sizes, tolerance=2e-5, **{"opset": 19, **attributes})


RESAMPLING = [
    *(
        _resize([1, 1, 2.0, 0.7], mode=mode, coordinate_transformation_mode=where)
        for mode in ("nearest", "linear", "cubic")
        for where in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    ),
    *(
        _resize([1, 1, 1.6, 0.6], nearest_mode=nearest, coordinate_transformation_mode=where, mode="nearest")
        for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        for where in ("half_pixel", "asymmetric", "align_corners")
    ),
    *(
        _resize(
            [1, 1, scale, 1.0],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
            x=f(1, 1, 40, 2),
        )
        for scale in (0.7, 1.1, 1.4, 0.3, 3.3)
    ),
    _resize(sizes=[1, 2, 9, 4], mode="linear"),
    _resize(sizes=[1, 2, 9, 4], mode="nearest"),
    _resize(sizes=[9, 4], mode="cubic", axes=[2, 3], cubic_coeff_a=-0.5),
    _resize(sizes=[4, 9], mode="linear", axes=[3, 2]),
    _resize(sizes=[9, 9], mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
    _resize(sizes=[9, 9], mode="nearest", axes=[2, 3], keep_aspect_ratio_policy="not_smaller"),
    _resize([1, 1, 0.5, 2.0], mode="cubic", exclude_outside=1),
    _resize([2.0, 1.5, 2.0], x=f(3, 4, 5), mode="linear"),
    case("Resize", _R, _EMPTY, np.array([1, 1, 2, 2], np.float32), mode="linear", opset=11, tolerance=2e-5),
    _resize([1, 1, 2.0, 2.0], mode="nearest", opset=13),
    case("Resize", _R, np.array([1, 1, 2, 3], np.float32), mode="nearest", opset=10),
    case("Resize", _R, np.array([1, 1, 2, 1.5], np.float32), mode="linear", opset=10, tolerance=2e-5),
    case(
        "Resize",
        _R,
        np.array([0, 0, 0.1, 0.3, 1, 1, 0.9, 1.4], np.float32),
        None,
        [1, 2, 6, 6],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=3.0,
        tolerance=2e-5,
        discrete=True,
    ),
    case("Upsample", _R, np.array([1, 1, 2, 3], np.float32), mode="nearest", opset=9),
    case("Upsample", _R, mode="linear", scales=[1.0, 1.0, 2.0, 2.0], opset=7),
    *(
        case(
            "GridSample",
            _R,
            f(1, 4, 3, 2, low=-1.3, high=1.3),
            mode=mode,
            padding_mode=padding,
            align_corners=corners,
            opset=20,
            tolerance=2e-5,
        )
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
    ),
    case("GridSample", _R, f(1, 4, 3, 2, low=-1, high=1), mode="bilinear", opset=16, tolerance=2e-5),
    case("GridSample", f(1, 2, 4, 5, 3), f(1, 2, 3, 4, 3, low=-1.2, high=1.2), mode="linear", opset=20, tolerance=2e-5),
    case("AffineGrid", f(2, 2, 3), [2, 3, 4, 5], opset=20, align_corners=1),
    case("AffineGrid", f(1, 3, 4), [1, 3, 2, 4, 5], opset=20),
]
