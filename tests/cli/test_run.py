"""``probe run`` as a user types it: exit codes, page, JSON, table, options."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest

from probe.results import json as saved
from probe.results.run import RunResult
from tests.cli.program import probe
from tests.debug import faulty


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, ordinary inputs, inputs that overflow, and a golden."""
    folder = tmp_path_factory.mktemp("work")
    faulty.build(folder / "model.onnx")
    np.savez(folder / "calm.npz", **faulty.feeds())
    np.savez(folder / "loud.npz", x=faulty.feeds(1)["x"] * np.float32(2e4))
    assert probe("dump", "model.onnx", "--inputs", "calm.npz", "-o", "golden", cwd=folder).returncode == 0
    return folder


def test_a_pass(work: Path, tmp_path: Path) -> None:
    done = probe("run", "model.onnx", "--inputs", "calm.npz", "--json", tmp_path / "run.json", "--observe", cwd=work)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASSED  fp16: 2 outputs within the acceptance")
    for words in (
        "cpu: FP16 storage, FP32 accumulation, emulated",
        "without taps the same bits",
        "noise floor",
        "layers",
    ):
        assert words in done.stdout
    result = saved.load(tmp_path / "run.json")
    assert isinstance(result, RunResult) and result.verdict == "passed"
    assert result.command.startswith("probe run model.onnx --inputs calm.npz")
    tree = json.loads((tmp_path / "run.json").read_text(), parse_constant=pytest.fail)
    jsonschema.validate(tree, saved.schema_of(RunResult))
    assert set(tree["outputs"]) == {"scores", "boxes"} and tree["outputs"]["boxes"]["verdict"] == "passed"
    again = probe("inspect", tmp_path / "run.json", cwd=work)
    assert again.returncode == 0 and again.stdout.splitlines()[:1] == done.stdout.splitlines()[:1]


def test_a_failure_says_why_and_what_to_do(work: Path) -> None:
    done = probe("run", "model.onnx", "--inputs", "loud.npz", "--passes", "none", "--fusion", "none", cwd=work)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("FAILED  fp16: ")
    for words in ("why", "fc1/MatMul_out overflows", "what to do", "--precision bf16", "first"):
        assert words in done.stdout
    assert not [line for line in done.stdout.splitlines() if len(line) > 80 and not line.startswith("    ")]


def test_the_cure_on_the_page_works(work: Path) -> None:
    """Copied from the page and run, as a user would."""
    import shlex

    done = probe("run", "model.onnx", "--inputs", "loud.npz", "--passes", "none", "--fusion", "none", cwd=work)
    text = done.stdout.replace(" \\\n", " ")
    assert "tried, it passes" in text
    (line,) = [line for line in text.splitlines() if "--keep" in line and line.strip().startswith("probe")]
    cured = probe(*shlex.split(line)[1:], cwd=work)
    assert cured.returncode == 0, cured.stdout


def test_quiet_and_verbose(work: Path) -> None:
    quiet = probe("run", "model.onnx", "--inputs", "calm.npz", "-q", cwd=work).stdout
    assert quiet.startswith("PASSED") and len(quiet.splitlines()) <= 2
    verbose = probe("run", "model.onnx", "--inputs", "calm.npz", "-v", "--fusion", "none", cwd=work).stdout
    assert all(name in verbose for name in ("fc1/MatMul", "fc5/Add", "softmax"))


def test_a_recorded_golden_brings_its_inputs(work: Path) -> None:
    done = probe("run", "model.onnx", "--golden", "golden", "--precision", "bf16", cwd=work)
    assert done.returncode == 0, done.stdout
    assert "golden      golden" in done.stdout and "made up" not in done.stdout


def test_without_inputs_they_are_made_up_and_said_to_be(work: Path) -> None:
    done = probe("run", "model.onnx", "--seed", "3", "--input-shapes", "x:[4,32]", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "hide" in done.stdout and "seed 3" in done.stdout


def test_table_and_layers(work: Path, tmp_path: Path) -> None:
    done = probe(
        "run", "model.onnx", "--inputs", "calm.npz", "--table", tmp_path / "layers.parquet", "--layers", "fc3", "--fusion", "none", cwd=work
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    frame = pl.read_parquet(tmp_path / "layers.parquet")
    measured = frame.filter(pl.col("local").is_not_null())["name"].to_list()
    assert measured == ["fc3/MatMul", "fc3/Add"]
    assert "fc3/MatMul" in done.stdout and "fc1/MatMul" not in done.stdout


BAD = [
    (("run", "nothing.onnx"), "nothing.onnx"),
    (("run", "model.onnx", "--golden", "nowhere"), "there is no golden 'nowhere'"),
    (("run", "model.onnx", "--keep", "("), "--keep '(' is not a regular expression"),
    (("run", "model.onnx", "--layers", "zzz"), "no layer matches 'zzz'"),
    (("run", "model.onnx", "--keep", "zzz"), "nothing to keep matches 'zzz'"),
    (("run", "model.onnx", "--keep", "@no.txt"), "cannot read no.txt"),
    (("run", "model.onnx", "--accept", "rangerel<1"), "unknown metric 'rangerel'"),
    (("run", "model.onnx", "--accept", "range_rel<=1 @ boxen"), "names no output"),
    (("run", "model.onnx", "--table", "t.xlsx"), ".parquet or .csv"),
    (("run", "model.onnx", "--precision", "fp8"), "fp8"),
    (("run", "model.onnx", "--memory-limit", "lots"), "not a size"),
    (("run", "model.onnx", "--json", "no/such/run.json"), "its folder does not exist"),
    (("run", "golden"), "golden"),
]


@pytest.mark.parametrize(("words", "said"), BAD)
def test_what_cannot_be_used_is_exit_2(words: tuple[str, ...], said: str, work: Path) -> None:
    done = probe(*words, cwd=work)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
