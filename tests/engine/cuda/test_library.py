"""cuBLASLt and cuDNN as tactics: on stand-ins whose memory is the host's, through the same queues, recordings and graphs as kernels."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda import library
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.library import cublaslt, cudnn_plans, installed
from probe.engine.device.cuda.library.installed import Library
from probe.engine.device.cuda.library.routine import Routine
from probe.engine.device.cuda.ops.products import named
from probe.engine.device.cuda.runs.recording import Launched
from probe.engine.device.cuda.runs.tape import Tape
from probe.engine.rounding import Interior
from probe.engine.tactics.library import NOTES, DnnPlan, LtAlgorithm
from probe.errors import InputError
from tests.engine.cuda import fake_cublaslt, fake_cudnn
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_tuning_names import network

ONE, SPLIT = (str(LtAlgorithm(fake_cublaslt.VERSION, "32f", one)) for one in fake_cublaslt.ALGORITHMS.values())
ACC16 = ONE.replace("_32f_", "_16f_")
LAST, FIRST = (str(DnnPlan(fake_cudnn.VERSION, order, 11, ((2, 0), (6, 1)), ("T",))) for order in ("last", "first"))
CACHED = (
    cublaslt._handle,
    cublaslt.offers,
    cublaslt.workspace_of,
    cudnn_plans._handle,
    cudnn_plans.plan_offers,
    cudnn_plans.plan_workspace,
)
CACHED += (named.families,)

PRODUCTS = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,5,12] x) => (float[2,40] y, float[10,24] z)
{ m = MatMul (x, w)  a = Add (m, r)  h = Relu (a)  y = Flatten (h)
  f = Flatten <axis = 2> (x)  g = Gemm <transB = 1> (f, v, c)  z = Neg (g) }"""
