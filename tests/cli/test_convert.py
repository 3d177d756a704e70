"""``probe convert`` as typed: exit codes, files, the page, the JSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import probe
from probe.results.convert_result import ConvertResult
from tests.cli.program import probe as run
from tests.model.builders import model, node, save, value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    nodes = [node("Mul", ["x", "x"], ["q"], "square"), node("Sqrt", ["q"], ["y"], "root")]
    save(model(nodes, [value("x")], [value("y", (2, 3))]), tmp_path / "m.onnx")
    np.savez(tmp_path / "in.npz", x=np.array([[1, 300, 3], [0.1, 2, -4]], np.float32))
    (tmp_path / "keep.txt").write_text("q\n")
    return tmp_path


def test_written_proved_and_saved(folder: Path) -> None:
    done = run(
        "convert",
        "m.onnx",
        "-o",
        "out.onnx",
        "--keep",
        "@keep.txt",
        "--inputs",
        "in.npz",
        "--json",
        "r.json",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASSED  out.onnx (fp16) is written and proved")
    assert "1 tensor, proved in this form" in done.stdout
    assert "2 nodes, proved in this form" in done.stdout
    assert "says nothing about low precision" in " ".join(done.stdout.split())
    result = probe.load_result(folder / "r.json")
    assert isinstance(result, ConvertResult)
    assert result.kept_tensors == ("q",)
    onnx.checker.check_model(str(folder / "out.onnx"), full_check=True)


def test_the_typed_runner_shows_what_the_export_does(folder: Path) -> None:
    done = run("convert", "m.onnx", "-o", "low.onnx", "--inputs", "in.npz", cwd=folder)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED  low.onnx (fp16) is written and fails: y: ")
    assert (folder / "low.onnx").is_file()
    assert run("dump", "low.onnx", "-o", "typed", "--runner", "typed", "--inputs", "in.npz", cwd=folder).returncode == 0
    with probe.open_recording(folder / "typed") as recorded:
        assert np.isinf(recorded["q"][0, 1])
        assert recorded.info("q").precision == "fp16"


def test_without_proof(folder: Path) -> None:
    done = run("convert", "m.onnx", "-o", "low.onnx", "--no-proof", cwd=folder)
    assert done.returncode == 0
    assert done.stdout.startswith("NOT JUDGED  low.onnx (fp16) is written: nothing was proved")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "out.onnx", "--keep", "nope"), "nothing to keep matches 'nope'"),
        (("-o", "m.onnx", "--overwrite"), "it is the model itself"),
        (("-o", "out.onnx", "--precision", "fp32"), "fp32"),
        (("-o", "out.onnx", "--keep", "("), "--keep '(' is not a regular expression"),
        ((), "--output"),
    ],
)
def test_mistakes_exit_with_2(folder: Path, words: tuple[str, ...], said: str) -> None:
    done = run("convert", "m.onnx", *words, cwd=folder)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (folder / "out.onnx").exists()
