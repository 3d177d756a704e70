"""The ONNX Runtime runner: every kind of tensor, every kind of refusal, bodies, upcast models, parts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from probe.errors import InputError
from probe.model import load
from probe.ort.values import from_ort, tensor_of, to_ort
from probe.runners.ort import OrtRunner
from probe.runners.protocol import RunnerOptions
from tests.model import builders as b

DEFAULT = RunnerOptions()


def load_proto(tmp_path: Path, proto: onnx.ModelProto):
    return load(b.save(proto, tmp_path / "m.onnx"))


def rows_of(
    tmp_path: Path, proto: onnx.ModelProto, feeds, options: RunnerOptions = DEFAULT, notes: list[str] | None = None
):
    """Rows by name, with their arrays."""
    runner = OrtRunner(load_proto(tmp_path, proto), options)
    made = {tensor.info.name: tensor for tensor in runner.run(feeds, "one")}
    if notes is not None:
        notes.extend(runner.header.notes)
    runner.close()
    return made


X = np.array([[1, -2, 3], [0.5, 0, -4]], np.float32)


# --- values ----------------------------------------------------------------------------------------------------------


def test_every_tensor_with_what_is_known_of_it(tmp_path):
    made = rows_of(tmp_path, b.mlp(), {"x": X})
    assert list(made) == ["a:0", "layer 1/add", "hidden", "y"]
    hidden = made["hidden"].info
    assert (hidden.role, hidden.dtype, hidden.shape, hidden.input_id) == ("internal", "float32", (2, 64), "one")
    assert (hidden.nodes, hidden.reads) == (("Relu(hidden)",), ("layer 1/add",))
    assert made["y"].info.role == "output"
    assert np.array_equal(made["hidden"].array, np.maximum(made["layer 1/add"].array, 0))


NARROW = [
    ("BFLOAT16", ml_dtypes.bfloat16, 21),
    ("FLOAT16", np.float16, 21),
    ("FLOAT8E4M3FN", ml_dtypes.float8_e4m3fn, 21),
    ("FLOAT8E4M3FNUZ", ml_dtypes.float8_e4m3fnuz, 21),
    ("FLOAT8E5M2", ml_dtypes.float8_e5m2, 21),
    ("FLOAT8E5M2FNUZ", ml_dtypes.float8_e5m2fnuz, 21),
    ("INT4", ml_dtypes.int4, 21),
    ("UINT4", ml_dtypes.uint4, 21),
    ("INT8", np.int8, 21),
    ("UINT64", np.uint64, 21),
    ("BOOL", np.bool_, 21),
    ("DOUBLE", np.float64, 21),
]
NUMBERS = np.array([[1, 2, 0], [7, 3, 5], [4, 6, 1]], np.float32)  # nine elements: an odd number of nibbles


@pytest.mark.parametrize(("name", "dtype", "opset"), NARROW, ids=[n[0] for n in NARROW])
@pytest.mark.parametrize("shape", [(3, 3), (9,), (), (0, 3)], ids=str)
def test_every_element_type_arrives_as_it_is_and_is_fed_as_it_is(tmp_path, name, dtype, opset, shape):
    number = getattr(TensorProto, name)
    values = NUMBERS.reshape(-1)[: int(np.prod(shape))].reshape(shape)
    if name == "INT4":
        values = -values
    out = b.model(
        [b.node("Cast", ["x"], ["y"], to=number)],
        [b.value("x", shape)],
        [b.value("y", shape, number)],
        opset=opset,
        ir=10,
    )
    made = rows_of(tmp_path, out, {"x": values}, replace(DEFAULT, as_is=True))["y"]
    assert made.array is not None and made.array.dtype == np.dtype(dtype) and made.info.shape == shape
    assert np.array_equal(made.array.astype(np.float32), values.astype(dtype).astype(np.float32))

    back = b.model(
        [b.node("Cast", ["x"], ["y"], to=1)], [b.value("x", shape, number)], [b.value("y", shape)], opset=opset, ir=10
    )
    made = rows_of(tmp_path, back, {"x": values.astype(dtype)}, replace(DEFAULT, as_is=True))["y"]
    assert np.array_equal(made.array, values.astype(dtype).astype(np.float32))


def test_text_in_and_out(tmp_path):
    made = rows_of(tmp_path, b.strings(), {"x": np.array(["a", "zoë"], object)})
    assert made["both"].array.tolist() == ["a", "zoë", "b"] and made["both"].info.dtype == "string"
    assert made["y"].array.tolist() == [1, -1, 2]


def test_text_that_is_not_utf8_is_said(tmp_path):
    weight = TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], string_data=[b"\xff\xfe"])
    proto = b.model([b.node("Identity", ["w"], ["y"])], [], [b.value("y", (1,), b.STRING)], [weight])
    made = rows_of(tmp_path, proto, {})["y"]
    assert (made.info.status, made.array) == ("unsupported", None) and "UTF-8" in made.info.note


def test_sequences_give_a_row_an_element(tmp_path):
    made = rows_of(tmp_path, b.sequence(), {"x": X})
    assert list(made) == ["s[0]", "s[1]", "y"]
    assert made["s[1]"].info.note == "element 1 of 2 of a sequence" and np.array_equal(made["s[1]"].array, X)
    assert made["y"].info.reads == ("s[0]", "s[1]")  # a reader follows the rows that are there


@pytest.mark.parametrize("dtype", ["float32", "float16", "string"])
def test_an_empty_sequence_and_one_as_input(tmp_path, dtype):
    number = {"float32": 1, "float16": 10, "string": 8}[dtype]
    seq = b.helper.make_value_info(
        "s", b.helper.make_sequence_type_proto(b.helper.make_tensor_type_proto(number, None))
    )
    out = b.helper.make_value_info(
        "t", b.helper.make_sequence_type_proto(b.helper.make_tensor_type_proto(number, None))
    )
    proto = b.model([b.node("Identity", ["s"], ["t"])], [seq], [out])
    options = replace(DEFAULT, as_is=True)
    (empty,) = rows_of(tmp_path, proto, {}, options).values()
    assert (empty.info.name, empty.info.shape, empty.info.dtype, empty.info.note) == (
        "t",
        (0,),
        dtype,
        "an empty sequence",
    )
    feeds = {"s[0]": np.array(["a"], object), "s[1]": np.array(["b", "c"], object)} if dtype == "string" else {
        "s[0]": np.ones(2, dtype),
        "s[1]": np.zeros((2, 2), dtype),
    }  # fmt: skip
    made = rows_of(tmp_path, proto, feeds, options)
    assert list(made) == ["t[0]", "t[1]"]
    assert all(np.array_equal(made[f"t[{i}]"].array, feeds[f"s[{i}]"]) for i in range(2))


def test_maps_and_empty_optionals_are_said(tmp_path):
    made = rows_of(tmp_path, b.map_output(), {"x": X})["y"]
    assert (made.info.status, made.array) == ("unsupported", None) and "map" in made.info.note
    kind = b.helper.make_optional_type_proto(b.helper.make_tensor_type_proto(1, (2,)))
    proto = b.model(
        [b.node("Optional", [], ["o"], type=b.helper.make_tensor_type_proto(1, (2,)))],
        [],
        [b.helper.make_value_info("o", kind)],
        opset=18,
    )
    made = rows_of(tmp_path, proto, {})["o"]
    assert made.info.status == "unsupported" and "without a value" in made.info.note


def test_optional_inputs(tmp_path):
    assert np.array_equal(rows_of(tmp_path, b.optional_input(), {"x": X})["y"].array, X)
    with pytest.raises(InputError, match="optional input 'x'"):
        rows_of(tmp_path, b.optional_input(), {})


def test_arrays_hold_their_own_memory_only(tmp_path):
    """Dropping one array must free it while the others of the same run live on."""
    elements = 9_000_000  # over 32 MB: below, the C library may keep what is freed for itself
    nodes = [b.node("Relu", ["x"], ["a0"]), *(b.node("Relu", [f"a{i}"], [f"a{i + 1}"]) for i in range(7))]
    runner = OrtRunner(load_proto(tmp_path, b.model(nodes, [b.value("x", (elements,))], [b.value("a7", (elements,))])))

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    made = runner.run({"x": np.ones(elements, np.float32)}, "one")
    first = next(made)
    del first
    highest = resident()
    for tensor in made:
        del tensor
    assert highest - resident() > 5 * 4 * elements  # eight were made, two may still be on their way out


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taken", "ran", "idle"), [(True, "negated", "exponential"), (False, "exponential", "negated")]
)
def test_the_branch_that_did_not_run_is_said(tmp_path, taken, ran, idle):
    made = rows_of(tmp_path, b.if_else(), {"x": X, "c": np.array(taken)})
    expected = -X if taken else np.exp(X)
    np.testing.assert_allclose(made[ran].array, expected, rtol=1e-6)
    assert (made[idle].info.status, made[idle].array, made[idle].info.dtype) == ("not_run", None, "float32")
    assert made[idle].info.note == f"choose/{'else_branch' if taken else 'then_branch'} did not run"


def test_nested_branches(tmp_path):
    def statuses(c, x):
        return {
            name: tensor.info.status
            for name, tensor in rows_of(tmp_path, b.nested_if(), {"x": x, "c": np.array(c)}).items()
        }

    outside = statuses(c=False, x=X)
    assert outside["else_y"] == "recorded" and {outside[n] for n in ("total", "mid", "deep_then", "deep_else")} == {
        "not_run"
    }
    inside = statuses(c=True, x=np.abs(X))
    assert (inside["deep_then"], inside["deep_else"], inside["else_y"]) == ("recorded", "not_run", "not_run")
    inside = statuses(c=True, x=-np.abs(X))
    assert (inside["deep_then"], inside["deep_else"]) == ("not_run", "recorded")


def test_loop_bodies_are_stacked_and_said_to_be(tmp_path):
    made = rows_of(tmp_path, b.loop(), {"x": X, "n": np.array(3)})
    assert made["squared"].info.shape == (3, 2, 3) and "iterations of loop" in made["squared"].info.note
    np.testing.assert_array_equal(made["next"].array[-1], made["y"].array)


def test_a_loop_whose_tensors_change_shape_is_recorded_without_its_body_and_says_so(tmp_path):
    notes: list[str] = []
    made = rows_of(tmp_path, b.growing_loop(), {"x": X, "n": np.array(3)}, notes=notes)
    assert made["y"].array.shape == (16, 3)
    assert made["next"].info.status == "unsupported" and "Loop" in made["next"].info.note
    assert any("Loop and Scan bodies are not recorded" in note and "Inconsistent shape" in note for note in notes)


def test_a_model_that_fails_by_itself_fails_with_bodies_too(tmp_path):
    proto = b.growing_loop()
    with pytest.raises(InputError, match="rank"):
        rows_of(tmp_path, proto, {"x": X[0], "n": np.array(1)})


def test_bodies_can_be_left_out(tmp_path):
    made = rows_of(tmp_path, b.loop(), {"x": X, "n": np.array(3)}, replace(DEFAULT, bodies=False))
    assert made["squared"].info.status == "unsupported" and made["all"].info.status == "recorded"


def test_local_functions_are_noted_once(tmp_path):
    notes: list[str] = []
    made = rows_of(tmp_path, b.local_function(), {"x": X}, notes=notes)
    assert list(made) == ["t1", "t2", "y"] and len([note for note in notes if "Twice" in note]) == 1


# --- goldens ---------------------------------------------------------------------------------------------------------


def overflowing() -> onnx.ModelProto:
    """sqrt(x * x) in float16: 300 gives inf when every tensor is rounded, 300 in FP32."""
    nodes = [b.node("Mul", ["x", "x"], ["squared"]), b.node("Sqrt", ["squared"], ["y"])]
    return b.model(nodes, [b.value("x", (1,), b.FLOAT16)], [b.value("y", (1,), b.FLOAT16)])


def test_half_precision_models_are_upcast_and_say_so(tmp_path):
    runner = OrtRunner(load_proto(tmp_path, overflowing()))
    made = {tensor.info.name: tensor for tensor in runner.run({"x": np.array([300], np.float16)}, "one")}
    assert made["squared"].array.dtype == np.float32 and made["squared"].array[0] == 90000
    assert (runner.header.golden, runner.header.precision) == ("upcast from float16", "fp32")


def test_as_is_is_typed_and_warns_that_it_proves_nothing(tmp_path):
    runner = OrtRunner(load_proto(tmp_path, overflowing()), replace(DEFAULT, as_is=True))
    made = {tensor.info.name: tensor for tensor in runner.run({"x": np.array([300], np.float16)}, "one")}
    assert made["squared"].array.dtype == np.float16
    assert (runner.header.golden, runner.header.precision) == ("as_is", "fp16")
    assert any("in FP32" in note for note in runner.header.notes)


def test_quantised_models_keep_their_nodes_and_carry_steps(tmp_path):
    runner = OrtRunner(load_proto(tmp_path, b.qdq()))
    made = {tensor.info.name: tensor for tensor in runner.run({"x": X}, "one")}
    assert runner.header.golden == "qdq kept"
    assert made["xd"].info.step == pytest.approx(0.05) and made["xq"].array.dtype == np.uint8
    assert made["y"].info.step is None


def test_quantised_models_in_half_precision_are_upcast_too(tmp_path):
    nodes = [
        b.node("Cast", ["x"], ["low"], to=b.FLOAT16),
        b.node("Mul", ["low", "low"], ["squared"]),
        b.node("Cast", ["squared"], ["wide"], to=1),
        b.node("QuantizeLinear", ["wide", "s"], ["q"]),
        b.node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    proto = b.model(nodes, [b.value("x", (1,))], [b.value("y", (1,))], [b.weight("s", np.float32(1000))])
    runner = OrtRunner(load_proto(tmp_path, proto))
    made = {tensor.info.name: tensor for tensor in runner.run({"x": np.array([300], np.float32)}, "one")}
    assert made["squared"].array.dtype == np.float32 and made["squared"].array[0] == 90000
    assert (runner.header.golden, runner.header.precision) == ("upcast from float16, qdq kept", "qdq")


def test_header(tmp_path):
    import onnxruntime

    model = load_proto(tmp_path, b.mlp())
    header = OrtRunner(model).header
    assert (header.runner, header.precision, header.golden, header.device) == ("ort", "fp32", "as_is", "cpu")
    assert header.model == str(model.path) and header.model_sha256 == model.sha256
    assert (header.environment or {})["onnxruntime"] == onnxruntime.__version__


# --- refusals --------------------------------------------------------------------------------------------------------


def refused(tmp_path, proto, feeds, options=DEFAULT) -> InputError:
    with pytest.raises(InputError) as caught:
        rows_of(tmp_path, proto, feeds, options)
    assert "onnxruntime_src" not in str(caught.value)
    return caught.value


def test_a_run_time_failure_names_the_node(tmp_path):
    nodes = [b.node("Reshape", ["x", "shape"], ["y"], name="bad reshape")]
    proto = b.model(nodes, [b.value("x", ("n", 3)), b.value("shape", (2,), b.INT64)], [b.value("y", (None, None))])
    error = refused(tmp_path, proto, {"x": X, "shape": np.array([4, 4])})
    assert error.what.startswith("Reshape failed") and "node bad reshape" in error.where and "--inputs" in error.hint


def test_an_unnamed_node_that_fails_goes_by_its_identity(tmp_path):
    proto = b.model(
        [b.node("Gather", ["x", "i"], ["y"])],
        [b.value("x", ("n", 3)), b.value("i", (1,), b.INT64)],
        [b.value("y", (1, 3))],
    )
    error = refused(tmp_path, proto, {"x": X, "i": np.array([7])})
    assert "Gather(y)" in error.where and "out of" in error.what


def test_an_unknown_operator_asks_for_its_library(tmp_path):
    error = refused(tmp_path, b.custom_domain(), {"x": X})
    assert (
        "does not know the operator my.ops:Mystery" in error.what
        and "mystery" in error.where
        and "--custom-op-lib" in error.hint
    )


def test_a_missing_kernel_is_named(tmp_path):
    proto = b.model([b.node("Conv", ["x", "w"], ["y"], name="wide")], [b.value("x", (1, 1, 4, 4), TensorProto.DOUBLE)],
                    [b.value("y", None, TensorProto.DOUBLE)], [b.weight("w", np.ones((1, 1, 3, 3)))])  # fmt: skip
    error = refused(tmp_path, proto, {"x": np.ones((1, 1, 4, 4))})
    assert re.search(r"no kernel for Conv", error.what) and "wide" in error.where


def test_feeds_are_checked_first(tmp_path):
    assert "no data for input 'x'" in refused(tmp_path, b.mlp(), {}).what


@pytest.mark.parametrize("name", ["CUDAExecutionProvider", "cuda"])
def test_a_provider_that_does_not_start_is_an_error_and_never_another_one(tmp_path, name, capfd):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        error = refused(tmp_path, b.mlp(), {"x": X}, replace(DEFAULT, providers=(name,)))
        assert "has no provider" in error.what
        return
    error = None
    try:
        rows_of(tmp_path, b.mlp(), {"x": X}, replace(DEFAULT, providers=(name,)))
    except InputError as caught:
        error = caught
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")  # nothing of ONNX Runtime's own on the terminal
    if error is None:
        pytest.skip("CUDA's provider works here")
    assert error.what.startswith(
        "the provider CUDAExecutionProvider does not start: "
    )  # and the library that is missing
    assert "does not switch" in error.hint


def test_an_unknown_provider_lists_what_there_is(tmp_path):
    error = refused(tmp_path, b.mlp(), {"x": X}, replace(DEFAULT, providers=("Quantum",)))
    assert "no provider 'Quantum'" in error.what and "CPUExecutionProvider" in error.hint


def test_custom_operator_libraries_that_cannot_be_used(tmp_path):
    missing = replace(DEFAULT, custom_op_libs=(tmp_path / "none.so",))
    assert "no such file" in refused(tmp_path, b.mlp(), {"x": X}, missing).what
    (tmp_path / "text.so").write_text("not a library")
    error = refused(tmp_path, b.mlp(), {"x": X}, replace(DEFAULT, custom_op_libs=(tmp_path / "text.so",)))
    assert "cannot be loaded" in error.what and "RegisterCustomOps" in error.hint


def test_threads_reach_the_session(tmp_path):
    from probe.ort.session import session_options

    options = session_options(3)
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


# --- selection, several inputs ---------------------------------------------------------------------------------------


def test_select_keeps_what_was_asked_for(tmp_path):
    made = rows_of(tmp_path, b.mlp(), {"x": X}, replace(DEFAULT, select=lambda name: name == "hidden"))
    assert list(made) == ["hidden"]
    assert rows_of(tmp_path, b.mlp(), {"x": X}, replace(DEFAULT, select=lambda name: False)) == {}


def test_one_session_serves_inputs_of_different_shapes(tmp_path):
    nodes = [b.node("Relu", ["x"], ["y"])]
    runner = OrtRunner(load_proto(tmp_path, b.model(nodes, [b.value("x", ("n",))], [b.value("y", ("n",))])))
    for count in (3, 5, 3):
        (made,) = runner.run({"x": np.full(count, -1, np.float32)}, str(count))
        assert made.info.shape == (count,) and made.info.input_id == str(count)


def test_the_helpers_agree_with_each_other():
    """to_ort and tensor_of are inverse for packed types of every length."""
    from probe.model.model import Port

    for dtype in (ml_dtypes.int4, ml_dtypes.uint4):
        for count in range(18):
            array = np.arange(count).astype(dtype)
            port = Port("x", np.dtype(dtype).name, (count,))
            (value,) = to_ort([port], {"x": array}).values()
            assert np.array_equal(tensor_of(value).astype(int), array.astype(int))
            assert from_ort(value)[0][0] == ""