CONVS = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,16,7,6] x) => (float[2,1008] y, float[2,288] z)
{ p = Conv (x, a, b)  h = Relu (p)  y = Flatten (h)
  q = Conv <pads = [1,1,1,1], strides = [2,2]> (x, c, b)  z = Flatten (q) }"""


class Both:
    """The stand-ins."""

    def __init__(self) -> None:
        self.lt, self.dnn = fake_cublaslt.Fake(), fake_cudnn.Fake()


@pytest.fixture
def both(monkeypatch, host):
    made = Both()
    for one in [one for one in host._kernels if isinstance(one, Routine)]:
        del host._kernels[one]  # ready, but in another test's stand-in
    monkeypatch.setattr(installed, "find_cublaslt", lambda: Library(made.lt, fake_cublaslt.VERSION))
    monkeypatch.setattr(installed, "find_cudnn", lambda: Library(made.dnn, fake_cudnn.VERSION))
    monkeypatch.setattr(installed, "is_installed", lambda package: True)
    monkeypatch.setattr(installed, "reaches", lambda backend: backend is host or isinstance(backend, Tape))
    monkeypatch.setattr(cudnn_plans, "_BUILT", {})
    for one in CACHED:
        one.cache_clear()
    yield made
    for one in CACHED:
        one.cache_clear()


def engine_of(tmp_path, backend, text, precision="fp16", interior: Interior = "storage", **drawn):
    made = network(tmp_path, text, **drawn)
    engine = compile_model(made, precision=precision, interior=interior)
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine, device


def products_of(tmp_path, backend, **settings):
    return engine_of(tmp_path, backend, PRODUCTS, **settings, w=(12, 8), r=(8,), v=(24, 12), c=(24,))


def convs_of(tmp_path, backend, **settings):
    return engine_of(tmp_path, backend, CONVS, **settings, a=(24, 16, 1, 1), b=(24,), c=(24, 16, 3, 3))


def feeds(shape, seed=0):
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def layers(engine, *kinds: str) -> list[str]:
    return [one.name for one in engine.layers if one.kind in kinds]


def assigned(engine, name: str, *kinds: str):
    return engine.assignment.with_tactics(dict.fromkeys(layers(engine, *kinds), name))


def close(actual, expected, within):
    return all(np.abs(actual[key] - one).max() <= within * np.abs(one).max() for key, one in expected.items())


PRODUCT_CASES = [
    ("fp16", ONE),
    ("fp16", SPLIT),
    ("bf16", ONE),
    ("fp32", SPLIT),
    ("tf32", ONE.replace("32f", "tf32")),
    ("fp16", ACC16),
]


@pytest.mark.parametrize("interior", ["storage", "fp32"])
@pytest.mark.parametrize(("precision", "name"), PRODUCT_CASES)
def test_products(tmp_path, host, both, precision, name, interior):
    engine, device = products_of(tmp_path, host, precision=precision, interior=interior)
    if name == ACC16 and interior == "fp32":
        with pytest.raises(InputError, match="results that are not stored in FP16"):  # the sums stay FP32 there
            engine.run(feeds((2, 5, 12)), assigned(engine, name, "matmul", "gemm"))
        return
    expected = engine.run(feeds((2, 5, 12)))
    actual = engine.run(feeds((2, 5, 12)), assigned(engine, name, "matmul", "gemm"))
    assert close(actual, expected, 1e-5 if precision in ("fp32", "tf32") else 8e-3)
    assert len(both.lt.calls) == 2 and not device.fallen
    assert both.lt.asked == 0, "a name says which algorithm: nothing is searched for"
    del actual, engine
    assert len(both.lt.things) <= 40


def test_what_is_rounded_between_is_not_taken_along(tmp_path, host, both):
    """MatMul, Add, Relu: rounded where they are made (storage), the library computes the first alone; kept in FP32, all three."""
    for interior, chains in (("storage", 1), ("fp32", 0)):
        engine, device = products_of(tmp_path, host, interior=interior)
        (layer,) = [one.name for one in engine.layers if any(node.op_type == "Relu" for node in one.nodes)]
        device.replays.enabled = False
        engine.run(feeds((2, 5, 12)), engine.assignment.with_tactics({layer: ONE}))
        before = dict(device.queue.launches)
        engine.run(feeds((2, 5, 12)), engine.assignment.with_tactics({layer: ONE}))
        made = {key: count - before[key] for key, count in device.queue.launches.items()}
        plain = engine.run(feeds((2, 5, 12)))
        assert plain and made["cublaslt"] == 1
        without = dict(device.queue.launches)
        engine.run(feeds((2, 5, 12)))
        exact = device.queue.launches.get("chain", 0) - without.get("chain", 0)
        assert made.get("chain", 0) - exact == chains


@pytest.mark.parametrize(("name", "count"), [(ONE, 1), (LAST, 2), (FIRST, 2)])
@pytest.mark.parametrize("interior", ["storage", "fp32"])
def test_convolutions(tmp_path, host, both, name: str, count, interior):
    engine, device = convs_of(tmp_path, host, interior=interior)
    expected = engine.run(feeds((2, 16, 7, 6)))
    named_layers = layers(engine, "conv")[:count]
    actual = engine.run(feeds((2, 16, 7, 6)), engine.assignment.with_tactics(dict.fromkeys(named_layers, name)))
    assert close(actual, expected, 8e-3) and not device.fallen
    assert len(both.lt.calls) + len(both.dnn.calls) == count and both.lt.asked == both.dnn.asked == 0


RESIDUAL = """<ir_version: 8, opset_import: ["" : 18]> g (float[2,16,7,6] x) => (float[2,672] y)
{ n = Neg (x)  p = Conv <pads = [1,1,1,1]> (n, a, b)  s = Add (p, n)  r = Relu (s)  y = Flatten (r) }"""


def residual_of(tmp_path, backend, **settings):
    return engine_of(tmp_path, backend, RESIDUAL, **settings, a=(16, 16, 3, 3), b=(16,))


@pytest.mark.parametrize(("interior", "chains"), [("storage", 1), ("fp32", 0)])
@pytest.mark.parametrize("name", [LAST, FIRST])
def test_a_residual_is_added_inside_where_nothing_is_rounded_between(tmp_path, host, both, name, interior, chains):
    engine, device = residual_of(tmp_path, host, interior=interior)
    expected = engine.run(feeds((2, 16, 7, 6)))
    device.replays.enabled = False
    device.queue.launches.clear()
    actual = engine.run(feeds((2, 16, 7, 6)), assigned(engine, name, "conv"))
    assert close(actual, expected, 8e-3) and device.queue.launches["cudnn"] == 1
    others = 2  # Neg, and the output in FP32
    assert device.queue.launches.get("chain", 0) - others == chains


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("name", [LAST, FIRST, ONE])
def test_looking_at_a_kept_tensor_changes_nothing(tmp_path, host, both, name, precision):
    engine, device = convs_of(tmp_path, host, precision=precision)
    layer = layers(engine, "conv")[0]
    name = name.replace("_nT", "_n") if precision == "fp32" else name
    assignment = engine.assignment.keeping(tensors=["p"]).with_tactics({layer: name})
    device.replays.enabled = False
    plain, seen = engine.run(feeds((2, 16, 7, 6)), assignment), []
    tapped = engine.run(feeds((2, 16, 7, 6)), assignment, tap=lambda one: seen.append(one.name))
    # what makes a kept tensor is computed in FP32: no business of a tactic in FP16
    assert "p" in seen and len(both.lt.calls) + len(both.dnn.calls) == (2 if precision == "fp32" else 0)
    assert all(np.array_equal(plain[key], one) for key, one in tapped.items())


GROUPED = """<ir_version: 8, opset_import: ["" : 18]> g (float[2,16,6,5] x) => (float[2,32,6,3] y)
{ y = Conv <group = 4, pads = [2,0,2,1], dilations = [2,1], strides = [1,2]> (x, a) }"""


@pytest.mark.parametrize("name", [LAST, FIRST])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_groups_dilations_and_uneven_padding(tmp_path, host, both, name, precision):
    engine, _ = engine_of(tmp_path, host, GROUPED, precision, a=(32, 4, 3, 2))
    expected = engine.run(feeds((2, 16, 6, 5)))
    actual = engine.run(feeds((2, 16, 6, 5)), assigned(engine, name, "conv"))
    assert close(actual, expected, 8e-3) and len(both.dnn.calls) == 1


@pytest.mark.parametrize(("make", "name", "shape"), [(products_of, SPLIT, (2, 5, 12)), (convs_of, LAST, (2, 16, 7, 6))])
def test_recordings_hold_calls_and_move_their_memory(tmp_path, host, both, make, name, shape):
    engine, device = make(tmp_path, host)
    assignment = assigned(engine, name, "matmul", "gemm", "conv")
    for seed in range(3):
        given = feeds(shape, seed)
        repeated = engine.run(given, assignment)
        tapped = {}
        anew = engine.run(given, assignment, tap=lambda one, into=tapped: into.__setitem__(one.name, one.array))
        assert all(np.array_equal(repeated[key], one) for key, one in anew.items()), "taps change nothing"
    (known,) = device.replays._known.values()
    assert known.prepared is not None and known.prepared.graphs == 1 and not known.prepared.note
    calls = [
        one for one in known.recording.steps if isinstance(one, Launched) and one.source.entry in ("cublaslt", "cudnn")
    ]
    assert len(calls) == 2
    for one in calls:
        moved = [position for position, _, _ in one.pointers]
        assert {len(one.arguments) - 1, len(one.arguments) - 2} < set(moved), (
            "the result and the workspace are memory of the run"
        )


def test_offers(tmp_path, host, both):
    engine, device = convs_of(tmp_path, host)
    device.replays.enabled = False
    device.queue.offers = []
    engine.run(feeds((2, 16, 7, 6)))
    first, second = device.queue.offers[-2:]
    assert {ONE, SPLIT} <= set(first) and not {ONE, SPLIT} & set(second), "a window of 3 x 3 is no product"
    for found in (first, second):
        plans = {name for name in found if name.startswith("cudnn")}
        assert {LAST, FIRST} < plans and len(plans) == 4, "no Winograd, nothing that differs from run to run"
    for name in (*first, *second):
        engine.run(
            feeds((2, 16, 7, 6)),
            engine.assignment.with_tactics({layers(engine, "conv")[0 if name in first else 1]: name}),
        )


REFUSED = [
    (products_of, ONE.replace("130100", "120803"), "other versions number other algorithms"),
    (products_of, ONE.replace("_A66_", "_A67_"), "NOT_SUPPORTED"),
    (products_of, SPLIT.replace("_R2_", "_R4_"), "it rounds the sums of ranges of k before it adds them"),
    (products_of, LAST, "is for Conv"),
    (convs_of, ONE, "a window of more than a pixel"),
    (convs_of, LAST.replace("91900", "92000"), "other versions number other engines"),
    (convs_of, LAST.replace("_E11_", "_E12_"), "no such engine"),
    (convs_of, LAST + "F", "does not say how it rounds"),
    (convs_of, LAST.replace("_nT", "_nTX"), "differ from run to run"),
    (convs_of, LAST.replace("_nT", "_nTR"), "it rounds inside"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "reason"), REFUSED)
def test_what_a_library_would_compute_otherwise_is_refused(tmp_path, host, both, make, name, reason):
    engine, _ = make(tmp_path, host)
    layer = layers(engine, "matmul", "gemm", "conv")[-1]
    with pytest.raises(InputError, match=reason) as error:
        engine.run(
            feeds((2, 5, 12) if make is products_of else (2, 16, 7, 6)), engine.assignment.with_tactics({layer: name})
        )
    assert layer in error.value.what and not both.lt.calls and not both.dnn.calls


def test_other_backends_are_out_of_reach(tmp_path, both):
    """On a machine with a GPU, stand-ins for it are no memory of the libraries."""
    other = NullBackend()
    engine, device = products_of(tmp_path, other)
    device.replays.enabled = False
    device.queue.offers = []
    engine.run(feeds((2, 5, 12)))
    assert not any(name.startswith(("cublaslt", "cudnn")) for found in device.queue.offers for name in found)
    with pytest.raises(InputError, match="computes on the GPU alone"):
        engine.run(feeds((2, 5, 12)), assigned(engine, ONE, "matmul", "gemm"))


def test_tensor_cores_round_fp32(tmp_path, host, both):
    engine, _ = convs_of(tmp_path, host, precision="fp32")
    layer = layers(engine, "conv")[1]
    with pytest.raises(InputError, match="tensor cores round FP32 inputs to TF32"):
        engine.run(feeds((2, 16, 7, 6)), Assignment(FP32, {layer: Choice("fp32", LAST)}))
    plain = str(DnnPlan(fake_cudnn.VERSION, "first", 0, (), ()))
    expected = engine.run(feeds((2, 16, 7, 6)))
    assert close(engine.run(feeds((2, 16, 7, 6)), Assignment(FP32, {layer: Choice("fp32", plain)})), expected, 1e-5)


def test_absent_libraries_offer_nothing_and_say_why(tmp_path, host, monkeypatch):
    reason = f"cuBLASLt needs the package nvmath-python (no module): {installed.EXTRA}"
    monkeypatch.setattr(installed, "find_cublaslt", lambda: Library(reason=reason))
    monkeypatch.setattr(installed, "find_cudnn", lambda: Library(reason="cuDNN needs a GPU: none here"))
    named.families.cache_clear()
    assert library.families() == () and library.absence("wgmma_64x64") == ""
    engine, device = products_of(tmp_path, host)
    device.replays.enabled = False
    device.queue.offers = []
    engine.run(feeds((2, 5, 12)))
    assert not any(name.startswith(("cublaslt", "cudnn")) for found in device.queue.offers for name in found)
    with pytest.raises(InputError, match="nvmath-python") as error:
        engine.run(feeds((2, 5, 12)), assigned(engine, ONE, "matmul", "gemm"))
    assert "probe-inference[library]" in error.value.what
    named.families.cache_clear()


def test_a_routine_names_its_library_when_it_is_not_there(monkeypatch):
    monkeypatch.setattr(installed, "find_cublaslt", lambda: Library(reason="cuBLASLt needs the package nvmath-python"))
    monkeypatch.setattr(installed, "find_cudnn", lambda: Library(object(), 92000))
    with pytest.raises(InputError, match="nvmath-python"):
        installed.same_version(installed.find_cublaslt(), ONE, 130100)
    with pytest.raises(InputError, match=r"version 92000.*of version 91900"):
        installed.same_version(installed.find_cudnn(), LAST, 91900)


def test_notes_are_those_the_library_deselects_by(both):
    problem = cudnn_plans.ConvProblem(
        1, 8, 8, 1, (4, 4), (1, 1), (1, 1), (1, 1), (0, 0), (0, 0), (4, 4), last=True, format="f16", stored="f16"
    )
    found = {one.plan.engine: one for one in cudnn_plans.plan_offers(problem, 8, every=True)}
    assert {engine: one.plan.notes for engine, one in found.items()} == {11: ("T",), 5: ("W", "6"), 1: ("X",), 0: ()}
    assert found[11].workspace == 64 * 11 and all(
        letter in NOTES for one in found.values() for letter in one.plan.notes
    )
