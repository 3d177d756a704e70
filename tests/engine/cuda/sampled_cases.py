"""Rows of the table for what reads images between their elements. As cases.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case


def _grid(n: int, places: Sequence[int]) -> np.ndarray:
    """Places inside, far outside, on the corners, in the middle of elements and between them; none is a number that FP16 lacks."""
    axes = len(places)
    made = np.random.default_rng(sum(places)).integers(-100, 101, (n, *places, axes)).astype(np.float32) / 64
    some = [-1, 1, 0, 3.75, -9.25, 0.5, -1, -1, 0.125, 0.25]
    made.reshape(-1)[: len(some)] = some[: made.size]
    return made


def _sampled(x: tuple[int, ...], places: tuple[int, ...], opset: int = 20, **attributes: Any) -> Case:
    options = "".join(f"_{one}" for one in attributes.values())
    name = f"GridSample_{'x'.join(map(str, x))}_{'x'.join(map(str, places))}{options}_v{opset}"
    return Case(
        "GridSample", {"x": x, "g": _grid(x[0], places)}, attributes, opset=opset, ulps=4, sum_ulps=2, name=name
    )


SAMPLES = (
    *(
        _sampled((2, 3, *(5, 7, 6)[:axes]), (4, 9, 3)[:axes], mode=mode, padding_mode=padding, align_corners=corners)
        for axes, mode in ((2, "linear"), (2, "nearest"), (2, "cubic"), (3, "linear"), (3, "nearest"))
        for padding in ("zeros", "border", "reflection") for corners in (0, 1)
    ),
    *(_sampled((1, 2, 6, 5), (7, 7), 16, mode=mode) for mode in ("bilinear", "bicubic", "nearest")),
    _sampled((1, 19, 12, 10), (40, 30)), _sampled((0, 3, 4, 4), (2, 2)), _sampled((2, 3, 4, 4), (0, 2)),
)  # fmt: skip
