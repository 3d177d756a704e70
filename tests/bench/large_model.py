"""A model over protobuf's 2 GiB: a chain of square MatMuls whose weights lie in one external file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, save_model

WIDTH = 4096
LAYERS = 35  # of 64 MiB each: 2.35 GB


def save(folder: Path) -> Path:
    """Write ``large.onnx`` and ``large.bin`` into ``folder``; MatMul and Tanh in turn, so 70 tensors of [1, 4096].

    The weights of all layers are one seeded matrix, rolled by a row a layer: drawing 587 M numbers would take longer than the benchmark.
    """
    path, data = folder / "large.onnx", folder / "large.bin"
    weight = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32(WIDTH**-0.5)
    nodes, weights, x = [], [], "x"
    with data.open("wb") as file:
        for i in range(LAYERS):
            tensor = TensorProto(name=f"weight{i}", data_type=TensorProto.FLOAT, dims=weight.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", weight.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            file.write(np.ascontiguousarray(np.roll(weight, i, axis=0)))
            weights.append(tensor)
            nodes.append(helper.make_node("MatMul", [x, tensor.name], [f"product{i}"], f"MatMul_{i}"))
            x = f"layer{i}" if i < LAYERS - 1 else "y"
            nodes.append(helper.make_node("Tanh", [f"product{i}"], [x], f"Tanh_{i}"))
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, WIDTH])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", *ports, weights)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
