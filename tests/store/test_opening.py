"""Which reader and writer a path gets, and what is refused before anything is read, written or removed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.dump import Dump
from probe.store.opening import Sink, is_recording, open_sink, open_source
from probe.store.writer import DumpWriter
from tests.store.arrays import contents, leftovers, record
from tests.store.polygraphy_files import save_outputs


def write(path: Path, value: float = 1, **options: Any) -> Path:
    with open_sink(path, RunHeader(), **options) as sink:
        sink.add(TensorInfo("x", "", (), role="output"), np.full(3, value))
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("d", "dump"), ("x.npz", "npz"), ("x.safetensors", "safetensors"), ("x.npz.d", "dump")]
)
def test_what_a_sink_writes_its_source_reads(name: str, kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    assert is_recording(path)
    source = open_source(str(path))
    assert source.kind == kind and source.path == str(path)
    (row,) = source.rows()
    assert source.open(row).window(0, 3).tolist() == [1, 1, 1]
    source.close()


def test_formats_of_others_are_known_by_what_they_are(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(1))
    save_outputs(tmp_path / "o.json", {"ort": [{"y": [1.0]}]})
    for path, kind in ((tmp_path, "npy folder"), (tmp_path / "x.npy", "npy"), (tmp_path / "o.json", "polygraphy")):
        assert is_recording(path) and open_source(path).kind == kind


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "does not exist"), ("missing.npz", "does not exist"), ("missing/x.npz", "does not exist"), ("file/x.npz", "does not exist"),
        ("file", "no recording probe can read"), ("model.onnx", "no recording probe can read"), ("x.json.gz", "no recording probe can read"),
        ("empty", "neither manifest.jsonl nor any .npy"), ("#", "does not exist"), ("#x", "does not exist"), (".#x", "does not exist"),
        ("x" * 300, "does not exist"), ("x" * 300 + ".npz", "does not exist"), ("a\0b.npz", "does not exist"), ("dir.npz", "neither"),
        ("link.npz", "does not exist"),
    ],
)  # fmt: skip
def test_paths_that_hold_no_recording(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file", "model.onnx", "x.json.gz"):
        Path(name).write_bytes(b"\x1f\x8bsomething")
    for name in ("empty", "dir.npz"):
        Path(name).mkdir()
    Path("link.npz").symlink_to("nowhere")
    with pytest.raises(InputError, match=message) as caught:
        open_source(path)
    assert caught.value.hint
    is_recording(path)  # an answer, never an exception


def test_a_folder_with_a_manifest_is_a_dump_even_if_arrays_lie_in_it(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(1))
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="not a whole recording"):
        open_source(tmp_path)


# --- where a recording may go

NAMES = ["d", "x.npz", "x.safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_recording_is_kept_unless_overwriting_is_asked_for(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, 1)
    with pytest.raises(InputError, match="exists") as caught:
        write(path, 2)
    assert "--overwrite" in caught.value.hint
    assert open_source(path).open(open_source(path).rows()[0]).window(0, 1)[0] == 1
    write(path, 2, overwrite=True)
    assert open_source(path).open(open_source(path).rows()[0]).window(0, 1)[0] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def crash_while_recording(sink: Sink) -> None:
    with sink:
        sink.add(TensorInfo("x", "", ()), np.full(3, 2))
        raise RuntimeError("the engine crashed")


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_overwrite_leaves_the_old_recording(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, 1)
    sink = open_sink(path, RunHeader(), overwrite=True)
    with pytest.raises(RuntimeError, match="engine"):
        crash_while_recording(sink)
    assert open_source(path).open(open_source(path).rows()[0]).window(0, 1)[0] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_missing_parents_are_made_and_removed_again_when_nothing_is_recorded(name: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_sink(tmp_path / "new" / "deep" / name, RunHeader()):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "new" / "deep" / name)
    assert [entry.name for entry in (tmp_path / "new" / "deep").iterdir()] == [name]


def photos(folder: Path) -> None:
    (folder / "cat.jpg").write_bytes(b"precious")


def photos_beside_a_dump(folder: Path) -> None:
    folder.rmdir()
    record(folder, {"x": np.zeros(3)})
    photos(folder)


def another_manifest(folder: Path) -> None:
    (folder / "manifest.jsonl").write_text('{"audio": "a.wav"}\n')
    photos(folder)


def a_subfolder(folder: Path) -> None:
    folder.rmdir()
    record(folder, {"x": np.zeros(3)})
    (folder / "data-001.bin.d").mkdir()


@pytest.mark.parametrize("make", [photos, photos_beside_a_dump, another_manifest, a_subfolder])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_only_a_dump_is_never_removed(make: Any, overwrite: bool, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    make(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="exists" if not overwrite else "will not be overwritten"):
        write(folder, overwrite=overwrite)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert leftovers(tmp_path) == []


def test_what_became_of_the_folder_while_recording_counts_too(tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"x": np.zeros(3)})
    writer = DumpWriter(path, RunHeader(), overwrite=True)
    with pytest.raises(InputError, match=r"holds more than a recording \(cat\.jpg\)"), writer:
        photos(path)
    assert (path / "cat.jpg").read_bytes() == b"precious" and leftovers(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_empty_folder_may_be_recorded_to(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    write(tmp_path / "d", overwrite=overwrite)
    assert len(Dump(tmp_path / "d").rows()) == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("d", lambda path: path.write_text("a file")),
        ("d", lambda path: path.symlink_to("elsewhere")),
        ("d", os.mkfifo),
        ("x.npz", lambda path: path.mkdir()),
        ("x.safetensors", os.mkfifo),
    ],
)
def test_what_stands_in_the_way_is_left_alone(name: str, make: Any, overwrite: bool, tmp_path: Path) -> None:
    make(tmp_path / name)
    before = os.lstat(tmp_path / name)
    with pytest.raises(InputError, match="exists and is not a"):
        write(tmp_path / name, overwrite=overwrite)
    assert os.lstat(tmp_path / name).st_ino == before.st_ino and leftovers(tmp_path) == []


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_statistics_need_a_dump(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hold no statistics"):
        open_sink(tmp_path / f"x{suffix}", RunHeader(), stats_only=True)
    assert Dump(write(tmp_path / "d", stats_only=True)).rows()[0].status == "stats_only"


@pytest.mark.parametrize(
    "name", [".", "..", "/", "", "file/d", "file/deep/d", "x" * 300, "x" * 300 + ".npz", "file/x.npz"]
)
def test_places_that_cannot_be_written_to(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    for overwrite in (False, True):
        with pytest.raises(InputError):
            write(Path(name), overwrite=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["x" * 230, "é" * 110, "🧨" * 60, "name with\nnewline", "--overwrite", "*", ".hidden"])
def test_odd_and_long_names_are_fine(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    assert contents(tmp_path / name)["x", ""].tolist() == [1, 1, 1]
    write(tmp_path / name, overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
