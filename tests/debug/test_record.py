"""Recording: what is written, in which order, and that nothing is left when something goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from probe.debug.record import collect_inputs, record
from probe.errors import InputError
from probe.model import load
from probe.results.tensors import RunHeader, TensorInfo
from probe.runners.ort import OrtRunner
from probe.runners.protocol import RunnerTensor
from probe.store.dump import Dump
from probe.store.feeds import InputSet
from probe.store.opening import open_sink
from tests.model import builders as b

ROOT = Path(__file__).resolve().parents[2]
SETS = [InputSet(name, {"x": np.full((2, 3), i, np.float32)}, "here") for i, name in enumerate(("first", "second"))]


@pytest.fixture
def model(tmp_path):
    return load(b.save(b.mlp(), tmp_path / "m.onnx"))


class Fake:
    """A runner that makes ``count`` tensors of ``elements``."""

    name = "fake"

    def __init__(
        self, count: int = 3, elements: int = 4, fail_at: int | None = None, error: BaseException | None = None
    ) -> None:
        self.count, self.elements, self.fail_at, self.error = count, elements, fail_at, error
        self.notes: tuple[str, ...] = ()
        self.closed = False
        self.alive: list[weakref.ref] = []
        self.most_alive = 0

    @property
    def header(self) -> RunHeader:
        return RunHeader(runner="fake", notes=self.notes)

    def run(self, feeds, input_id):
        try:
            for i in range(self.count):
                if i == self.fail_at:
                    assert self.error is not None
                    raise self.error
                array = np.full(self.elements, i, np.float32)
                self.alive.append(weakref.ref(array))
                made = RunnerTensor(TensorInfo(f"t{i}", "float32", array.shape, input_id=input_id), array)
                del array
                yield made
                del made
                self.most_alive = max(self.most_alive, sum(ref() is not None for ref in self.alive))
            self.notes = ("ended",)
        finally:
            self.closed = True

    def close(self) -> None: ...


def test_inputs_first_then_tensors_in_order_for_every_set(model, tmp_path):
    runner = OrtRunner(model)
    with open_sink(tmp_path / "d", runner.header) as sink:
        rows = record(runner, SETS, sink)
    dump = Dump(tmp_path / "d")
    assert list(dump.rows()) == rows
    per_set = ["x", "a:0", "layer 1/add", "hidden", "y"]
    assert [(row.input_id, row.name) for row in rows] == [(s.id, name) for s in SETS for name in per_set]
    assert [row.role for row in rows[:5]] == ["input", "internal", "internal", "internal", "output"]
    assert [(i.id, i.sha256, i.source) for i in dump.header.inputs] == [(s.id, s.sha256, s.source) for s in SETS]
    assert dump.header.model_sha256 == model.sha256 and rows[1].max is not None


def test_select_keeps_inputs(model, tmp_path):
    runner = OrtRunner(model)
    with open_sink(tmp_path / "d", runner.header) as sink:
        record(runner, SETS[:1], sink, select=lambda name: name == "hidden")
    assert [row.name for row in Dump(tmp_path / "d").rows()] == ["x", "hidden"]


def test_what_matches_nothing_is_an_error(model, tmp_path):
    with (
        pytest.raises(InputError, match="no tensor was recorded") as caught,
        open_sink(tmp_path / "d", RunHeader()) as sink,
    ):
        record(OrtRunner(model), SETS[:1], sink, select=lambda name: False)
    assert "--select" in caught.value.hint and not (tmp_path / "d").exists()


def test_notes_made_while_running_reach_the_header(tmp_path):
    with open_sink(tmp_path / "d", RunHeader()) as sink:
        record(Fake(), SETS[:1], sink)
    assert Dump(tmp_path / "d").header.notes == ("ended",)


def test_one_tensor_is_held_at_a_time(tmp_path):
    runner = Fake(count=20)
    with open_sink(tmp_path / "d", RunHeader()) as sink:
        record(runner, SETS[:1], sink)
    assert runner.most_alive == 0  # each was let go before the next was asked for


@pytest.mark.parametrize(
    "error", [InputError("boom"), KeyboardInterrupt(), RuntimeError("bug")], ids=lambda e: type(e).__name__
)
def test_an_exception_ends_the_runner_and_leaves_nothing(tmp_path, error):
    runner = Fake(fail_at=2, error=error)
    with pytest.raises(type(error)), open_sink(tmp_path / "d", RunHeader()) as sink:
        record(runner, SETS, sink)
    assert runner.closed and list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_runner(tmp_path):
    class Full:
        def add(self, info, array):
            if info.name == "t1":
                raise InputError("cannot write the recording: No space left on device")
            return info

        def replace_header(self, header): ...

    runner = Fake()
    with pytest.raises(InputError, match="No space left"):
        record(runner, SETS, Full())
    assert runner.closed


def test_ids_are_unique(tmp_path):
    with pytest.raises(InputError, match="two input sets are called 'a'"):
        record(Fake(), [InputSet("a", {}, ""), InputSet("a", {}, "")], None)
    with pytest.raises(InputError, match="no input sets"):
        record(Fake(), [], None)


_INTERRUPTED = """
    import sys, time
    sys.path.insert(0, {root!r})
    import numpy as np
    from probe.debug.record import record
    from probe.results.tensors import RunHeader, TensorInfo
    from probe.runners.protocol import RunnerTensor
    from probe.store.feeds import InputSet
    from probe.store.opening import open_sink

    class Slow:
        name = "slow"
        header = RunHeader()
        def run(self, feeds, input_id):
            for i in range(10_000):
                yield RunnerTensor(TensorInfo(f"t{{i}}", "float32", (1000,), input_id=input_id), np.ones(1000, np.float32))
                if i == 5:
                    print("running", flush=True)
                time.sleep(0.01)

    with open_sink({out!r}, RunHeader()) as sink:
        record(Slow(), [InputSet("a", {{}}, "")], sink)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_recording_that_is_killed_never_looks_whole(tmp_path, number):
    out = tmp_path / "out" / "dump"
    text = textwrap.dedent(_INTERRUPTED.format(root=str(ROOT), out=str(out)))
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"running\n"
        time.sleep(0.05)
        os.kill(process.pid, number)
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.stdout.close()
    assert not out.exists()
    if number == signal.SIGINT:
        assert not list(tmp_path.rglob("*dump*"))


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_made_up_inputs_come_with_a_warning(model):
    (one,), notes = collect_inputs(model, seed=7)
    assert (one.id, one.source) == ("seed-7", "seed 7") and one.feeds["x"].shape == (2, 3)
    assert any(note.startswith("x float32[2,3]") for note in notes)
    assert any("may hide failures" in note and "seed 7" in note for note in notes)


