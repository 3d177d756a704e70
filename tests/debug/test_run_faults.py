"""Broken on purpose: ``run`` of a network with one fault, against the golden of the sound one, fails and names the layer and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import probe
from probe.results.run import RunResult
from tests.debug import faulty

change, swap = faulty.change_weight, faulty.swap_outputs

FAULTS: dict[str, tuple[Any, str]] = {
    "off by 1 %": (change("fc3.weight", lambda w: w * 1.01), "fc3/MatMul"),
    "a sign": (change("fc1.weight", lambda w: -w), "fc1/MatMul"),
    "the sign of one element": (change("fc5.weight", lambda w: np.where(np.arange(w.size).reshape(w.shape) == 40, -w, w)), "fc5/MatMul"),
    "a transpose": (change("fc4.weight", np.transpose), "fc4/MatMul"),
    "two outputs swapped": (swap("split"), "split"),
    "a dropped bias": (change("fc2.bias", np.zeros_like), "fc2/Add"),
    "a stale weight": (change("norm.weight", lambda w: w + np.random.default_rng(9).normal(size=w.shape) * 0.02), "norm"),
    "another epsilon": (faulty.set_attribute("norm", epsilon=0.05), "norm"),
    "another axis": (faulty.set_attribute("softmax", axis=0), "softmax"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    model = faulty.build(folder / "model.onnx")
    probe.dump(model, folder / "golden", inputs=faulty.feeds()).close()
    return folder


def blamed(result: RunResult) -> set[str]:
    """ONNX nodes of the layers that findings and the first divergence name."""
    layers = {layer.name: layer for layer in result.layers}
    named = {*result.first_divergence, *(f.layer for f in result.findings if f.layer and f.kind != "inner_range")}
    return {node for name in named for node in layers[name].nodes}


@pytest.mark.parametrize(("passes", "fusion"), [("none", "none"), ("safe", "safe")])
@pytest.mark.parametrize("name", FAULTS)
def test_the_layer_is_named_and_no_other(name: str, passes: Any, fusion: Any, sound: Path, tmp_path: Path) -> None:
    fault, guilty = FAULTS[name]
    broken = faulty.break_model(sound / "model.onnx", fault, tmp_path / "broken.onnx")
    result = probe.run(broken, precision="fp32", golden=sound / "golden", passes=passes, fusion=fusion)
    assert result.verdict == "failed" and not result
    layers = {node: layer.name for layer in result.layers for node in layer.nodes}
    assert result.first_divergence == (layers[guilty],), "first divergence"
    (finding,) = [f for f in result.findings if f.kind == "differs_in_fp32"]
    assert finding.layer == layers[guilty] and finding.fatal
    if fusion == "none":
        assert blamed(result) == {guilty}
    else:
        assert blamed(result) <= set(next(x for x in result.layers if x.name == layers[guilty]).nodes)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "tf32"])
def test_the_sound_network_passes(precision: str, sound: Path) -> None:
    result = probe.run(sound / "model.onnx", precision=precision, golden=sound / "golden")
    assert result.verdict == "passed"
    assert not {f.kind for f in result.findings} & {"differs_in_fp32", "baseline_fails", "golden_of_outputs"}
    assert not [f for f in result.findings if f.fatal]


def test_a_fault_is_told_from_precision(sound: Path, tmp_path: Path) -> None:
    """In FP16 every layer is off a little; the broken one is named all the same, and the run says that precision is not to blame."""
    broken = faulty.break_model(sound / "model.onnx", FAULTS["a sign"][0], tmp_path / "broken.onnx")
    result = probe.run(broken, precision="fp16", golden=sound / "golden", passes="none", fusion="none")
    assert [f.kind for f in result.findings[:2]] == ["baseline_fails", "differs_in_fp32"]
    assert result.findings[1].node == "fc1/MatMul"
    assert result.first_divergence == ("fc1/MatMul",)


def test_layers_are_judged_when_only_an_output_has_an_acceptance(sound: Path, tmp_path: Path) -> None:
    """A bound for one output says nothing of tensors inside: those are held to the default of the precision."""
    broken = faulty.break_model(sound / "model.onnx", FAULTS["a sign"][0], tmp_path / "broken.onnx")
    result = probe.run(
        broken, precision="fp32", golden=sound / "golden", accept=["max_abs<=0.01 @ boxes"], passes="none", fusion="none"
    )  # fmt: skip
    assert result.verdict == "failed" and result.first_divergence == ("fc1/MatMul",)


def test_two_faults_are_both_named(sound: Path, tmp_path: Path) -> None:
    """Floor and local error are measured on golden inputs, so the second is seen although the first has spoilt what it reads."""
    once = faulty.break_model(sound / "model.onnx", FAULTS["a sign"][0], tmp_path / "once.onnx")
    twice = faulty.break_model(once, FAULTS["a transpose"][0], tmp_path / "twice.onnx")
    result = probe.run(twice, precision="fp32", golden=sound / "golden", passes="none", fusion="none")
    assert [f.node for f in result.findings if f.kind == "differs_in_fp32"] == ["fc1/MatMul", "fc4/MatMul"]
    assert result.first_divergence == ("fc1/MatMul",)


def test_a_golden_of_outputs_alone_still_fails(sound: Path, tmp_path: Path) -> None:
    """Then nothing is known of layers, and none is blamed but those that make the outputs."""
    outputs = {name: probe.open_recording(sound / "golden")[name] for name in ("scores", "boxes")}
    broken = faulty.break_model(sound / "model.onnx", FAULTS["a sign"][0], tmp_path / "broken.onnx")
    result = probe.run(broken, precision="fp32", golden=outputs, inputs=faulty.feeds())
    assert result.verdict == "failed"
    assert all(layer.floor is None for layer in result.layers if "x" not in layer.reads)
    assert not [f for f in result.findings if f.kind == "differs_in_fp32"]
    assert "golden_of_outputs" in {f.kind for f in result.findings}


WEIGHTS = st.sampled_from([f"fc{i}" for i in range(1, 6)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(layer=WEIGHTS, seed=st.integers(0, 10**6))
def test_whichever_weight_goes_wrong(layer: str, seed: int, sound: Path, tmp_path: Path) -> None:
    """Noise of 5 % on one weight matrix, of a random layer: found, and nothing else with it."""

    def noisy(w: np.ndarray) -> np.ndarray:
        return w * (1 + 0.05 * np.random.default_rng(seed).normal(size=w.shape))

    broken = faulty.break_model(sound / "model.onnx", change(f"{layer}.weight", noisy), tmp_path / "broken.onnx")
    result = probe.run(broken, precision="fp32", golden=sound / "golden", passes="none", fusion="none")
    assert result.verdict == "failed"
    assert blamed(result) == {f"{layer}/MatMul"}
