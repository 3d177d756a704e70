"""Winograd F(m x m, 3x3) with FP16 transforms, against a reference in exact rational numbers, tile by tile, with its two roundings spelled out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.assignment import Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.winograd import TRANSFORMS, winograd
from probe.engine.tactics import tactic_of
from probe.errors import InputError
from probe.model import load
from tests.engine.test_arithmetic import feeds_of

F = Fraction
# Toom-Cook at the points 0, 1, -1, (2, -2) and infinity, as Lavin and Gray (2015) print them.
POLYNOMIALS = {
    2: (
        "1 0 -1 0 / 0 1 1 0 / 0 -1 1 0 / 0 1 0 -1",
        "1 0 0 / 1/2 1/2 1/2 / 1/2 -1/2 1/2 / 0 0 1",
        "1 1 1 0 / 0 1 -1 -1",
    ),
    4: (
        "4 0 -5 0 1 0 / 0 -4 -4 1 1 0 / 0 4 -4 -1 1 0 / 0 -2 -1 2 1 0 / 0 2 -1 -2 1 0 / 0 4 0 -5 0 1",
        "1/4 0 0 / -1/6 -1/6 -1/6 / -1/6 1/6 -1/6 / 1/24 1/12 1/6 / 1/24 -1/12 1/6 / 0 0 1",
        "1 1 1 1 1 0 / 0 1 -1 2 -2 0 / 0 1 1 4 4 0 / 0 1 -1 8 -8 1",
    ),
}
EITHER = pytest.mark.parametrize("tile", [2, 4])


def matrices(tile: int) -> list[np.ndarray]:
    """B', G and A' as fractions."""
    return [
        np.array([[F(word) for word in row.split()] for row in text.split(" / ")], dtype=object)
        for text in POLYNOMIALS[tile]
    ]


def fractions(array: np.ndarray) -> np.ndarray:
    return np.vectorize(F, otypes=[object])(array.astype(np.float64))


def halved(exact: np.ndarray) -> np.ndarray:
    """Rounded to FP16, once."""
    return np.vectorize(lambda one: F(float(np.float16(float(one)))), otypes=[object])(exact)


def reference(
    x: np.ndarray, w: np.ndarray, pads: tuple[tuple[int, int], ...], tile: int, *, rounds: bool
) -> np.ndarray:
    """One image [c, h, w], kernels [o, c, 3, 3]; exact but for U and V."""
    b, g, a = matrices(tile)
    (top, bottom), (left, right) = pads
    channels, height, width = x.shape[0], x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    size = tile + 2
    padded = np.zeros((channels, height + size + tile, width + size + tile))
    padded[:, top : top + x.shape[1], left : left + x.shape[2]] = x
    keep = halved if rounds else (lambda one: one)
    result = np.zeros((w.shape[0], height + tile, width + tile))
    for row in range(0, height, tile):
        for column in range(0, width, tile):
            v = [
                keep(b @ fractions(padded[c, row : row + size, column : column + size]) @ b.T) for c in range(channels)
            ]
            for o in range(w.shape[0]):
                m = sum(keep(g @ fractions(w[o, c]) @ g.T) * v[c] for c in range(channels))
                result[o, row : row + tile, column : column + tile] = (a @ m @ a.T).astype(np.float64)
    return result[:, :height, :width]


def convolution(x: np.ndarray, w: np.ndarray, pads: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Images [n, c, h, w] by the definition, float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pads))
    height, width = (extent - 2 for extent in padded.shape[2:])
    made = np.zeros((x.shape[0], w.shape[0], height, width))
    for i in range(3):
        for j in range(3):
            made += np.einsum(
                "nchw,oc->nohw", padded[:, :, i : i + height, j : j + width], w[:, :, i, j].astype(np.float64)
            )
    return made


def normal(shape: tuple[int, ...], seed: int, *, grid: float = 0.0) -> np.ndarray:
    """FP16 values as float32, on a grid if one is given."""
    drawn = np.random.default_rng(seed).standard_normal(shape)
    drawn = np.round(drawn / grid) * grid if grid else drawn
    return drawn.astype(np.float16).astype(np.float32)


@EITHER
def test_the_matrices_compute_a_convolution_exactly(tile):
    """Without roundings the algorithm is the convolution: an identity of rational numbers."""
    x, w = normal((2, 7, 9), 0), normal((2, 2, 3, 3), 1)
    pads = ((1, 1), (0, 2))
    golden = convolution(x[None], w, pads)[0]
    assert np.abs(reference(x, w, pads, tile, rounds=False) - golden).max() <= 1e-13 * np.abs(golden).max()
    b, g, a = matrices(tile)
    used = TRANSFORMS[tile]
    assert np.array_equal(used.inputs, b) and np.array_equal(used.outputs, a)
    assert np.array_equal(used.kernels, g * used.divisor)


@EITHER
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 2),
    st.tuples(*[st.integers(1, 3)] * 4), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_it_rounds_where_it_says(tile, channels, height, width, outputs, pads, seed):
    """On a grid of 2^-6 transformed inputs are exact in FP32, so that both sides round the same numbers; the rest is FP32."""
    x, w = normal((channels, height, width), seed, grid=2.0**-6), normal((outputs, channels, 3, 3), seed + 1)
    both = ((pads[0], pads[1]), (pads[2], pads[3]))
    actual = winograd(x[None], w, both, tile)[0]
    golden = reference(x, w, both, tile, rounds=True)
    assert actual.dtype == np.float32 and actual.shape == golden.shape
    size = (
        np.abs(np.array(TRANSFORMS[tile].outputs)).sum(axis=1).max() ** 2 * np.abs(w).sum() * 10 * (np.abs(x).max() + 1)
    )
    assert np.abs(actual - golden).max() <= 2.0**-24 * size


def test_the_roundings_are_seen():
    """The reference with its roundings is what is computed; without them it is not."""
    x, w = normal((3, 8, 8), 5, grid=2.0**-6), normal((2, 3, 3, 3), 6)
    pads = ((1, 1), (1, 1))
    actual = winograd(x[None], w, pads, 4)[0]
    near = np.abs(actual - reference(x, w, pads, 4, rounds=True)).max()
    far = np.abs(actual - reference(x, w, pads, 4, rounds=False)).max()
    assert far > 100 * near


@EITHER
@pytest.mark.parametrize("seed", range(5))
def test_the_error_bound_holds(tile, seed):
    """``2 u16 |A'| (sum of |U| |V|) |A|``, to first order, with 1 % for the rest: FP32 and products of roundings."""
    random = np.random.default_rng(seed)
    channels, outputs = 24, 6
    x = (random.standard_normal((1, channels, 18, 22)) * np.exp(random.standard_normal((1, channels, 1, 1)))).astype(
        np.float16
    )
    x, w = x.astype(np.float32), normal((outputs, channels, 3, 3), seed + 100)
    actual, golden = winograd(x, w, ((1, 1), (1, 1)), tile), convolution(x, w, ((1, 1), (1, 1)))
    b, g, a = (one.astype(np.float64) for one in matrices(tile))
    padded = np.pad(x[0].astype(np.float64), ((0, 0), (1, 1 + tile), (1, 1 + tile)))
    bound = np.zeros((outputs, 18 + tile, 22 + tile))
    u = np.abs(np.einsum("pr,ocrs,qs->ocpq", g, w.astype(np.float64), g))
    for row in range(0, 18, tile):
        for column in range(0, 22, tile):
            v = np.abs(b @ padded[:, row : row + tile + 2, column : column + tile + 2] @ b.T)
            m = np.einsum("ocpq,cpq->opq", u, v)
            bound[:, row : row + tile, column : column + tile] = np.abs(a) @ m @ np.abs(a).T
    error = np.abs(actual - golden)[0]
    allowed = 2 * 2.0**-11 * bound[:, :18, :22]
    assert (error <= 1.01 * allowed).all()
    assert error.max() > 0.005 * allowed.max()  # a bound that says something


