"""Rows of the table for TopK, and for scattering that combines, whose updates are ranked by their places. As cases.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.engine.cuda.cases import Case


def _top(x: Any, k: int, name: str = "", **attributes: Any) -> Case:
    own = name or "x".join(map(str, x if isinstance(x, tuple) else x.shape))
    options = "".join(f"_{key}{value}" for key, value in attributes.items())
    return Case("TopK", {"x": x, "k": ("w", np.array([k]))}, attributes, 2, name=f"TopK_{own}_{k}{options}")


_RANDOM = np.random.default_rng(5)
# every element many times, both zeros and both infinities among them
TIES = _RANDOM.choice(np.array([0.0, -0.0, 1.5, -2.0, 3.0, np.inf, -np.inf], np.float32), (3, 700))
# where few of a team's threads find all the best: of 32 (if rows are many), of 512
COMB, LONG_COMB = (
    (np.where(np.arange(cols) % step < width, 1000, 0) + _RANDOM.integers(0, 9, (rows, cols))).astype(np.float32)
    for rows, cols, step, width in ((560, 700, 32, 4), (2, 20000, 512, 40))
)
LONG = _RANDOM.integers(-5000, 5000, 40000).astype(np.float32)

TOP_K = (
    _top((3, 4), 2), _top((5, 33), 33, largest=0), _top((1, 1), 1), _top((7,), 0), _top((2, 0, 3), 0, axis=1), _top((130, 9), 4),
    _top((4, 7, 5), 3, axis=1), _top((40, 3, 2), 9, axis=0, largest=0), _top((2, 300), 7), _top((3, 1000), 5, largest=0), _top((2, 1000), 900),
    _top(TIES, 300, "ties"), _top(TIES, 300, "ties", largest=0), _top(np.zeros((2, 9000), np.float32), 20, "equal"), _top(LONG, 100, "long"),
    _top(LONG, 1500, "long", largest=0), _top(LONG, 9000, "long"), _top(LONG.reshape(2, -1), 20000, "long"), _top(LONG.reshape(8, -1), 4096, "long"),
    *(
        _top(_RANDOM.integers(-(1 << 62), 1 << 62, (3, 70)) // scale, 60, f"i64_{scale}", largest=largest)
        for scale in (1, 1 << 58) for largest in (0, 1)
    ),
    _top(COMB, 5, "comb"), _top(-COMB, 9, "comb", largest=0), _top(LONG_COMB, 50, "long_comb"),
    _top((600, 100), 3), _top((3, 600), 500, largest=0), _top((1, 20000), 128, largest=0),
    _top(np.concatenate([np.array([-(1 << 63), (1 << 63) - 1]), _RANDOM.integers(-9, 9, 5000)]), 300, "i64_long"),
    _top(_RANDOM.integers(-9, 9, 5000), 4000, "i64_lists"), _top(_RANDOM.integers(-(1 << 31), 1 << 31, (2, 500)).astype(np.int32), 40, "i32"),
)  # fmt: skip


def _combined(
    op: str, how: str, x: Any, indices: np.ndarray, u: Any, name: str, *, sum_ulps: float = 0.0, **attributes: Any
) -> Case:
    feeds = {"x": x, "i": indices, "u": u}
    return Case(op, feeds, {"reduction": how, **attributes}, sum_ulps=sum_ulps, name=f"{op}_{how}_{name}")


_ODD = np.array([0.0, -0.0, 1.0, np.nan, np.inf, -np.inf, 2.0, -3.0], np.float32)
_PAIRS = _RANDOM.integers(0, (4, 5), (30, 2))
COMBINED = (
    *(
        case
        for how in ("add", "mul", "max", "min")
        for case in (
            _combined("ScatterND", how, (4, 5, 3), _PAIRS, (30, 3), "slices"),
            _combined("ScatterND", how, np.arange(12), np.array([[3], [-1], [3], [0]]), np.array([7, -5, 1 << 60, 2]), "i64"),
            _combined("ScatterElements", how, (3, 4, 6), _RANDOM.integers(-4, 4, (3, 9, 5)), (3, 9, 5), "1", axis=1),
            _combined("ScatterElements", how, _RANDOM.choice(_ODD, 40), _RANDOM.integers(0, 40, 600), _RANDOM.choice(_ODD, 600), "odd"),
        )
    ),
    _combined("ScatterElements", "add", (3,), _RANDOM.integers(0, 3, 9000), (9000,), "long"),
    _combined("ScatterND", "add", (50, 4), _RANDOM.integers(0, 50, (9000, 1)), (9000, 4), "rows"),
    _combined("ScatterND", "add", (50, 4), np.zeros((0, 1), np.int64), (0, 4), "nothing"),
    _combined("ScatterElements", "max", np.arange(6, dtype=np.uint8), np.array([0, 0, 5]), np.array([9, 3, 1], np.uint8), "u8"),
    _combined("ScatterElements", "add", np.arange(6, dtype=np.int8), np.array([0, 0, 5]), np.array([100, 100, 1], np.int8), "i8"),
    _combined("ScatterElements", "mul", np.arange(6, dtype=np.int32), np.array([1, 1, 5]), np.array([1 << 20, 1 << 20, 3], np.int32), "i32"),
)  # fmt: skip
