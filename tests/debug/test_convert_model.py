"""Converting and proving: a keep-list that holds passes in both forms, one that does not fails, and nothing is claimed that was not shown."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import probe
from probe.debug.convert_model import ConvertOptions, resolve_keep
from probe.debug.handover import autocast_patterns, layer_precisions, named_and_unnamed
from probe.errors import InputError
from probe.model import load
from probe.results.convert_result import ConvertResult
from tests.model.builders import model, node, save, value, weight

X = {"x": np.array([[1, 300, 3], [0.1, 2, -4]], np.float32)}
NORM = [
    node("Mul", ["x", "x"], ["q"], "square"),
    node("Sqrt", ["q"], ["r"], "root"),
    node("Relu", ["r"], ["y"], "relu"),
]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """y = |x|, whose square passes 65504."""
    return save(model(NORM, [value("x")], [value("y", (2, 3))]), tmp_path / "m.onnx")


def convert(network: Path, **how: Any) -> ConvertResult:
    return probe.convert(network, network.parent / "out.onnx", **{"inputs": X, **how})


def test_all_low_is_written_and_fails(network: Path) -> None:
    result = convert(network)
    assert not result
    assert result.verdict == "failed"
    typed, ort = result.proofs
    assert (typed.runner, typed.fp16_honoured, typed.passed, typed.metric) == ("typed", True, False, math.inf)
    # What ONNX Runtime computes looks fine, which is why it proves nothing.
    assert (ort.runner, ort.fp16_honoured, ort.passed) == ("ort", False, True)
    assert ort.metric is not None and ort.metric < 0.01
    assert result.handed_over == ()
    assert Path(result.path).is_file()


@pytest.mark.parametrize("how", [{"keep": ["^q$"]}, {"keep": [re.compile("^q$")]}, {"keep_tensors": ["q"]}])
def test_a_kept_tensor_is_proved_in_both_forms(network: Path, how: dict[str, Any]) -> None:
    result = convert(network, **how)
    assert result, result.reasons
    assert (result.keep, result.kept_tensors, result.lifted) == (("q",), ("q",), ("square", "root"))
    tensors, nodes = result.handed_over
    assert (tensors.form, tensors.names, tensors.verdict) == ("tensors", ("q",), "passed")
    assert (nodes.form, nodes.names, nodes.verdict) == ("nodes", ("square", "root"), "passed")
    assert result.autocast == ("^square$", "^root$")
    assert result.trtexec[1] == "--layerPrecisions=square:fp32,root:fp32"
    assert result.low_nodes == 1
    assert result.outputs["y"].verdict == "passed"
    onnx.checker.check_model(result.path, full_check=True)


def test_keeping_only_the_producer_cures_nothing(network: Path) -> None:
    result = convert(network, keep_nodes=["square"])
    assert result.verdict == "failed"
    (nodes,) = result.handed_over
    assert (nodes.form, nodes.names, nodes.verdict) == ("nodes", ("square",), "failed")
    assert convert(network, keep_nodes=["square", "root"], overwrite=True)


def test_without_proof_nothing_is_claimed(network: Path) -> None:
    result = convert(network, prove=False, inputs=None)
    assert result.verdict == "not_judged"
    assert (result.proofs, result.outputs, result.inputs, result.handed_over) == ((), {}, (), ())


def test_bf16_where_onnx_runtime_has_no_kernels(network: Path) -> None:
    result = convert(network, precision="bf16")
    assert result, result.reasons
    typed, ort = result.proofs
    assert typed.metric is not None and typed.metric < 0.01
    assert ort.passed and ort.metric is None and ort.verdict == "not_judged"
    assert "no kernel" in ort.reasons[0]


def test_goldens_and_acceptance(network: Path) -> None:
    golden = {"y": np.abs(X["x"])}
    golden["y"][1, 2] = 0
    result = convert(network, keep=["^q$"], golden=golden)
    assert result, result.reasons  # relu(sqrt(x * x)) is not quite this golden: 4 off of 300 is 0.013
    assert result.verdict == "warned"
    assert not convert(network, keep=["^q$"], golden=golden, accept=["max_abs<=1"], overwrite=True)
    assert convert(network, keep=["^q$"], accept=["max_abs<=1"], overwrite=True)


def test_outputs_that_are_inputs_or_weights(tmp_path: Path) -> None:
    w = weight("w", np.ones((2, 3), np.float32) / 3)
    proto = model([node("Add", ["x", "w"], ["y"], "A")], [value("x")], [value("y"), value("w"), value("x")], [w])
    result = convert(save(proto, tmp_path / "m.onnx"))
    assert result, result.reasons


@pytest.mark.parametrize(
    ("out", "how", "message"),
    [
        ("out.onnx", {"keep": ["nope"]}, "nothing to keep matches 'nope'"),
        ("out.onnx", {"keep_nodes": ["q"]}, "no node is called 'q'"),
        ("out.bin", {}, "is written as .onnx"),
        ("none/out.onnx", {}, "its folder does not exist"),
        ("m.onnx", {"overwrite": True}, "it is the model itself"),
        ("there.onnx", {}, "there.onnx exists"),
        ("folder.onnx", {}, "it is a folder"),
        ("out.onnx", {"golden": "nothing"}, "there is no golden 'nothing'"),
    ],
)
def test_what_cannot_be_used_is_said_and_nothing_is_written(
    network: Path, out: str, how: dict[str, Any], message: str
) -> None:
    (network.parent / "there.onnx").write_bytes(b"mine")
    (network.parent / "folder.onnx").mkdir()
    before = network.read_bytes()
    with pytest.raises(InputError) as error:
        probe.convert(network, network.parent / out, inputs=X, **how)
    assert message in error.value.what
    assert (network.read_bytes(), (network.parent / "there.onnx").read_bytes()) == (before, b"mine")
    assert sorted(p.name for p in network.parent.iterdir()) == ["folder.onnx", "m.onnx", "there.onnx"]


@pytest.mark.parametrize("phase", ["golden", "proof", "hand-over"])
def test_what_was_not_proved_is_not_left_behind(network: Path, phase: str) -> None:
    def interrupt(now: str, _name: str) -> None:
        if now == phase:
            raise KeyboardInterrupt

    out = network.with_name("interrupted.onnx")
    with pytest.raises(KeyboardInterrupt):
        probe.convert(network, out, keep=["."], progress=interrupt)
    assert not out.exists()


def test_a_golden_that_cannot_be_read_leaves_nothing(network: Path) -> None:
    out = network.with_name("unfit.onnx")
    damaged = network.with_name("damaged.npz")
    damaged.write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match="cannot read"):
        probe.convert(network, out, inputs=X, golden=damaged)
    assert not out.exists()


def test_names_of_tensors_come_first(tmp_path: Path) -> None:
    nodes = [node("Exp", ["x"], ["a"], "same"), node("Relu", ["a"], ["same"], "b")]
    loaded = load(save(model(nodes, [value("x")], [value("same")]), tmp_path / "m.onnx"))
    assert resolve_keep(loaded, ConvertOptions(keep=(re.compile("^same$"),))) == (("same",), ())
    assert resolve_keep(loaded, ConvertOptions(keep=(re.compile("^(a|b)$"),))) == (("a",), ("b",))


# --- lists for other tools


@pytest.mark.parametrize("name", ["/a/b/Mul", "a.b", "x[0]", "c++", "Relu(y:0)", "^$", "a|b"])
def test_a_pattern_matches_its_node_alone(name: str) -> None:
    (pattern,) = autocast_patterns([name])
    assert re.match(pattern, name)
    assert not re.match(pattern, name + "x")
    assert not re.match(pattern, "x" + name)


def test_layer_precisions() -> None:
    assert layer_precisions(["a", "b:0", "c,d"]) == (
        "--precisionConstraints=obey", "--layerPrecisions=a:fp32,'b:0':fp32,'c,d':fp32", "--layerOutputTypes=a:fp32,'b:0':fp32,'c,d':fp32",
    )  # fmt: skip
    assert layer_precisions([]) == ()
    assert layer_precisions(["a", "b*"]) == ()  # a wildcard there
    assert layer_precisions(["it's"]) == ()


def test_nodes_without_a_name_cannot_be_told(tmp_path: Path) -> None:
    nodes = [node("Mul", ["x", "x"], ["q"]), node("Sqrt", ["q"], ["y"], "root")]
    network = save(model(nodes, [value("x")], [value("y", (2, 3))]), tmp_path / "m.onnx")
    assert named_and_unnamed(load(network), ["Mul(q)", "root"]) == (("root",), ("Mul(q)",))
    result = convert(network, keep=["^q$"])
    assert result.unnamed == ("Mul(q)",)
    assert result.autocast == ("^root$",)
