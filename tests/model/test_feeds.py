"""Feeds are checked before anything runs: the message says which input, what is wrong and what to change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from probe.errors import InputError
from probe.model import load
from probe.model.feeds import check_feeds
from tests.model.builders import BOOL, FLOAT, FLOAT16, INT64, STRING, model, node, optional_input, save, value

INT32 = onnx.TensorProto.INT32


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """x float32[batch, 3], ids int64[batch, seq]"""
    nodes = [node("Identity", ["x"], ["y"]), node("Identity", ["ids"], ["z"])]
    inputs = [value("x", ("batch", 3)), value("ids", ("batch", "seq"), INT64)]
    return load(save(model(nodes, inputs, [onnx.ValueInfoProto(name="y")]), tmp_path_factory.mktemp("two") / "m.onnx"))


def single(tmp_path, dtype, shape=(2,)):
    nodes = [node("Identity", ["x"], ["y"])]
    return load(save(model(nodes, [value("x", shape, dtype)], [onnx.ValueInfoProto(name="y")]), tmp_path / "m.onnx"))


X, IDS = np.zeros((2, 3), np.float32), np.zeros((2, 5), np.int64)


def test_good_feeds_come_back_in_the_order_of_the_inputs(two):
    checked = check_feeds(two, {"ids": IDS, "x": X})
    assert list(checked) == ["x", "ids"] and checked["x"] is not None
    assert np.array_equal(checked["ids"], IDS)


@pytest.mark.parametrize(
    ("feeds", "what", "hint"),
    [
        ({"x": X}, "no data for input 'ids'", "given: 'x'"),
        ({}, "no data for input 'x', 'ids'", "nothing was given"),
        ({"x": X, "ids": IDS, "idz": IDS}, "the model has no input 'idz'", "did you mean 'ids'?"),
        ({"x": X, "ids": IDS, "unlike": IDS}, "the model has no input 'unlike'", "inputs: 'x', 'ids'"),
        ({"x": X[0], "ids": IDS}, "rank 2, the data has rank 1", "add a batch axis"),
        ({"x": X[:, :2], "ids": IDS}, "has 3 elements on axis 1, the data has 2", ""),
        ({"x": X, "ids": IDS[:1]}, "dimension 'batch' is 2 in 'x' and 1 in 'ids'", "same size"),
        ({"x": X.astype(np.int32), "ids": IDS}, "'x' is float32, the data is int32", "astype('float32')"),
        ({"x": X, "ids": IDS.astype(np.float32)}, "'ids' is int64, the data is float32", "astype('int64')"),
        ({"x": np.array([["a"] * 3] * 2), "ids": IDS}, "'x' is float32, the data is string", ""),
        ({"x": X, "ids": IDS.astype(bool)}, "'ids' is int64, the data is bool", "astype('int64')"),
    ],
)
def test_bad_feeds_are_explained(two, feeds, what, hint):
    with pytest.raises(InputError) as caught:
        check_feeds(two, feeds)
    assert what in caught.value.what and hint in caught.value.hint


def test_rounding_is_said_and_exact_casts_are_not(tmp_path):
    x = single(tmp_path, FLOAT)
    notes: list[str] = []
    exact = check_feeds(x, {"x": np.array([0.5, np.inf])}, notes=notes)["x"]
    assert exact.dtype == np.float32 and notes == []
    check_feeds(x, {"x": np.array([0.1, 0.5])}, notes=notes)
    assert notes == ["input 'x': float64 data rounded to float32, 1 of 2 values changed"]
    check_feeds(x, {"x": np.array([np.nan, 0.5])}, notes=notes)
    assert len(notes) == 1


def test_overflow_is_refused(tmp_path):
    with pytest.raises(InputError, match="1 values of the float32 data overflow it"):
        check_feeds(single(tmp_path, FLOAT16), {"x": np.array([1, 70000], np.float32)})
    with pytest.raises(InputError, match="does not fit"):
        check_feeds(single(tmp_path, INT32), {"x": np.array([1, 2**40])})
    with pytest.raises(InputError, match="does not fit"):
        check_feeds(single(tmp_path, INT64), {"x": np.array([1, 2**63 + 1], np.uint64)})
    with pytest.raises(InputError, match="does not fit"):
        check_feeds(single(tmp_path, onnx.TensorProto.UINT64), {"x": np.array([1, -1])})


@given(array=hnp.arrays(st.sampled_from([np.int8, np.uint8, np.int64, np.uint64]), 3))
@settings(max_examples=60, deadline=None)
def test_an_integer_cast_keeps_every_value_or_is_refused(tmp_path_factory, array):
    checked_model = single(tmp_path_factory.mktemp("ints"), INT32, (3,))
    try:
        cast = check_feeds(checked_model, {"x": array})["x"]
    except InputError:
        assert any(not -(2**31) <= int(v) < 2**31 for v in array)
    else:
        assert cast.dtype == np.int32 and [int(v) for v in cast] == [int(v) for v in array]


def test_layout_byte_order_and_scalars(tmp_path):
    x = single(tmp_path, FLOAT, (2, 3))
    swapped = np.arange(6, dtype=">f4").reshape(3, 2).T
    checked = check_feeds(x, {"x": swapped})["x"]
    assert checked.flags.c_contiguous and checked.dtype.isnative and np.array_equal(checked, swapped)
    scalar = check_feeds(single(tmp_path, FLOAT, ()), {"x": np.float32(3)})["x"]
    assert scalar.shape == () and scalar == 3


def test_text_of_any_kind(tmp_path):
    x = single(tmp_path, STRING)
    for array in (np.array(["a", "é"]), np.array(["a", "é"], object), np.array([b"a", b"b"])):
        assert check_feeds(x, {"x": array})["x"].dtype == object
    assert check_feeds(single(tmp_path, BOOL), {"x": np.array([True, False])})["x"].dtype == bool


def test_sequences_are_fed_by_their_elements(tmp_path):
    kind = onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(FLOAT, None))
    proto = model(
        [node("SequenceLength", ["s"], ["y"])],
        [onnx.helper.make_value_info("s", kind)],
        [onnx.ValueInfoProto(name="y")],
    )
    loaded = load(save(proto, tmp_path / "m.onnx"))
    checked = check_feeds(loaded, {"s[1]": X, "s[0]": X[0]})
    assert list(checked) == ["s[0]", "s[1]"]
    assert check_feeds(loaded, {}) == {}  # the empty sequence
    with pytest.raises(InputError, match="is a sequence"):
        check_feeds(loaded, {"s": X})
    with pytest.raises(InputError, match="not numbered"):
        check_feeds(loaded, {"s[0]": X, "s[2]": X})


def test_an_optional_input_may_be_left_out(tmp_path):
    loaded = load(save(optional_input(), tmp_path / "m.onnx"))
    assert check_feeds(loaded, {}) == {}
    assert check_feeds(loaded, {"x": X})["x"].dtype == np.float32
