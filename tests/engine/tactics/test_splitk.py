"""Split-K sums, against a reference in Python integers whose only roundings are those of the tree."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe import ir
from probe.engine.assignment import Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.products import matmul, product
from probe.engine.tactics import tactic_of
from probe.errors import InputError
from probe.model import load
from tests.engine.test_arithmetic import feeds_of

SPLITS = pytest.mark.parametrize("splits", [2, 4, 8])


def tree(partial: list[int]) -> np.float32:
    """Neighbouring sums, again and again, each rounded to FP32."""
    sums = [np.float32(one) for one in partial]
    while len(sums) > 1:
        sums = [np.float32(a + b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
    return sums[0]


def scalar(row: list[int], column: list[int], splits: int) -> np.float32:
    k = len(row)
    ranges = [range(i * k // splits, (i + 1) * k // splits) for i in range(splits)]
    return tree([sum(row[j] * column[j] for j in one) for one in ranges])


@SPLITS
@given(st.integers(1, 4), st.integers(0, 40), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_matmul_is_the_scalar_model(splits, m, more, n, seed):
    """Integers so large that sums of a range are just exact in FP32, in any order, and sums of ranges are not."""
    k = splits + more
    largest = int((2**24 / -(-k // splits)) ** 0.5)
    random = np.random.default_rng(seed)
    a, b = random.integers(largest // 2, largest, (m, k)), random.integers(largest // 2, largest, (k, n))
    golden = [[scalar(row, column, splits) for column in b.T.tolist()] for row in a.tolist()]
    actual = matmul(a.astype(np.float32), b.astype(np.float32), tactic_of(f"splitk{splits}"))
    assert actual.dtype == np.float32 and np.array_equal(actual, np.array(golden))


@SPLITS
def test_the_ranges_and_the_tree_are_seen(splits):
    """2^24 swallows a 1 in its own range; ones of the other ranges come together before they meet it, as far as the tree lets them."""
    k = 4 * splits
    a = np.ones((1, k), np.float32)
    a[0, :4] = 2.0**24, 1, 0, 0
    actual = matmul(a, np.ones((k, 1), np.float32), tactic_of(f"splitk{splits}")).item()
    assert actual == float(tree([2**24, *[4] * (splits - 1)]))
    assert actual == 2**24 + 4 * (splits - 1)


@SPLITS
@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 40), (40, 5)), ((40,), (40, 5)), ((3, 40), (40,)), ((40,), (40,)), ((2, 1, 3, 40), (4, 40, 5))],
)
def test_matmul_takes_every_shape_onnx_takes(splits, left, right):
    random = np.random.default_rng(0)
    a, b = random.integers(-3, 4, left).astype(np.float32), random.integers(-3, 4, right).astype(np.float32)
    assert np.array_equal(matmul(a, b, tactic_of(f"splitk{splits}")), np.matmul(a, b))


@SPLITS
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_cut_channels_and_taps_in_the_order_of_the_weights(splits, transposed):
    random = np.random.default_rng(1)
    channels, taps = 6, 3
    k = channels * taps
    largest = int((2**24 / -(-k // splits)) ** 0.5)
    x = random.integers(largest // 2, largest, (1, channels, taps))
    w = random.integers(largest // 2, largest, (2, channels, taps))
    tactic = tactic_of(f"splitk{splits}")
    if transposed:  # its output at taps - 1 sums every channel and tap: kernels turned round
        node = onnx.helper.make_node("ConvTranspose", ["x", "w"], ["y"])
        given = np.ascontiguousarray(np.flip(w, 2).swapaxes(0, 1))
        made = product(ir.read_node(node), [x.astype(np.float32), given.astype(np.float32)], tactic)[0, :, taps - 1]
    else:
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
        made = product(ir.read_node(node), [x.astype(np.float32), w.astype(np.float32)], tactic)[0, :, 0]
    golden = [scalar(one.reshape(-1).tolist(), x[0].reshape(-1).tolist(), splits) for one in w]
    assert np.array_equal(made, np.array(golden))


@SPLITS
@pytest.mark.parametrize("seed", range(3))
def test_the_error_bound_holds(splits, seed):
    random = np.random.default_rng(seed)
    k = 4096
    a, b = random.standard_normal((8, k)).astype(np.float32), random.standard_normal((k, 8)).astype(np.float32)
    size = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    error = np.abs(matmul(a, b, tactic_of(f"splitk{splits}")) - a.astype(np.float64) @ b.astype(np.float64))
    assert (error <= 1.01 * (k / splits + np.log2(splits)) * 2.0**-24 * size).all()
    assert error.max() > 0


@SPLITS
def test_too_short_a_sum_is_refused(tmp_path, splits):
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[2,{splits - 1}] x) => (float[2,3] y) {{ y = MatMul (x, w) }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((splits - 1, 3), np.float32), "w"))
    onnx.save(model, tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp32")
    name = f"splitk{splits}"
    assert name not in engine.candidates(engine.layers[0])
    with pytest.raises(InputError, match=f"sums {splits - 1} products, which cannot be cut into {splits} ranges"):
        engine.run(
            {"x": np.ones((2, splits - 1), np.float32)}, engine.assignment.with_tactics({engine.layers[0].name: name})
        )


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["mnist", "dtln_1"])
def test_networks_run_by_it_alike_everywhere(models, name, precision):
    engine = compile_model(load(models / "models" / f"{name}.onnx"), precision=precision)
    feeds = feeds_of(models, name)
    layers = [layer for layer in engine.layers if "splitk4" in engine.candidates(layer)]
    assert layers
    chosen = engine.assignment.with_tactics({layer.name: "splitk4" for layer in layers})
    tensors = dict(feeds)
    streamed = engine.run(feeds, chosen, lambda tapped: tensors.update({tapped.name: tapped.array}))
    outputs, exact = engine.run(feeds, chosen), engine.run(feeds)
    for output, array in outputs.items():
        assert np.array_equal(array, streamed[output])
        largest = np.abs(exact[output]).max()
        assert (
            np.abs(array - exact[output]).max()
            <= {"fp32": 1e-5, "tf32": 1e-5, "fp16": 5e-3, "bf16": 4e-2}[precision] * largest
        )
    for layer in layers[:3]:
        reads = {value.name: tensors[value.name] for value in layer.reads}
        for made, array in engine.evaluate(layer, reads, Choice(precision, "splitk4")).items():
            assert np.array_equal(array, tensors[made]), made
