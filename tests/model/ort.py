"""ONNX Runtime as the judge of what the model room makes: optimisation off, CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from probe.model.expose import Exposure


def session(model: bytes | str, external_dir: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    if external_dir is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(external_dir))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes | str, feeds: Mapping[str, object]) -> dict[str, object]:
    """Outputs of a model as it is, by name."""
    runner = session(model)
    names = [output.name for output in runner.get_outputs()]
    return dict(zip(names, runner.run(names, dict(feeds)), strict=True))


def run_exposed(
    exposure: Exposure, feeds: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object], set[str]]:
    """``(recorded tensors by name, everything fetched by output name, names that did not run)``."""
    runner = session(exposure.model_bytes, exposure.external_dir)
    names = list(dict.fromkeys([*(t.output_name for t in exposure.tensors), *exposure.conditions]))
    fetched = dict(zip(names, runner.run(names, dict(feeds)), strict=True))
    values, idle = {}, set()
    for tensor in exposure.tensors:
        ran = True
        for branch in tensor.branch:
            if bool(np.reshape(fetched[branch.condition], -1)[0]) != branch.taken:
                ran = False  # conditions further in hold nothing
                break
        if ran:
            values[tensor.name] = fetched[tensor.output_name]
        else:
            idle.add(tensor.name)
    return values, fetched, idle


def same_bits(one: object, other: object) -> bool:
    """Equal in type, shape and every bit; lists elementwise."""
    if isinstance(one, list) or isinstance(other, list):
        return (
            isinstance(one, list)
            and isinstance(other, list)
            and len(one) == len(other)
            and all(map(same_bits, one, other))
        )
    if isinstance(one, dict):
        return one == other
    mine, theirs = np.asarray(one), np.asarray(other)
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        return False
    return np.array_equal(mine, theirs) if mine.dtype.kind == "O" else mine.tobytes() == theirs.tobytes()
