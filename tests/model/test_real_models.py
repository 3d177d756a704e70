"""Public models and what exporters write: all load, all tensors come out, outputs keep every bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from probe.model import load
from probe.model.expose import expose
from probe.model.upcast import upcast
from tests.model import ort

PUBLIC = (
    "dnsmos_sig_bak_ovr dtln_1 fns_candy gtcrn_simple magika_fast_v2_1 magika_standard_v3_3 mnist occ_image_classifier32 osf_landmarks "
    "silero_vad squeezenet_fp16 superres_core ultraface_slim_320 ultraface_slim_320_qdq"
).split()
EXPORTED = (
    "bert_mini convtasnet_cln gpt2_mini llama_gqa_mini lstm_gru_tagger nonzero_boxes scripted_loop_if t5_encoder_mini unet_attn_mini "
    "vit_mini"
).split()
CASES = [*(("models", name) for name in PUBLIC), *(("exports", name) for name in EXPORTED)]
NUMERICS = {"squeezenet_fp16": "float16", "ultraface_slim_320_qdq": "qdq"}
# ONNX Runtime's CPU provider computes FP16 graphs in FP32 and rounds where a tensor must be handed out, so marking tensors changes
# the result. It is why goldens of such models are upcast.
ROUNDED_WHERE_MARKED = {"squeezenet_fp16"}


@pytest.fixture(params=CASES, ids=[name for _, name in CASES])
def real(request) -> tuple[str, Path, list[Path]]:
    """``(name, model, recorded inputs)``"""
    folder, name = request.param
    base = request.getfixturevalue(folder)
    return name, base / "models" / f"{name}.onnx", sorted((base / "data").glob(f"{name}__*.npz"))


def feeds_and_outputs(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with np.load(path) as file:
        feeds = {key.removeprefix("in/"): file[key] for key in file if key.startswith("in/")}
        outputs = {key.removeprefix("out/"): file[key] for key in file if key.startswith("out/")}
    return feeds, outputs


def test_every_tensor_comes_out_and_outputs_keep_every_bit(real):
    name, path, recordings = real
    model = load(path)
    assert model.numerics == NUMERICS.get(name, "float32")
    assert model.notes == ()
    exposure = expose(model)
    plain, marked = ort.session(str(path)), ort.session(exposure.model_bytes)
    outputs = [output.name for output in plain.get_outputs()]
    assert recordings
    for recording in recordings:
        feeds, expected = feeds_and_outputs(recording)
        before = dict(zip(outputs, plain.run(outputs, feeds), strict=True))
        names = list(dict.fromkeys([*(t.output_name for t in exposure.tensors), *exposure.conditions]))
        after = dict(zip(names, marked.run(names, feeds), strict=True))
        for output in outputs:
            assert ort.same_bits(before[output], after[output]) or name in ROUNDED_WHERE_MARKED
            scale = np.max(np.abs(expected[output].astype(np.float64)), initial=1e-30)
            assert np.max(np.abs(before[output].astype(np.float64) - expected[output]), initial=0) <= 1e-3 * scale
        made = {o for node in model.nodes if node.op != "Constant" for o in node.outputs if o}
        assert {t.name for t in exposure.tensors} | {n for n, _ in exposure.not_exposed} == made


def test_models_list_is_complete(models, exports):
    for folder, names in ((models, PUBLIC), (exports, EXPORTED)):
        assert {p.stem for p in (folder / "models").glob("*.onnx")} == set(names)
        assert json.loads((folder / "MANIFEST.json").read_text())


def test_only_one_branch_of_silero_runs(models):
    """It has a network for 16 kHz and one for 8 kHz in two branches, with Ifs inside them, four levels deep."""
    exposure = expose(load(models / "models" / "silero_vad.onnx"))
    assert exposure.not_exposed == ()
    assert max(len(t.branch) for t in exposure.tensors) == 4
    feeds, _ = feeds_and_outputs(models / "data" / "silero_vad__main.npz")
    values, _, idle = ort.run_exposed(exposure, feeds)
    assert {name.split("__")[0] for name in values if "branch__" in name} == {"If_0_then_branch"}
    other = dict(feeds, sr=np.array(8000 if feeds["sr"] == 16000 else 16000, feeds["sr"].dtype))
    if other["sr"] == 8000:
        other["input"] = feeds["input"][:, : feeds["input"].shape[1] // 2]
    values, _, idle_then = ort.run_exposed(exposure, other)
    assert {name.split("__")[0] for name in values if "branch__" in name} == {"If_0_else_branch"}
    assert idle & idle_then  # deep branches that neither takes
    assert len(values) + len(idle_then) == len(exposure.tensors)


def test_the_upcast_of_squeezenet_agrees_with_its_fp16_outputs(models):
    model = upcast(load(models / "models" / "squeezenet_fp16.onnx"))
    feeds, expected = feeds_and_outputs(models / "data" / "squeezenet_fp16__main.npz")
    values, _, _ = ort.run_exposed(expose(model), {name: array.astype(np.float32) for name, array in feeds.items()})
    for name, array in expected.items():
        assert values[name].dtype == np.float32
        assert np.max(np.abs(values[name] - array.astype(np.float32))) < 1e-3
    assert all(v.dtype != np.float16 for v in values.values())


def test_the_quantised_model_knows_its_steps(models):
    model = load(models / "models" / "ultraface_slim_320_qdq.onnx")
    steps = {t.name: t.step for t in expose(model).tensors if t.step is not None}
    written = {node.outputs[0] for node in model.nodes if node.op == "DequantizeLinear"}
    assert written <= set(steps)
    assert all(0 < step < 10 for step in steps.values())
