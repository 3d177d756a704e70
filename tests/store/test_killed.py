"""kill -9 while recording, and several writers to one place: a dump is there whole, or it is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.store import target as target_module
from probe.store.dump import Dump
from probe.store.opening import open_sink
from probe.store.writer import DumpWriter
from tests.store.arrays import ROOT, contents, record

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
NOBODY = 999_999_999  # more than any process id


def run(task: str, path: Path, *arguments: object) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.victims", task, str(path), *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments(seed: int, tmp_path: Path) -> None:
    """Each of the kills falls into another part of the duration of a 50 MB recording."""
    report = run("random", tmp_path / "d", 24, seed, "new")
    assert report["killed"] >= 18, report  # those at the end may be too late
    assert report["leftovers"] <= 1  # each recording removed what the one before had left
    assert report["left_at_the_end"] == []
    assert set(report["states"]) - {"absent"} <= set(range(2, 62))


def test_killed_while_overwriting(tmp_path: Path) -> None:
    """The old recording or the new one is there, whole; absent only between two renames, and then the next recording finds it."""
    report = run("random", tmp_path / "d", 16, 2, "overwrite")
    assert report["killed"] >= 12, report
    assert report["states"].count("absent") <= 1
    assert report["left_at_the_end"] == []


@pytest.mark.parametrize("mode", ["new", "overwrite"])
def test_killed_before_and_after_every_step(mode: str, tmp_path: Path) -> None:
    report = run("steps", tmp_path / "d", mode)
    found = {state for states in report.values() for state in states}
    assert found == ({"absent", "2"} if mode == "new" else {"absent", "1", "2"}), report
    assert len(report["write"]) == 12  # three tensors and their padding, before and after
    if mode == "overwrite":  # two renames: before, between (twice), and after
        assert report["rename"] == ["1", "absent", "absent", "2"]


def test_the_old_recording_comes_back_when_its_overwriter_died_between_two_renames(tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"x": np.full(3, 7)})
    path.rename(tmp_path / f".d.old-{NOBODY}-0123abcd")
    with pytest.raises(InputError, match="exists"):
        DumpWriter(path, RunHeader())
    assert contents(path)["x", ""].tolist() == [7, 7, 7]
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def held(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "begun\n"
    return process.stdin


@pytest.mark.parametrize("name", ["d", "x.npz"])
def test_what_the_living_write_is_left_alone_and_the_later_one_is_told(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.store.victims", "hold", str(tmp_path / name)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes) as first:
        go_on = held(first)
        (partial,) = tmp_path.iterdir()
        with open_sink(tmp_path / name, RunHeader()) as sink:
            assert partial.exists()
            sink.add(TensorInfo("mine", "", ()), np.ones(3))
        assert partial.exists()
        go_on.write("\n")
        go_on.close()
        assert first.stderr is not None
        message = first.stderr.read()
        assert first.wait() == 2
    assert f"{name} exists" in message and "--overwrite" in message
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_lock_speaks_for_a_writer_whose_process_id_means_nothing_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers share a folder: each sees no process with the other's id."""
    monkeypatch.setattr(target_module, "_alive", lambda _pid: False)
    with DumpWriter(tmp_path / "d", RunHeader()) as first:
        first.add(TensorInfo("x", "", ()), np.zeros(3))
        with open_sink(tmp_path / "x.npz", RunHeader()):
            DumpWriter(tmp_path / "d", RunHeader())
            open_sink(tmp_path / "x.npz", RunHeader())
            assert len(list(tmp_path.iterdir())) == 2
    assert len(Dump(tmp_path / "d").rows()) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d", "x.npz"]


@pytest.mark.parametrize(
    ("leftover", "kept"),
    [
        (f".d.partial-{NOBODY}-0123abcd", False),
        (f".d.partial-{10**30}-0123abcd", True),  # no process id at all
        (".d.partial-OURS-0123abcd", True),  # xdist's workers must collect equal ids
        (".d.partial-1-0123abcd", True),
        (f".d.partial-{NOBODY}-0123ABCD", True),
        (f".d.partial-{NOBODY}-0123abcd.txt", True),
        (f".d2.partial-{NOBODY}-0123abcd", True),
        (f"d.partial-{NOBODY}-0123abcd", True),
        (f".xd.partial-{NOBODY}-0123abcd", True),
        (".d.partial-note", True),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_only_leftovers_of_the_dead_are_removed(leftover: str, kept: bool, kind: str, tmp_path: Path) -> None:
    entry = tmp_path / leftover.replace("OURS", str(os.getpid()))
    if kind == "folder":
        entry.mkdir()
        (entry / "rows").write_text("rows")
    elif kind == "file":
        entry.write_text("data")
    else:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "cat.jpg").write_text("meow")
        entry.symlink_to(tmp_path / "precious")
    record(tmp_path / "d", {"x": np.zeros(3)})
    assert os.path.lexists(entry) == (kept or kind == "link")  # a link is none of ours
    if kind == "link":
        assert (tmp_path / "precious" / "cat.jpg").exists()


@pytest.mark.parametrize("name", ["d", "x.npz", "x.safetensors"])
def test_of_competing_writers_one_wins_and_the_others_are_told(name: str, tmp_path: Path) -> None:
    for turn in range(5):
        path = tmp_path / str(turn) / name
        codes = run("compete", path, 6, "new")
        assert sorted(codes) == [0, 2, 2, 2, 2, 2]
        assert [entry.name for entry in path.parent.iterdir()] == [name]
        if name == "d":
            assert Dump(path).header.command == str(codes.index(0))
            assert len(contents(path)) == 20


def test_competing_overwriters_leave_one_whole_recording(tmp_path: Path) -> None:
    for turn in range(5):
        path = record(tmp_path / str(turn) / "d", {"x": np.zeros(3)})
        codes = run("compete", path, 6, "overwrite")
        assert set(codes) <= {0, 2} and 0 in codes
        assert codes[int(Dump(path).header.command)] == 0
        assert len(contents(path)) == 20
        assert [entry.name for entry in path.parent.iterdir()] == ["d"]
