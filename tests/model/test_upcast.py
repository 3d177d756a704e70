"""FP16 and BF16 models in FP32: every type follows, every weight is the same number."""

from __future__ import annotations

import gc

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from probe.errors import InputError
from probe.model import load
from probe.model import upcast as module
from probe.model.expose import expose
from probe.model.upcast import upcast
from tests.model import builders as b
from tests.model import ort

HALVES = {"float16": b.FLOAT16, "bfloat16": b.BFLOAT16}


@pytest.fixture
def upcast_of(tmp_path):
    def of(proto: onnx.ModelProto):
        return upcast(load(b.save(proto, tmp_path / "model.onnx")))

    return of


def element_types(proto: onnx.ModelProto) -> set[int]:
    """Every element type a model mentions, wherever it may: found by walking all of protobuf, knowing nothing of ONNX."""
    found: set[int] = set()

    def walk(message) -> None:
        for field, content in message.ListFields():
            if field.name in ("elem_type", "data_type") and field.message_type is None:
                found.add(content)
            if field.name == "i" and message.name in ("to", "dtype", "output_dtype", "precision"):
                found.add(content)
            if field.message_type is not None:
                for inner in content if field.is_repeated else [content]:
                    walk(inner)

    walk(proto)
    return found


def test_overflow_disappears(upcast_of):
    """300 * 300 is beyond FP16; in FP32 the square root of the square is 300 again."""
    x = np.array([[300, -2], [0.5, 1]], np.float16)
    model = upcast_of(b.half())
    assert (model.numerics, model.half, model.origin) == ("float32", "", "upcast from float16")
    assert [p.dtype for p in model.inputs] == ["float32", "bool"]
    for condition in (True, False):
        values, _, _ = ort.run_exposed(expose(model), {"x": x.astype(np.float32), "c": np.array(condition)})
        w = np.float32(np.float16(0.1)) if condition else np.float32(0)
        expected = np.abs(x.astype(np.float32)) + w + np.eye(2, dtype=np.float32) + 1 + np.float32(np.float16(0.3))
        np.testing.assert_allclose(values["y"], expected, rtol=1e-6)
        assert values["square"][0, 0] == 90000
        assert {v.dtype for name, v in values.items() if v.dtype.kind == "f"} == {np.dtype("float32")}


@pytest.mark.parametrize("kind", HALVES)
def test_no_half_precision_is_left(upcast_of, kind):
    proto = b.half(HALVES[kind], opset=22)
    assert HALVES[kind] in element_types(proto)
    after = onnx.ModelProto.FromString(upcast_of(proto).proto_bytes())
    assert not element_types(after) & set(HALVES.values())


