"""``files:``: a recording played back for the inputs it was made with, and for no others."""

from __future__ import annotations

import numpy as np
import pytest

from probe.debug.record import collect_inputs, record
from probe.errors import InputError
from probe.model import load
from probe.runners.files import FilesRunner
from probe.runners.ort import OrtRunner
from probe.store.feeds import InputSet
from probe.store.opening import open_sink, open_source, read_array
from tests.model import builders as b


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    model = load(b.save(b.if_else(), folder / "m.onnx"))
    sets = [
        InputSet(f"set {i}", {"x": np.full((2, 3), i, np.float32), "c": np.array(bool(i))}, "made here")
        for i in range(2)
    ]
    runner = OrtRunner(model)
    with open_sink(folder / "golden", runner.header) as sink:
        record(runner, sets, sink)
    return folder / "golden", sets, model


def test_a_dump_comes_back_as_it_was(recording, tmp_path):
    path, sets, model = recording
    runner = FilesRunner(str(path), model)
    assert runner.header.golden == "as_is" and runner.header.runner == f"files:{path}"
    with open_sink(tmp_path / "copy", runner.header) as sink:
        record(runner, sets, sink)
    runner.close()
    before, after = open_source(path), open_source(tmp_path / "copy")
    assert list(before.rows()) == list(after.rows())
    assert {row.status for row in after.rows()} == {"recorded", "not_run"}
    assert before.header.inputs == after.header.inputs


def test_the_hash_decides_and_not_the_id(recording):
    path, sets, _ = recording
    runner = FilesRunner(str(path))
    made = {t.info.name: t for t in runner.run(sets[1].feeds, "renamed")}
    assert {t.info.input_id for t in made.values()} == {"renamed"}
    source = open_source(path)
    row = next(r for r in source.rows() if r.name == "y" and r.input_id == "set 1")
    assert np.array_equal(made["y"].array, read_array(source, row))
    other = {"x": sets[0].feeds["x"] + 1, "c": sets[0].feeds["c"]}
    with pytest.raises(InputError, match="was not recorded with input 'set 0'") as caught:
        list(runner.run(other, "set 0"))
    assert "--inputs" in caught.value.hint


def test_statistics_cannot_be_played(recording, tmp_path):
    _, sets, model = recording
    with open_sink(tmp_path / "stats", OrtRunner(model).header, stats_only=True) as sink:
        record(OrtRunner(model), sets, sink)
    with pytest.raises(InputError, match="--stats-only"):
        list(FilesRunner(str(tmp_path / "stats")).run(sets[0].feeds, "set 0"))


def test_a_file_without_provenance_is_played_with_a_note(tmp_path):
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    np.savez(
        tmp_path / "theirs.npz", y=np.ones((2, 4), np.float32), hidden=np.zeros((2, 64), np.float32), x=np.zeros((2, 3))
    )
    runner = FilesRunner(str(tmp_path / "theirs.npz"), model)
    (one,), _ = collect_inputs(model)
    made = {t.info.name: t.info for t in runner.run(one.feeds, one.id)}
    assert {name: info.role for name, info in made.items()} == {"y": "output", "hidden": "internal"}
    assert made["hidden"].nodes == ("Relu(hidden)",)
    assert any("nothing proves" in note for note in runner.header.notes)


def test_several_sets_without_hashes_go_by_id(tmp_path):
    from probe.results.tensors import RunHeader, TensorInfo

    with open_sink(tmp_path / "d", RunHeader()) as sink:
        for i in range(2):
            sink.add(TensorInfo("y", "float32", (1,), input_id=str(i), role="output"), np.array([i], np.float32))
    runner = FilesRunner(str(tmp_path / "d"))
    assert [t.array.tolist() for t in runner.run({}, "1")] == [[1.0]]
    with pytest.raises(InputError, match="nothing for input 'seed-0'"):
        list(runner.run({}, "seed-0"))


def test_nothing_there(tmp_path):
    with pytest.raises(InputError):
        FilesRunner(str(tmp_path / "none"))