def test_inputs_from_files_are_checked_cast_and_said(model, tmp_path):
    np.savez(tmp_path / "a.npz", x=np.full((2, 3), 0.1))
    (tmp_path / "sub").mkdir()
    np.savez(tmp_path / "sub" / "a.npz", x=np.zeros((2, 3), np.float32))
    sets, notes = collect_inputs(model, [tmp_path / "a.npz", tmp_path / "sub" / "a.npz"])
    assert [s.id for s in sets] == ["a", "a-2"] and sets[0].feeds["x"].dtype == np.float32
    assert notes == ["input 'x': float64 data rounded to float32, 6 of 6 values changed"]


def test_data_that_does_not_fit_names_its_file(model, tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.zeros((2, 4), np.float32))
    with pytest.raises(InputError) as caught:
        collect_inputs(model, [tmp_path / "bad.npz"])
    assert "3 elements on axis 1" in caught.value.what and "bad.npz" in caught.value.where


def test_a_dataset_without_data(model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        collect_inputs(model, [tmp_path / "empty"])


@pytest.mark.parametrize("options", [{"shapes": {"x": (2, 3)}}, {"ranges": {"": (0.0, 1.0)}}])
def test_options_of_made_up_inputs_beside_files(model, tmp_path, options):
    with pytest.raises(InputError, match="made-up"):
        collect_inputs(model, [tmp_path / "a.npz"], **options)


def test_without_a_model_there_must_be_data(tmp_path):
    with pytest.raises(InputError, match="without a model"):
        collect_inputs(None)
    np.savez(tmp_path / "a.npz", anything=np.zeros(2))
    (one,), notes = collect_inputs(None, [tmp_path / "a.npz"])
    assert list(one.feeds) == ["anything"] and notes == []


def test_a_model_without_inputs(tmp_path):
    proto = b.model(
        [b.node("Identity", ["w"], ["y"])], [], [b.value("y", (2,))], [b.weight("w", np.ones(2, np.float32))]
    )
    model = load(b.save(proto, tmp_path / "m.onnx"))
    sets, notes = collect_inputs(model)
    assert [s.feeds for s in sets] == [{}] and notes == []
    with open_sink(tmp_path / "d", RunHeader()) as sink:
        rows = record(OrtRunner(model), sets, sink)
    assert [row.name for row in rows] == ["y"]
