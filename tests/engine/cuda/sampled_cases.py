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


def _aligned(x: tuple[int, ...], regions: int, opset: int = 16, **attributes: Any) -> Case:
    """Regions inside and over the edges, empty and turned inside out ones among them; no number that FP16 lacks."""
    random = np.random.default_rng(regions)
    made = random.integers(-24, 8 * max(x[2:]) + 24, (regions, 4)).astype(np.float32) / 8
    made[:, 2:] = made[:, :2] + np.abs(made[:, 2:]) / 2
    if regions > 2:
        made[1, 2:], made[2] = made[1, :2], [5, 4, 3, 2]
    options = "".join(f"_{one}" for one in attributes.values())
    return Case(
        "RoiAlign", {"x": x, "r": made, "i": random.integers(0, x[0], regions)}, attributes, opset=opset, ulps=4, sum_ulps=4,
        name=f"RoiAlign_{'x'.join(map(str, x))}_{regions}{options}_v{opset}",
    )  # fmt: skip


REGIONS = (
    *(
        _aligned((2, 3, 12, 15), 7, output_height=3, output_width=4, sampling_ratio=samples, mode=mode, coordinate_transformation_mode=how)
        for samples in (0, 2) for mode in ("avg", "max") for how in ("half_pixel", "output_half_pixel")
    ),
    _aligned((1, 2, 30, 20), 3, 10, output_height=7, output_width=7, spatial_scale=0.5), _aligned((1, 2, 30, 20), 3, 10, output_height=2, output_width=2, mode="max"),
    _aligned((1, 19, 9, 8), 40, 22, output_height=7, output_width=7, sampling_ratio=2), _aligned((1, 2, 6, 6), 0), _aligned((2, 0, 6, 6), 2),
)  # fmt: skip
