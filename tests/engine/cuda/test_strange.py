"""Infinities, NaN, zeros of both signs, what is below the normal numbers and the edges of formats through every family; what ONNX Runtime says
otherwise is compared with numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.model import load
from probe.precision import round_to
from tests.engine.cuda.cases import Case
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.strange_cases import MOVED, STRANGE, STRANGELY

_RANDOM = np.random.default_rng(23)


@pytest.mark.parametrize(("place", "case", "precision"), table(*STRANGELY, precisions=("fp32", "fp16", "bf16", "tf32")))
def test_strange(request, tmp_path, place, case, precision):
    if precision == "tf32" and "_least" in case.name:
        pytest.skip("below the normal numbers TF32 has fewer bits than the CPU device keeps of it")
    check(request.getfixturevalue(place), case, precision, tmp_path)


def computed(backend, case: Case, folder) -> dict[str, np.ndarray]:
    """What kernels make of a case in FP32."""
    path, feeds = case.save(folder)
    engine = compile_model(load(path), precision="fp32", passes="none", fusion="none")
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    made = engine(feeds)
    assert not device.fallen, device.fallen
    return made


@pytest.mark.parametrize("case", MOVED, ids=str)
def test_moving_keeps_every_bit(backend, tmp_path, case):
    """Of NaN its sign and payload, signalling ones too."""
    inputs = dict(case.inputs)
    x = np.array(inputs["x"])
    bits = x.view(np.uint32)
    bits[np.isnan(x)] = 0x7F812345
    x.reshape(-1)[::7] = np.array([0xFFA00001], np.uint32).view(np.float32)
    made = computed(backend, Case(case.op, {**inputs, "x": x}, case.attributes, opset=case.opset), tmp_path)["y0"]
    known = {*x.view(np.uint32).reshape(-1).tolist()}
    for one in (*inputs.values(), np.float32(0)):
        array = one[1] if isinstance(one, tuple) and one[:1] == ("w",) else one
        if isinstance(array, (np.ndarray, np.generic)) and array.dtype == np.float32:
            known |= {*np.asarray(array).view(np.uint32).reshape(-1).tolist()}
    assert {*made.view(np.uint32).reshape(-1).tolist()} <= known


def _selu(x: np.ndarray) -> np.ndarray:
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))


NEAR_ZERO = {
    "Tanh": np.tanh, "Elu": lambda x: np.where(x < 0, np.expm1(x), x), "Selu": _selu, "Sigmoid": lambda x: 1 / (1 + np.exp(-x)), "Mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "Erf": np.vectorize(math.erf), "Sin": np.sin, "Atan": np.arctan, "Sinh": np.sinh, "Asinh": np.arcsinh, "Sqrt": lambda x: np.sqrt(abs(x)), "Softsign": lambda x: x / (1 + abs(x)),
}  # fmt: skip


@pytest.mark.parametrize("op", NEAR_ZERO)
def test_small_results_keep_their_digits(backend, tmp_path, op):
    """Nothing is flushed to zero."""
    x = (2.0 ** -np.arange(3, 149, dtype=np.float64)).astype(np.float32)
    x = np.concatenate([x, -x]) if op != "Sqrt" else x
    made = computed(backend, Case(op, {"x": x}, opset=20), tmp_path)["y0"].astype(np.float64)
    wanted = NEAR_ZERO[op](x.astype(np.float64))
    step = np.maximum(np.abs(wanted) * 2.0**-23, 2.0**-149)
    assert (np.abs(made - wanted) <= 4 * step).all(), (x, made, wanted)


def _odd(*shape: int) -> np.ndarray:
    made = _RANDOM.standard_normal(shape).astype(np.float32)
    places = _RANDOM.random(shape) < 0.03
    made[places] = _RANDOM.choice(np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0], np.float32), int(places.sum()))
    return made


_LAST = ("w", np.array([-1]))
OF_NAN = {
    "ReduceMax": (Case("ReduceMax", {"x": _odd(50, 70), "axes": _LAST}), lambda x: x.max(-1, keepdims=True)),
    "ReduceMin": (Case("ReduceMin", {"x": _odd(50, 70), "axes": _LAST}), lambda x: x.min(-1, keepdims=True)),
    "ReduceMax of columns": (Case("ReduceMax", {"x": _odd(50, 70), "axes": ("w", np.array([0]))}), lambda x: x.max(0, keepdims=True)),
    "GlobalMaxPool": (Case("GlobalMaxPool", {"x": _odd(2, 30, 4, 5)}), lambda x: x.max((2, 3), keepdims=True)),
    "MaxPool": (
        Case("MaxPool", {"x": _odd(2, 3, 9, 11)}, {"kernel_shape": [2, 3]}),
        lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 3), (2, 3)).max((-1, -2)),
    ),
    "TopK": (Case("TopK", {"x": _odd(9, 70), "k": ("w", np.array([30]))}, {}, 2), lambda x: np.sort(x, -1)[:, ::-1][:, :30]),
    "Max": (Case("Max", {"x": STRANGE.reshape(-1, 1), "z": STRANGE.reshape(1, -1)}), lambda x: np.maximum(x, x.reshape(1, -1))),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_NAN)
def test_nan_comes_through(backend, tmp_path, name):
    """As in numpy; ONNX Runtime loses some."""
    case, of = OF_NAN[name]
    np.testing.assert_array_equal(computed(backend, case, tmp_path)["y0"], of(case.inputs["x"]))


def test_every_half_is_widened_as_it_is(backend):
    for form, bits in ((F16, np.arange(1 << 16, dtype=np.uint16)), (BF16, np.arange(1 << 16, dtype=np.uint16))):
        exact = (
            bits.view(np.float16).astype(np.float32) if form is F16 else (bits.astype(np.uint32) << 16).view(np.float32)
        )
        queue = Queue(backend, 18)
        low = queue.convert(host_tensor(exact), form)
        raw = np.empty(2 << 16, np.uint8)
        backend.download(raw, low.address(backend))
        same = raw.view(np.uint16) == bits
        assert (same | np.isnan(exact)).all()
        wide = queue.convert(Tensor(low.shape, form, buffer=low.memory), F32)
        np.testing.assert_array_equal(wide.array(backend), exact)


@pytest.mark.parametrize(("form", "name"), [(F16, "fp16"), (BF16, "bf16")])
def test_rounding(backend, form, name):
    """To nearest, ties to even, at every edge: between neighbours of the format, in the middle, and a float beside it."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    exact = bits.view(np.float16).astype(np.float32) if form is F16 else (bits.astype(np.uint32) << 16).view(np.float32)
    exact = np.unique(exact[np.isfinite(exact)])
    middle = ((exact[1:].astype(np.float64) + exact[:-1]) / 2).astype(np.float32)
    around = [np.nextafter(middle, np.float32(to)) for to in (-np.inf, np.inf)]
    values = np.concatenate([middle, *around, STRANGE])
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = round_to(values, name)
    for rounding in ("", form.name):
        queue = Queue(backend, 18)
        made = queue.convert(host_tensor(values), form if not rounding else F32, rounding).array(backend)
        np.testing.assert_array_equal(made, wanted)
        zeros = wanted == 0
        np.testing.assert_array_equal(np.signbit(made[zeros]), np.signbit(wanted[zeros]))
