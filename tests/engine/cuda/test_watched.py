"""Runs whose tensors are handed out, repeated: the same tensors with the same bits as launched one by one, wherever and whenever they are read."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.errors import CudaError, OutOfMemory
from probe.engine.device.cuda.runs.watched import NO_ROOM, UNDER_WAY, Lent
from probe.engine.device.cuda.sums.comparing import Held
from probe.engine.device.cuda.tensors.channels_last import lies_last
from probe.errors import InputError
from probe.model import load
from tests.engine.cuda.test_replays import BRANCHES, CHAIN, HOST, LOOKUP, SIZES, engine_of, same

Arrays = dict[str, np.ndarray]
IMAGES = """g (float[2,64,9,8] x) => (float[2,64,9,8] y)
{ a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Relu (a)  c = Conv (b, v)  d = Add (c, b)  y = Sigmoid (d) }"""


def handed(engine, feeds, assignment=None) -> tuple[Arrays, Arrays]:
    """Tensors, read when all is over, and outputs."""
    seen = []
    outputs = engine.run(feeds, assignment, tap=seen.append)
    return {one.name: one.array for one in seen if one.array is not None}, outputs


def anew(engine, feeds, assignment=None) -> tuple[Arrays, Arrays]:
    """``handed``, launched one by one."""
    engine.device.replays.enabled = False
    try:
        return handed(engine, feeds, assignment)
    finally:
        engine.device.replays.enabled = True


def graphs(device) -> int:
    return sum(one.prepared.graphs for one in device.watched._known.values() if one.prepared is not None)


def feeds_of(text: str) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    if text is CHAIN:
        return [{"x": random.standard_normal((3, 16)).astype(np.float32)} for _ in range(4)]
    if text is HOST:
        x = random.standard_normal((5, 8)).astype(np.float32)
        return [{"x": np.float32(scale) * x} for scale in (1, 2, 0.5, 3, -1)]
    x = np.array([0.1, -2, 3, 0.5], np.float32)
    return [{"x": x * np.float32(1 + at), "c": np.array(taken)} for at, taken in enumerate((True, True, False, False))]


@pytest.mark.parametrize("text", [CHAIN, HOST, BRANCHES], ids=["chain", "host", "branches"])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_repeated_runs_hand_out_the_same(tmp_path, backend, text, precision):
    engine, device = engine_of(tmp_path, text, backend, precision)
    for feeds in feeds_of(text):
        tensors, outputs = handed(engine, feeds)
        expected, made = anew(engine, feeds)
        assert list(tensors) == list(expected), "in the same order"
        assert same(tensors, expected) and same(outputs, made) and same(engine.run(feeds), made)
    assert text is not CHAIN or (graphs(device) == 1 and not device.watched.notes)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.gpu)])
def test_images_are_handed_out_as_they_lie(request, tmp_path, precision):
    """Nothing is moved for those who compare them; who reads their values finds the order of the network."""
    backend = request.getfixturevalue("gpu" if precision == "fp16" else "host")
    random = np.random.default_rng(0)
    weights = {
        name: random.standard_normal((64, 64, size, size)).astype(np.float32) / 24
        for name, size in (("w", 3), ("v", 1))
    }
    engine, _ = engine_of(tmp_path, IMAGES, backend, precision, **weights)
    feeds = [{"x": random.standard_normal((2, 64, 9, 8)).astype(np.float32)} for _ in range(3)]
    for given in feeds:
        expected, made = anew(engine, given)
        tensors, outputs = handed(engine, given)
        assert same(tensors, expected) and same(outputs, made) and same(engine.run(given), made)
    kept = []
    engine.run(feeds[0], tap=kept.append)
    lying = [one for one in kept if isinstance(one.held, Held) and lies_last(one.held.tensor)]
    assert len(lying) >= 4 and all(one.held.tensor.is_late for one in lying)
    handed(engine, feeds[1])  # they are moved out, and read when another run has taken their place
    assert same({one.name: one.array for one in kept}, anew(engine, feeds[0])[0])


def test_layers_on_the_host_make_their_interior_again(tmp_path, host):
    engine_of(tmp_path, CHAIN, host)
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16")
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, host)
    (fused, *_) = [layer.name for layer in engine.layers if layer.interior]
    device._refusals[fused] = "for this test"
    for feeds in feeds_of(CHAIN):
        assert same(handed(engine, feeds)[0], anew(engine, feeds)[0])
    assert fused in device.fallen and graphs(device) >= 1 and not device.watched.notes


def test_what_is_not_run_is_said_again(tmp_path, host):
    engine, _ = engine_of(tmp_path, BRANCHES, host)
    feeds = feeds_of(BRANCHES)[0]
    seen = [[], [], []]
    for one in seen:
        engine.run(feeds, tap=lambda tapped, one=one: one.append((tapped.name, tapped.status, tapped.layer.name)))
    assert seen[0] == seen[1] == seen[2] and "not_run" in {status for _, status, _ in seen[0]}


def test_tensors_that_somebody_holds_are_not_written_to(tmp_path, backend):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    first, second, third = feeds_of(CHAIN)[:3]
    handed(engine, first)
    kept = []
    engine.run(first, tap=kept.append)  # repeated
    assert graphs(device) == 1 and all(isinstance(one.held, Held) for one in kept)
    early = {one.name: one.held.window(0, 3).copy() for one in kept}
    more = []
    engine.run(second, tap=more.append)
    tensors, _ = handed(engine, third)
    assert device.watched.notes == () and same(tensors, anew(engine, third)[0])
    assert same({one.name: one.array for one in more}, anew(engine, second)[0]), "read when another run is over"
    assert same({one.name: one.array for one in kept}, anew(engine, first)[0])
    assert all(np.array_equal(one.array.reshape(-1)[:3], early[one.name]) for one in kept)


def test_without_room_to_move_to_runs_are_launched(tmp_path, host, monkeypatch):
    engine, device = engine_of(tmp_path, CHAIN, host)
    first, second = feeds_of(CHAIN)[:2]
    handed(engine, first)
    kept = []
    engine.run(first, tap=kept.append)

    def full(self) -> None:
        raise OutOfMemory(1, 0, 1, "host")

    with monkeypatch.context() as patched:
        patched.setattr(Lent, "move_out", full)
        assert same(handed(engine, second)[0], anew(engine, second)[0])
    assert device.watched.notes == (NO_ROOM,)
    assert same({one.name: one.array for one in kept}, anew(engine, first)[0])


def test_a_run_that_nobody_waits_for_changes_no_other(tmp_path, backend):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    first, second = feeds_of(CHAIN)[:2]
    for _ in range(2):
        handed(engine, first)
    plans = engine.plans(engine.assignment)
    left = device.stream(engine.feeds(first), plans, interior=True)
    next(left)
    assert same(handed(engine, second)[0], anew(engine, second)[0])
    assert device.watched.notes == (UNDER_WAY,)
    left.close()
    del left
    assert same(handed(engine, second)[0], anew(engine, second)[0])
    assert device.watched.notes == ()


def test_assignments_have_recordings_of_their_own(tmp_path, backend):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    feeds = feeds_of(CHAIN)[0]
    names = [layer.name for layer in engine.layers]
    for kept in ([], names[:1], [], names[:1], names[1:], names[1:]):
        assignment = engine.assignment.keeping(layers=kept)
        assert same(handed(engine, feeds, assignment)[0], anew(engine, feeds, assignment)[0])
    assert graphs(device) == 3


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_indices_out_of_range_are_named(tmp_path, backend, precision):
    engine, _ = engine_of(tmp_path, LOOKUP, backend, precision, k=np.array(-1))
    x = np.random.default_rng(3).standard_normal((9, 4)).astype(np.float32)
    for indices in ([0, 3, 8], [1, 1, 1], [-8, 5, 0]):
        feeds = {"x": x, "i": np.array(indices)}
        assert same(handed(engine, feeds)[0], anew(engine, feeds)[0])
    for indices in ([0, 9, 8], [1, 2, 3], [-10, 0, 0]):
        feeds = {"x": x, "i": np.array(indices)}
        if max(indices) > 8 or min(indices) < -8:
            with pytest.raises(InputError, match="Gather"):
                handed(engine, feeds)
        else:
            assert same(handed(engine, feeds)[0], anew(engine, feeds)[0])


def test_what_never_stays_the_same_is_not_repeated(tmp_path, host):
    engine, device = engine_of(tmp_path, SIZES, host, "fp32")
    for times in (1, 2, 3, 4, 5, 6, 7, 2, 3):
        feeds = {"x": np.arange(3, dtype=np.float32) / 8, "s": np.array([times])}
        tensors, outputs = handed(engine, feeds)
        assert outputs["y"].size == 3 * times and same(tensors, anew(engine, feeds)[0])
    assert device.watched.notes == ("values that decide on shapes or places have changed",)


def test_what_cannot_be_captured_or_held_is_launched(tmp_path, host, monkeypatch):
    def refuse(batches, *, timed=False):
        raise CudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED ending a capture")

    feeds = feeds_of(CHAIN)[0]
    engine, device = engine_of(tmp_path, CHAIN, host)
    monkeypatch.setattr(host, "capture", refuse)
    for _ in range(3):
        assert same(handed(engine, feeds)[0], anew(engine, feeds)[0])
    assert device.watched.notes == ("not captured: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED ending a capture",)
    engine, device = engine_of(tmp_path, CHAIN, host)
    monkeypatch.setattr(host, "room", lambda: 100)
    for _ in range(3):
        assert same(handed(engine, feeds)[0], anew(engine, feeds)[0])
    assert [note[:32] for note in device.watched.notes] == ["no room for all tensors at once:"]
