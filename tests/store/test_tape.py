"""``Tape``: what is added comes back, in memory and from the folder it moves to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.compare.diff import diff_sources
from probe.errors import InputError
from probe.results.tensors import InputInfo, RunHeader, TensorInfo
from probe.store.opening import read_array
from probe.store.recording import Recording
from probe.store.tape import Tape

ARRAYS = {
    "x": np.arange(6, dtype=np.int64).reshape(2, 3),
    "a b/c:0": np.array([1.5, -np.inf, np.nan], np.float32),
    "half": np.array([1.0, np.inf], np.float16),
    "flag": np.array(True),
    "empty": np.zeros((0, 4), np.float32),
    "text": np.array(["a", "ü"], object),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def filled(limit: int) -> Tape:
    with Tape("run", memory_limit=limit) as tape:
        for name, array in ARRAYS.items():
            tape.add(TensorInfo(name, "", (), "cat", role="input" if name == "x" else "internal"), array)
        tape.add(TensorInfo("else_out", "float32", (), "cat", status="not_run", note="then was taken"), None)
        tape.replace_header(RunHeader(runner="engine", inputs=(InputInfo("cat", "00", "test"),)))
    return tape


@pytest.mark.parametrize("limit", [1 << 20, 40, 0], ids=["in memory", "from the middle on", "from the start"])
def test_everything_comes_back(limit: int, folder: Path) -> None:
    tape = filled(limit)
    assert tape.spilled == (limit < 1 << 20) == bool(list(folder.iterdir()))
    assert [row.name for row in tape.rows()] == [*ARRAYS, "else_out"]
    assert tape.header.runner == "engine"
    for row in tape.rows()[:-1]:
        array = read_array(tape, row)
        assert array.dtype == ARRAYS[row.name].dtype
        np.testing.assert_array_equal(array, ARRAYS[row.name])
    tape.close()
    assert not list(folder.iterdir())


def test_rows_know_the_range_of_values() -> None:
    rows = {row.name: row for row in filled(1 << 20).rows()}
    assert (rows["a b/c:0"].nan, rows["a b/c:0"].inf, rows["a b/c:0"].absmax_finite) == (1, 1, 1.5)
    assert (rows["half"].dtype, rows["half"].shape, rows["half"].inf) == ("float16", (2,), 1)
    assert (rows["x"].role, rows["x"].max, rows["x"].bytes) == ("input", 5, 48)
    assert rows["else_out"].note == "then was taken"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 800))
def test_where_the_limit_falls_changes_nothing(sizes: list[int], limit: int) -> None:
    with Tape(memory_limit=limit) as tape:
        for number, size in enumerate(sizes):
            tape.add(TensorInfo(f"t{number}", "", ()), np.full(size, number, np.float32))
    assert tape.spilled == (4 * sum(sizes) > limit)
    for number, row in enumerate(tape.rows()):
        assert read_array(tape, row).tolist() == [number] * sizes[number]
    tape.close()


def test_memory_is_let_go_when_it_moves(folder: Path) -> None:
    with Tape(memory_limit=1000) as tape:
        for number in range(10):
            tape.add(TensorInfo(f"t{number}", "", ()), np.zeros(100, np.float32))
            assert tape._held <= 1000
            assert tape.spilled == (number >= 2) == (not tape._arrays)
    tape.close()


def test_an_exception_leaves_nothing(folder: Path) -> None:
    def broken() -> None:
        with Tape(memory_limit=0) as tape:
            tape.add(TensorInfo("t", "", ()), np.zeros(3))
            assert list(folder.iterdir())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert not list(folder.iterdir())


def test_a_forgotten_tape_takes_its_folder_with_it(folder: Path) -> None:
    tape = filled(0)
    del tape
    assert not list(folder.iterdir())


def test_a_tensor_is_recorded_once() -> None:
    with Tape() as tape:
        tape.add(TensorInfo("t", "", (), "cat"), np.zeros(1))
        tape.add(TensorInfo("t", "", (), "dog"), np.zeros(1))
        with pytest.raises(InputError, match="twice for input 'cat'"):
            tape.add(TensorInfo("t", "", (), "cat"), np.zeros(1))


def test_what_has_no_values_cannot_be_read() -> None:
    tape = filled(1 << 20)
    with pytest.raises(InputError, match="then was taken"):
        tape.open(tape.rows()[-1])


def test_a_tape_is_a_source_like_any_other() -> None:
    result = diff_sources(filled(1 << 20), filled(0))
    assert {t.name: t.metrics.max_abs if t.metrics else None for t in result.tensors}["half"] == 0
    recording = Recording(filled(0))
    assert recording["half"].dtype == np.float16
    recording.close()
