"""Rows of the table for products and convolutions of 8-bit integers, and for what makes them. As cases.py; every result is exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case

_RANDOM = np.random.default_rng(11)
_U8, _I8 = np.uint8, np.int8


def _bytes(kind: type, *shape: int) -> np.ndarray:
    info = np.iinfo(kind)
    return _RANDOM.integers(info.min, info.max + 1, shape).astype(kind)


def _number(kind: type, *numbers: float) -> tuple[str, np.ndarray]:
    return "w", np.array(numbers, kind).reshape(-1 if len(numbers) > 1 else ())


def _product(a: np.ndarray, b: Any, name: str = "", **zeros: Any) -> Case:
    bare = b[1] if isinstance(b, tuple) else b
    own = f"{'x'.join(map(str, a.shape))}_{'x'.join(map(str, bare.shape))}_{a.dtype}_{bare.dtype}"
    inputs = {"a": a, "b": b, **zeros}
    return Case("MatMulInteger", inputs, name=f"MatMulInteger_{own}{name}")


def _factors(kind: type, *scales: float) -> dict[str, Any]:
    return {"b_scale": _number(np.float32, *scales), "b_zero": _number(kind, *range(3, 3 + len(scales)))}


def _quantised(a: np.ndarray, b: Any, y_scale: float, *b_scales: float) -> Case:
    bare = b[1] if isinstance(b, tuple) else b
    kinds = a.dtype.type, bare.dtype.type
    inputs = {
        "a": a, "a_scale": _number(np.float32, 0.02), "a_zero": _number(kinds[0], 7), "b": b, **_factors(kinds[1], *b_scales),
        "y_scale": _number(np.float32, y_scale), "y_zero": _number(kinds[0], 5),
    }  # fmt: skip
    return Case(
        "QLinearMatMul",
        inputs,
        name=f"QLinearMatMul_{'x'.join(map(str, a.shape))}_{'x'.join(map(str, bare.shape))}_{a.dtype}_{len(b_scales)}",
    )


def _conv(x: np.ndarray, w: np.ndarray, zeros: Any = None, **attributes: Any) -> Case:
    options = "".join(f"_{key}{value}" for key, value in attributes.items()).replace(" ", "")
    name = f"ConvInteger_{'x'.join(map(str, x.shape))}_{'x'.join(map(str, w.shape))}_{x.dtype}_{w.dtype}{options}"
    return Case("ConvInteger", {"x": x, "w": w, **(zeros or {})}, attributes, name=name)


def _quantised_conv(x: np.ndarray, w: np.ndarray, *w_scales: float, bias: bool = True, **attributes: Any) -> Case:
    kinds = x.dtype.type, w.dtype.type
    inputs = {
        "x": x, "x_scale": _number(np.float32, 0.02), "x_zero": _number(kinds[0], 9), "w": w, "w_scale": _number(np.float32, *w_scales),
        "w_zero": _number(kinds[1], *([0] * len(w_scales))), "y_scale": _number(np.float32, 0.9), "y_zero": _number(kinds[0], 4),
    }  # fmt: skip
    if bias:
        inputs["bias"] = ("w", _RANDOM.integers(-9000, 9000, w.shape[0]).astype(np.int32))
    options = "".join(f"_{key}{value}" for key, value in attributes.items()).replace(" ", "")
    return Case(
        "QLinearConv",
        inputs,
        attributes,
        name=f"QLinearConv_{'x'.join(map(str, w.shape))}_{x.dtype}_{len(w_scales)}{options}",
    )


def _zeros(x: np.ndarray, w: np.ndarray) -> dict[str, Any]:
    return {"x_zero": _number(x.dtype.type, 100), "w_zero": _number(w.dtype.type, 11)}


PRODUCTS_OF_INTEGERS = (
    *(_product(_bytes(one, 5, 9), _bytes(other, 9, 7)) for one in (_U8, _I8) for other in (_U8, _I8)),
    _product(_bytes(_U8, 70, 130), _bytes(_I8, 130, 67), "_zeros", a_zero=_number(_U8, 130), b_zero=_number(_I8, -3)),
    _product(_bytes(_U8, 33, 65), _bytes(_U8, 65, 5), "_columns", a_zero=_number(_U8, 7), b_zero=_number(_U8, 0, 255, 128, 3, 90)),
    _product(_bytes(_I8, 2, 3, 4, 20), _bytes(_I8, 20, 6)), _product(_bytes(_U8, 2, 3, 4, 20), _bytes(_I8, 2, 3, 20, 6), "_zero", a_zero=_number(_U8, 200)),
    _product(np.full((1, 40000), 255, _U8), np.full((40000, 2), 127, _I8), "_largest"), _product(_bytes(_U8, 0, 4), _bytes(_U8, 4, 3)),
    *(_quantised(_bytes(one, 6, 40), _bytes(one, 40, 5), 30.0, *scales) for one in (_U8, _I8) for scales in ((0.3,), (0.3, 0.1, 0.2, 0.5, 0.01))),
    _quantised(_bytes(_U8, 2, 6, 40), _bytes(_I8, 2, 40, 5), 9.0, 0.2),
    # on tensor cores: weights, lines of 16 bytes, more than a tile
    _product(_bytes(_U8, 70, 130), ("w", _bytes(_U8, 130, 67)), "_weight", a_zero=_number(_U8, 130), b_zero=_number(_U8, 9)),
    _product(_bytes(_I8, 17, 64), ("w", _bytes(_I8, 64, 144)), "_weight", a_zero=np.int8(-7)), _product(_bytes(_U8, 150, 300), _bytes(_U8, 300, 20), "_odd", a_zero=np.uint8(9)),
    _product(_bytes(_U8, 2, 3, 33, 48), _bytes(_U8, 2, 3, 48, 32), "_two", a_zero=np.uint8(200), b_zero=np.uint8(90)),
    _quantised(_bytes(_U8, 18, 160), ("w", _bytes(_U8, 160, 35)), 60.0, *np.linspace(0.1, 0.9, 35)), _quantised(_bytes(_I8, 65, 160), ("w", _bytes(_I8, 160, 80)), 60.0, 0.3),
)  # fmt: skip
_X, _W = _bytes(_U8, 2, 4, 9, 11), _bytes(_I8, 6, 4, 3, 3)
CONVOLUTIONS_OF_INTEGERS = (
    _conv(_X, _bytes(_U8, 6, 4, 3, 3)), _conv(_X, _bytes(_U8, 6, 4, 3, 3), _zeros(_X, _bytes(_U8, 1)), pads=[1, 0, 1, 2]),
    _conv(_X, _W, _zeros(_X, _W), strides=[2, 1], dilations=[1, 2]), _conv(_X, _bytes(_U8, 6, 2, 3, 2), {"x_zero": _number(_U8, 100)}, group=2, auto_pad="SAME_UPPER"),
    _conv(_X, _bytes(_U8, 70, 4, 1, 1), {"x_zero": _number(_U8, 3)}), _conv(_bytes(_U8, 1, 3, 20), _bytes(_U8, 5, 3, 4), {"x_zero": _number(_U8, 3)}, pads=[2, 1]),
    _quantised_conv(_X, _bytes(_U8, 6, 4, 3, 3), 0.05, pads=[1, 1, 1, 1]), _quantised_conv(_X, _W, 0.05, 0.01, 0.2, 0.03, 0.1, 0.02, strides=[2, 2]),
    _quantised_conv(_bytes(_I8, 1, 6, 8, 8), _bytes(_I8, 6, 1, 3, 3), *([0.1] * 6), bias=False, group=6, pads=[1, 1, 1, 1]),
    _quantised_conv(_bytes(_U8, 2, 3, 9, 7), _bytes(_U8, 6, 1, 3, 3), 0.1, group=3, strides=[2, 1], pads=[1, 0, 2, 1], dilations=[1, 2]),
    _conv(_X, _bytes(_U8, 12, 2, 3, 3), {"x_zero": _number(_U8, 100), "w_zero": _number(_U8, 7)}, group=2, pads=[1, 1, 1, 1]),
    _conv(_bytes(_U8, 2, 20, 8, 8), _bytes(_U8, 24, 20, 1, 1), {"x_zero": _number(_U8, 90)}), _conv(_bytes(_U8, 1, 40, 9, 9), _bytes(_U8, 66, 20, 3, 3), group=2, strides=[2, 2]),
    _quantised_conv(_bytes(_I8, 2, 16, 8, 8), _bytes(_I8, 32, 16, 1, 1), *np.linspace(0.02, 0.2, 32)),
)  # fmt: skip
DYNAMIC = (
    Case("DynamicQuantizeLinear", {"x": (3, 70)}, outputs=3), Case("DynamicQuantizeLinear", {"x": (2, 5, 7)}, outputs=3, low=1.0),
    Case("DynamicQuantizeLinear", {"x": np.zeros((4, 3), np.float32)}, outputs=3, name="DynamicQuantizeLinear_zeros"),
    Case("DynamicQuantizeLinear", {"x": (3, 5001)}, outputs=3), Case("DynamicQuantizeLinear", {"x": (1100, 1001)}, outputs=3),
    Case("DynamicQuantizeLinear", {"x": np.float32(-3.5)}, outputs=3, name="DynamicQuantizeLinear_one"),
    Case("DynamicQuantizeLinear", {"x": np.arange(-9, 90, dtype=np.float32) / 8}, outputs=3, name="DynamicQuantizeLinear_even"),
)  # fmt: skip
