"""Rows of the table for windows over three axes, and for pools that do more than take a maximum or a mean. As cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case


def _conv(x: tuple[int, ...], w: tuple[int, ...], *, bias: bool = True, **attributes: Any) -> Case:
    inputs: dict[str, Any] = {"x": x, "w": ("w", w)}
    if bias:
        inputs["b"] = ("w", (w[0],))
    return Case("Conv", inputs, attributes, sum_ulps=32, scale=0.5)


VOLUMES = (
    *(_conv((2, 3, 5, 6, 7), (16, 3, 3, 3, 3), pads=[1] * 6, bias=bias) for bias in (True, False)),
    _conv((1, 16, 5, 6, 7), (24, 16, 3, 2, 3), strides=[1, 2, 2], dilations=[2, 1, 1], pads=[1, 0, 1, 0, 1, 2]),
    _conv((1, 8, 4, 5, 6), (16, 4, 3, 3, 3), group=2, auto_pad="SAME_UPPER", strides=[2, 2, 2]),
    _conv((1, 8, 4, 5, 6), (8, 8, 2, 3, 4), auto_pad="SAME_LOWER", strides=[1, 2, 3]),
    _conv((1, 8, 4, 5, 6), (8, 1, 3, 3, 3), group=8, pads=[1] * 6), _conv((2, 24, 3, 4, 4), (16, 24, 1, 1, 1)),
    _conv((2, 24, 3, 4, 4), (16, 24, 1, 1, 1), strides=[2, 1, 1]), _conv((1, 4, 4, 5, 6), (3, 4, 1, 3, 3)),
    _conv((1, 8, 9, 3, 3), (40, 8, 5, 1, 1), pads=[2, 0, 0, 2, 0, 0]), _conv((1, 8, 6, 8, 9), (72, 8, 3, 3, 3)), _conv((0, 4, 3, 3, 3), (8, 4, 3, 3, 3)),
    *(
        Case("ConvTranspose", {"x": (2, 4, 3, 4, 3), "w": ("w", (4, 3, 3, 2, 2)), "b": ("w", (3 * more.get("group", 1),))}, more, sum_ulps=32, scale=0.5)
        for more in (
            {}, {"strides": [2, 3, 1]}, {"strides": [2, 2, 2], "pads": [1, 0, 1, 1, 1, 0], "output_padding": [1, 0, 1]},
            {"group": 2, "dilations": [2, 1, 3], "strides": [1, 2, 2]}, {"auto_pad": "SAME_UPPER", "strides": [2, 3, 2]},
        )
    ),
    *(
        Case("ConvTranspose", {"x": (1, 4, 5, 6), "w": ("w", (4, 3, 3, 4))}, {"strides": [2, 3], **more}, sum_ulps=32, scale=0.5)
        for more in (
            {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [10, 17]}, {"output_shape": [11, 19], "output_padding": [1, 1]},
            {"auto_pad": "SAME_UPPER", "output_shape": [10, 18]},
        )
    ),
    *(
        Case("ConvTranspose", {"x": (1, 16, 3, 4, 4), "w": ("w", (16, 8, *window)), "b": ("w", (8,))}, more, sum_ulps=32, scale=0.5, name=f"ConvTranspose_joined_{window}_{at}")
        for at, (window, more) in enumerate((
            ((2, 2, 2), {"strides": [2, 2, 2]}), ((1, 2, 2), {"strides": [1, 2, 2]}), ((3, 3, 3), {"strides": [2, 2, 2], "pads": [1] * 6, "output_padding": [1, 0, 1]}),
            ((2, 3, 4), {"strides": [2, 1, 3], "dilations": [1, 2, 2]}), ((2, 2, 2), {"strides": [2, 2, 2], "pads": [0, 1, 0, 0, 0, 1]}),
        ))
    ),
    *(
        Case("ConvTranspose", {"x": (2, 12, 5, 6), "w": ("w", (12, outputs, *window)), **({"b": ("w", (outputs,))} if outputs > 6 else {})}, more, sum_ulps=32, scale=0.5)
        for outputs, window, more in (
            (6, (4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}), (7, (3, 3), {"strides": [1, 1]}), (5, (2, 3), {"strides": [2, 3]}), (9, (2, 2), {"strides": [2, 2]}),
        )
    ),
)  # fmt: skip

DEEP = (  # whose windows bulk copies gather on sm_90a
    _conv((2, 8, 5, 6, 7), (16, 8, 3, 3, 3), pads=[1] * 6), _conv((1, 72, 5, 6, 7), (24, 72, 3, 2, 3), strides=[1, 2, 2], dilations=[2, 1, 1], pads=[1, 0, 1, 0, 1, 2]),
    _conv((1, 8, 4, 5, 6), (16, 8, 3, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2, 2], bias=False), _conv((2, 24, 3, 4, 4), (16, 24, 1, 1, 1), strides=[2, 1, 1]),
    _conv((2, 64, 9, 3, 3), (40, 64, 5, 1, 1), pads=[2, 0, 0, 2, 0, 0]), _conv((3, 40, 4, 13, 11), (8, 40, 1, 3, 3), pads=[0, 1, 1, 0, 1, 1]),
    _conv((1, 16, 4, 5, 6), (136, 16, 2, 3, 4), pads=[1, 2, 3, 0, 1, 2]),
)  # fmt: skip

_X = {"x": (2, 3, 6, 7, 8)}
_FEW = {"x": (2, 3, 9, 11)}
_K = {"kernel_shape": [3, 2, 2]}
_SOME = {"strides": [2, 2, 2], "pads": [1, 0, 1, 1, 1, 0]}
_BYTES = np.random.default_rng(0).integers(-128, 128, (1, 2, 7, 9))
_NORM: dict[str, Any] = {"ulps": 8, "sum_ulps": 8}

MORE_POOLS = (
    Case("MaxPool", _X, _K), Case("MaxPool", _X, {**_K, **_SOME, "ceil_mode": 1}), Case("MaxPool", _X, {**_K, "dilations": [2, 1, 3]}),
    Case("MaxPool", _X, {**_K, **_SOME}, 2), Case("MaxPool", _X, {**_K, "storage_order": 1}, 2),
    Case("MaxPool", _FEW, {"kernel_shape": [3, 2], "storage_order": 1, "pads": [1, 1, 1, 1]}, 2), Case("MaxPool", {"x": (2, 3, 11)}, {"kernel_shape": [3]}, 2),
    Case("MaxPool", {"x": np.round(np.random.default_rng(1).standard_normal((1, 2, 6, 7))).astype(np.float32)}, {"kernel_shape": [3, 3]}, 2, name="MaxPool_equal"),
    Case("MaxPool", {"x": _BYTES.astype(np.int8)}, {"kernel_shape": [3, 3], "pads": [1] * 4}, name="MaxPool_i8"),
    Case("MaxPool", {"x": (_BYTES + 128).astype(np.uint8)}, {"kernel_shape": [3, 3], "strides": [2, 2]}, 2, name="MaxPool_u8"),
    *(
        Case("AveragePool", _X, {**_K, **more}, ulps=4, sum_ulps=4)
        for more in (
            {}, {**_SOME, "ceil_mode": 1, "count_include_pad": 1}, {"auto_pad": "SAME_LOWER", "strides": [2, 3, 1]}, {"ceil_mode": 1, "strides": [2, 2, 2]},
        )
    ),
    Case("AveragePool", _X, {**_K, "dilations": [2, 1, 2], "count_include_pad": 1, "pads": [1] * 6}, ulps=4, sum_ulps=4, opset=19),
    *(Case("LpPool", _X, {**_K, "p": p}, **_NORM) for p in (1, 2, 3)), Case("LpPool", {"x": (2, 3, 11)}, {"kernel_shape": [3], "auto_pad": "SAME_UPPER"}, **_NORM),
    Case("LpPool", _FEW, {"kernel_shape": [3, 2], "pads": [1, 1, 1, 1], "dilations": [2, 1], "ceil_mode": 1, "strides": [2, 2]}, **_NORM),
    *(Case("GlobalLpPool", _X, {"p": p}, **_NORM) for p in (1, 2, 3)), Case("GlobalLpPool", _FEW, **_NORM),
    Case("GlobalAveragePool", _X, ulps=4, sum_ulps=8), Case("GlobalMaxPool", _X),
)  # fmt: skip


def _resize(
    shape: tuple[int, ...] | np.ndarray,
    by: tuple[float, ...] = (),
    *,
    sizes: tuple[int, ...] = (),
    roi: tuple[float, ...] = (),
    opset: int = 19,
    **attributes: Any,
) -> Case:
    """``by`` and ``sizes``: of all axes, or of the attribute ``axes``; of the last ones with ones before when fewer."""
    axes = len(attributes.get("axes", shape if isinstance(shape, tuple) else shape.shape))
    inputs: dict[str, Any] = {"x": shape, "roi" if roi else "": ("w", np.array(roi, np.float32)) if roi else ()}
    ones = (1,) * (axes - len(by or sizes))
    if by:
        inputs["scales"] = ("w", np.array([*ones, *by], np.float32))
    else:
        inputs = {
            "x": shape,
            "roi": ("w", np.array(roi, np.float32)),
            "scales": ("w", np.zeros(0, np.float32)),
            "sizes": ("w", np.array(sizes)),
        }
    words = "_".join(str(one) for one in attributes.values())
    extents = "x".join(map(str, shape if isinstance(shape, tuple) else shape.shape))
    name = f"Resize_{extents}_by_{'x'.join(map(str, by or sizes))}_{words}".replace(" ", "")
    if opset < 11:
        del inputs[""]
    off = 0 if attributes["mode"] == "nearest" else 16
    return Case("Resize", inputs, attributes, ulps=off, sum_ulps=off, opset=opset, name=name)


_CROP = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.5}
_BOX = (0.0, 0.0, 0.4, -0.2, 1.0, 1.0, 0.8, 1.1)
_PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners")

RESIZES = (
    *(_resize((1, 2, 4, 5, 6), (1.5, 2, 0.7), mode="linear", coordinate_transformation_mode=how) for how in _PLACES),
    *(_resize((1, 2, 5, 7), (1.7, 0.6), mode="cubic", coordinate_transformation_mode=how) for how in _PLACES),
    _resize((2, 3, 5, 8), (2, 2), mode="cubic", cubic_coeff_a=-0.5), _resize((2, 3, 5, 8), (0.8, 1.5), mode="cubic", exclude_outside=1),
    _resize((2, 3, 7), (2.5,), mode="linear"), _resize((1, 2, 4, 5, 6), (2, 2, 2), mode="nearest"), _resize((1, 2, 4, 5, 6), (1.5, 0.6, 2), mode="nearest", nearest_mode="ceil"),
    _resize((4, 6), (0.7, 3), mode="linear"), _resize((1, 2, 3, 20, 1, 3), (1, 1, 1, 0.7, 1, 2), mode="nearest"), _resize((1, 3, 20, 20), (0.7, 0.7), mode="linear"),
    _resize(np.arange(2 * 3 * 4 * 5, dtype=np.int32).reshape(2, 3, 4, 5), (1.5, 2), mode="nearest"),
    _resize((np.arange(2 * 3 * 4 * 5) % 200).astype(np.uint8).reshape(2, 3, 4, 5), (0.5, 2), mode="nearest", nearest_mode="floor"),
    *(_resize((2, 2, 9, 10), (0.4, 0.7), mode=mode, antialias=1, exclude_outside=out) for mode, out in (("linear", 0), ("cubic", 0), ("cubic", 1), ("linear", 1))),
    _resize((1, 1, 3, 700), (1.5, 2), mode="linear"), _resize((1, 1, 3, 1301), (2, 0.9), mode="cubic"), _resize((1, 1, 4, 900), (0.5, 0.1), mode="linear", antialias=1),
    _resize((1, 1, 2, 1400), (1, 0.002), mode="linear", antialias=1), _resize((1, 1, 2, 3000), (1.5, 0.2), mode="linear"),
    _resize((1, 2, 4, 9, 10), (1.5, 0.3, 0.5), mode="linear", antialias=1),
    *(_resize((2, 3, 6, 7), sizes=(2, 3, 5, 9), roi=_BOX, mode=mode, **_CROP) for mode in ("nearest", "linear", "cubic")),
    _resize((2, 3, 6, 7), sizes=(2, 3, 1, 7), roi=_BOX, mode="linear", **_CROP),
    _resize((2, 3, 6, 7), sizes=(5, 9), roi=(0.4, -0.2, 0.8, 1.1), mode="linear", axes=[2, 3], **_CROP),
    _resize((2, 3, 6, 7), sizes=(9, 5), mode="linear", axes=[3, 2]), _resize((2, 3, 6, 7), (2, 0.5), mode="nearest", axes=[-1, -2]),
    *(_resize((2, 3, 6, 7), sizes=(9, 5), mode=mode, axes=[2, 3], keep_aspect_ratio_policy=how) for mode, how in (("linear", "not_larger"), ("nearest", "not_smaller"))),
    Case("Resize", {"x": (2, 3, 6, 7), "scales": ("w", np.array([1, 1, 0.6, 2], np.float32))}, {"mode": "nearest"}, opset=10, name="Resize_v10_nearest"),
    Case("Resize", {"x": (2, 3, 6, 7), "scales": ("w", np.array([1, 1, 0.6, 2], np.float32))}, {"mode": "linear"}, opset=10, ulps=16, sum_ulps=16, name="Resize_v10_linear"),
    Case("Upsample", {"x": (2, 3, 6, 7), "scales": ("w", np.array([1, 1, 1.5, 2], np.float32))}, {"mode": "linear"}, opset=9, ulps=16, sum_ulps=16, name="Upsample_v9"),
    Case("Upsample", {"x": (2, 3, 6, 7)}, {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}, opset=7, name="Upsample_v7"),
)  # fmt: skip
