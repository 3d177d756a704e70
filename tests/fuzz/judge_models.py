"""Damaged models: refused with a reason, or recorded as ONNX Runtime computes them when it is asked directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from probe import api
from probe.errors import InputError
from probe.model import Model, load
from probe.model.expose import expose
from probe.report.terminal import render
from probe.runners.protocol import RunnerOptions
from probe.store.recording import Recording
from tests.fuzz.sandbox import WrongError

_OPTIONS = RunnerOptions(threads=1, memory_limit=2 << 30)


def judge_model(original: Path, damaged: Path, work: Path, seed: int) -> tuple[str, str]:
    """``probe inspect`` and ``probe dump`` on the damaged model.

    Raises:
        WrongError: the recorded outputs are not what the model computes.
    """
    from probe.debug.inspect import inspect_model

    try:
        model = load(damaged)
        render(inspect_model(damaged), verbose=True)
        exposure = expose(model)
        names = [tensor.name for tensor in exposure.tensors]
        if len(set(names)) != len(names):
            raise WrongError("two exposed tensors have one name")
    except InputError as error:
        return "refused", f"load: {error.what}"
    try:
        recording = api.dump(damaged, work / "recording", options=_OPTIONS)
    except InputError as error:
        if (work / "recording").exists() or any(entry.name.startswith(".") for entry in work.iterdir()):
            raise WrongError("refused, and something was left behind") from None
        return "refused", f"run: {error.what}"
    with recording:
        for row in recording.rows():
            if row.status == "recorded":
                recording.read(row.name, row.input_id)
        if model.numerics in ("float32", "qdq", "float64") and not model.half:
            _as_computed(damaged, model, recording)
    changed = damaged.read_bytes() != original.read_bytes()
    return ("different" if changed else "same"), ""


def _as_computed(path: Path, model: Model, recording: Recording) -> None:
    """Graph outputs, bit by bit, against a plain session on the damaged file and the recorded inputs."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        feeds = {row.name: recording.read(row.name) for row in recording.rows() if row.role == "input"}
        wanted = [port.name for port in model.outputs if port.is_tensor and port.dtype != "string"]
        if not wanted or any("[" in name for name in feeds) or any(x.dtype.kind not in "fiub" for x in feeds.values()):
            return
        computed = session.run(wanted, feeds)
    except Exception:
        return  # probe may repair what ONNX Runtime alone refuses: nodes in the wrong order
    for name, value in zip(wanted, map(np.asarray, computed), strict=True):
        if name not in recording or recording.info(name).status != "recorded":
            continue
        found = recording.read(name)
        if (
            found.shape != value.shape
            or found.dtype != value.dtype
            or found.tobytes() != np.ascontiguousarray(value).tobytes()
        ):
            if np.array_equal(found, value, equal_nan=found.dtype.kind == "f"):
                continue  # NaN payloads and the sign of zero may depend on how a kernel is cut
            raise WrongError(f"output {name!r} is not what the model computes")
