"""Tensors out of the bodies of If, Loop and Scan: right values, right names, and told when they did not run."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from probe.model import load
from probe.model.expose import expose
from tests.model import builders as b
from tests.model import ort

X = np.array([[1.5, 2, 3], [0.25, 0.5, 4]], np.float32)


@pytest.fixture
def recorded(tmp_path):
    """``(values, names that did not run, exposure)`` of a model with every tensor exposed; outputs checked to keep their bits."""

    def of(proto: onnx.ModelProto, feeds, **options):
        exposure = expose(load(b.save(proto, tmp_path / "model.onnx")), **options)
        values, fetched, idle = ort.run_exposed(exposure, feeds)
        for output, before in ort.run(proto.SerializeToString(), feeds).items():
            if output in fetched:
                assert ort.same_bits(before, fetched[output])
        return values, idle, exposure

    return of


@pytest.mark.parametrize("condition", [True, False])
def test_if(recorded, condition):
    values, idle, _ = recorded(b.if_else(), {"x": X, "c": np.array(condition)})
    if condition:
        assert np.array_equal(values["negated"], -X)
        assert np.array_equal(values["then_y"], np.maximum(-X, 0))
        assert idle == {"exponential", "else_y"}
    else:
        np.testing.assert_allclose(values["exponential"], np.exp(X), rtol=1e-6)
        np.testing.assert_allclose(values["else_y"], np.exp(X) * 2, rtol=1e-6)
        assert idle == {"negated", "then_y"}
    assert set(values) | idle == {"negated", "then_y", "exponential", "else_y", "y"}


@pytest.mark.parametrize("condition", [True, False])
def test_branches_that_share_a_name_share_a_row(recorded, condition):
    values, idle, exposure = recorded(b.if_else(share_names=True), {"x": X, "c": np.array(condition)})
    np.testing.assert_allclose(values["inner"], -X if condition else np.exp(X), rtol=1e-6)
    shared = next(t for t in exposure.tensors if t.name == "inner")
    assert shared.branch == ()
    assert shared.nodes == ("neg", "exp")
    assert idle == ({"else_y"} if condition else {"then_y"})


def test_branches_that_share_a_name_for_different_types_do_not_share_a_row(recorded):
    proto = b.if_else(share_names=True)
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "else_branch")
    del body.node[:]
    body.node.extend([b.node("Shape", ["x"], ["inner"], name="shape"), b.node("Exp", ["x"], ["else_y"], name="exp")])
    values, idle, _ = recorded(proto, {"x": X, "c": np.array(False)})
    assert np.array_equal(values["choose/else_branch/inner"], [2, 3])
    assert "choose/then_branch/inner" in idle


@pytest.mark.parametrize(("outer", "positive"), list(itertools.product([True, False], repeat=2)))
def test_nested_if(recorded, outer, positive):
    x = X if positive else -X
    values, idle, exposure = recorded(b.nested_if(), {"x": x, "c": np.array(outer)})
    inside = {"total", "positive", "deep_then", "deep_else", "mid", "then_y"}
    assert {t.name for t in exposure.tensors} == inside | {"else_y", "chosen", "y"}
    if not outer:
        assert idle == inside
        assert np.array_equal(values["else_y"], np.abs(x))
        return
    assert idle == {"else_y", "deep_else" if positive else "deep_then"}
    assert values["positive"] == positive
    np.testing.assert_allclose(values["total"], x.sum(), rtol=1e-6)
    ran = "deep_then" if positive else "deep_else"
    assert np.array_equal(values[ran], -x if positive else x + x)
    assert np.array_equal(values["mid"], values[ran])


def test_reads_follow_tensors_into_and_out_of_bodies(recorded):
    _, _, exposure = recorded(b.nested_if(), {"x": X, "c": np.array(True)})
    reads = {t.name: set(t.reads) for t in exposure.tensors}
    assert reads["deep_then"] == {"x"}
    assert reads["mid"] == {"positive", "deep_then", "deep_else", "x"}
    assert reads["chosen"] == {"c", "then_y", "else_y", "x"}


@pytest.mark.parametrize("kind", ["input", "initialiser", "constant", "node", "one element"])
def test_conditions_of_every_origin(recorded, kind):
    proto = b.if_else()
    feeds = {"x": X, "c": np.array(True)}
    if kind != "input":
        del proto.graph.input[1]
        del feeds["c"]
    if kind == "initialiser":
        proto.graph.initializer.append(b.weight("c", np.array(True)))
    if kind == "constant":
        proto.graph.node.insert(0, b.node("Constant", [], ["c"], value=b.weight("", np.array(True))))
    if kind in ("node", "one element"):
        keepdims = int(kind == "one element")
        proto.graph.node.insert(0, b.node("ReduceSum", ["x"], ["s"], keepdims=keepdims))
        proto.graph.node.insert(1, b.node("Cast", ["s"], ["c"], to=b.BOOL))
    values, idle, _ = recorded(proto, feeds)
    assert np.array_equal(values["negated"], -X)
    assert "exponential" in idle


@pytest.mark.parametrize(
    ("kind", "array"), [(b.INT64, np.int64(3)), (b.STRING, np.array("text", object)), (b.BOOL, np.array([True]))]
)
def test_idle_branches_of_every_type(recorded, kind, array):
    proto = b.if_else()
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    body.initializer.append(b.weight("value", array))
    body.node.append(b.node("Identity", ["value"], ["typed"], name="typed"))
    for condition in (True, False):
        values, idle, _ = recorded(proto, {"x": X, "c": np.array(condition)})
        assert (values["typed"] == array) if condition else ("typed" in idle)


def test_sibling_bodies_that_reuse_names(recorded):
    """Two Ifs, each with 'inner' in both branches: four tensors of one name, two rows."""
    proto = b.if_else(share_names=True)
    twin = onnx.NodeProto.FromString(proto.graph.node[0].SerializeToString())
    twin.name, twin.output[0] = "again", "y2"
    for attribute in twin.attribute:
        for node in attribute.g.node:
            node.name += "_again"
    proto.graph.node.append(twin)
    proto.graph.output.append(b.value("y2"))
    values, _, exposure = recorded(proto, {"x": X, "c": np.array(True)})
    assert np.array_equal(values["choose/inner"], -X)
    assert np.array_equal(values["again/inner"], -X)
    assert {t.name for t in exposure.tensors} >= {"choose/then_branch/then_y", "again/then_branch/then_y"}


@pytest.mark.parametrize("n", [0, 1, 4])
def test_loop(recorded, n):
    x = X * 0.1
    values, _, exposure = recorded(b.loop(), {"x": x, "n": np.array(n)})
    state, squares = x, []
    for _ in range(n):
        squares.append(state * state)
        state = squares[-1] + x
    assert values["squared"].shape == (n, 2, 3)
    np.testing.assert_allclose(values["squared"], np.array(squares).reshape(n, 2, 3), rtol=1e-6)
    assert ort.same_bits(values["next"], values["all"])
    assert "iterations of loop" in next(t.note for t in exposure.tensors if t.name == "squared")


def test_loop_whose_shapes_change(recorded):
    feeds = {"x": X, "n": np.array(3)}
    with pytest.raises(Exception, match="Inconsistent shape"):
        recorded(b.growing_loop(), feeds)
    values, _, exposure = recorded(b.growing_loop(), feeds, loop_bodies=False)
    assert values["y"].shape == (16, 3)
    assert dict(exposure.not_exposed)["next"] == "inside a Loop, whose bodies were left out"


def test_if_inside_a_loop_is_told_not_to_be_exposed(recorded):
    values, _, exposure = recorded(b.if_in_loop(), {"x": X, "n": np.array(3)})
    assert values["is_even"].tolist() == [True, False, True]
    np.testing.assert_allclose(values["next"][:2], [X + X, -(X + X)])
    assert set(dict(exposure.not_exposed)) == {"added", "negated"}


def test_if_inside_a_loop_with_one_name_in_both_branches(recorded):
    proto = b.if_in_loop()
    text = proto.SerializeToString().replace(b"negated", b"added__").replace(b"added", b"added")
    proto = onnx.ModelProto.FromString(text)
    body = proto.graph.node[0].attribute[0].g
    for attribute in body.node[2].attribute:
        attribute.g.node[0].output[0] = attribute.g.output[0].name = "either"
    values, _, exposure = recorded(proto, {"x": X, "n": np.array(2)})
    np.testing.assert_allclose(values["either"], [X + X, -(X + X)])
    assert exposure.not_exposed == ()


@pytest.mark.parametrize("condition", [True, False])
def test_loop_inside_an_if(recorded, condition):
    values, idle, _ = recorded(b.loop_in_if(), {"x": X, "n": np.array(2), "c": np.array(condition)})
    if condition:
        np.testing.assert_allclose(values["next"], [X * X, X * X * X], rtol=1e-6)
        assert idle == {"copied"}
    else:
        assert idle == {"next", "go_on", "looped"}


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_output_axes": [1]},
        {"scan_output_directions": [1]},
        {"scan_output_axes": [1], "scan_output_directions": [1]},
    ],
)
def test_scan(recorded, attributes):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    values, _, _ = recorded(b.scan(**attributes), {"start": np.zeros(3, np.float32), "x": x})
    sums = np.cumsum(x, axis=0)
    np.testing.assert_allclose(values["next"], sums)  # on axis 0 and forwards, whatever the model does with its own
    np.testing.assert_allclose(values["squared"], sums**2)
    np.testing.assert_allclose(values["out"], sums**2)


def test_bodies_can_be_left_out(recorded):
    values, _, exposure = recorded(b.nested_if(), {"x": X, "c": np.array(True)}, bodies=False)
    assert set(values) == {"chosen", "y"}
    assert len(exposure.not_exposed) == 7


def test_sequences_inside_bodies_are_accounted_for(recorded):
    proto = b.if_else()
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    body.node.append(b.node("SequenceConstruct", ["negated", "negated"], ["many"], name="many"))
    _, _, exposure = recorded(proto, {"x": X, "c": np.array(True)})
    assert ("many", "inside a body, and no tensor") in exposure.not_exposed


def test_custom_operators_inside_bodies_have_no_known_type(tmp_path):
    proto = b.if_else()
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    body.node.append(b.node("Mystery", ["negated"], ["unknown"], name="m", domain="my.ops"))
    proto.opset_import.add(domain="my.ops", version=1)
    exposure = expose(load(b.save(proto, tmp_path / "model.onnx")))
    assert ("unknown", "inside a body, and its type is not known") in exposure.not_exposed
