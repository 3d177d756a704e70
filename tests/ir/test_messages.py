"""What is read is what was written: types, shapes, constants of every element type, attributes of every kind, bodies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from probe import ir
from probe.model.elements import element_name
from probe.precision import numpy_dtype

ELEMENTS = [one for one in ir.DataType if one not in (ir.DataType.UNDEFINED, ir.DataType.STRING)]


def values_of(dtype: ir.DataType) -> np.ndarray:
    """Seven values that a type has, in an odd number, so that packed ones end within a byte."""
    few = {"FLOAT8E8M0": [1, 2, 4, 8, 1, 2, 4]}.get(
        dtype.name, [0, 1, 1, 0, 1, 0, 1] if dtype.bitwidth < 4 else [0, 1, 2, 3, 4, 6, 2]
    )
    numbers = np.array(few)
    signed = dtype.name.startswith(("INT", "FLOAT", "DOUBLE", "BFLOAT")) and dtype is not ir.DataType.FLOAT8E8M0
    return (numbers * (np.array([1, -1, 1, -1, 1, -1, 1]) if signed else 1)).astype(dtype.numpy())


@pytest.mark.parametrize("dtype", ELEMENTS, ids=lambda dtype: dtype.name)
def test_constants_of_every_type(dtype: ir.DataType) -> None:
    """Through raw data, and through the typed fields as onnx writes them."""
    assert (
        dtype.numpy() == numpy_dtype(element_name(int(dtype)) or "") and ir.DataType.from_numpy(dtype.numpy()) is dtype
    )
    values = values_of(dtype)
    tensor = ir.ArrayTensor(values, name="t")
    raw = ir.tensor_proto(tensor)
    assert len(raw.raw_data) == tensor.nbytes and tensor.dtype is dtype
    back = ir.read_tensor(raw)
    assert back.numpy().dtype == values.dtype and np.array_equal(back.numpy(), values)
    assert back.tobytes() == raw.raw_data and back.nbytes == tensor.nbytes
    if int(dtype) not in onnx.TensorProto.DataType.values():
        return  # younger than this version of onnx
    typed = onnx.helper.make_tensor(
        "t", int(dtype), [7], values.astype(np.complex128 if values.dtype.kind == "c" else np.float64).tolist()
    )
    assert not typed.raw_data
    read = ir.read_tensor(typed)
    assert np.array_equal(read.numpy(), values) and read.tobytes() == raw.raw_data


def test_text_empty_and_scalar_constants() -> None:
    proto = onnx.TensorProto(name="t", data_type=onnx.TensorProto.STRING, dims=[2], string_data=[b"a\0", "ä".encode()])
    text = ir.read_tensor(proto)
    assert ir.strings_of(text) == [b"a\0", "ä".encode()] and text.nbytes == 4
    assert list(ir.tensor_proto(ir.ArrayTensor(text.numpy())).string_data) == [b"a\0", "ä".encode()]
    with pytest.raises(ValueError, match="text"):
        text.tobytes()
    assert ir.read_tensor(onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [0, 3], [])).numpy().shape == (0, 3)
    assert ir.tensor(2).numpy() == np.int64(2) and ir.tensor(0.5).dtype is ir.DataType.FLOAT
    assert ir.tensor([1, 2], ir.DataType.FLOAT).numpy().dtype == np.float32
    bits = ir.ArrayTensor(np.array([0x3F80], np.uint16), ir.DataType.BFLOAT16)
    assert float(bits.numpy()[0]) == 1.0
    with pytest.raises(TypeError, match="no array of"):
        ir.ArrayTensor(np.zeros(2, np.float32), ir.DataType.INT64)


def external(folder: Path, location: str, count: int, offset: int = 4) -> ir.Tensor:
    proto = onnx.TensorProto(name="w", data_type=1, dims=[count], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset))):
        proto.external_data.add(key=key, value=value)
    return ir.read_tensor(proto, folder)


def test_constants_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w.bin").write_bytes(np.arange(5, dtype=np.float32).tobytes())
    found = external(tmp_path / "m", "w.bin", 4)
    assert found.numpy().tolist() == [1, 2, 3, 4] and found.tobytes() == np.arange(1, 5, dtype=np.float32).tobytes()
    stays = ir.tensor_proto(found)
    assert not stays.raw_data and {one.key: one.value for one in stays.external_data} == {
        "location": "w.bin",
        "offset": "4",
    }
    (tmp_path / "m" / "link").symlink_to(tmp_path)
    (tmp_path / "w.bin").write_bytes(bytes(40))
    for location, count, why in (("../w.bin", 2, "outside"), ("link/w.bin", 2, "outside"), ("w.bin", 6, "too short")):
        with pytest.raises(ValueError, match=why):
            external(tmp_path / "m", location, count).numpy()
    with pytest.raises(OSError, match="gone"):
        external(tmp_path / "m", "gone.bin", 2).numpy()


TYPES = [
    onnx.helper.make_tensor_type_proto(1, [2, "n", None]),
    onnx.helper.make_tensor_type_proto(7, []),
    onnx.helper.make_tensor_type_proto(9, None),
    onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(10, ["n"])),
    onnx.helper.make_optional_type_proto(
        onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(6, None))
    ),
    onnx.helper.make_sparse_tensor_type_proto(1, [3]),
]


@pytest.mark.parametrize("proto", TYPES, ids=lambda proto: proto.WhichOneof("value"))
def test_types(proto: onnx.TypeProto) -> None:
    kind, shape = ir.read_type(proto), ir.read_shape(proto)
    assert kind is not None and ir.type_proto(kind, shape) == proto
    assert (
        kind == ir.read_type(proto)
        and hash(kind) == hash(ir.read_type(proto))
        and kind != ir.TensorType(ir.DataType.UINT64)
    )


def test_types_that_no_graph_has() -> None:
    assert ir.read_type(onnx.TypeProto()) is None and ir.read_shape(onnx.TypeProto()) is None
    with pytest.raises(ir.NotReadable, match="map"):
        ir.read_type(onnx.helper.make_map_type_proto(7, onnx.helper.make_tensor_type_proto(1, None)))


def test_shapes() -> None:
    shape = ir.Shape([2, "n", None, np.int64(3)])
    assert shape.rank() == len(shape) == 4 and not shape.is_static() and shape == (2, "n", None, 3) and shape[0] == 2
    assert shape[3:] == (3,) and type(shape[3]) is int and str(shape) == "[2,n,?,3]"
    assert ir.SymbolicDim("n") == ir.SymbolicDim("n") != ir.SymbolicDim("m")
    with pytest.raises(ValueError, match="not every extent"):
        shape.numpy()
    assert ir.Shape([2, 3]).numpy() == (2, 3)


MODEL = """<ir_version: 10, opset_import: ["" : 21, "own" : 1]>
g (bool c, float[n] x) => (float[n] y)
<float[2] w = {1.0, 2.0}, float[n] big> {
  [first] big = Exp (x)
  unused, big2 = own.Two <a = 1, b = 0.5, s = "t", ints = [1, 2], floats = [0.5, 1.0], words = ["p", "q"], tensor = float[2] {1.0, 2.0}> (big, , w)
  y = If (c) <
    then_branch = t () => (float[n] r) { k = Constant <value = float[1] {2.0}> ()  r = Mul (big, k) },
    else_branch = e () => (float[n] r) { r = Add (later, x) }>
  later = Neg (x)
}"""


def without_empty_domains(nodes: Iterable[onnx.NodeProto]) -> None:
    """The parser writes the standard domain out."""
    for node in nodes:
        if not node.domain:
            node.ClearField("domain")
        for attribute in node.attribute:
            without_empty_domains(attribute.g.node if attribute.HasField("g") else ())


def test_a_graph_is_written_as_it_was_read() -> None:
    proto = onnx.parser.parse_model(MODEL)
    without_empty_domains(proto.graph.node)
    model = ir.read_model(proto)
    again = ir.model_proto(model)
    assert again.graph.node == proto.graph.node and again.graph.input == proto.graph.input
    assert again.graph.output == proto.graph.output and again.graph.initializer == proto.graph.initializer
    assert model.opset_imports == {"": 21, "own": 1} and again.ir_version == 10
    first, two, choice, later = model.graph
    assert two.inputs == (first.outputs[0], None, model.graph.initializers["w"]) and two.op_identifier() == (
        "own",
        "Two",
        "",
    )
    read = two.attributes
    assert [read.get_int("a"), read.get_float("b"), read.get_string("s"), read.get_ints("ints"), read.get_strings("words")] == [
        1, 0.5, "t", (1, 2), ("p", "q"),
    ]  # fmt: skip
    assert read.get_floats("floats") == (0.5, 1.0) and read.get_int("none", 7) == 7
    assert read.get_tensor("tensor").numpy().tolist() == [1, 2]
    with pytest.raises(TypeError, match="FLOAT, not INT"):
        read.get_int("b")
    inner = next(iter(ir.bodies_of(choice)["else_branch"]))
    assert inner.inputs[0] is later.outputs[0]  # made behind the node whose body reads it


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda proto: proto.graph.node[0].output.append("y"), "'y'"),
        (lambda proto: proto.graph.sparse_initializer.add(), "sparse"),
        (lambda proto: proto.graph.initializer.add(name="v", data_type=99), "99"),
        (lambda proto: proto.graph.node[0].attribute.add(name="sp", type=onnx.AttributeProto.SPARSE_TENSOR), "SPARSE"),
    ],
)
def test_what_no_graph_can_be_made_of(harm, why: str) -> None:
    proto = onnx.parser.parse_model(MODEL)
    harm(proto)
    with pytest.raises(ir.NotReadable, match=why):
        ir.read_model(proto)


def test_attributes_of_python_values() -> None:
    made = [ir.attribute("a", value) for value in (1, True, 0.5, "t", [1, 2], [1, 0.5], ["p"])]
    assert [one.type.name for one in made] == ["INT", "INT", "FLOAT", "STRING", "INTS", "FLOATS", "STRINGS"]
    assert ir.AttrInt64s("a", []).as_ints() == ()
    for wrong in ([], None, [None], 1j):
        with pytest.raises(TypeError, match="no value of an attribute"):
            ir.attribute("a", wrong)