@pytest.mark.parametrize(("tile", "stated"), [(2, 0.95), (4, 6.0)])
@pytest.mark.parametrize("channels", [16, 256])
def test_the_typical_error_is_as_stated(tile, stated, channels):
    """Root of twice the variance of a rounding, times the growth of the transforms; the closed form in the module's docstring."""
    x, w = normal((2, channels, 32, 32), 1), normal((16, channels, 3, 3), 2)
    golden = convolution(x, w, ((0, 0), (0, 0)))
    error = np.sqrt(np.mean((winograd(x, w, ((0, 0), (0, 0)), tile) - golden) ** 2) / np.mean(golden**2))
    predicted = np.sqrt(2 * 0.154) * TRANSFORMS[tile].error_growth() * 2.0**-11
    assert error == pytest.approx(predicted, rel=0.12)
    assert predicted == pytest.approx(stated * 2.0**-11, rel=0.05)
    assert f"{stated:g} u16" in tactic_of(f"winograd_f{tile}").error


def test_transforms_overflow_and_spoil_what_depends_on_them():
    x = np.full((1, 1, 6, 6), 0.0, np.float32)
    x[0, 0, 0, 0], x[0, 0, 0, 2], x[0, 0, 2, 0], x[0, 0, 2, 2] = (
        1000,
        -1000,
        -1000,
        1000,
    )  # 16 + 20 + 20 + 25 thousands: Inf in V[0, 0]
    w = np.ones((1, 1, 3, 3), np.float32)
    made = winograd(x, w, ((0, 0), (0, 0)), 4)[0, 0]
    assert np.isinf(made[0, 0])  # A' takes V[0, 0] into its first row and column only
    assert np.isfinite(np.delete(made.reshape(-1), 0)).all()
    assert np.isfinite(winograd(x, w, ((0, 0), (0, 0)), 2)).all()
    assert np.isfinite(winograd(x / 2, w, ((0, 0), (0, 0)), 4)).all()


