"""Every public model, recorded with its own data, gives the outputs that were stored with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from probe.debug.record import collect_inputs, record
from probe.model import load
from probe.runners.ort import OrtRunner
from probe.store.dump import Dump
from probe.store.opening import open_sink, read_array


def range_rel(actual: np.ndarray, golden: np.ndarray) -> float:
    """max |actual - golden| / max |golden|, in float64."""
    actual, golden = actual.astype(np.float64), golden.astype(np.float64)
    assert actual.shape == golden.shape
    worst, span = np.abs(actual - golden).max(initial=0), np.abs(golden).max(initial=0)
    return float(worst / span if span else worst)


def check(path: Path, data: Path, tmp_path: Path, bound: float) -> Dump:
    model = load(path)
    runner = OrtRunner(model)
    sets, _ = collect_inputs(model, [data])
    with open_sink(tmp_path / "dump", runner.header) as sink:
        rows = record(runner, sets, sink)
    runner.close()
    dump = Dump(tmp_path / "dump")
    assert list(dump.rows()) == rows
    assert (dump.header.inputs[0].id, dump.header.inputs[0].sha256) == (sets[0].id, sets[0].sha256)
    by_name = {row.name: row for row in dump.rows()}
    with np.load(data) as stored:
        for key in stored:
            row = by_name[key.split("/", 1)[1]]
            if key.startswith("in/"):
                assert row.role == "input" and np.array_equal(read_array(dump, row), stored[key])
            else:
                assert row.role == "output"
                assert range_rel(read_array(dump, row), stored[key]) <= bound, key
    return dump


def tensors_to_expect(path: Path) -> set[str]:
    """Names of everything top-level nodes make, constants left out, read with onnx alone."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return {name for node in graph.node if node.op_type != "Constant" for name in node.output if name}


# Measured: all others are bit for bit what ONNX Runtime gave when the data was stored. squeezenet_fp16's outputs were stored by an FP16 run,
# and its golden is computed in FP32: 5.9e-5 of the range.
BOUNDS = {"squeezenet_fp16": 1e-3}


def test_public_models(models, tmp_path_factory):
    names = [entry["name"] for entry in json.loads((models / "MANIFEST.json").read_text())["models"]]
    assert len(names) == 14
    for name in names:
        path = models / "models" / f"{name}.onnx"
        for data in sorted((models / "data").glob(f"{name}__*.npz")):
            dump = check(path, data, tmp_path_factory.mktemp(name), BOUNDS.get(name, 1e-6))
            recorded = {row.name for row in dump.rows() if row.status == "recorded"}
            assert tensors_to_expect(path) <= recorded, name
            assert all(row.status in ("recorded", "not_run") for row in dump.rows()), name


def test_the_quantised_model_in_steps(models, tmp_path):
    """Q/DQ: an error below one step of the output's own quantiser is no error. Here the stored outputs come out exactly."""
    dump = check(
        models / "models" / "ultraface_slim_320_qdq.onnx",
        models / "data" / "ultraface_slim_320_qdq__main.npz",
        tmp_path,
        1e-3,
    )
    steps = {row.name: row.step for row in dump.rows() if row.step is not None}
    assert dump.header.golden == "qdq kept" and len(steps) > 100
    with np.load(models / "data" / "ultraface_slim_320_qdq__main.npz") as stored:
        for row in dump.rows():
            if row.role == "output":
                step = row.step or min(steps.values())
                assert np.abs(read_array(dump, row).astype(np.float64) - stored[f"out/{row.name}"]).max() < step


def test_the_half_precision_model_is_recorded_in_fp32(models, tmp_path):
    dump = check(
        models / "models" / "squeezenet_fp16.onnx", models / "data" / "squeezenet_fp16__main.npz", tmp_path, 1e-3
    )
    assert dump.header.golden == "upcast from float16"
    assert {row.dtype for row in dump.rows() if row.role != "input"} == {"float32"}


def test_nested_branches_of_silero(models, tmp_path):
    dump = check(models / "models" / "silero_vad.onnx", models / "data" / "silero_vad__main.npz", tmp_path, 1e-6)
    statuses = [row.status for row in dump.rows()]
    assert statuses.count("not_run") > 100 and statuses.count("recorded") > 100  # the 8 kHz half of the network is idle
    assert all(row.note.endswith("did not run") for row in dump.rows() if row.status == "not_run")


# PyTorch's own FP32 outputs. The U-Net carries an offset of 5000 into a softmax: 1.5e-5; the others agree to 1.2e-6 or better.
EXPORT_BOUNDS = {"unet_attn_mini": 1e-4}


def test_exported_models(exports, tmp_path_factory):
    paths = sorted((exports / "models").glob("*.onnx"))
    assert len(paths) == 10
    for path in paths:
        for data in sorted((exports / "data").glob(f"{path.stem}__*.npz")):
            if path.stem == "bert_mini" and data.stem.endswith("emptyrow"):
                bound = 1e-4  # a row without any visible token averages over all
            else:
                bound = EXPORT_BOUNDS.get(path.stem, 5e-6)
            dump = check(path, data, tmp_path_factory.mktemp(path.stem), bound)
            assert tensors_to_expect(path) <= {row.name for row in dump.rows()}
            odd = {row.note for row in dump.rows() if row.status == "unsupported"}
            assert odd <= {"inside an If inside a loop: not every iteration makes it"}, path.stem


@pytest.mark.parametrize("name", ["bert_mini", "scripted_loop_if"])
def test_threads_and_repetition_give_the_same_bits(exports, name):
    from probe.runners.protocol import RunnerOptions

    model = load(exports / "models" / f"{name}.onnx")
    (one, *_), _ = collect_inputs(model, [next((exports / "data").glob(f"{name}__*.npz"))])

    def bits(threads: int) -> list[bytes]:
        made = OrtRunner(model, RunnerOptions(threads=threads)).run(one.feeds, one.id)
        return [tensor.array.tobytes() for tensor in made if tensor.array is not None]

    assert bits(1) == bits(1) == bits(2)
