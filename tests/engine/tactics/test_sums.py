"""Orders of a sum, against Python loops over numpy scalars; the nodes that sum, against ONNX Runtime and against the definitions in loops."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe import ir
from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.reductions import reduction
from probe.engine.device.cpu.sums import total
from probe.engine.tactics import SUMS, tactic_of
from probe.errors import InputError
from probe.model import load
from tests.engine.test_arithmetic import feeds_of

NAMES = ("sum_sequential", "sum_pairwise", "sum_acc16")
EACH = pytest.mark.parametrize("name", NAMES)


def one_by_one(terms: list[np.float32]) -> np.float32:
    result = terms[0]
    for term in terms[1:]:
        result = np.float32(result + term)
    return result


def as_a_tree(terms: list[np.float32]) -> np.float32:
    while len(terms) > 1:
        paired = [np.float32(terms[at] + terms[at + 1]) for at in range(0, len(terms) - 1, 2)]
        terms = paired + terms[len(paired) * 2 :]
    return terms[0]


def in_fp16(terms: list[np.float32]) -> np.float32:
    """The sum of two FP16 numbers is exact in FP64, so that it is rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.float16(terms[0])
        for term in terms[1:]:
            result = np.float16(float(result) + float(np.float16(term)))
    return np.float32(result)


SCALAR = dict(zip(NAMES, (one_by_one, as_a_tree, in_fp16), strict=True))


