"""Attention in one kernel against the same layer on the CPU device, and on a GPU node by node, too."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.layers.attention_run import AttentionRun
from probe.engine.device.cuda.layers.layer_run import LayerRun
from probe.engine.device.cuda.ops.attention import attention
from probe.engine.device.cuda.ops.attention.attention import Variant
from probe.engine.device.cuda.ops.attention.attention_code import Steps, text_of
from probe.engine.rounding import Interior
from probe.model import load
from probe.precision import PRECISIONS
from tests.engine.cuda.attention_cases import CASES

ON_HOST = (
    "ragged", "bert", "vit", "where", "rows without keys made zero", "overflow", "keys scaled first", "wide heads", "heads of 40", "broadcast keys",
    "queries first",
)  # fmt: skip
# name: of a case, variant of the kernel
VARIANTS = (
    ("long", Variant(1, 1, 64, 2, 0)), ("long", Variant(1, 4, 64, 2, 0)), ("long", Variant(2, 2, 32, 4, 304)), ("bert", Variant(2, 1, 32, 3, 48)),
    ("where", Variant(1, 2, 64, 3, 0)), ("vit", Variant(4, 1, 64, 2, 0)), ("ragged", Variant(1, 4, 128, 2, 48)), ("one query", Variant(8, 1, 16, 2, 80)),
    ("long", Variant(2, 1, 32, 2, 0, 255, 2)), ("ragged", Variant(1, 1, 32, 2, 48, 255, 2)), ("vit", Variant(2, 1, 64, 2, 0, 255, 2)),
)  # fmt: skip
# case, precision
IN_ONE_WALK = (
    ("long", "fp16", Variant(2, 1, 32, 2, 0)), ("long", "bf16", Variant(1, 1, 32, 2, 0, 255, 2)), ("rows without keys", "bf16", Variant(1, 1, 32, 2, 0)),
    ("rows of the least number", "fp16", Variant(1, 1, 32, 2, 0)), ("where", "fp16", Variant(1, 1, 32, 2, 0)), ("ragged", "bf16", Variant(4, 1, 64, 3, 0)),
)  # fmt: skip


def rows(on_gpu, on_host) -> list:
    """What runs where: on the host, where every kernel takes half a second to compile, less."""
    found = [pytest.param("gpu", one, marks=pytest.mark.gpu, id=f"gpu-{one}") for one in on_gpu]
    return found + [pytest.param("host", one, id=f"host-{one}") for one in on_host]


def engine_of(folder, name: str, precision: str, backend, interior: Interior = "storage"):
    feeds = CASES[name].save(folder / "m.onnx")
    engine = compile_model(load(folder / "m.onnx"), precision=precision, interior=interior)
    return engine, CudaDevice(engine.network, engine.top_layers, engine.rounding, backend), feeds


def tapped(engine, feeds) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    outputs = engine.run(feeds, tap=lambda t: found.__setitem__(t.name, t.array))
    assert all(np.array_equal(found[key], array, equal_nan=True) for key, array in outputs.items())
    return found


def near(actual: np.ndarray, golden: np.ndarray, allowed: float) -> None:
    finite = np.isfinite(golden)
    assert np.array_equal(actual[~finite], golden[~finite], equal_nan=True)
    off = np.abs(actual[finite].astype(np.float64) - golden[finite])
    assert off.max(initial=0.0) <= allowed * np.abs(golden[finite]).max(initial=0.0), off.max()


def check(backend, folder, monkeypatch, name: str, precision: str, variant: Variant | None = None) -> None:
    engine, device, feeds = engine_of(folder, name, precision, backend)
    if variant is not None:
        monkeypatch.setattr(attention, "choose", lambda *_: variant)
    golden = [tapped(engine, feeds)]
    engine.device = device
    one, taps = engine(feeds), tapped(engine, feeds)
    assert not device.queue.apart and device.queue.launches["attention"], device.queue.apart
    assert all(np.array_equal(taps[key], array, equal_nan=True) for key, array in one.items()), "looking changes bits"
    if backend.name != "host":  # where compiling the kernels of nodes takes longest
        monkeypatch.setattr(AttentionRun, "run", LayerRun.run)
        engine.device = nodes = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        golden.append(tapped(engine, feeds))
        assert "attention" not in nodes.queue.launches
    for other in golden:
        assert taps.keys() == other.keys()
        for key, array in other.items():
            near(taps[key], array, 3 * PRECISIONS[precision].roundoff)


@pytest.mark.parametrize(("place", "name"), rows(CASES, ON_HOST))
def test_one_kernel_computes_what_many_do(request, tmp_path, monkeypatch, place, name):
    backend = request.getfixturevalue(place)
    all_of = ("fp16", "bf16", *(("tf32",) if name != "wide heads" else ()))
    precisions = all_of if place == "gpu" else (all_of[list(CASES).index(name) % len(all_of)],)
    for precision in precisions:
        with monkeypatch.context() as patched:
            check(backend, tmp_path, patched, name, precision)


@pytest.mark.parametrize(("place", "at"), rows(range(len(VARIANTS)), (0, 3, 4, 8)))
def test_every_variant_does(request, tmp_path, monkeypatch, place, at):
    name, variant = VARIANTS[at]
    check(request.getfixturevalue(place), tmp_path, monkeypatch, name, "fp16", variant)


@pytest.mark.parametrize(("place", "at"), rows(range(len(IN_ONE_WALK)), (0, 3)))
def test_keys_may_be_walked_over_once(request, tmp_path, monkeypatch, place, at):
    """Where nothing rounds weights."""
    name, precision, variant = IN_ONE_WALK[at]
    engine, device, feeds = engine_of(tmp_path, name, precision, request.getfixturevalue(place), "fp32")
    monkeypatch.setattr(attention, "choose", lambda *_: variant)
    monkeypatch.setattr(attention, "choose_groups", lambda *_, **__: None)
    golden = tapped(engine, feeds)
    engine.device = device
    taps = tapped(engine, feeds)
    (source,) = (one for one in device.queue.sources if one.entry == "attention")
    assert dict(source.defines)["ONCE"] == (name != "where")  # which does something to weights
    for key, array in golden.items():
        near(taps[key], array, 1.1 * PRECISIONS[precision].roundoff)


@pytest.mark.parametrize(("place", "name"), rows(("bert", "even mask", "where", "vit"), ("where", "vit")))
def test_two_values_in_one_register_give_the_bits_of_one(request, tmp_path, monkeypatch, place, name):
    backend = request.getfixturevalue(place)
    for precision in ("fp16", "bf16") if place == "gpu" else ("bf16" if name == "where" else "fp16",):
        engine, _, feeds = engine_of(tmp_path, name, precision, backend)
        found = []
        for in_pairs in (Steps.in_pairs, lambda *_: False):
            monkeypatch.setattr(Steps, "in_pairs", in_pairs)
            text_of.cache_clear()
            engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
            found.append(tapped(engine, feeds))
        assert all(np.array_equal(found[0][key], array) for key, array in found[1].items())


@pytest.mark.parametrize(
    ("place", "name"), rows(("bert", "vit", "where", "cap", "keys scaled first"), ("where", "keys scaled first"))
)
def test_an_interior_that_is_not_rounded(request, tmp_path, place, name):
    """Weights are multiplied as two numbers each: far nearer to FP32 than a rounding of the result."""
    backend = request.getfixturevalue(place)
    engine, device, feeds = engine_of(tmp_path, name, "fp16", backend, "fp32")
    golden = engine(feeds)["y"]
    engine.device = device
    one = engine(feeds)["y"]
    assert not device.queue.apart and device.queue.launches["attention"], device.queue.apart
    near(one, golden, 1.1 * PRECISIONS["fp16"].roundoff)
    assert (
        np.isfinite(golden).all() and np.mean(one != golden) < 0.02
    )  # the result's rounding falls otherwise near a middle alone


@pytest.mark.parametrize(
    ("name", "precision", "tactic", "kept", "why"),
    [
        ("plain", "fp32", "exact", (), "few queries in FP32"),
        ("wide heads", "tf32", "exact", (), "heads of 136 and 152 elements"),
        ("plain", "fp16", "acc16", (), "adds up in FP32"),
        ("plain", "fp16", "exact", ("q",), "an operand that is not rounded"),
    ],
)
def test_what_one_kernel_does_not_take_is_computed_apart(tmp_path, host, name, precision, tactic, kept, why):
    engine, device, feeds = engine_of(tmp_path, name, precision, host)
    engine.device = device
    assignment = Assignment(Choice(precision, tactic)).keeping(tensors=kept)
    found = engine.run(feeds, assignment)
    assert "attention" not in device.queue.launches
    (reason,) = device.queue.apart.values()
    assert why in reason
    assert np.isfinite(found["y"]).all()


@pytest.mark.parametrize(("place", "kept"), rows("ywpz", "yz"))
def test_kept_tensors_are_not_rounded(request, tmp_path, place, kept):
    """The result, what multiplies the values, scores; the result before it is transposed."""
    backend, name = request.getfixturevalue(place), "even mask" if kept == "y" else "bert"
    engine, device, feeds = engine_of(tmp_path, name, "fp16", backend)
    assignment = engine.assignment.keeping(tensors=[kept])
    golden = engine.run(feeds, assignment)["y"]
    engine.device = device
    found = engine.run(feeds, assignment)["y"]
    assert not device.queue.apart, device.queue.apart
    near(found, golden, 2 * PRECISIONS["fp16"].roundoff)
    if kept == "y":
        assert np.any(found != found.astype(np.float16))
