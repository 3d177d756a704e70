"""Rows of the table for recurrent cells, indexed elements, tensors made from numbers, scans and quantisation. As cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case, F, listed


def _recurrent(
    op: str, shape: tuple[int, int, int], hidden: int, *, directions: int = 1, given: str = "wb", **attributes: Any
) -> Case:
    """``given``: bias, lengths, h0, c0 by their letters."""
    steps, batch, width = shape
    cols = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * hidden
    inputs: dict[str, Any] = {"x": shape, "w": ("w", (directions, cols, width)), "r": ("w", (directions, cols, hidden))}
    names = ["bias", "lengths", "h", "c"][: 4 if "c" in given else 3 if "h" in given else 2 if "l" in given else 1]
    lengths = np.array([steps - 2 * (at % 2) for at in range(batch)], np.int32)
    made = {
        "bias": ("w", (directions, 2 * cols)), "lengths": lengths, "h": (directions, batch, hidden), "c": (directions, batch, hidden),
    }  # fmt: skip
    for name in names:
        inputs[name if name[0] in given else ""] = made[name] if name[0] in given else ()
    more = {"hidden_size": hidden, **({"direction": "bidirectional"} if directions == 2 else {}), **attributes}
    options = "".join(f"_{key}{value}" for key, value in attributes.items())
    name = f"{op}_{'x'.join(map(str, shape))}_{hidden}_{directions}_{given}{options}"
    return Case(op, inputs, more, 3 if op == "LSTM" else 2, ulps=64, sum_ulps=64, scale=0.5, name=name)


RECURRENT = (
    _recurrent("LSTM", (5, 3, 7), 8), _recurrent("LSTM", (4, 2, 16), 40, directions=2), _recurrent("LSTM", (3, 2, 8), 16, given="bhc"),
    _recurrent("LSTM", (6, 4, 8), 8, directions=2, given="bl"), _recurrent("LSTM", (5, 2, 8), 8, direction="reverse", given="b"),
    _recurrent("LSTM", (1, 1, 128), 128, given="bhc"), _recurrent("GRU", (5, 3, 7), 8), _recurrent("GRU", (5, 3, 7), 8, linear_before_reset=1),
    _recurrent("GRU", (6, 4, 8), 24, directions=2, given="blh", linear_before_reset=1), _recurrent("GRU", (6, 4, 8), 24, directions=2, given="blh"),
    _recurrent("GRU", (2, 40, 16), 16, given="bh", linear_before_reset=1), _recurrent("RNN", (5, 3, 7), 8),
    _recurrent("RNN", (5, 3, 7), 8, directions=2, given="bh", activations=["Relu", "Relu"]),
)  # fmt: skip


INDEXED = (
    Case("GatherND", {"x": (4, 5, 6), "i": np.array([[0, 1], [3, -1], [2, 2]])}, name="GatherND_pairs"),
    Case("GatherND", {"x": (4, 5, 8), "i": np.array([[0], [3], [-4]])}, name="GatherND_rows"),
    Case("GatherND", {"x": (2, 3, 5), "i": np.array([[[0, 1], [1, 1]], [[2, 4], [0, -5]]])}, {"batch_dims": 1}, name="GatherND_batch"),
    Case("GatherND", {"x": np.arange(24).reshape(2, 3, 4), "i": np.array([[0, 1, 2], [1, 2, 3]])}, name="GatherND_i64"),
    Case("ScatterND", {"x": (6, 8), "i": np.array([[4], [1], [-1]]), "u": (3, 8)}, name="ScatterND_rows"),
    Case("ScatterND", {"x": (4, 5), "i": np.array([[0, 1], [3, -1]]), "u": (2,)}, name="ScatterND_elements"),
    Case("GatherElements", {"x": (4, 6), "i": np.array([[0, 5, -1], [2, 2, 2]])}, {"axis": 1}, name="GatherElements_1"),
    Case("GatherElements", {"x": (4, 6, 2), "i": np.array([[[3, 0], [1, -4]]], np.int32)}, {"axis": 0}, name="GatherElements_0"),
    Case("ScatterElements", {"x": (4, 6), "i": np.array([[0, 5, -2], [2, 1, 3]]), "u": (2, 3)}, {"axis": 1}, name="ScatterElements_1"),
    Case("ScatterElements", {"x": (4, 6), "i": np.array([[3, 0, 1]]), "u": (1, 3)}, {"axis": 0}, name="ScatterElements_0"),
    Case("ReverseSequence", {"x": (5, 3, 4), "l": np.array([5, 1, 3])}, name="ReverseSequence_time"),
    Case("ReverseSequence", {"x": (3, 5), "l": np.array([5, 1, 2])}, {"batch_axis": 0, "time_axis": 1}, name="ReverseSequence_batch"),
    Case("ReverseSequence", {"x": np.arange(24).reshape(4, 3, 2), "l": np.array([4, 2, 1])}, name="ReverseSequence_i64"),
)  # fmt: skip

GENERATED = (
    Case("Range", {"a": np.float32(0.3), "b": np.float32(9), "c": np.float32(0.1)}, name="Range_float"),
    Case("Range", {"a": np.int64(9), "b": np.int64(-4), "c": np.int64(-3)}, name="Range_i64"),
    Case("Range", {"a": np.int32(3), "b": np.int32(3), "c": np.int32(1)}, name="Range_empty"),
    Case("ConstantOfShape", {"s": listed(2, 3)}, name="ConstantOfShape"),
    Case("OneHot", {"i": np.array([[0, 4, -1], [2, 9, 3]]), "d": ("w", np.int64(5)), "v": ("w", np.array([0, 1], np.float32))}, name="OneHot"),
    Case("OneHot", {"i": np.array([0, 3, 2], np.int32), "d": ("w", np.int64(4)), "v": ("w", np.array([7, -2]))}, {"axis": 0}, name="OneHot_0"),
    *(Case("Trilu", {"x": (2, 5, 7), "k": ("w", np.int64(k))}, {"upper": upper}, name=f"Trilu_{upper}_{k}") for upper in (0, 1) for k in (0, 2, -1)),
    *(
        Case("CumSum", {"x": shape, "axis": ("w", np.int64(axis))}, {"exclusive": e, "reverse": r}, sum_ulps=32, name=f"CumSum_{shape}_{axis}_{e}{r}".replace(" ", ""))
        for shape, axis in (((3, 700), 1), ((40, 3, 2), 0)) for e in (0, 1) for r in (0, 1)
    ),
    Case("CumSum", {"x": np.arange(600).reshape(2, 300), "axis": ("w", np.int64(-1))}, name="CumSum_i64"),
    *(
        Case("CumProd", {"x": shape, "axis": ("w", np.int64(axis))}, {"exclusive": e, "reverse": r}, opset=26, ulps=1024, low=0.2, scale=1.0, name=f"CumProd_{axis}_{e}{r}", runtime="1.30")
        for shape, axis in (((3, 40), 1), ((300, 3, 2), 0)) for e in (0, 1) for r in (0, 1)
    ),
    Case("CumProd", {"x": np.arange(-4, 8).reshape(3, 4) * 3 + 1, "axis": ("w", np.int64(1))}, opset=26, name="CumProd_i64", runtime="1.30"),
    Case("EyeLike", {"x": (3, 5)}, {"k": 1}), Case("EyeLike", {"x": (4, 2)}, {"k": -1, "dtype": 7}), Case("EyeLike", {"x": np.arange(6).reshape(2, 3)}, {"dtype": F}, name="EyeLike_i64"),
    *(Case("Pad", {"x": (2, 5, 6), "pads": listed(0, 2, 3, 0, 1, 4)}, {"mode": mode}, name=f"Pad_{mode}") for mode in ("reflect", "edge")),
    Case("Pad", {"x": (2, 5), "pads": listed(0, 2, 0, 3)}, {"mode": "wrap"}, opset=19, name="Pad_wrap"),
)  # fmt: skip


def _scale(*numbers: float) -> tuple[str, np.ndarray]:
    return "w", np.array(numbers, np.float32).reshape(-1 if len(numbers) > 1 else ())


QUANTISED = (
    Case("QuantizeLinear", {"x": (3, 40), "s": _scale(0.05), "z": ("w", np.uint8(120))}, name="QuantizeLinear_u8", scale=4),
    Case("QuantizeLinear", {"x": (3, 40), "s": _scale(0.05), "z": ("w", np.int8(-3))}, name="QuantizeLinear_i8", scale=4),
    Case("QuantizeLinear", {"x": (3, 40), "s": _scale(0.02)}, name="QuantizeLinear"),
    Case("QuantizeLinear", {"x": (2, 3, 5), "s": _scale(0.1, 0.02, 0.3), "z": ("w", np.array([1, 2, 3], np.uint8))}, {"axis": 1}, name="QuantizeLinear_axis"),
    Case("DequantizeLinear", {"x": np.arange(-60, 60, dtype=np.int8).reshape(2, 3, 20), "s": _scale(0.05), "z": ("w", np.int8(7))}, name="DequantizeLinear_i8"),
    Case("DequantizeLinear", {"x": np.arange(240, dtype=np.uint8).reshape(4, 60), "s": _scale(0.05, 1, 2, 3), "z": ("w", np.arange(4, dtype=np.uint8))}, {"axis": 0}, name="DequantizeLinear_axis"),
    Case("DequantizeLinear", {"x": np.arange(-9, 9, dtype=np.int32), "s": _scale(0.003)}, name="DequantizeLinear_i32"),
)  # fmt: skip
