"""Rows of the table for normalisations that are made of others, for reductions of nothing and over no axis. As cases.py."""

from __future__ import annotations

import numpy as np

from tests.engine.cuda.cases import Case

_ODD = np.array(
    [[1, np.nan, 2, 2], [np.nan, 1, 2, 2], [np.nan] * 4, [-np.inf] * 4, [2, 2, np.nan, 1], [0, -0.0, -1, 0], [0] * 4, [np.inf, 1, 2, 3]],
    np.float32,
)  # fmt: skip


def _axes(*axes: int) -> tuple[str, np.ndarray]:
    return "w", np.array(axes, np.int64)


NORMALISED = (
    Case("LRN", {"x": (2, 7, 4, 5)}, {"size": 3}, ulps=4, sum_ulps=2), Case("LRN", {"x": (1, 2, 1, 9)}, {"size": 5, "alpha": 0.5, "beta": 0.6, "bias": 2.0}, ulps=8, sum_ulps=2),
    Case("LRN", {"x": (3, 40, 1, 1)}, {"size": 1, "alpha": 0.1}, ulps=8, sum_ulps=2),
    *(Case("LpNormalization", {"x": (3, 4, 35)}, {"axis": axis, "p": p}, ulps=4, sum_ulps=16) for axis in (-1, 1, 0) for p in (1, 2)),
    *(Case("LpNormalization", {"x": _ODD}, {"p": p}, ulps=4, sum_ulps=4, name=f"LpNormalization_odd_{p}") for p in (1, 2)),
    Case("LpNormalization", {"x": (0, 3)}),
    Case("MeanVarianceNormalization", {"x": (3, 5, 6, 7)}, ulps=16, sum_ulps=16), Case("MeanVarianceNormalization", {"x": (3, 5, 8)}, {"axes": [1, 2]}, ulps=16, sum_ulps=16),
    Case("MeanVarianceNormalization", {"x": (3, 5, 8)}, {"axes": [0]}, ulps=16, sum_ulps=16), Case("MeanVarianceNormalization", {"x": np.full((1, 2, 3, 3), 3, np.float32)}, name="MeanVarianceNormalization_equal"),
    *(Case("Hardmax", {"x": (3, 4, 5)}, {"axis": axis}) for axis in (-1, 1, 0)), Case("Hardmax", {"x": (3, 4, 5)}, {"axis": 2}, opset=11), Case("Hardmax", {"x": (3, 4, 5)}, opset=11),
    Case("Det", {"x": (3, 5, 5)}, ulps=64, sum_ulps=64, scale=1.0), Case("Det", {"x": (1, 1)}), Case("Det", {"x": (2, 3, 2, 2)}, ulps=32, sum_ulps=32),
    Case("Det", {"x": (40, 40)}, ulps=4096, scale=0.3, name="Det_40"), Case("Det", {"x": np.array([[[0, 2], [3, 0]], [[1, 2], [2, 4]]], np.float32)}, name="Det_turned"),
    Case("Hardmax", {"x": _ODD}, name="Hardmax_odd"), Case("Hardmax", {"x": (2, 0, 3)}, {"axis": 2}), Case("Hardmax", {"x": (2, 1500)}),
)  # fmt: skip
_REDUCTIONS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip
NOTHING = (
    *(Case(op, {"x": (2, 0, 3), "axes": _axes(1)}, {"keepdims": at % 2}, opset=20, name=f"{op}_nothing") for at, op in enumerate(_REDUCTIONS)),
    *(Case(op, {"x": (3, 5)}, {"noop_with_empty_axes": 1}, ulps=2, low=0.1 if "Log" in op else None, name=f"{op}_no_axis", runtime="1.30") for op in _REDUCTIONS),
    Case("ReduceSum", {"x": (3, 0), "axes": _axes(0)}, name="ReduceSum_empty"), Case("ReduceSum", {"x": (0,)}, name="ReduceSum_all_of_nothing"),
)  # fmt: skip
_RANDOM = np.random.default_rng(3)


def _integers(op: str, x: np.ndarray, axes: tuple[int, ...], keep: int = 1) -> Case:
    own = f"{op}_{x.dtype}_{'x'.join(map(str, x.shape))}_{axes}".replace(" ", "")
    return Case(op, {"x": x, "axes": _axes(*axes)}, {"keepdims": keep}, opset=20, name=own)


# small ones: of those beyond 2^32 ONNX Runtime 1.31 misses the largest, and products beyond 2^63 it cuts
INTEGERS = (
    *(
        _integers(op, _RANDOM.integers(-(1 << 20), 1 << 20, (3, 7, 150)), axes, keep)
        for op in ("ReduceSum", "ReduceMax", "ReduceMin") for axes, keep in (((2,), 0), ((1,), 1), ((0, 2), 1))
    ),
    _integers("ReduceProd", _RANDOM.choice([-1, 1, 1, 3], (4, 20)), (1,)), _integers("ReduceProd", _RANDOM.choice([-2, 1, 3], (9, 5)), (0,)),
    _integers("ReduceSum", _RANDOM.integers(-(1 << 20), 1 << 20, (5, 40)).astype(np.int32), (0,)), _integers("ReduceProd", _RANDOM.choice([-1, 1, 2], (5, 9)).astype(np.int32), (1,)),
    _integers("ReduceMax", _RANDOM.integers(0, 256, (5, 400)).astype(np.uint8), (1,)), _integers("ReduceMin", _RANDOM.integers(-128, 128, (2, 3, 40)).astype(np.int8), (1,)),
    _integers("ReduceSum", np.zeros((2, 0), np.int64), (1,)), _integers("ReduceProd", np.zeros((2, 0), np.int64), (1,)),
)  # fmt: skip
