"""Runs one peer inside its own environment: an FP32 ONNX model in, its mixed-precision model out. Imports nothing of this repository.

    PYTHON tests/bench/peer_mixed.py onnxconverter|modelopt MODEL.onnx DATA.npz OUT.onnx --limit 0.02

DATA.npz holds in/NAME. Prints one JSON line last: {"seconds", "evaluations", "version"}; on failure {"error"} and exit 1. ModelOpt gets the
inputs as calibration data; onnxconverter-common the acceptance as its validation function, which counts its evaluations.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def onnxconverter(model: Path, feeds: dict[str, Any], out: Path, limit: float) -> int:
    """``auto_convert_mixed_precision``; returns how many models it tried."""
    import onnx
    from onnxconverter_common.auto_mixed_precision import (  # type: ignore[import-not-found] - only there
        auto_convert_mixed_precision,
    )

    asked = 0

    def validate(golden: Sequence[Any], actual: Sequence[Any]) -> bool:
        nonlocal asked
        asked += 1
        for wanted, found in zip(golden, actual, strict=True):
            if not np.array_equal(np.isfinite(wanted), np.isfinite(found)):
                return False
            if wanted.dtype.kind == "f" and np.max(np.abs(found - wanted)) > limit * np.max(np.abs(wanted)):
                return False
        return True

    onnx.save(auto_convert_mixed_precision(onnx.load(model), feeds, validate, keep_io_types=True), out)
    return asked - 1  # the first asks whether the golden is like itself


def modelopt(model: Path, feeds: dict[str, Any], out: Path, limit: float) -> int:
    """AutoCast with its defaults and the inputs as calibration data; it validates nothing."""
    import onnx
    from modelopt.onnx.autocast import convert_to_mixed_precision  # type: ignore[import-not-found] - only there

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "calibration.npz"
        np.savez(data, **feeds)
        made = convert_to_mixed_precision(str(model), "fp16", calibration_data=str(data), keep_io_types=True)
    onnx.save(made, out)
    return 0


PEERS = {"onnxconverter": (onnxconverter, "onnxconverter-common"), "modelopt": (modelopt, "nvidia-modelopt")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=float, required=True, help="of range_rel")
    options = parser.parse_args()
    convert, package = PEERS[options.peer]
    with np.load(options.data) as data:
        feeds = {key[3:]: data[key] for key in data.files if key.startswith("in/")}
    version = "not installed"
    begin = time.perf_counter()
    try:
        version = importlib.metadata.version(package)
        evaluations = convert(options.model, feeds, options.out, options.limit)
    except Exception as error:  # whatever it raises is its result
        lines = str(error).strip().splitlines() or [""]
        print(json.dumps({"error": f"{type(error).__name__}: {lines[0][:300]}", "version": version}))
        return 1
    print(json.dumps({"seconds": time.perf_counter() - begin, "evaluations": evaluations, "version": version}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
