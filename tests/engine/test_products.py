"""FP16 accumulation in k-blocks, against a reference that adds one product after the other with Python numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe import ir
from probe.engine.assignment import Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.products import matmul, product
from probe.engine.tactics import TACTICS, candidates, supports, tactic_of
from probe.errors import InputError
from probe.model import load
from tests.engine.test_arithmetic import feeds_of

ACC16, EXACT = tactic_of("acc16"), tactic_of("exact")


def scalar_acc16(row: np.ndarray, column: np.ndarray, block: int) -> float:
    """One element of a product, the accumulator model spelled out: FP32 inside a block, FP16 between blocks."""
    total = np.float16(0)
    for start in range(0, len(row), block):
        inside = np.float64(0)
        for a, b in zip(row[start : start + block], column[start : start + block], strict=True):
            inside += np.float64(a) * np.float64(b)
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.float16(np.float32(total) + np.float32(inside))
    return float(total)


@given(st.integers(1, 5), st.integers(1, 70), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_matmul_is_the_scalar_model(m, k, n, seed):
    rng = np.random.default_rng(seed)
    # Integers: every product and every sum inside a block is exact, so that the order inside a block cannot matter.
    a = rng.integers(-40, 41, (m, k)).astype(np.float32)
    b = rng.integers(-40, 41, (k, n)).astype(np.float32)
    golden = [[scalar_acc16(row, column, ACC16.block) for column in b.T] for row in a]
    assert np.array_equal(matmul(a, b, ACC16), np.array(golden, np.float32))


def test_the_accumulator_stagnates_and_overflows_as_fp16_does():
    ones = np.ones((1, 4096), np.float32)
    assert matmul(ones, ones.T, ACC16).item() == 4096  # blocks of 16 are multiples of FP16's spacing up to 32768
    small = np.full((1, 4096), 0.1, np.float32)
    assert abs(matmul(small, ones.T, ACC16).item() - 409.6) > 0.05  # FP32 is right to 1e-4
    huge = np.full((1, 64), 100.0, np.float32)
    assert matmul(huge, huge.T, ACC16).item() == np.inf  # 640000
    assert matmul(huge, huge.T, EXACT).item() == 640000


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 40), (40, 5)),
        ((40,), (40, 5)),
        ((3, 40), (40,)),
        ((40,), (40,)),
        ((2, 1, 3, 40), (4, 40, 5)),
        ((3, 0), (0, 5)),
    ],
)
def test_matmul_takes_every_shape_onnx_takes(left, right):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, left).astype(np.float32), rng.integers(-3, 4, right).astype(np.float32)
    for tactic in (ACC16, EXACT):
        assert np.array_equal(matmul(a, b, tactic), np.matmul(a, b))  # small integers: exact in any accumulator


CONVOLUTIONS = [
    ("Conv", (2, 4, 9, 9), (6, 4, 3, 3), {}),
    ("Conv", (1, 4, 9, 10), (6, 2, 3, 2), {"group": 2, "strides": [2, 3], "pads": [1, 0, 2, 1]}),
    ("Conv", (1, 6, 11, 9), (6, 1, 3, 3), {"group": 6, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (1, 3, 8, 8), (2, 3, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [3, 1]}),
    ("Conv", (1, 3, 17), (5, 3, 4), {"strides": [3], "pads": [2, 1], "dilations": [2]}),
    ("Conv", (1, 2, 5, 6, 7), (3, 2, 2, 3, 2), {"pads": [1, 1, 0, 0, 1, 1]}),
    ("Conv", (1, 2, 5, 5), (3, 2, 3, 3), {"auto_pad": "VALID"}),
    ("ConvTranspose", (2, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("ConvTranspose", (1, 4, 5), (4, 2, 3), {"group": 2, "strides": [3], "dilations": [2]}),
    ("ConvTranspose", (1, 2, 4, 4), (2, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", (1, 2, 4, 4), (2, 3, 2, 2), {"strides": [2, 2], "output_shape": [9, 9]}),
    ("ConvTranspose", (1, 2, 4, 4), (2, 3, 3, 3), {"pads": [2, 2, 2, 2]}),
]


@pytest.mark.parametrize(("op", "shape", "weight", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions_are_those_of_onnx(op, shape, weight, attributes, bias):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, shape).astype(np.float32), rng.integers(-3, 4, weight).astype(np.float32)]
    group = attributes.get("group", 1)
    if bias:
        arrays.append(rng.integers(-9, 9, weight[0] if op == "Conv" else weight[1] * group).astype(np.float32))
    names = ["x", "w", "b"][: len(arrays)]
    node = onnx.helper.make_node(op, names, ["y"], kernel_shape=list(weight[2:]), **attributes)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [info(n, 1, a.shape) for n, a in zip(names, arrays, strict=True)], [info("y", 1, None)]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    golden = onnxruntime.InferenceSession(model.SerializeToString()).run(None, dict(zip(names, arrays, strict=True)))[0]
    for tactic in (EXACT, ACC16):
        assert np.array_equal(product(ir.read_node(node), arrays, tactic), golden), tactic.name


def test_gemm_with_every_attribute():
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((40, 3), (5, 40), (5,)))
    node = onnx.helper.make_node("Gemm", ["a", "b", "c"], ["y"], transA=1, transB=1, alpha=0.5, beta=2.0)
    assert np.array_equal(product(ir.read_node(node), [a, b, c], ACC16), 0.5 * (a.T @ b.T) + 2 * c)


# --- the tactic in an engine -----------------------------------------------------------------------------------------


def test_the_error_model_holds_on_random_data():
    """Each of k/16 roundings adds at most half an ulp of the running sum: |error| <= (k/16) * 2^-11 * max |partial sum| (Higham 2002, 3.1)."""
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(s).astype(np.float16).astype(np.float32) for s in ((16, 1024), (1024, 16)))
    golden = a.astype(np.float64) @ b.astype(np.float64)
    partial = np.abs(np.cumsum(a[:, :, None].astype(np.float64) * b[None], axis=1)).max(axis=1)
    error = np.abs(matmul(a, b, ACC16) - golden)
    assert (error <= 1024 / 16 * 2.0**-11 * partial * 1.01).all()
    assert error.max() > 10 * np.abs(a @ b - golden).max()  # and it is worse than FP32, or there is nothing to choose


@pytest.mark.parametrize("name", ["mnist", "dtln_1", "superres_core"])
def test_networks_run_with_it(models, name):
    engine = compile_model(load(models / "models" / f"{name}.onnx"), precision="fp16")
    feeds = feeds_of(models, name)
    products = [layer.name for layer in engine.layers if "acc16" in engine.candidates(layer)]
    assert products
    exact = engine.run(feeds)
    rough = engine.run(feeds, engine.assignment.with_tactics(dict.fromkeys(products, "acc16")))
    moved = [np.abs(rough[output] - exact[output]).max() / np.abs(exact[output]).max() for output in exact]
    assert 0 < max(moved) < 0.05


def test_an_exact_product_in_numpy_agrees_with_onnx_runtime(models):
    """The node-by-node way of running a layer rounds as the sessions do: with exact arithmetic only the order of sums differs."""
    engine = compile_model(load(models / "models" / "superres_core.onnx"), precision="fp16")
    feeds = feeds_of(models, "superres_core")
    layer = engine.layers[0]
    plan = engine.plan_of(layer, Choice("fp16"))
    reads = {id(v): feeds[v.name] for v in layer.reads}
    one = engine.device.layered.run_tactic(layer, reads, plan)
    other = engine.evaluate(layer, feeds, Choice("fp16"))
    for value in layer.tensors:
        assert np.abs(one[id(value)] - other[value.name]).max() <= 2.0**-10 * np.abs(other[value.name]).max()


def test_tactics_are_asked_not_assumed(models):
    engine = compile_model(load(models / "models" / "mnist.onnx"), precision="fp16")
    conv = next(layer for layer in engine.layers if layer.kind == "conv")
    pool = next(layer for layer in engine.layers if layer.kind == "pool")
    splits = ("splitk2", "splitk4", "splitk8")
    assert candidates(conv, "fp16") == ("exact", "acc16", *splits) and candidates(conv, "bf16") == ("exact", *splits)
    assert candidates(pool, "fp16") == ("exact",)
    assert "not for bf16" in (supports(conv, "bf16", "acc16") or "")
    assert "has none" in (supports(pool, "fp16", "acc16") or "")
    with pytest.raises(InputError, match="no tactic"):
        tactic_of("fastest")
    with pytest.raises(InputError, match="has none"):
        engine.run(feeds_of(models, "mnist"), engine.assignment.with_tactics({pool.name: "acc16"}))
    assert len({tactic.name for tactic in TACTICS}) == len(TACTICS)


def test_tactics_mix_with_kept_tensors(tmp_path: Path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,64] x) => (float[1,1] y) { p = MatMul (x, w)  y = Neg (p) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.full((64, 1), 100.0, np.float32), "w"))
    onnx.save(model, tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16", fusion="none")
    x = {"x": np.full((1, 64), 100.0, np.float32)}
    rough = engine.assignment.with_tactics({engine.layers[0].name: "acc16"})
    assert engine.run(x, rough)["y"].item() == -np.inf
    kept = rough.keeping(tensors=["p", "y"])
    assert engine.run(x, kept)["y"].item() == -np.inf  # the accumulator overflowed, not the store
    assert engine.run(x, engine.assignment.keeping(tensors=["p", "y"]))["y"].item() == -640000
