"""Kernels against scipy, against formulas written out, and against properties that hold whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from probe.errors import InputError
from probe.runners.fp64.calls import Call, dense, read_call, widen
from probe.runners.fp64.catalogue import find_kernel
from probe.runners.fp64.convolution import convolve
from probe.runners.fp64.elementwise import erf, sigmoid, softplus
from probe.runners.fp64.quantisation import cast
from probe.runners.fp64.reductions import log_sum_exp
from probe.runners.fp64.windows import Window, read_window
from tests.versions import needs_opset

RNG = np.random.default_rng(3)


def apply(op: str, *inputs, opset: int = 21, outputs: int = 1, **attributes):
    """The kernel of a node on float64 inputs."""
    node = helper.make_node(op, [f"x{i}" for i in range(len(inputs))], [f"y{i}" for i in range(outputs)], **attributes)
    call: Call = read_call(node, opset, numpy_helper.to_array)
    kernel = find_kernel(call, "")
    assert kernel is not None
    with np.errstate(all="ignore"):
        return kernel(call, *inputs)


def test_functions_that_numpy_lacks():
    x = np.concatenate([np.linspace(-8, 8, 4001), [1e-300, -1e-12, 40.0, -745.0, 800.0, -800.0]])
    for mine, theirs in (
        (erf, scipy.special.erf),
        (sigmoid, scipy.special.expit),
        (softplus, lambda v: np.logaddexp(0, v)),
    ):
        with np.errstate(under="ignore"):
            np.testing.assert_allclose(mine(x), theirs(x), rtol=4e-16, atol=5e-324)
    assert erf(np.zeros((0, 3))).shape == (0, 3) and erf(np.array(0.5)).shape == ()


def test_gelu_swish_and_hard_swish_by_formula():
    x = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(apply("Gelu", x), x * scipy.special.ndtr(x), rtol=1e-14)
    np.testing.assert_allclose(apply("Swish", x, opset=24, alpha=1.5), x * scipy.special.expit(1.5 * x), rtol=1e-14)
    np.testing.assert_allclose(apply("HardSwish", x), x * np.clip(x / 6 + 0.5, 0, 1), rtol=1e-15)


def test_log_sum_exp_does_not_overflow():
    x = np.array([[1000.0, 1000.0], [-np.inf, -np.inf], [-np.inf, 3.0]])
    with np.errstate(divide="ignore"):
        found = log_sum_exp(x, (1,), keep=False)
    assert found.tolist() == [1000 + np.log(2), -np.inf, 3.0]
    assert log_sum_exp(x, None, keep=True).shape == (1, 1)


def test_normalisation_of_channels_over_an_even_window():
    x = RNG.standard_normal((2, 6, 2, 2))
    made = apply("LRN", x, size=4, alpha=0.5, beta=0.75, bias=2.0)
    for c in range(6):
        total = np.square(x[:, max(0, c - 1) : min(6, c + 3)]).sum(axis=1)
        np.testing.assert_allclose(made[:, c], x[:, c] / (2 + 0.5 / 4 * total) ** 0.75, rtol=1e-14)


def test_non_zero_of_a_scalar():
    assert apply("NonZero", np.array(3.0)).tolist() == [[0]] and apply("NonZero", np.array(0.0)).shape == (1, 0)


@needs_opset(26)
def test_running_products_and_bits():
    x = np.array([[2.0, 3.0, 4.0], [1.0, -1.0, 5.0]])
    assert apply("CumProd", x, np.array(1), opset=26).tolist() == [[2, 6, 24], [1, -1, -5]]
    back = apply("CumProd", x, np.array(-1), opset=26, exclusive=1, reverse=1)
    assert back.tolist() == [[12, 4, 1], [-5, 5, 1]]
    bits = apply("BitCast", np.array([-1], np.int32), opset=26, to=TensorProto.UINT32)
    assert bits.tolist() == [2**32 - 1]
    with pytest.raises(InputError, match="bits of floats"):
        apply("BitCast", np.array([1], np.int32), opset=26, to=TensorProto.FLOAT)


def test_same_padding_with_dilation_is_the_explicit_padding():
    x, w = RNG.standard_normal((2, 4, 9, 8)), RNG.standard_normal((6, 4, 3, 3))
    same = apply("Conv", x, w, dilations=[2, 1], strides=[2, 2], auto_pad="SAME_LOWER")
    given_ = apply("Conv", x, w, dilations=[2, 1], strides=[2, 2], pads=[2, 1, 2, 0])
    assert np.array_equal(same, given_) and same.shape == (2, 6, 5, 4)


# --- convolution -----------------------------------------------------------------------------------------------------


@st.composite
def windows(draw):
    """Extents and a window that fits them, of one to three axes."""
    axes = draw(st.integers(1, 3))
    numbers = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))
    kernel, strides, dilations, before, after = (
        numbers(1, 3),
        numbers(1, 3),
        numbers(1, 2),
        numbers(0, 2),
        numbers(0, 2),
    )
    extents = tuple((k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilations, strict=True))
    call = Call(
        "Conv",
        21,
        {"strides": strides, "dilations": dilations, "pads": (*before, *after)},
        (True,),
        helper.make_node("Conv", [], []),
    )
    return extents, read_window(call, extents, kernel)


@given(windows(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2))
def test_convolution_is_scipys_correlation(shape, groups, inputs, makes, items):
    extents, window = shape
    x = RNG.standard_normal((items, groups * inputs, *extents))
    w = RNG.standard_normal((groups * makes, inputs, *window.kernel))
    made = convolve(x, w, window, groups)
    for n in range(items):
        for m in range(groups * makes):
            first = m // makes * inputs
            expected = sum(_correlate(x[n, first + c], w[m, c], window) for c in range(inputs))
            np.testing.assert_allclose(made[n, m], expected, rtol=1e-12, atol=1e-12)


def _correlate(x, w, window: Window):
    spread = np.zeros(window.reach)
    spread[tuple(slice(None, None, d) for d in window.dilations)] = w
    around = np.pad(x, list(zip(window.before, window.after, strict=True)))
    full = scipy.signal.correlate(around, spread, mode="valid", method="direct")
    return full[tuple(slice(None, None, s) for s in window.strides)]


@given(windows(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3))
def test_transposed_convolution_is_the_adjoint(shape, groups, inputs, makes):
    """<conv(x), y> = <x, transposed(y)> for all x and y."""
    extents, window = shape
    x = RNG.standard_normal((2, groups * inputs, *extents))
    w = RNG.standard_normal((groups * makes, inputs, *window.kernel))
    made = convolve(x, w, window, groups)
    y = RNG.standard_normal(made.shape)
    behind = window.overhang(extents)  # padding that windows reach into; what is left of it no window sees
    unseen = [a - b for a, b in zip(window.after, behind, strict=True)]
    back = apply(
        "ConvTranspose",
        y,
        w,
        group=groups,
        strides=window.strides,
        dilations=window.dilations,
        pads=(*window.before, *window.after),
        output_padding=unseen,
    )
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(made, y), np.vdot(x, back), rtol=1e-9, atol=1e-9)


# --- recurrent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "gates", "states"), [("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1)])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_batch_first_is_time_first_transposed(op, gates, states, direction):
    count = 2 if direction == "bidirectional" else 1
    x, lengths = RNG.standard_normal((5, 3, 4)), np.array([5, 1, 3])
    w, r = RNG.standard_normal((count, gates * 6, 4)), RNG.standard_normal((count, gates * 6, 6))
    starts = [RNG.standard_normal((count, 3, 6)) for _ in range(states)]
    settings = {"hidden_size": 6, "direction": direction, "outputs": 1 + states}
    y, *ends = apply(op, x, w, r, None, lengths, *starts, **settings)
    swapped = [np.swapaxes(start, 0, 1) for start in starts]
    y1, *ends1 = apply(op, np.swapaxes(x, 0, 1), w, r, None, lengths, *swapped, layout=1, **settings)
    assert np.array_equal(y1, np.transpose(y, (2, 0, 1, 3)))
    assert all(np.array_equal(b, np.swapaxes(a, 0, 1)) for a, b in zip(ends, ends1, strict=True))


def test_one_step_of_each_cell_by_its_formula():
    x, h, c = RNG.standard_normal((1, 2, 3)), RNG.standard_normal((1, 2, 4)), RNG.standard_normal((1, 2, 4))
    s = scipy.special.expit

    def gates(count):
        w, r, b = (RNG.standard_normal(shape) for shape in ((1, count * 4, 3), (1, count * 4, 4), (1, count * 8)))
        parts = [np.split(v[0], count) for v in (w, r, b[:, : count * 4], b[:, count * 4 :])]
        return (w, r, b), [(x[0] @ wi.T + wb, h[0] @ ri.T + rb) for wi, ri, wb, rb in zip(*parts, strict=True)]

    weights, (i, o, f, g) = gates(4)
    cell = s(sum(f)) * c[0] + s(sum(i)) * np.tanh(sum(g))
    y, last, last_cell = apply("LSTM", x, *weights, None, h, c, hidden_size=4, outputs=3)
    np.testing.assert_allclose(last_cell[0], cell, rtol=1e-12)
    np.testing.assert_allclose(last[0], s(sum(o)) * np.tanh(cell), rtol=1e-12)
    assert np.array_equal(y[0], last)

    weights, (z, r, n) = gates(3)
    update = s(sum(z))
    late = (1 - update) * np.tanh(n[0] + s(sum(r)) * n[1]) + update * h[0]
    np.testing.assert_allclose(
        apply("GRU", x, *weights, None, h, hidden_size=4, linear_before_reset=1)[1][0], late, rtol=1e-12
    )

    weights, (g,) = gates(1)
    np.testing.assert_allclose(apply("RNN", x, *weights, None, h, hidden_size=4)[1][0], np.tanh(sum(g)), rtol=1e-12)


# --- slices, casts, sparse tensors -----------------------------------------------------------------------------------


@given(st.integers(0, 6), st.integers(-9, 9), st.integers(-9, 9), st.sampled_from([-3, -2, -1, 1, 2, 3]))
def test_slices_are_the_definitions(extent, start, end, step):
    """ONNX's text: negative numbers count from the end, then both are clamped."""
    x = np.arange(extent, dtype=np.float64)
    low, high = (0, extent) if step > 0 else (0, extent - 1)
    first = np.clip(start + extent if start < 0 else start, low, max(high, low)) if extent else 0
    last = np.clip(end + extent if end < 0 else end, 0 if step > 0 else -1, extent if step > 0 else extent - 1)
    expected = [x[i] for i in range(int(first), int(last), step)] if extent else []
    made = apply("Slice", x, np.array([start]), np.array([end]), np.array([0]), np.array([step]))
    assert made.tolist() == expected


