"""``probe inspect`` of a model: its layers, what they cost, what was removed and what was not fused."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from probe.debug.inspect import inspect_model
from probe.errors import InputError
from probe.report.terminal import render
from probe.results.inspect import InspectResult, LayersReport
from probe.results.json import dumps, load
from tests.engine import networks


def _layers(result: InspectResult) -> LayersReport:
    assert result.model is not None and result.model.layers is not None
    return result.model.layers


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.save(networks.resnet152(width=16), tmp_path_factory.mktemp("resnet") / "resnet.onnx")


def test_layers_of_a_network(resnet: Path) -> None:
    report = _layers(inspect_model(resnet))
    assert (len(report.layers), report.working, report.changes) == (159, 158, {"batch_norm": 155})
    first = report.layers[0]
    assert (first.name, first.kind, first.pattern) == ("Conv_0 + BatchNormalization_0 + Relu_0", "conv", "conv + relu")
    assert [(port.name, port.dtype, port.shape) for port in first.outputs] == [
        ("Relu_0_output", "float32", (1, 4, 112, 112))
    ]
    assert first.flops == 4 * 112 * 112 * (2 * 3 * 49 + 1 + 1)  # products, bias, Relu
    assert first.weights_bytes == 4 * (4 * 3 * 49 + 4)
    assert first.bytes == 4 * (3 * 224 * 224 + 4 * 112 * 112) + first.weights_bytes
    assert {(fate.status, fate.by) for fate in report.fates} == {("folded", "batch_norm")}


def test_types_are_called_as_in_recordings(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float8e4m3fn[2] y, double[2] z)
    { y = Cast <to = 17> (x)  z = Cast <to = 11> (x) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    report = _layers(inspect_model(tmp_path / "m.onnx", passes="none"))
    assert {port.name: port.dtype for layer in report.layers for port in layer.outputs} == {
        "y": "float8_e4m3fn", "z": "float64",
    }  # fmt: skip


def test_levels_are_those_asked_for(resnet: Path) -> None:
    bare = _layers(inspect_model(resnet, passes="none", fusion="none"))
    assert len(bare.layers) == 515 and not bare.changes and not bare.refusals and not bare.fates
    full = _layers(inspect_model(resnet, fusion="full"))
    assert [(one.pattern, one.nodes[-1]) for one in full.refusals] == [("conv + pool", "MaxPool_0")]


def test_costs_follow_from_given_shapes(exports: Path) -> None:
    path = exports / "models" / "bert_mini.onnx"
    unknown = _layers(inspect_model(path))
    assert any(layer.flops is None for layer in unknown.layers if layer.works)
    shapes = {"input_ids": (2, 16), "attention_mask": (2, 16)}
    known = _layers(inspect_model(path, input_shapes=shapes))
    assert all(layer.flops is not None and layer.bytes is not None for layer in known.layers)
    query = next(layer for layer in known.layers if layer.pattern == "matmul + bias")
    assert query.flops == 2 * 16 * 96 * (2 * 96 + 1)
    assert known.input_shapes == shapes


def test_shapes_that_do_not_fit_are_an_error(exports: Path) -> None:
    path = exports / "models" / "bert_mini.onnx"
    with pytest.raises(InputError, match="no input is called 'ids'"):
        inspect_model(path, input_shapes={"ids": (2, 16)})
    with pytest.raises(InputError, match="2 axes"):
        inspect_model(path, input_shapes={"input_ids": (2, 16, 3)})


def test_bodies_are_named_after_their_if(models: Path) -> None:
    report = _layers(inspect_model(models / "models" / "silero_vad.onnx"))
    assert any(layer.scope.endswith("/then_branch") and layer.pattern == "conv + relu" for layer in report.layers)


def test_every_model_has_layers_and_a_page(exports: Path, models: Path) -> None:
    for path in sorted((*(exports / "models").glob("*.onnx"), *(models / "models").glob("*.onnx"))):
        result = inspect_model(path)
        report = _layers(result)
        assert report.working and sum(len(layer.nodes) for layer in report.layers)
        text = render(result, verbose=True)
        assert f"{len(report.layers):,} layers, {report.working:,} of them launch work" in text, path.name


def test_the_page_says_what_was_refused_and_what_is_unknown(exports: Path) -> None:
    text = render(inspect_model(exports / "models" / "unet_attn_mini.onnx"))
    assert "refused   conv + residual at node_conv2d_1 and node_add_66" in text
    assert "give sizes with" in text


def test_layers_are_saved_and_read(resnet: Path, tmp_path: Path) -> None:
    result = inspect_model(resnet, input_shapes={"x": (1, 3, 224, 224)})
    (tmp_path / "model.json").write_text(dumps(result), encoding="utf-8")
    assert load(tmp_path / "model.json") == result
