"""A check as a whole: several inputs, recordings, bodies, repeated blocks, what is followed and how far."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from probe import api
from probe.debug.check import CheckOptions, check_network, follow
from probe.debug.check.facts import scale_of
from probe.debug.check.look import error_of
from probe.errors import InputError
from probe.model import load
from probe.results import json as saved
from probe.results.check import CheckResult
from tests.debug.check import graphs as g
from tests.debug.check.graphs import UNIT, checked, filled, scalar
from tests.model.builders import BOOL, INT64, graph, model, node, save, value, weight

LOUD = UNIT.copy()
LOUD[1, 17] = 400.0
LOUDER = LOUD * 2


def blocks(count: int) -> onnx.ModelProto:
    """The same RMS normalisation, several times."""
    nodes, x = [], "x"
    for at in range(count):
        p, y = f"/layer.{at}/", "y" if at == count - 1 else f"/layer.{at}/out"
        nodes += [
            node("Pow", [x, "two"], [f"{p}square"], name=f"{p}Pow"),
            node("ReduceMean", [f"{p}square"], [f"{p}mean"], name=f"{p}Mean", axes=[-1]),
            node("Sqrt", [f"{p}mean"], [f"{p}root"], name=f"{p}Sqrt"),
            node("Div", [x, f"{p}root"], [f"{p}normed"], name=f"{p}Div"),
            node("Mul", [f"{p}normed", "gain"], [y], name=f"{p}Mul"),
        ]
        x = y
    return g.chain(nodes, scalar("two", 2.0), scalar("gain", 60.0))


def test_several_inputs_are_joined(tmp_path: Path) -> None:
    result = checked(g.rms_norm(), [{"x": UNIT}, {"x": LOUD}, {"x": LOUDER}], tmp_path)
    (finding,) = result.of("error")
    assert (finding.tensor, finding.inputs, finding.elements, finding.index) == ("square", 2, 1, (1, 17))
    assert finding.input_id == "1", "the first that was followed to a wrong output"
    assert [one.id for one in result.inputs] == ["0", "1", "2"]


def test_a_warning_on_one_input_may_be_an_error_on_another(tmp_path: Path) -> None:
    visible, empty = np.ones((4, 64), np.float32), np.ones((4, 64), np.float32)
    empty[2] = 0
    feeds = [{"x": UNIT, "keep": visible}, {"x": UNIT, "keep": empty}, {"x": UNIT, "keep": visible}]
    (finding,) = [f for f in checked(g.masked(), feeds, tmp_path).findings if f.rule == "mask"]
    assert (finding.level, finding.input_id, finding.inputs) == ("error", "1", 3)
    assert finding.output == "y" and finding.output_error == np.inf


def test_repeated_blocks_are_one_finding(tmp_path: Path) -> None:
    result = checked(blocks(12), {"x": LOUD}, tmp_path)
    (finding,) = [f for f in result.findings if f.rule == "overflow"]
    assert finding.level == "error"
    assert len(finding.like) == 11 and len(finding.keep) == 12
    assert {finding.tensor, *finding.like} == {f"/layer.{at}/square" for at in range(12)}


def test_errors_come_first_then_execution_order(tmp_path: Path) -> None:
    proto = g.chain(
        [
            node("Mul", ["x", "c"], ["a"], name="a"),  # near: a warning, and earlier
            node("Mul", ["a", "d"], ["b"], name="b"),
            node("Mul", ["b", "e"], ["y"], name="y"),
            node("MatMul", ["y", "w"], ["z"], name="z"),
        ],
        scalar("c", 10000.0), scalar("d", 100.0), scalar("e", 1e-4), weight("w", np.ones((64, 3), np.float32) / 64),
    )  # fmt: skip
    result = checked(proto, {"x": np.clip(UNIT, -3, 3)}, tmp_path)
    assert [(f.level, f.rule, f.tensor) for f in result.findings if f.rule != "sum_inside"] == [
        ("error", "overflow", "b"), ("warning", "near_overflow", "a"), ("lint", "channels", "z"),
    ]  # fmt: skip


def test_a_recording_gives_the_same_as_a_golden_made_now(tmp_path: Path) -> None:
    path = save(g.rms_norm(), tmp_path / "model.onnx")
    np.savez(tmp_path / "in.npz", x=LOUD)
    api.dump(path, tmp_path / "golden", inputs=tmp_path / "in.npz").close()
    now = api.check(path, inputs=tmp_path / "in.npz")
    then = api.check(path, golden=tmp_path / "golden")
    assert [replace(f, input_id="") for f in now.findings] == [replace(f, input_id="") for f in then.findings]
    assert now.verdict == then.verdict == "errors" and then.golden == str(tmp_path / "golden")
    fp64 = api.check(path, golden="fp64", inputs=tmp_path / "in.npz")
    assert [(f.rule, f.level, f.tensor) for f in fp64.findings] == [(f.rule, f.level, f.tensor) for f in now.findings]


def test_statistics_alone_show_ranges_and_the_rest_is_said_not_to_be_seen(tmp_path: Path) -> None:
    path = save(g.chain([node("Exp", ["x"], ["y"], name="exp")]), tmp_path / "model.onnx")
    api.dump(path, tmp_path / "golden", inputs={"x": filled(10.9)}, stats_only=True).close()
    result = api.check(path, golden=tmp_path / "golden", inputs={"x": filled(10.9)})
    assert [f.rule for f in result.findings] == ["near_overflow"]
    assert result.not_seen == ("y",)


def test_a_golden_of_another_network_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", nothing=UNIT)
    path = save(g.rms_norm(), tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"no tensor that .* makes is in"):
        api.check(path, golden=tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("precision", "said"), [("fp8", "nothing is checked for 'fp8'"), ("fp32", "nothing is checked")]
)
def test_an_unknown_precision_is_refused(precision: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        check_network(load(save(g.rms_norm(), tmp_path / "m.onnx")), [], CheckOptions(precision=precision))


def test_select_shows_only_what_matches(tmp_path: Path) -> None:
    result = checked(blocks(3), {"x": LOUD}, tmp_path, select=re.compile(r"layer\.1"))
    assert {f.tensor for f in result.findings} == {"/layer.1/square"}


def test_half_precision_models_are_checked_as_what_they_were_trained_as(tmp_path: Path) -> None:
    from onnx import numpy_helper

    proto = g.rms_norm()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    result = checked(proto, {"x": LOUD.astype(np.float16)}, tmp_path)
    assert [(f.rule, f.tensor) for f in result.of("error")] == [("overflow", "square")]


def test_int8_reads_the_graph_alone(tmp_path: Path) -> None:
    result = checked(g.linear(24, 10), {}, tmp_path, "int8")
    assert result.golden == "" and result.tensors == 0 and "overflow" not in result.rules and "channels" in result.rules


# --- bodies


def branching() -> onnx.ModelProto:
    """If: one branch squares and takes the root again, the other does nothing."""
    then = graph(
        [node("Pow", ["x", "two"], ["sq"], name="sq"), node("Sqrt", ["sq"], ["t"], name="rt")],
        outputs=[value("t", (4, 64))],
        name="then",
    )
    other = graph([node("Identity", ["x"], ["e"], name="id")], outputs=[value("e", (4, 64))], name="else")
    return model(
        [node("If", ["c"], ["branch"], name="choose", then_branch=then, else_branch=other), node("Relu", ["branch"], ["y"], name="relu")],
        [value("x", (4, 64)), value("c", (), BOOL)], [value("y", (4, 64))], [scalar("two", 2.0)],
    )  # fmt: skip


def test_inside_an_if_the_branch_that_ran_is_looked_at(tmp_path: Path) -> None:
    (finding,) = checked(branching(), {"x": LOUD, "c": np.array(True)}, tmp_path).findings
    assert (finding.rule, finding.level, finding.tensor, finding.node) == ("overflow", "error", "sq", "sq")
    assert "choose (control flow)" in finding.downstream
    assert not checked(branching(), {"x": LOUD, "c": np.array(False)}, tmp_path).findings


def looping() -> onnx.ModelProto:
    """Loop, three times: state * 100, with a mask constant inside that nothing comes of."""
    body = graph(
        [
            node("Mul", ["s", "hundred"], ["s1"], name="grow"),
            node("Max", ["s1", "never"], ["s2"], name="floor"),
            node("Identity", ["go"], ["on"], name="on"),
        ],
        [value("i", (), INT64), value("go", (), BOOL), value("s", (4, 64))],
        [value("on", (), BOOL), value("s2", (4, 64))],
        name="body",
    )
    return model(
        [node("Loop", ["n", "", "x"], ["y"], name="loop", body=body)], [value("x", (4, 64))], [value("y", (4, 64))],
        [weight("n", np.int64(3)), scalar("hundred", 100.0), scalar("never", -1e30)],
    )  # fmt: skip


def test_inside_a_loop_ranges_are_seen_and_nothing_is_followed(tmp_path: Path) -> None:
    result = checked(looping(), {"x": UNIT}, tmp_path)
    found = {f.tensor: f for f in result.findings}
    assert (found["s1"].rule, found["s1"].level) == ("overflow", "error")
    assert "followed as far as floor (Max) (control flow)" in found["s1"].downstream
    assert (found["never"].rule, found["never"].level) == ("mask", "warning"), (
        "harmless more often than not, and not followed"
    )


def test_outputs_alone_leave_the_rest_unseen(tmp_path: Path) -> None:
    path = save(g.masked(), tmp_path / "model.onnx")
    keep = np.ones((4, 64), np.float32)
    result = api.check(path, golden={"y": np.full((4, 64), 1 / 64, np.float32)}, inputs={"x": UNIT, "keep": keep})
    assert result.not_seen == ("mask", "scores"), "and not the booleans"


# --- following


SOLO = [
    (g.rms_norm(), {"x": LOUD}),
    (g.logits(), {"x": UNIT * 4 + 8000}),
    (g.floored(), {"x": np.maximum(UNIT, 0)}),
    (blocks(2), {"x": LOUD}),
]


@pytest.mark.parametrize(("proto", "feeds"), SOLO, ids=["square", "logits", "floor", "blocks"])
def test_what_is_predicted_is_what_rounding_that_tensor_alone_does(
    proto: onnx.ModelProto, feeds: g.Feeds, tmp_path: Path
) -> None:
    """Against the engine: everything kept but the one tensor."""
    finding = checked(proto, feeds, tmp_path).of("error")[0]
    engine = api.compile(tmp_path / "model.onnx", passes="none", fusion="none")
    names = [v.name or "" for layer in engine.layers for v in (*layer.reads, *layer.weights, *layer.tensors)]
    golden = engine.run(feeds, engine.assignment.keeping(tensors=names))["y"]
    alone = engine.assignment.keeping(tensors=[name for name in names if name != finding.tensor])
    actual = engine.run(feeds, alone)["y"]
    off = np.abs(actual - golden).max() / np.abs(golden).max() if np.isfinite(actual).all() else np.inf
    assert finding.output == "y" and finding.output_error == pytest.approx(off, rel=0.05)


def test_a_budget_ends_following_and_the_finding_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_NODES", 2)
    finding = checked(blocks(4), {"x": LOUD}, tmp_path).of("error")[0]
    assert "(Div) (far enough)" in finding.downstream
    assert finding.output is None


def test_a_result_is_saved_and_read(tmp_path: Path) -> None:
    result = checked(blocks(2), {"x": LOUD}, tmp_path)
    saved.save(result, tmp_path / "check.json")
    again = saved.load(tmp_path / "check.json")
    assert isinstance(again, CheckResult) and again == result
    frame = result.frame()
    assert frame.height == len(result.findings) and frame["keep"][0] == "/layer.0/square + /layer.1/square"


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, -3.0], 3.0),
        ([1.0, -3.4e38], 1.0),  # a mask
        ([1.0, -1e9, -np.inf, np.nan], 1.0),
        ([1.0, 500.0, -2e4], 2e4),  # no gap
        ([0.0, 5e4], 5e4),  # nothing else to measure by
        ([0.0, 1e35], 0.0),
        ([], 0.0),
    ],
)
def test_the_range_leaves_out_masks(values: list[float], scale: float) -> None:
    assert scale_of(np.array(values, np.float32)) == pytest.approx(scale)


@pytest.mark.parametrize(
    ("actual", "golden", "error"),
    [
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, np.inf], [1.0, 2.0], np.inf),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1.0, -np.inf], [1.0, -np.inf], 0.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([0.5, -1e9], [0.5, -2e9], 0.0),  # masks are not numbers
        ([0.0], [0.0], 0.0),
        ([1e-9], [0.0], np.inf),
    ],
)
def test_errors_are_measured_by_the_range(actual: list[float], golden: list[float], error: float) -> None:
    assert error_of(np.array(actual), np.array(golden)) == pytest.approx(error)
