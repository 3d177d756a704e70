"""What the runner says of tensors: the rows of ``ort``, in float64; bodies, functions, sequences, memory, refusals."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest

from probe.errors import InputError
from probe.model import load
from probe.runners.fp64 import evaluate
from probe.runners.fp64.runner import Fp64Runner
from probe.runners.ort import OrtRunner
from probe.runners.protocol import RunnerOptions, RunnerTensor, open_runner
from tests.model import builders as b

DEFAULT = RunnerOptions()
X = np.array([[1, -2, 3], [0.5, 0, -4]], np.float32)
TRUE, FALSE = np.array(True), np.array(False)


def loaded(tmp_path, proto: onnx.ModelProto):
    return load(b.save(proto, tmp_path / "m.onnx"))


def rows(tmp_path, proto, feeds, options=DEFAULT, notes: list[str] | None = None) -> dict[str, RunnerTensor]:
    runner = Fp64Runner(loaded(tmp_path, proto), options)
    made = {tensor.info.name: tensor for tensor in runner.run(feeds, "one")}
    if notes is not None:
        notes.extend(runner.header.notes)
    runner.close()
    return made


def refused(tmp_path, proto, feeds, options=DEFAULT) -> InputError:
    with pytest.raises(InputError) as caught:
        rows(tmp_path, proto, feeds, options)
    return caught.value


# --- the same rows as ort --------------------------------------------------------------------------------------------

SAME = [
    ("mlp", {"x": X}),
    ("old_ir", {"x": X}),
    ("omitted_inputs", {"x": X.reshape(1, 1, 2, 3)}),
    ("sequence", {"x": X}),
    ("optional_input", {"x": X}),
    ("local_function", {"x": X}),
    ("qdq", {"x": X}),
    ("if_else", {"x": X, "c": TRUE}),
    ("if_else", {"x": X, "c": FALSE}),
    ("nested_if", {"x": np.abs(X), "c": TRUE}),
    ("nested_if", {"x": -np.abs(X), "c": TRUE}),
    ("nested_if", {"x": X, "c": FALSE}),
    ("loop", {"x": X, "n": np.array(3)}),
    ("loop", {"x": X, "n": np.array(0)}),
    ("if_in_loop", {"x": X, "n": np.array(4)}),
    ("loop_in_if", {"x": X, "n": np.array(2), "c": TRUE}),
    ("loop_in_if", {"x": X, "n": np.array(2), "c": FALSE}),
    ("scan", {"start": X[0], "x": np.ones((4, 3), np.float32)}),
    ("half", {"x": np.full((2, 2), 300, np.float16), "c": TRUE}),
    ("half", {"x": np.full((2, 2), 3, np.float16), "c": FALSE}),
]


@pytest.mark.parametrize(("name", "feeds"), SAME, ids=[f"{name}-{i}" for i, (name, _) in enumerate(SAME)])
def test_rows_are_those_of_ort(tmp_path, name, feeds):
    model = loaded(tmp_path, b.GOOD[name]())
    theirs, mine = OrtRunner(model), Fp64Runner(model)
    golden = {tensor.info.name: tensor for tensor in theirs.run(feeds, "one")}
    made = {tensor.info.name: tensor for tensor in mine.run(feeds, "one")}
    assert list(made) == list(golden)
    assert mine.header.notes == theirs.header.notes
    for key, tensor in golden.items():
        info = made[key].info
        expected = "float64" if tensor.info.dtype == "float32" else tensor.info.dtype
        assert info == replace(tensor.info, dtype=expected), key
        if tensor.array is not None:
            np.testing.assert_allclose(made[key].array.astype(np.float64), tensor.array, rtol=1e-5, atol=1e-6)
            assert made[key].array.flags.c_contiguous and info.shape == made[key].array.shape


def test_both_branches_of_one_name_are_one_row(tmp_path):
    for taken, expected in ((TRUE, -X), (FALSE, np.exp(X.astype(np.float64)))):
        made = rows(tmp_path, b.if_else(share_names=True), {"x": X, "c": taken})
        assert np.array_equal(made["inner"].array, expected) and made["inner"].info.nodes == ("neg", "exp")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"scan_input_directions": [1]},
        {"scan_output_directions": [1]},
        {"scan_output_axes": [1]},
        {"scan_input_axes": [0], "scan_output_axes": [-1], "scan_input_directions": [1], "scan_output_directions": [1]},
    ],
    ids=str,
)
def test_scans_in_all_directions(tmp_path, attributes):
    feeds = {"start": X[0], "x": np.arange(12, dtype=np.float32).reshape(4, 3)}
    made = rows(tmp_path, b.scan(**attributes), feeds)
    golden = {t.info.name: t.array for t in OrtRunner(loaded(tmp_path, b.scan(**attributes))).run(feeds, "one")}
    for name in ("last", "rows"):
        np.testing.assert_allclose(made[name].array, golden[name], rtol=1e-6)


def test_a_loop_whose_tensors_change_shape_says_so_of_each(tmp_path):
    made = rows(tmp_path, b.growing_loop(), {"x": X, "n": np.array(3)})
    assert made["y"].array.shape == (16, 3)
    assert made["next"].info.status == "unsupported" and "changes" in made["next"].info.note
    assert made["go_on"].info.status == "recorded" and made["go_on"].array.shape == (3,)


def test_a_loop_ends_when_its_condition_does(tmp_path):
    body = b.graph(
        [
            b.node("Add", ["state", "x"], ["next"]),
            b.node("ReduceMax", ["next"], ["top"], keepdims=0),
            b.node("Less", ["top", "limit"], ["go"]),
        ],
        [b.value("i", (), b.INT64), b.value("going", (), b.BOOL), b.value("state")],
        [b.value("go", (), b.BOOL), b.value("next")],
        [b.weight("limit", np.float32(10))],
    )
    proto = b.model([b.node("Loop", ["", "", "x"], ["y"], name="loop", body=body)], [b.value("x")], [b.value("y")])
    made = rows(tmp_path, proto, {"x": X})
    assert made["next"].array.shape == (3, 2, 3) and np.array_equal(made["y"].array, X * 4)


def test_bodies_can_be_left_out(tmp_path):
    made = rows(tmp_path, b.loop(), {"x": X, "n": np.array(3)}, replace(DEFAULT, bodies=False))
    assert made["squared"].info.status == "unsupported" and made["all"].info.status == "recorded"


def test_select_keeps_what_was_asked_for(tmp_path):
    only = replace(DEFAULT, select=lambda name: name == "hidden")
    assert list(rows(tmp_path, b.mlp(), {"x": X}, only)) == ["hidden"]
    inner = replace(DEFAULT, select=lambda name: name == "squared")
    assert list(rows(tmp_path, b.loop(), {"x": X, "n": np.array(2)}, inner)) == ["squared"]


def test_weights_that_are_outputs_come_last(tmp_path):
    nodes = [b.node("Constant", [], ["k"], value=b.weight("", np.float32(0.1))), b.node("Add", ["x", "k"], ["y"])]
    proto = b.model(nodes, [b.value("x")], [b.value("w"), b.value("k", ()), b.value("y")], [b.weight("w", X)])
    made = rows(tmp_path, proto, {"x": X})
    assert list(made) == ["y", "w", "k"] and {t.info.role for t in made.values()} == {"output"}
    assert made["k"].array == np.float64(np.float32(0.1)) and made["w"].array.dtype == np.float64


# --- float64 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype"), [(b.FLOAT16, np.float16), (b.BFLOAT16, ml_dtypes.bfloat16)])
def test_half_precision_is_widened_exactly_and_nothing_is_rounded(tmp_path, kind, dtype):
    x = np.array([[300, 0.1], [1, 7]], dtype)
    runner = Fp64Runner(loaded(tmp_path, b.half(kind, opset=22)))
    made = {t.info.name: t.array for t in runner.run({"x": x, "c": TRUE}, "one")}
    wide = x.astype(np.float64)
    assert {array.dtype for array in made.values() if array is not None} == {np.dtype(np.float64)}
    assert np.array_equal(made["square"], wide * wide)
    assert np.array_equal(made["then_y"], np.sqrt(wide * wide) + float(dtype(0.1)))
    assert np.array_equal(made["y"], made["then_y"] + np.eye(2) + 1 + float(dtype(0.3)))
    name = {b.FLOAT16: "float16", b.BFLOAT16: "bfloat16"}[kind]
    assert (runner.header.golden, runner.header.precision) == (f"fp64, upcast from {name}", "fp64")


def test_casts_to_narrow_floats_keep_every_bit(tmp_path):
    nodes = [
        b.node("Div", ["x", "three"], ["third"]),
        b.node("Cast", ["third"], ["low"], to=b.FLOAT16),
        b.node("Cast", ["low"], ["y"], to=1),
    ]
    proto = b.model(nodes, [b.value("x")], [b.value("y")], [b.weight("three", np.float32(3))])
    made = rows(tmp_path, proto, {"x": X})
    assert np.array_equal(made["y"].array, X.astype(np.float64) / 3) and made["low"].info.dtype == "float64"


def test_attributes_are_the_stored_float32_numbers(tmp_path):
    proto = b.model([b.node("LeakyRelu", ["x"], ["y"], alpha=0.1)], [b.value("x")], [b.value("y")])
    assert rows(tmp_path, proto, {"x": X})["y"].array[0, 1] == -2 * float(np.float32(0.1))


def test_quantisation_rounds_half_to_even_and_saturates(tmp_path):
    nodes = [b.node("QuantizeLinear", ["x", "s", "z"], ["q"]), b.node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    weights = [b.weight("s", np.float32(0.1)), b.weight("z", np.int8(3))]
    proto = b.model(nodes, [b.value("x", (5,))], [b.value("y", (5,))], weights)
    scale = float(np.float32(0.1))
    x = (np.array([0.5, 1.5, 2.5, 1000, -1000]) * scale).astype(np.float32)
    runner = Fp64Runner(loaded(tmp_path, proto))
    made = {t.info.name: t for t in runner.run({"x": x}, "one")}
    quotients = x.astype(np.float64) / scale
    assert np.array_equal(made["q"].array, np.clip(np.rint(quotients) + 3, -128, 127).astype(np.int8))
    assert np.array_equal(made["y"].array, (made["q"].array.astype(np.float64) - 3) * scale)
    assert runner.header.golden == "fp64, qdq kept" and made["y"].info.step == pytest.approx(0.1)


def test_local_functions_with_attributes_and_calls_inside(tmp_path):
    alpha = onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    leaky = b.node("LeakyRelu", ["a"], ["r"])
    leaky.attribute.append(alpha)
    inner = b.helper.make_function("here", "Leak", ["a"], ["r"], [leaky], [b.helper.make_opsetid("", 17)], ["slope"])
    call = b.node("Leak", ["p"], ["q"], domain="here")
    call.attribute.append(onnx.AttributeProto(name="slope", ref_attr_name="factor", type=onnx.AttributeProto.FLOAT))
    opsets = [b.helper.make_opsetid("", 17), b.helper.make_opsetid("here", 1)]
    outer = b.helper.make_function(
        "here", "Twice", ["p"], ["s"], [call, b.node("Add", ["q", "q"], ["s"])], opsets, ["factor"]
    )
    nodes = [
        b.node("Twice", ["x"], ["t"], domain="here", factor=0.5),
        b.node("Twice", ["t"], ["y"], domain="here", factor=0.25),
    ]
    proto = b.model(nodes, [b.value("x")], [b.value("y")], domains=("here",), functions=[inner, outer])
    made = rows(tmp_path, proto, {"x": X})
    assert np.array_equal(made["t"].array, np.where(X < 0, X, X * 2))
    assert np.array_equal(made["y"].array, np.where(X < 0, X * 0.5, X * 4))


def test_attributes_of_a_function_reach_its_bodies(tmp_path):
    leaky = b.node("LeakyRelu", ["a"], ["low"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    chosen = b.node(
        "If",
        ["c"],
        ["r"],
        then_branch=b.graph([leaky], [], [b.value("low", None)]),
        else_branch=b.graph([b.node("Neg", ["a"], ["minus"])], [], [b.value("minus", None)]),
    )
    opsets = [b.helper.make_opsetid("", 17)]
    function = b.helper.make_function("here", "Choose", ["a", "c"], ["r"], [chosen], opsets, ["slope"])
    call = b.node("Choose", ["x", "c"], ["y"], domain="here", slope=0.5)
    inputs = [b.value("x"), b.value("c", (), b.BOOL)]
    proto = b.model([call], inputs, [b.value("y")], domains=("here",), functions=[function])
    assert np.array_equal(rows(tmp_path, proto, {"x": X, "c": TRUE})["y"].array, np.where(X < 0, X * 0.5, X))
    assert np.array_equal(rows(tmp_path, proto, {"x": X, "c": FALSE})["y"].array, -X)


# --- what is no tensor -----------------------------------------------------------------------------------------------


def test_an_optional_left_out_and_sequences_as_inputs(tmp_path):
    kind = b.helper.make_optional_type_proto(b.helper.make_tensor_type_proto(1, (2, 3)))
    proto = b.model(
        [b.node("OptionalHasElement", ["o"], ["y"]), b.node("Identity", ["o"], ["same"])],
        [b.helper.make_value_info("o", kind)],
        [b.value("y", (), b.BOOL)],
        opset=18,
    )
    made = rows(tmp_path, proto, {})
    assert not made["y"].array and made["same"].info.note == "an optional without a value"
    assert rows(tmp_path, proto, {"o": X})["y"].array

    seq = b.helper.make_value_info("s", b.helper.make_sequence_type_proto(b.helper.make_tensor_type_proto(1, None)))
    out = b.helper.make_value_info("t", b.helper.make_sequence_type_proto(b.helper.make_tensor_type_proto(1, None)))
    doubled = b.graph([b.node("Add", ["e", "e"], ["d"])], [b.value("e", None)], [b.value("d", None)])
    proto = b.model([b.node("SequenceMap", ["s"], ["t"], body=doubled)], [seq], [out])
    made = rows(tmp_path, proto, {"s[0]": X, "s[1]": X[0]})
    assert np.array_equal(made["t[1]"].array, X[0] * 2) and made["t[1]"].info.note == "element 1 of 2 of a sequence"
    assert made["d"].info.status == "unsupported"
    empty = rows(tmp_path, proto, {})["t"]
    assert (empty.info.shape, empty.info.dtype, empty.info.note) == ((0,), "float64", "an empty sequence")


def test_text_passes_through(tmp_path):
    made = rows(tmp_path, b.strings(), {"x": np.array(["a", "zoë"], object)})
    assert made["both"].array.tolist() == ["a", "zoë", "b"] and made["y"].array.tolist() == [1, -1, 2]


# --- memory ----------------------------------------------------------------------------------------------------------


def test_tensors_go_after_their_last_reader(tmp_path):
    nodes = [b.node("Neg", [f"a{i}"], [f"a{i + 1}"]) for i in range(6)]
    proto = b.model(nodes, [b.value("a0")], [b.value("a6")])
    alive: list[weakref.ref] = []
    most = 0
    for tensor in Fp64Runner(loaded(tmp_path, proto)).run({"a0": X}, "one"):
        alive.append(weakref.ref(tensor.array))
        del tensor
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 2


def test_weights_too_large_to_keep_are_widened_each_time(tmp_path, monkeypatch):
    kept = rows(tmp_path, b.mlp(), {"x": X})
    monkeypatch.setattr(evaluate, "_KEPT_BYTES", 0)
    runner = Fp64Runner(loaded(tmp_path, b.mlp()))
    for _ in range(2):
        made = {t.info.name: t.array for t in runner.run({"x": X}, "one")}
        assert all(np.array_equal(made[name], tensor.array) for name, tensor in kept.items())
    assert runner._evaluator is not None and not runner._evaluator._weights


# --- refusals --------------------------------------------------------------------------------------------------------


def test_an_operator_nobody_evaluates_is_named_with_a_way_out(tmp_path):
    error = refused(tmp_path, b.custom_domain(), {"x": X})
    assert "my.ops:Mystery" in error.what and "node mystery" in error.where and error.hint == "--golden ort"


def test_random_numbers_are_refused(tmp_path):
    proto = b.model([b.node("RandomNormalLike", ["x"], ["y"], name="noise")], [b.value("x")], [b.value("y")])
    error = refused(tmp_path, proto, {"x": X})
    assert "random" in error.what and "node noise" in error.where


def test_shapes_that_do_not_fit_name_the_node(tmp_path):
    proto = b.model(
        [b.node("Reshape", ["x", "shape"], ["y"], name="bad reshape")],
        [b.value("x", ("n", 3)), b.value("shape", (2,), b.INT64)],
        [b.value("y", (None, None))],
    )
    error = refused(tmp_path, proto, {"x": X, "shape": np.array([4, 4])})
    assert error.what.startswith("Reshape failed") and "bad reshape" in error.where and "--inputs" in error.hint


def test_feeds_are_checked_first(tmp_path):
    assert "no data for input 'x'" in refused(tmp_path, b.mlp(), {}).what


def test_as_is_has_no_meaning(tmp_path):
    assert "float64" in refused(tmp_path, b.mlp(), {"x": X}, replace(DEFAULT, as_is=True)).what


def test_training_is_refused(tmp_path):
    nodes = [b.node("Dropout", ["x", "ratio", "training"], ["y"])]
    weights = [b.weight("ratio", np.float32(0.5)), b.weight("training", np.array(True))]
    assert "training" in refused(tmp_path, b.model(nodes, [b.value("x")], [b.value("y")], weights), {"x": X}).what


def test_open_runner_knows_it(tmp_path):
    runner = open_runner("fp64", loaded(tmp_path, b.mlp()))
    assert isinstance(runner, Fp64Runner) and runner.header.runner == "fp64"
    with pytest.raises(InputError, match="nothing after its name"):
        open_runner("fp64:x", loaded(tmp_path, b.mlp()))
    with pytest.raises(InputError, match="needs a model"):
        open_runner("fp64", None)
