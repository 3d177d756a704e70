"""Products and convolutions of 8-bit integers, and what makes them: every case of the table, on both devices, exact."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.integer_cases import CONVOLUTIONS_OF_INTEGERS, DYNAMIC, PRODUCTS_OF_INTEGERS


@pytest.mark.parametrize(("place", "case", "precision"), table(*PRODUCTS_OF_INTEGERS))
def test_products(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*CONVOLUTIONS_OF_INTEGERS))
def test_convolutions(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), table(*DYNAMIC))
def test_dynamic(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("fusion", ["none", "safe"])
def test_a_layer_again_and_again(backend, tmp_path, fusion):
    """Recorded once: what is made of weights and of their zero points stays, what is made of inputs does not."""
    random = np.random.default_rng(2)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero", "w_zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "bias"], ["y"]),
    ]
    weights = {
        "w": random.integers(0, 256, (70, 37)).astype(np.uint8),
        "w_zero": np.uint8(120),
        "bias": np.float32(random.standard_normal(37)),
    }
    held = [numpy_helper.from_array(np.asarray(one), name) for name, one in weights.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [40, size]) for name, size in (("x", 70), ("y", 37))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "m.onnx")
    on_host, engine = (compile_model(load(tmp_path / "m.onnx"), precision="fp32", fusion=fusion) for _ in range(2))
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    for at in range(4):
        feeds = {"x": np.float32(random.standard_normal((40, 70)) * (at + 1) + at)}
        assert np.array_equal(engine(feeds)["y"], on_host(feeds)["y"]) and not device.fallen
