"""Rows of the table for operators that are others put together. As cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case, listed

_THETA = np.random.default_rng(5).standard_normal((2, 2, 3)).astype(np.float32)
_THETA_3D = np.random.default_rng(6).standard_normal((2, 3, 4)).astype(np.float32)

FUNCTIONS = (
    Case("CastLike", {"x": np.arange(-3, 5).reshape(2, 4), "like": (1, 2)}, name="CastLike_i64_to_float"),
    Case("CastLike", {"x": (3, 4), "like": np.array([1, 2])}, name="CastLike_float_to_i64"),
    Case("CastLike", {"x": (3, 4), "like": np.array([True])}, name="CastLike_float_to_bool"),
    Case("CastLike", {"x": (3, 4), "like": (1,)}, name="CastLike_float"),
    Case("CenterCropPad", {"x": (20, 10, 3), "shape": listed(10, 7, 3)}, name="CenterCropPad_crop"),
    Case("CenterCropPad", {"x": (5, 8, 3), "shape": listed(10, 7)}, {"axes": [-3, 1]}, name="CenterCropPad_both"),
    Case("CenterCropPad", {"x": (2, 7), "shape": listed(5, 10)}, name="CenterCropPad_pad"),
    *(
        Case("AffineGrid", {"theta": theta, "size": listed(*size)}, {"align_corners": corners}, opset=20, ulps=4, sum_ulps=8, name=f"AffineGrid_{len(size)}_{corners}")
        for theta, size in ((_THETA, (2, 3, 5, 6)), (_THETA_3D, (2, 1, 3, 4, 5))) for corners in (0, 1)
    ),
    Case("TensorScatter", {"past": (2, 3, 8, 4), "x": (2, 3, 2, 4), "first": np.array([0, 6])}, opset=24, name="TensorScatter_linear"),
    Case("TensorScatter", {"past": (2, 3, 8, 4), "x": (2, 3, 3, 4), "first": np.array([1, 6])}, {"mode": "circular"}, opset=24, name="TensorScatter_circular"),
    Case("TensorScatter", {"past": (3, 4, 5), "x": (3, 2, 5)}, opset=24, name="TensorScatter_begins"),
    Case("TensorScatter", {"past": (2, 6, 3, 4), "x": (2, 1, 3, 4), "first": np.array([5, 2])}, {"axis": 1}, opset=24, name="TensorScatter_axis"),
)  # fmt: skip


def _loss(
    op: str, name: str, x: tuple[int, ...], *, weighed: bool = False, outputs: int = 1, **attributes: Any
) -> Case:
    targets = np.random.default_rng(3).integers(0, x[1], (x[0], *x[2:]))
    if "ignore_index" in attributes:
        targets.flat[::3] = attributes["ignore_index"]
    inputs: dict[str, Any] = {"x": x, "t": targets}
    if weighed:
        inputs["w"] = ("w", np.linspace(0.5, 2, x[1], dtype=np.float32))
    return Case(op, inputs, attributes, outputs, ulps=16, sum_ulps=32, opset=13, name=f"{op}_{name}")


LOSSES = (
    _loss("NegativeLogLikelihoodLoss", "mean", (3, 5)), _loss("NegativeLogLikelihoodLoss", "each", (3, 5, 2, 4), weighed=True, reduction="none"),
    _loss("NegativeLogLikelihoodLoss", "ignoring", (3, 5, 7), weighed=True, ignore_index=-1), _loss("NegativeLogLikelihoodLoss", "sum", (3, 5, 7), ignore_index=2, reduction="sum"),
    _loss("SoftmaxCrossEntropyLoss", "mean", (4, 9), outputs=2), _loss("SoftmaxCrossEntropyLoss", "each", (2, 5, 3), outputs=2, reduction="none", weighed=True, ignore_index=10),
    _loss("SoftmaxCrossEntropyLoss", "weighed", (6, 40), weighed=True, ignore_index=0),
)  # fmt: skip