# --- in an engine ----------------------------------------------------------------------------------------------------

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,8,18,18] x) => (float[1,6,18,18] y) {
  a = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (x, w, b)
  c = Relu (a)
  y = Conv <kernel_shape = [3,3], auto_pad = "SAME_UPPER"> (c, v)
}"""


@pytest.fixture
def engine(tmp_path):
    model = onnx.parser.parse_model(MODEL)
    arrays = {"w": normal((12, 8, 3, 3), 1), "b": normal((12,), 2), "v": normal((6, 12, 3, 3), 3)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.save(model, tmp_path / "m.onnx")
    return compile_model(load(tmp_path / "m.onnx"), precision="fp16")


@EITHER
def test_a_fused_layer_runs_by_it_alike_everywhere(engine, tile):
    x = {"x": normal((1, 8, 18, 18), 0)}
    first, last = engine.layers
    assert [node.op_type for node in first.nodes] == ["Conv", "Relu"]
    chosen = engine.assignment.with_tactics({first.name: f"winograd_f{tile}", last.name: f"winograd_f{tile}"})
    streamed = {}
    running = engine.stream(x, chosen)
    try:
        while True:
            tapped = next(running)
            streamed[tapped.name] = tapped.array
    except StopIteration as done:
        outputs = done.value
    assert np.array_equal(outputs["y"], engine.run(x, chosen)["y"])
    evaluated = engine.evaluate(first, x, Choice("fp16", f"winograd_f{tile}"))
    for name, array in evaluated.items():
        assert np.array_equal(array, streamed[name]), name
    exact = engine.evaluate(first, x, Choice("fp16"))
    assert (evaluated["c"] >= 0).all() and not np.array_equal(evaluated["c"], exact["c"])
    assert np.abs(evaluated["a"] - exact["a"]).max() < 0.02 * np.abs(exact["a"]).max()
    assert np.array_equal(engine.run(x, chosen)["y"], engine.run(x, chosen)["y"])  # deterministic


def test_the_bias_is_fp32_and_outside(engine):
    x = normal((1, 8, 18, 18), 0)
    made = engine.evaluate(engine.layers[0], {"x": x}, Choice("fp16", "winograd_f4"))["a"]
    golden = winograd(x, normal((12, 8, 3, 3), 1), ((1, 1), (1, 1)), 4) + normal((12,), 2).reshape(1, -1, 1, 1)
    assert np.array_equal(made, golden.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("attributes", "weights", "reason"),
    [
        ("kernel_shape = [5,5]", (4, 8, 5, 5), "kernel of 5x5"),
        ("kernel_shape = [1,3]", (4, 8, 1, 3), "kernel of 1x3"),
        ("strides = [2,2]", (4, 8, 3, 3), "strides of 2x2"),
        ("strides = [1,2]", (4, 8, 3, 3), "strides of 1x2"),
        ("dilations = [2,2]", (4, 8, 3, 3), "dilations of 2x2"),
        ("group = 2", (4, 4, 3, 3), "2 groups"),
    ],
)
def test_it_refuses_other_convolutions(tmp_path, attributes, weights, reason):
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[1,8,12,12] x) => (float y) {{ y = Conv <{attributes}> (x, w) }}'
    )
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(normal(weights, 0), "w"))
    onnx.save(model, tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16")
    layer = engine.layers[0]
    assert "winograd_f4" not in engine.candidates(layer) and "splitk2" in engine.candidates(layer)
    with pytest.raises(InputError, match=reason):
        engine.run({"x": normal((1, 8, 12, 12), 0)}, engine.assignment.with_tactics({layer.name: "winograd_f4"}))


def test_what_is_not_known_is_refused_when_it_is_met(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1,2,n,n] x, float[a,b,c,d] w) => (float[1,a,p,q] y) { y = Conv (x, w) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16")
    layer = engine.layers[0]
    tactic = tactic_of("winograd_f4")
    assert tactic.supports(layer, "fp16") is None
    assert "5x5" in (tactic.supports(layer, "fp16", {"w": (1, 2, 5, 5)}) or "")
    chosen = engine.assignment.with_tactics({layer.name: "winograd_f4"})
    assert engine.run({"x": normal((1, 2, 9, 9), 0), "w": normal((3, 2, 3, 3), 1)}, chosen)["y"].shape == (1, 3, 7, 7)
    with pytest.raises(InputError, match="kernel of 5x5"):
        engine.run({"x": normal((1, 2, 9, 9), 0), "w": normal((3, 2, 5, 5), 1)}, chosen)


# --- on real activations ---------------------------------------------------------------------------------------------


def test_it_is_the_less_accurate_choice_on_a_real_network(models):
    """fns_candy, the first convolutions that it can compute: RMS of the local error, against the layer in FP32 on the same rounded inputs."""
    engine = compile_model(load(models / "models" / "fns_candy.onnx"), precision="fp16")
    layers = [layer for layer in engine.layers if "winograd_f4" in engine.candidates(layer)]
    assert len(layers) == 10
    tensors = feeds_of(models, "fns_candy")
    running = engine.stream(tensors, engine.assignment.keeping(layers=[one.name for one in engine.layers]))
    wanted = {value.name for layer in layers[:2] for value in layer.reads}
    while not wanted <= tensors.keys():
        tapped = next(running)
        tensors[tapped.name] = tapped.array
    for layer in layers[:2]:
        reads = {value.name: tensors[value.name] for value in layer.reads}
        made = layer.nodes[0].outputs[0].name
        golden = engine.evaluate(layer, reads, Choice("fp32"), read_as="fp16")[made]
        exact, smaller, larger = (
            np.sqrt(np.mean((engine.evaluate(layer, reads, Choice("fp16", tactic))[made] - golden) ** 2))
            for tactic in ("exact", "winograd_f2", "winograd_f4")
        )
        assert exact < smaller < larger
        assert 4 < larger / exact < 8  # exact has the rounding of the result alone
