"""The outline of a model is the model without its weights, and damage is told with its place."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.model.wire import LARGE_BYTES, WireError, payload_of, read_outline, refill
from tests.model import builders as b


def parsed(data: bytes) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(read_outline(memoryview(data)))


@pytest.mark.parametrize("name", b.GOOD)
def test_small_models_are_copied_whole(name):
    data = b.GOOD[name]().SerializeToString()
    assert read_outline(memoryview(data)) == data


def big_tensors() -> list[onnx.TensorProto]:
    n = LARGE_BYTES
    return [
        b.weight("raw", np.arange(n, dtype=np.float32)),
        onnx.TensorProto(name="floats", data_type=1, dims=[n], float_data=np.linspace(0, 1, n)),
        onnx.TensorProto(name="ints", data_type=7, dims=[n], int64_data=range(-n // 2, n // 2)),
        onnx.TensorProto(name="halves", data_type=10, dims=[n], int32_data=range(n)),
        onnx.TensorProto(name="doubles", data_type=11, dims=[n], double_data=np.linspace(0, 1, n)),
        onnx.TensorProto(name="unsigned", data_type=13, dims=[n], uint64_data=range(n)),
    ]


def big_model() -> onnx.ModelProto:
    """Large tensors as initialisers, in a Constant node, and in the body of an If."""
    proto = b.if_else()
    proto.graph.initializer.extend(big_tensors())
    constant = b.node("Constant", [], ["k"], value=big_tensors()[0])
    proto.graph.node.append(constant)
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    body.initializer.append(b.weight("inside", np.ones(LARGE_BYTES, np.float32)))
    return proto


def test_large_payloads_are_left_out_and_can_be_put_back():
    proto = big_model()
    data = proto.SerializeToString()
    outline = read_outline(memoryview(data))
    assert len(outline) < 2000
    light = onnx.ModelProto.FromString(outline)
    for empty, whole in zip(light.graph.initializer, proto.graph.initializer, strict=True):
        assert payload_of(empty) is not None
        assert refill(empty, memoryview(data)) == whole
    body = next(a.g for a in light.graph.node[0].attribute if a.name == "then_branch")
    assert np.array_equal(
        onnx.numpy_helper.to_array(refill(body.initializer[0], memoryview(data))), np.ones(LARGE_BYTES)
    )
    assert payload_of(light.graph.node[1].attribute[0].t) is not None


def test_everything_but_payloads_is_kept():
    proto = big_model()
    light = parsed(proto.SerializeToString())
    for model in (proto, light):
        for tensor in (
            *model.graph.initializer,
            model.graph.node[1].attribute[0].t,
            model.graph.node[0].attribute[1].g.initializer[0],
        ):
            kept = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            tensor.CopyFrom(kept)
    assert light == proto


@given(st.data())
def test_a_truncated_file_is_called_truncated(data):
    whole = b.mlp().SerializeToString()
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    try:
        outline = read_outline(memoryview(cut))
    except WireError as error:
        assert error.truncated
        assert error.is_onnx
        assert 0 <= error.offset <= len(cut)
    else:  # cut between two fields of the outermost message: complete as far as it goes
        assert outline == cut


def test_a_length_beyond_the_file_is_no_allocation():
    graph_of_2_to_the_60_bytes = b"\x08\x08\x3a" + b"\x80" * 8 + b"\x10"
    with pytest.raises(WireError, match="1152921504606846976") as caught:
        read_outline(memoryview(graph_of_2_to_the_60_bytes))
    assert caught.value.truncated


def test_deep_nesting_ends():
    # graph > node > attribute > graph > ..., each layer longer than what is copied without a look
    data = bytes(LARGE_BYTES + 1)
    for depth in range(300):
        field = (7 if depth == 299 else 6, 1, 5)[(299 - depth) % 3] if depth < 299 else 7
        header = bytearray([field << 3 | 2])
        length = len(data)
        while length > 0x7F:
            header.append(length & 0x7F | 0x80)
            length >>= 7
        header.append(length)
        data = bytes(header) + data
    with pytest.raises(WireError):
        read_outline(memoryview(b"\x08\x08" + data))


@pytest.mark.parametrize("data", [b"\x0b\x00", b"\x3b", b"hello world", b"\xff" * 20, b"\x08"])
def test_other_bytes_are_refused(data):
    with pytest.raises(WireError):
        read_outline(memoryview(data))