@pytest.mark.parametrize(("kind", "numpy_type"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
@pytest.mark.parametrize("storage", ["raw", "values"])
def test_every_half_precision_number_is_kept(upcast_of, kind, numpy_type, storage):
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = bits.view(numpy_type)
    if storage == "raw":
        tensor = b.weight("w", numbers)
    else:
        tensor = onnx.TensorProto(name="w", data_type=HALVES[kind], dims=[2**16], int32_data=bits)
    proto = b.model([b.node("Add", ["x", "w"], ["y"])], [b.value("x", (1,), HALVES[kind])], [b.untyped("y")], [tensor])
    model = upcast_of(proto)
    with np.errstate(invalid="ignore"):
        expected = numbers.astype(np.float32)
    np.testing.assert_array_equal(model.tensor(model.proto.graph.initializer[0]), expected)


def test_sequences_optionals_and_quantisation_follow(upcast_of):
    kind = b.FLOAT16
    seq = helper.make_value_info("s", helper.make_sequence_type_proto(helper.make_tensor_type_proto(kind, (2, 3))))
    proto = b.model(
        [
            b.node("DequantizeLinear", ["q", "scale"], ["d"], name="dq", output_dtype=kind),
            b.node("SequenceConstruct", ["d", "d"], ["s"], name="seq"),
            b.node("SequenceEmpty", [], ["none"], name="none", dtype=kind),
            b.node("ConcatFromSequence", ["s"], ["c"], name="cat", axis=0),
            b.node("QuantizeLinear", ["c", "scale"], ["y"], name="q", precision=kind, output_dtype=onnx.TensorProto.INT8),
        ],
        [b.value("q", (2, 3), onnx.TensorProto.INT8)],
        [b.value("y", (4, 3), onnx.TensorProto.INT8), seq],
        [b.weight("scale", np.float16(0.1))],
        opset=23, ir=11,
    )  # fmt: skip
    model = upcast_of(proto)
    assert model.numerics == "qdq"
    assert model.origin == "upcast from float16"
    after = onnx.ModelProto.FromString(model.proto_bytes())
    assert b.FLOAT16 not in element_types(after)
    assert [p.dtype for p in model.outputs] == ["int8", "seq(float32)"]


def test_types_handed_to_local_functions_follow(upcast_of):
    """Inner(kind) casts to its attribute; Outer(sort) hands its own on; the model calls Outer(sort=FLOAT16)."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)]
    cast = b.node("Cast", ["a"], ["b"])
    cast.attribute.append(onnx.AttributeProto(name="to", type=onnx.AttributeProto.INT, ref_attr_name="kind"))
    inner = helper.make_function("here", "Inner", ["a"], ["b"], [cast], opsets, ["kind"])
    call = b.node("Inner", ["a"], ["b"], domain="here")
    call.attribute.append(onnx.AttributeProto(name="kind", type=onnx.AttributeProto.INT, ref_attr_name="sort"))
    outer = helper.make_function("here", "Outer", ["a"], ["b"], [call], opsets, ["sort"])
    proto = b.model(
        [b.node("Outer", ["x"], ["h"], domain="here", sort=b.FLOAT16), b.node("Add", ["h", "w"], ["y"])],
        [b.value("x")],
        [b.value("y", (2, 3), b.FLOAT16)],
        [b.weight("w", np.ones(3, np.float16))],
        domains=("here",), functions=(inner, outer),
    )  # fmt: skip
    model = upcast_of(proto)
    x = np.array([[1e5, 2, 3], [4, 5, 6]], np.float32)  # beyond FP16
    values, _, _ = ort.run_exposed(expose(model), {"x": x})
    np.testing.assert_array_equal(values["y"], x + 1)


def test_a_model_without_half_precision_is_returned_as_it_is(tmp_path):
    model = load(b.save(b.mlp(), tmp_path / "model.onnx"))
    assert upcast(model) is model


def test_the_result_says_which_network_it_is(tmp_path):
    model = load(b.save(b.half(), tmp_path / "model.onnx"))
    assert upcast(model).sha256 == model.sha256
    assert upcast(model).path == model.path


def test_the_bits_of_half_precision_numbers_have_no_fp32_twin(upcast_of):
    proto = b.model(
        [b.node("BitCast", ["x"], ["y"], name="bits", to=onnx.TensorProto.UINT16)],
        [b.value("x", (2,), b.FLOAT16)], [b.value("y", (2,), onnx.TensorProto.UINT16)], opset=26, ir=13,
    )  # fmt: skip
    with pytest.raises(InputError, match="bits"):
        upcast_of(proto)


def with_external_weights(folder):
    """y = x * half + full + 1, the two weights in one file beside the model."""
    half, full = np.linspace(-1, 1, 4096, dtype=np.float16), np.linspace(-1, 1, 4096, dtype=np.float32)
    (folder / "weights.bin").write_bytes(half.tobytes() + full.tobytes())
    proto = b.model(
        [
            b.node("Mul", ["x", "half"], ["m"]),
            b.node("Cast", ["m"], ["c"], to=b.FLOAT),
            b.node("Add", ["c", "full"], ["y"]),
        ],
        [b.value("x", (4096,), b.FLOAT16)],
        [b.value("y", (4096,))],
    )
    for name, kind, offset, length in (("half", b.FLOAT16, 0, 8192), ("full", b.FLOAT, 8192, 16384)):
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=[4096], data_location=onnx.TensorProto.EXTERNAL)
        for key, text in (("location", "weights.bin"), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=text)
        proto.graph.initializer.append(tensor)
    return b.save(proto, folder / "model.onnx"), half.astype(np.float32), full


def test_external_weights_in_fp32_stay_where_they_are(tmp_path):
    path, half, full = with_external_weights(tmp_path)
    model = upcast(load(path))
    assert model.external_files == (tmp_path / "weights.bin",)
    assert 16384 < len(model.proto_bytes()) < 20000  # one weight of 16 KiB, the converted one
    values, _, _ = ort.run_exposed(expose(model), {"x": np.full(4096, 3, np.float32)})
    np.testing.assert_allclose(values["y"], 3 * half + full, rtol=1e-6)


def test_much_weight_goes_to_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_IN_MEMORY_BYTES", 1000)
    path, half, full = with_external_weights(tmp_path)
    model = upcast(load(path))
    folder = model.base_dir
    assert folder != tmp_path
    assert len(model.proto_bytes()) < 2000
    values, _, _ = ort.run_exposed(expose(model), {"x": np.full(4096, 3, np.float32)})
    np.testing.assert_allclose(values["y"], 3 * half + full, rtol=1e-6)
    assert folder.is_dir()
    del model
    gc.collect()
    assert not folder.exists()


def test_no_room_for_a_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_IN_MEMORY_BYTES", 1000)
    model = load(with_external_weights(tmp_path)[0])

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx_ir.save", full_disk)
    with pytest.raises(InputError, match="No space left") as caught:
        upcast(model)
    assert "TMPDIR" in caught.value.hint