def drawn(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> np.ndarray:
    """FP16 values of many sizes, as float32."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(shape) * np.exp(2 * random.standard_normal(shape)) * scale
    return values.astype(np.float16).astype(np.float32)


@EACH
@given(st.integers(1, 4), st.integers(1, 70), st.sampled_from([1e-4, 1.0, 3000.0]), st.integers(0, 2**32 - 1))
def test_sums_are_the_scalar_model_bit_for_bit(name, rows, count, scale, seed):
    random = np.random.default_rng(seed)
    terms = (random.standard_normal((rows, count)) * np.exp(random.standard_normal((rows, count))) * scale).astype(
        np.float32
    )
    actual = total(terms, tactic_of(name))
    golden = np.array([[SCALAR[name](list(row))] for row in terms])
    assert actual.dtype == np.float32 and np.array_equal(actual, golden, equal_nan=True)


def test_the_orders_are_seen():
    """A sum of ones: in FP16 it stops at 2048, in FP32 beside 2^24 at once, and a tree does not stop."""
    ones = np.ones((1, 4096), np.float32)
    assert [total(ones, tactic_of(name)).item() for name in NAMES] == [4096, 4096, 2048]
    ones[0, 0] = 2.0**24
    assert total(ones, tactic_of("sum_sequential")).item() == 2**24
    assert total(ones, tactic_of("sum_pairwise")).item() == 2**24 + 4094  # the first 1 met it alone
    huge = np.full((1, 2), 40000, np.float32)
    assert np.isinf(total(huge, tactic_of("sum_acc16")).item())
    assert total(np.zeros((3, 0), np.float32), tactic_of("sum_acc16")).tolist() == [[0]] * 3


@pytest.mark.parametrize("count", [2, 37, 4096])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_bounds_hold(count, seed):
    terms = np.random.default_rng(seed).standard_normal((50, count)).astype(np.float32)
    golden = terms.astype(np.float64).sum(axis=1, keepdims=True)
    size = np.abs(terms).astype(np.float64).sum(axis=1, keepdims=True)
    error = {name: np.abs(total(terms, tactic_of(name)) - golden) for name in NAMES}
    assert (error["sum_sequential"] <= 1.01 * (count - 1) * 2.0**-24 * size).all()
    assert (error["sum_pairwise"] <= 1.01 * math.ceil(math.log2(count)) * 2.0**-24 * size).all()
    assert (error["sum_acc16"] <= 1.01 * count * 2.0**-11 * size).all()
    if count == 4096:
        rms = {name: np.sqrt(np.mean(one**2)) for name, one in error.items()}
        assert 3 * rms["sum_pairwise"] < rms["sum_sequential"] < rms["sum_acc16"] / 1000


# --- nodes -----------------------------------------------------------------------------------------------------------

REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")
# operator, attributes, shapes of the inputs, opset
CASES = [
    *((op, {}, [(3, 5, 7)], 17) for op in REDUCTIONS if op != "ReduceSum"),
    *((op, {"axes": [0, -1], "keepdims": 0}, [(3, 5, 7)], 17) for op in REDUCTIONS if op != "ReduceSum"),
    *((op, {"axes": [1]}, [(3, 5, 7)], 11) for op in REDUCTIONS),
    ("GlobalAveragePool", {}, [(2, 3, 5, 7)], 17),
    ("GlobalAveragePool", {}, [(2, 3, 9)], 17),
    ("Softmax", {}, [(2, 3, 40)], 17),
    ("Softmax", {"axis": 1}, [(2, 3, 40)], 17),
    ("Softmax", {}, [(2, 3, 40)], 11),
    ("Softmax", {"axis": 2}, [(2, 3, 4, 5)], 11),
    ("LogSoftmax", {}, [(2, 3, 40)], 17),
    ("LogSoftmax", {"axis": 0}, [(2, 3, 40)], 17),
    ("LogSoftmax", {}, [(2, 3, 40)], 11),
    ("LayerNormalization", {"epsilon": 1e-3}, [(2, 3, 40), (40,), (40,)], 17),
    ("LayerNormalization", {"axis": 1}, [(2, 3, 40), (3, 40)], 17),
    ("InstanceNormalization", {}, [(2, 3, 5, 7), (3,), (3,)], 17),
    ("GroupNormalization", {"num_groups": 2}, [(2, 6, 5, 7), (2,), (2,)], 18),
    ("GroupNormalization", {"num_groups": 2}, [(2, 6, 5, 7), (6,), (6,)], 21),
    ("RMSNormalization", {}, [(2, 3, 40), (40,)], 23),
    ("MeanVarianceNormalization", {}, [(2, 3, 5, 7)], 17),
    ("LpNormalization", {"axis": 1}, [(2, 30, 4)], 17),
    ("LpNormalization", {"axis": -1, "p": 1}, [(2, 30, 4)], 17),
]


def graph_of(op: str, attributes: dict, arrays: list[np.ndarray], opset: int, outputs: int = 1) -> onnx.ModelProto:
    names = ["x", "s", "b"][: len(arrays)]
    made = ["y", "m", "d"][:outputs]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, names, made, **attributes)], "g",
        [info(name, 1, array.shape) for name, array in zip(names, arrays, strict=True)], [info(name, 1, None) for name in made],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


def computed(model: onnx.ModelProto, arrays: list[np.ndarray], name: str) -> list[np.ndarray]:
    node = next(iter(ir.read_model(model).graph))
    return reduction(node, arrays, tactic_of(name))


def golden_of(model: onnx.ModelProto, arrays: list[np.ndarray]) -> list[np.ndarray]:
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as error:  # what this version of ONNX Runtime does not have, onnx's own does
        assert "NOT_IMPLEMENTED" in str(error) or "opset" in str(error) or "not a registered" in str(error), error
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(model).run(None, dict(zip("xsb", arrays, strict=False)))
    return session.run(None, dict(zip("xsb", arrays, strict=False)))


@pytest.mark.parametrize(("op", "attributes", "shapes", "opset"), CASES)
@pytest.mark.parametrize("name", ["exact", "sum_sequential", "sum_pairwise"])
def test_nodes_are_those_of_onnx(op, attributes, shapes, opset, name):
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    if op == "ReduceLogSum":
        arrays[0] = np.abs(arrays[0])
    model = graph_of(op, attributes, arrays, opset)
    actual, golden = computed(model, arrays, name)[0], golden_of(model, arrays)[0]
    assert actual.shape == golden.shape and actual.dtype == np.float32
    assert np.abs(actual - golden).max() <= 4e-6 * np.abs(golden).max()


def test_every_operator_has_a_case():
    assert {case[0] for case in CASES} == set(SUMS)


@EACH
@pytest.mark.parametrize(("op", "attributes", "shapes", "opset"), CASES)
def test_each_sum_of_a_node_is_the_tactics(monkeypatch, name, op, attributes, shapes, opset):
    """With the sums swapped for the scalar loops, every bit is the same: no sum of a node is added by anything else, and rows lie in the
    order of the tensor."""
    arrays = [drawn(shape, at) for at, shape in enumerate(shapes)]
    model = graph_of(op, attributes, arrays, opset)
    made = computed(model, arrays, name)[0]
    sums = []

    def scalar_total(terms: np.ndarray, tactic: object) -> np.ndarray:
        assert tactic is tactic_of(name)
        rows = terms.reshape(-1, terms.shape[-1])
        sums.append(len(rows))
        return np.array([SCALAR[name](list(row)) for row in rows], np.float32).reshape(*terms.shape[:-1], 1)

    monkeypatch.setattr("probe.engine.device.cpu.reductions.total", scalar_total)
    assert np.array_equal(made, computed(model, arrays, name)[0], equal_nan=True)
    assert sum(sums) > 0


@EACH
def test_layer_norm_in_loops(name):
    """The definition, row by row, with the sums of the tactic and every other step in FP32."""
    x, scale, bias = drawn((3, 37), 0), drawn((37,), 1), drawn((37,), 2)
    model = graph_of("LayerNormalization", {}, [x, scale, bias], 17, outputs=3)
    made, means, inverses = computed(model, [x, scale, bias], name)
    for at, row in enumerate(x):
        mean = np.float32(SCALAR[name](list(row)) / np.float32(37))
        centred = row - mean
        variance = np.float32(SCALAR[name](list(centred * centred)) / np.float32(37))
        inverse = np.float32(1) / np.sqrt(variance + np.float32(1e-5))
        assert means[at, 0] == mean and inverses[at, 0] == inverse
        assert np.array_equal(made[at], centred * inverse * scale + bias)


def test_rows_are_read_in_the_order_of_the_tensor():
    """Axes 0 and 2 of [2, 2, 2]: 1 and 2^24 of the same row, the middle axis kept."""
    x = np.zeros((2, 2, 2), np.float32)
    x[0, 0, 0], x[0, 0, 1], x[1, 0, 0], x[1, 0, 1] = 1, 1, 2.0**24, -(2.0**24)
    x[0, 1, 0], x[0, 1, 1], x[1, 1, 0], x[1, 1, 1] = 2.0**24, 1, 1, -(2.0**24)
    made = computed(graph_of("ReduceSum", {"axes": [0, 2]}, [x], 11), [x], "sum_sequential")[0]
    assert made.reshape(-1).tolist() == [2, 0]


def test_special_values_pass_as_in_the_session():
    x = np.array([[1, -np.inf, 2], [np.inf, 1, 1], [np.nan, 1, 1], [-np.inf, -np.inf, -np.inf]], np.float32)
    model = graph_of("Softmax", {}, [x], 17)
    golden = golden_of(model, [x])[0]
    for name in NAMES:
        assert np.array_equal(np.isnan(computed(model, [x], name)[0]), np.isnan(golden))
    zeros = np.zeros((2, 3), np.float32)
    assert not computed(graph_of("LpNormalization", {}, [zeros], 17), [zeros], "sum_pairwise")[0].any()


def test_an_fp16_norm_overflows_in_its_squares():
    """The classic: squares of 300 add up to more than FP16 holds, though every input and every result is small."""
    x = np.full((1, 64), 300, np.float32)
    x[0, ::2] = -300
    arrays = [x, np.ones(64, np.float32)]
    model = graph_of("LayerNormalization", {}, arrays, 17)
    assert np.abs(computed(model, arrays, "sum_sequential")[0]).max() == pytest.approx(1, rel=1e-4)
    assert not computed(model, arrays, "sum_acc16")[0].any()  # 1 / Inf


# --- in an engine ----------------------------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("network", ["gtcrn_simple", "magika_fast_v2_1", "squeezenet_fp16"])
def test_layers_run_by_it_alike_everywhere(models, network, name):
    engine = compile_model(load(models / "models" / f"{network}.onnx"), precision="fp16")
    feeds = feeds_of(models, network)
    layers = [layer for layer in engine.layers if name in engine.candidates(layer)]
    assert layers
    chosen = engine.assignment.with_tactics({layer.name: name for layer in layers})
    tensors = dict(feeds)
    streamed = engine.run(feeds, chosen, lambda tapped: tensors.update({tapped.name: tapped.array}))
    outputs = engine.run(feeds, chosen)
    for output, array in outputs.items():
        assert np.array_equal(array, streamed[output])
    for layer in layers[:3]:
        reads = {value.name: tensors[value.name] for value in layer.reads}
        for made, array in engine.evaluate(layer, reads, Choice("fp16", name)).items():
            assert np.array_equal(array, tensors[made]), made


def test_what_it_cannot_compute_is_refused(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[2,3] x, int64[2,3] i) => (float[2,3] y, int64[1,1] n, float[2,3] z) {
      y = ReduceSum <noop_with_empty_axes = 1> (x)
      n = ReduceSum (i)
      z = Relu (x)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16", passes="none", fusion="none")
    feeds = {"x": np.ones((2, 3), np.float32), "i": np.ones((2, 3), np.int64)}
    for layer, reason in zip(engine.layers, ("sums nothing", "i is int64", "has none"), strict=True):
        with pytest.raises(InputError, match=reason):
            engine.run(feeds, engine.assignment.with_tactics({layer.name: "sum_pairwise"}))
    tf32 = Assignment(Choice("tf32"), {engine.layers[0].name: Choice("tf32", "sum_pairwise")})
    with pytest.raises(InputError, match="not for tf32"):
        engine.run(feeds, tf32)
