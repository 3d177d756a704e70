"""Every public and exported model, at each level against none: outputs, every tensor that kept its name, fates, types and shapes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from probe.engine.network import read_network
from probe.engine.passes import run_passes
from probe.model.load import load
from tests.engine.passes.judge import Before, judge

PUBLIC = """dnsmos_sig_bak_ovr dtln_1 fns_candy gtcrn_simple magika_fast_v2_1 magika_standard_v3_3 mnist occ_image_classifier32
osf_landmarks silero_vad squeezenet_fp16 superres_core ultraface_slim_320 ultraface_slim_320_qdq""".split()
EXPORTED = """bert_mini convtasnet_cln gpt2_mini llama_gqa_mini lstm_gru_tagger nonzero_boxes scripted_loop_if t5_encoder_mini
unet_attn_mini vit_mini""".split()


def feeds_of(folder: Path, name: str, network) -> dict[str, np.ndarray]:
    data = np.load(min((folder / "data").glob(f"{name}__*.npz")))
    types = {port.name: port.dtype for port in network.model.inputs}
    return {key[3:]: data[key].astype(types[key[3:]]) for key in data if key.startswith("in/")}


def compare(folder: Path, name: str, level: str) -> None:
    loaded = load(folder / "models" / f"{name}.onnx")
    network = read_network(loaded)
    before = Before.of(network, feeds_of(folder, name, network))
    started = time.perf_counter()
    report = run_passes(network, level)
    assert time.perf_counter() - started < 5  # seconds; 0.1 where the machine is not busy
    judge(network, before, tolerance=1e-4)
    assert not report.notes, report.notes


@pytest.mark.parametrize("level", ["safe", "all"])
@pytest.mark.parametrize("name", PUBLIC)
def test_public(models, name, level):
    compare(models, name, level)


@pytest.mark.parametrize("level", ["safe", "all"])
@pytest.mark.parametrize("name", EXPORTED)
def test_exported(exports, name, level):
    compare(exports, name, level)


def test_batch_normalisation_is_gone_where_a_convolution_is_before_it(models):
    network = read_network(load(models / "models" / "ultraface_slim_320.onnx"))
    run_passes(network)
    assert "BatchNormalization" not in {node.op_type for node in network.graph}


def test_quantisation_stays(models):
    """Quantised weights, and the batch normalisation behind quantised convolutions, are left as they are."""
    network = read_network(load(models / "models" / "ultraface_slim_320_qdq.onnx"))
    before = [node.op_type for node in network.graph]
    run_passes(network, "all")
    after = [node.op_type for node in network.graph]
    for op in ("QuantizeLinear", "DequantizeLinear"):
        assert before.count(op) == after.count(op)