def test_casts_of_text():
    words = np.array(["1.5", "-inf", "nan", "7"], object)
    assert np.array_equal(cast(words, np.dtype(np.float64)), [1.5, -np.inf, np.nan, 7], equal_nan=True)
    assert cast(np.array([1.5, np.nan, -np.inf, 3.0]), np.dtype(object)).tolist() == ["1.5", "NaN", "-INF", "3"]
    assert cast(np.array([True, False]), np.dtype(object)).tolist() == ["1", "0"]


def test_sparse_tensors_are_filled_in():
    values = numpy_helper.from_array(np.array([1.5, 2.5], np.float32), "s")
    linear = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 5])), [2, 3])
    rows = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([[0, 1], [1, 2]])), [2, 3])
    for sparse in (linear, rows):
        assert dense(sparse, numpy_helper.to_array).tolist() == [[0, 1.5, 0], [0, 0, 2.5]]


def test_defaults_are_the_operators():
    node = helper.make_node("LeakyRelu", ["x"], ["y"])
    assert read_call(node, 21, numpy_helper.to_array)["alpha"] == float(np.float32(0.01))
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    assert read_call(node, 21, numpy_helper.to_array)["to"] == TensorProto.DOUBLE
    assert widen(np.arange(3)).dtype == np.int64
