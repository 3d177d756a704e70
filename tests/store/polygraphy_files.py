"""Files in Polygraphy's JSON, made by its documented format: arrays are base64 text of ``.npy`` bytes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def encoded(array: Any) -> dict[str, Any]:
    out = io.BytesIO()
    np.save(out, np.asarray(array), allow_pickle=False)
    return {"array": base64.b64encode(out.getvalue()).decode(), "polygraphy_class": "ndarray"}


def lazy(array: Any) -> dict[str, Any]:
    return {"values": encoded(array), "polygraphy_class": "LazyArray"}


def torch_tensor() -> dict[str, Any]:
    return {"values": {"array": "gAJ9", "polygraphy_class": "Tensor"}, "polygraphy_class": "LazyArray"}


def run_results(runners: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """``--save-outputs``: runner name -> iterations -> output name -> array, or an entry that is already encoded."""
    return {
        "lst": [
            [
                name,
                [
                    {
                        "outputs": {
                            key: value if isinstance(value, dict) else lazy(value) for key, value in one.items()
                        },
                        "runtime": 0.001,
                        "runner_name": name,
                        "polygraphy_class": "IterationResult",
                    }
                    for one in iterations
                ],
            ]
            for name, iterations in runners.items()
        ],
        "polygraphy_class": "RunResults",
    }


def save_outputs(path: Path, runners: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    path.write_text(json.dumps(run_results(runners), indent=4))
    return path


def save_inputs(path: Path, sets: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text(json.dumps([{key: encoded(value) for key, value in one.items()} for one in sets], indent=4))
    return path
