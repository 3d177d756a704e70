"""Parsing of the options several commands share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.cli.options import parse_bytes, parse_select
from probe.cli.progress import Progress, watched
from probe.errors import InputError
from tests.cli.program import probe as run_probe
from tests.debug import faulty


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2_000_000_000), ("2GB", 2_000_000_000), ("2GiB", 2 << 30), ("512m", 512_000_000), ("1.5k", 1500), ("800000", 800_000), (" 1 Ki ", 1024),
     ("1T", 10**12)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "0", "1X", "1.2.3G", "1iB", "inf", "nan", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="not a size"):
        parse_bytes(text)


def test_patterns_are_searched_for() -> None:
    pattern = parse_select("conv[12]")
    assert pattern is not None
    assert pattern.search("net/conv1/out") and not pattern.search("conv3")
    assert parse_select(None) is None


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5), st.text())
def test_listed_names_match_exactly(tmp_path_factory: pytest.TempPathFactory, names: list[str], other: str) -> None:
    file = tmp_path_factory.mktemp("names") / "names.json"
    file.write_text(json.dumps(names), encoding="utf-8")
    pattern = parse_select(f"@{file}")
    assert pattern is not None
    assert all(pattern.search(name) for name in names)
    assert (pattern.search(other) is not None) == (other in names)


def test_names_a_line(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("a.b\n\nconv(1)\n a b \n")
    pattern = parse_select(f"@{file}")
    assert pattern is not None
    assert [n for n in ("a.b", "axb", "conv(1)", " a b ", "a b", "xa.b") if pattern.search(n)] == [
        "a.b",
        "conv(1)",
        " a b ",
    ]


@pytest.mark.parametrize("content", ["", "\n\n", "[1, 2]", "[", b"\xff\xfe"])
def test_bad_name_files(content: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "names"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError):
        parse_select(f"@{file}")


def test_no_name_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        parse_select(f"@{tmp_path / 'none'}")


class Source:
    path = "x"

    def open(self, row: object) -> str:
        return f"opened {row}"


def test_progress_is_silent_in_a_pipe_and_drawn_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    with Progress("comparing", 2) as progress:
        source = watched(Source(), "open", progress)
        assert (source.path, source.open(1)) == ("x", "opened 1")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("comparing", 2) as progress:
        watched(Source(), "open", progress).open(1)
        progress.step("a\x1b[2Jb")
    drawn = capsys.readouterr().err
    assert drawn.startswith("\r\x1b[Kcomparing 1/2") and drawn.endswith("\r\x1b[K")
    with Progress("building") as progress:
        progress.tell("kernels", "3 of 4")
    assert "building 1 [###############     ] kernels 3 of 4" in capsys.readouterr().err
    with Progress("running") as progress:
        progress.tell("golden", "")
    assert "running 1 golden\r" in capsys.readouterr().err, "a phase without a name has nothing behind it"
    for columns in (40, 20, 5):
        monkeypatch.setenv("COLUMNS", str(columns))
        with Progress("recording") as progress:
            progress.tell("kernels 3 of 4", "scope/" * 30)
        line = capsys.readouterr().err.removeprefix("\r\x1b[K").partition("\r")[0]
        assert line.startswith("reco") and len(line) < columns, "what wraps is not cleared"
    with Progress("comparing", 2, quiet=True) as progress:
        progress.step()
    assert capsys.readouterr().err == ""


TWICE = [
    ("run", "m.onnx", "--json", "m.onnx"), ("run", "m.onnx", "--json=./m.onnx"), ("run", "m.onnx", "--inputs", "in.npz", "--json", "in.npz"),
    ("run", "m.onnx", "--table", "t.csv", "--json", "t.csv"), ("bench", "m.onnx", "--export-times", "t.json", "--json", "t.json"),
    ("find", "m.onnx", "-o", "x.onnx", "--keep-list", "x.onnx"), ("diff", "in.npz", "in.npz", "--json", "in.npz"),
    ("diff", "r.json", "r.json", "--json", "r.json"), ("report", "r.md", "-o", "r.md"),
]  # fmt: skip


@pytest.mark.parametrize("words", TWICE, ids=" ".join)
def test_nothing_is_written_over_what_the_command_reads(words: tuple[str, ...], tmp_path: Path) -> None:
    """``probe run m.onnx --json m.onnx`` left a model of JSON behind."""
    faulty.build(tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 4), np.float32))
    for name in ("r.json", "r.md"):
        (tmp_path / name).write_text('{"schema": "probe.run/1"}')
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    done = run_probe(*words, cwd=tmp_path)
    assert done.returncode == 2 and ("is named twice" in done.stderr or "no text" in done.stderr), done.stderr
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


def test_a_result_is_not_written_over_what_is_no_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", y=np.zeros(3, np.float32))
    np.savez(tmp_path / "other.npz", y=np.zeros(3, np.float32))
    (tmp_path / "again.json").write_text("ü" * 5000)
    refused = run_probe("diff", "data.npz", "data.npz", "--json", "other.npz", cwd=tmp_path)
    assert refused.returncode == 2 and "'other.npz' is there and is no text" in refused.stderr
    for _ in range(2):  # its own file is replaced
        assert run_probe("diff", "data.npz", "data.npz", "--json", "again.json", cwd=tmp_path).returncode == 0
