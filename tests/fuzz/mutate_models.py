"""Damage to the structure of a model: still protobuf, no longer a network that makes sense."""

from __future__ import annotations

import random
from collections.abc import Iterator

import onnx

from tests.fuzz.mutate import NUMBERS


def damage_model(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """One to three changes to nodes, names, types, shapes, attributes or weights."""
    model = onnx.ModelProto.FromString(content)
    label = ""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        label = _change(model, rng)
    return model.SerializeToString(), label


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(inner)


def _change(model: onnx.ModelProto, rng: random.Random) -> str:
    graph = rng.choice(list(_graphs(model.graph)))
    names = (
        [name for node in graph.node for name in (*node.input, *node.output)]
        + [w.name for w in graph.initializer]
        + ["", "nowhere"]
    )
    node = rng.choice(graph.node) if graph.node else None
    weight = rng.choice(graph.initializer) if graph.initializer else None
    ports = [*graph.input, *graph.output, *graph.value_info]
    port = rng.choice(ports) if ports else None
    number = rng.choice([x for x in NUMBERS if -(2**63) <= x < 2**63])
    changes = ["opset", "shuffle"]
    changes += (
        ["node deleted", "node twice", "op", "domain", "input", "input dropped", "output", "node name"]
        if node is not None
        else []
    )
    changes += ["attribute", "attribute deleted", "attribute type"] if node is not None and node.attribute else []
    changes += (
        ["dims", "element type", "data", "weight name", "weight deleted", "location"] if weight is not None else []
    )
    changes += ["port shape", "port type", "port name", "port deleted"] if port is not None else []
    change = rng.choice(changes)
    match change:
        case "opset":
            entry = rng.choice(model.opset_import) if model.opset_import else model.opset_import.add()
            entry.version = rng.choice((number, 1, 7, 11, 13, 18, 21, 99))
        case "shuffle":
            nodes = list(graph.node)
            rng.shuffle(nodes)
            del graph.node[:]
            graph.node.extend(nodes)
        case "node deleted" if node is not None:
            graph.node.remove(node)
        case "node twice" if node is not None:
            graph.node.append(node)
        case "op" if node is not None:
            node.op_type = rng.choice(
                ("Relu", "Add", "MatMul", "If", "Loop", "Constant", "Reshape", "Conv", "", "Nope", "Gather", "Softmax")
            )
        case "domain" if node is not None:
            node.domain = rng.choice(("ai.onnx.ml", "com.microsoft", "here", "nowhere", "ai.onnx"))
        case "node name" if node is not None:
            node.name = rng.choice(("", "twice", "x" * 5000, "a/b:0"))
        case "input" if node is not None:
            if node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(names)
            else:
                node.input.append(rng.choice(names))
        case "input dropped" if node is not None:
            if node.input:
                del node.input[rng.randrange(len(node.input))]
        case "output" if node is not None:
            if node.output and rng.random() < 0.7:
                node.output[rng.randrange(len(node.output))] = rng.choice(names)
            else:
                node.output.append(rng.choice(names))
        case "attribute" if node is not None:
            _change_attribute(rng.choice(node.attribute), number, rng)
        case "attribute deleted" if node is not None:
            del node.attribute[rng.randrange(len(node.attribute))]
        case "attribute type" if node is not None:
            rng.choice(node.attribute).type = rng.randrange(15)  # pyright: ignore[reportAttributeAccessIssue]
        case "dims" if weight is not None:
            _change_dims(weight, number, rng)
        case "element type" if weight is not None:
            weight.data_type = rng.choice((0, 1, 6, 7, 9, 10, 11, 16, 17, 22, 99))
        case "data" if weight is not None:
            data = bytearray(weight.raw_data)
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                weight.raw_data = bytes(data if rng.random() < 0.7 else data[:-1])
        case "weight name" if weight is not None:
            weight.name = rng.choice(names)
        case "weight deleted" if weight is not None:
            graph.initializer.remove(weight)
        case "location" if weight is not None:
            weight.data_location = onnx.TensorProto.EXTERNAL
            key = rng.choice(("location", "offset", "length", "checksum"))
            weight.external_data.add(
                key=key, value=rng.choice(("../../etc/passwd", "/etc/passwd", "", str(number), "model.onnx", "."))
            )
        case "port shape" if port is not None:
            _change_shape(port, number, rng)
        case "port type" if port is not None:
            port.type.tensor_type.elem_type = rng.choice((0, 1, 7, 8, 9, 10, 99))
        case "port name" if port is not None:
            port.name = rng.choice(names)
        case "port deleted" if port is not None:
            for home in (graph.input, graph.output, graph.value_info):
                if port in home:
                    home.remove(port)
                    break
    return change


def _change_attribute(attribute: onnx.AttributeProto, number: int, rng: random.Random) -> None:
    match attribute.type:
        case onnx.AttributeProto.INT:
            attribute.i = number
        case onnx.AttributeProto.FLOAT:
            attribute.f = rng.choice((0.0, -1.0, 3e38, float("nan"), float("inf")))
        case onnx.AttributeProto.INTS:
            if attribute.ints and rng.random() < 0.7:
                attribute.ints[rng.randrange(len(attribute.ints))] = number
            else:
                attribute.ints.append(number)
        case onnx.AttributeProto.STRING:
            attribute.s = rng.choice((b"", b"SAME_UPPER", b"\xff", b"linear"))
        case onnx.AttributeProto.TENSOR:
            _change_dims(attribute.t, number, rng)
        case _:
            attribute.name = "x" + attribute.name


def _change_dims(tensor: onnx.TensorProto, number: int, rng: random.Random) -> None:
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = number
    else:
        tensor.dims.append(number)


def _change_shape(port: onnx.ValueInfoProto, number: int, rng: random.Random) -> None:
    shape = port.type.tensor_type.shape
    if not shape.dim or rng.random() < 0.2:
        shape.dim.add(dim_value=number)
        return
    dim = rng.choice(shape.dim)
    if rng.random() < 0.3:
        dim.dim_param = rng.choice(("", "n", "a b", "-1"))
    else:
        dim.dim_value = number
