"""Every public and exported model in float64: near its FP32 run in all tensors, and near the stored outputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from probe.debug.record import collect_inputs
from probe.model import load
from probe.results.tensors import TensorInfo
from probe.runners.fp64.runner import Fp64Runner
from probe.runners.ort import OrtRunner
from tests.thorough import longest

MODELS = (
    "dtln_1 gtcrn_simple magika_fast_v2_1 magika_standard_v3_3 mnist occ_image_classifier32 "
    "osf_landmarks silero_vad squeezenet_fp16 superres_core ultraface_slim_320"
).split()
LARGE = ["dnsmos_sig_bak_ovr", "fns_candy"]  # the first one where all is asked for
EXPORTS = (
    "bert_mini convtasnet_cln gpt2_mini llama_gqa_mini "
    "lstm_gru_tagger nonzero_boxes scripted_loop_if t5_encoder_mini unet_attn_mini vit_mini"
).split()

# Noise of FP32: largest |FP32 - FP64| of any tensor over the largest number in it. Measured: 1e-5 or less but for
BOUNDS = {
    "dnsmos_sig_bak_ovr": 3e-5,  # 1.2e-5, sums of 576 products
    "fns_candy": 1e-4,  # 3.1e-5, fifteen normalisations of large images in a row
    "unet_attn_mini": 3e-4,  # 9.0e-5, a softmax over numbers around 5000
    # 3.5e-3: a layer norm takes its variance as E[x^2] - E[x]^2, and a tanh behind it turns what is left into signs
    "magika_standard_v3_3": 1e-2,
}
_DEFAULT = 2e-5


def run(path: Path, data: Path) -> tuple[dict, list[TensorInfo], dict, list[TensorInfo]]:
    """(arrays, rows) of fp64, then of ort; only the outputs and numbers that are compared are kept."""
    model = load(path)
    (one, *_), _ = collect_inputs(model, [data])
    golden = {t.info.name: t for t in OrtRunner(model).run(one.feeds, one.id)}
    arrays, rows = {}, []
    for tensor in Fp64Runner(model).run(one.feeds, one.id):
        arrays[tensor.info.name] = tensor.array
        rows.append(tensor.info)
    return arrays, rows, {n: t.array for n, t in golden.items()}, [t.info for t in golden.values()]


def range_rel(actual: np.ndarray, golden: np.ndarray) -> float:
    """max |actual - golden| / max |golden|, masks beyond 1e30 left out: they are the same or the assertion fails."""
    assert actual.shape == golden.shape
    actual, golden = actual.astype(np.float64), golden.astype(np.float64)
    masks = ~(np.abs(golden) < 1e30)
    np.testing.assert_allclose(actual[masks], golden[masks], rtol=1e-6)
    worst = np.abs(actual[~masks] - golden[~masks]).max(initial=0)
    span = np.abs(golden[~masks]).max(initial=0)
    return float(worst / span if span else worst)


def check(folder: Path, name: str, data: Path, *, kinds: bool = True) -> None:
    arrays, rows, golden, golden_rows = run(folder / "models" / f"{name}.onnx", data)
    assert [row.name for row in rows] == [row.name for row in golden_rows]
    for mine, theirs in zip(rows, golden_rows, strict=True):
        wide = "float64" if theirs.dtype == "float32" else theirs.dtype
        assert mine == replace(theirs, dtype=wide), theirs.name
    for key, expected in golden.items():
        if expected is None:
            assert arrays[key] is None
        elif expected.dtype == np.float32:
            error = range_rel(expected, arrays[key])
            assert error <= BOUNDS.get(name, _DEFAULT), f"{key}: {error:.2g}"
        elif kinds:
            assert np.array_equal(arrays[key], expected), key
    with np.load(data) as stored:
        for key in stored:
            if key.startswith("out/"):
                assert range_rel(arrays[key.removeprefix("out/")], stored[key]) <= 1e-3, key


@pytest.mark.parametrize("name", MODELS)
def test_public_models(models, name):
    for data in sorted((models / "data").glob(f"{name}__*.npz")):
        check(models, name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("dnsmos_sig_bak_ovr", marks=longest), "fns_candy"])
def test_large_public_models(models, name):
    for data in sorted((models / "data").glob(f"{name}__*.npz")):
        check(models, name, data)


@pytest.mark.parametrize("name", EXPORTS)
def test_exported_models(exports, name):
    for data in sorted((exports / "data").glob(f"{name}__*.npz")):
        check(exports, name, data)


def test_no_model_is_left_out(models, exports):
    named = {entry["name"] for entry in json.loads((models / "MANIFEST.json").read_text())["models"]}
    assert named == {*MODELS, *LARGE, "ultraface_slim_320_qdq"}
    assert {path.stem for path in (exports / "models").glob("*.onnx")} == set(EXPORTS)


def test_the_quantised_model_in_steps(models):
    """A quotient that FP32 rounds across a half becomes another integer: rarely, by one step, and what follows moves by that step."""
    arrays, rows, golden, _ = run(
        models / "models" / "ultraface_slim_320_qdq.onnx", models / "data" / "ultraface_slim_320_qdq__main.npz"
    )
    moved = total = 0
    for key, expected in golden.items():
        if expected.dtype.kind in "iu":
            difference = np.abs(arrays[key].astype(np.int64) - expected)
            assert difference.max(initial=0) <= 1, key
            moved, total = moved + int(difference.sum()), total + difference.size
    assert total > 1e6 and moved <= 1e-5 * total
    steps = {row.name: row.step for row in rows if row.step is not None}
    for key, step in steps.items():
        assert np.abs(arrays[key] - golden[key]).max() <= 2 * step, key
    with np.load(models / "data" / "ultraface_slim_320_qdq__main.npz") as stored:
        for key in ("scores", "boxes"):
            if f"out/{key}" in stored:
                assert range_rel(arrays[key], stored[f"out/{key}"]) <= 1e-2
