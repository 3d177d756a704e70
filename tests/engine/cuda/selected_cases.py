"""Rows of the table for what is selected by its value. As cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case

_RANDOM = np.random.default_rng(13)


def _some(*shape: int, share: float = 0.4) -> np.ndarray:
    return _RANDOM.standard_normal(shape).astype(np.float32) * (_RANDOM.random(shape) < share)


def _nonzero(x: np.ndarray, name: str) -> Case:
    return Case("NonZero", {"x": x}, name=f"NonZero_{name}")


def _suppressed(
    name: str, batches: int, classes: int, count: int, most: int, overlap: float = 0.5, least: float | None = None, *, ties: bool = False, centres: int = 0
) -> Case:  # fmt: skip
    """Boxes around few places, so that many cover each other; corners in any order. No number that FP16 lacks."""
    first = _RANDOM.integers(0, 40, (batches, count, 2)) / 4
    other = first + _RANDOM.integers(8 if centres else -24, 24, (batches, count, 2)) / 4
    boxes = np.concatenate([first, other - first if centres else other], 2).astype(np.float32)
    scores = _RANDOM.integers(0, 8 if ties else 1024, (batches, classes, count)).astype(np.float32) / 1024
    inputs: dict[str, Any] = {"boxes": boxes, "scores": scores, "most": ("w", np.array([most]))}
    inputs["overlap"] = ("w", np.array([overlap], np.float32))
    if least is not None:
        inputs["least"] = ("w", np.array([least], np.float32))
    return Case("NonMaxSuppression", inputs, {"center_point_box": centres}, name=f"NonMaxSuppression_{name}")


SELECTED = (
    _nonzero(_some(3, 5, 7), "3x5x7"), _nonzero(_some(40, 300), "40x300"), _nonzero(np.zeros((2, 5), np.float32), "none"), _nonzero(_some(9000, share=1), "all"),
    _nonzero(np.array([0, -0.0, np.nan, np.inf, 1e-3], np.float32), "odd"), _nonzero(_some(0, 3), "nothing"), _nonzero(_RANDOM.integers(-1, 2, (4, 9)), "i64"),
    _nonzero(_some(2, 3, 4, 5) > 0, "bool"),
    _suppressed("one", 1, 1, 30, 10), _suppressed("classes", 2, 3, 300, 50, 0.3, 0.2), _suppressed("ties", 1, 2, 100, 100, 0.6, ties=True),
    _suppressed("centres", 2, 2, 60, 20, 0.4, centres=1), _suppressed("none", 1, 1, 20, 5, 0.5, 2.0), _suppressed("long", 1, 1, 5000, 300, 0.7, 0.1),
    _suppressed("all", 1, 2, 30, 1000, 1.0), _suppressed("no_more", 1, 1, 30, 0),
    Case("NonMaxSuppression", {"boxes": np.ones((1, 4, 4), np.float32), "scores": np.array([[[-np.inf, 1, 0.5, np.inf]]], np.float32), "most": ("w", np.array([9]))}, name="NonMaxSuppression_defaults"),
)  # fmt: skip
