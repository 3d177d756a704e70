"""``probe bench`` as a user types it: exit codes, page, JSON, files for other scripts, options."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest

from probe.results import json as saved
from probe.results.bench import BenchResult
from tests.cli.program import probe
from tests.debug import faulty

QUICK = ("--iterations", "5", "--warmup", "0")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and inputs of batch 4."""
    folder = tmp_path_factory.mktemp("work")
    faulty.build(folder / "model.onnx")
    np.savez(folder / "x.npz", x=faulty.feeds()["x"])
    return folder


def test_measured_is_exit_0_and_everything_is_written(work: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("b.json", "b.csv", "profile.json", "layers.json", "times.json")}
    done = probe(
        "bench", "model.onnx", "--inputs", "x.npz", *QUICK, "--json", files["b.json"], "--table", files["b.csv"], "--export-profile",
        files["profile.json"], "--export-layers", files["layers.json"], "--export-times", files["times.json"], cwd=work,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(("STABLE  fp32: median ", "UNSTABLE  fp32: median "))
    for words in (
        "inferences of batch 4 a second",
        "latency",
        "n/a: the host computes itself",
        "slowest",
        "GFLOP/s",
        "one block of",
        "of 5 runs",
    ):
        assert words in " ".join(done.stdout.split()), words
    assert not [line for line in done.stdout.splitlines() if len(line) > 80 and not line.startswith("    ")]
    tree = json.loads(files["b.json"].read_text(), parse_constant=pytest.fail)
    jsonschema.validate(tree, saved.schema_of(BenchResult))
    result = saved.load(files["b.json"])
    assert isinstance(result, BenchResult) and result.inferences == 5 and result.load_seconds > 0
    assert result.command.startswith("probe bench model.onnx --inputs x.npz")
    assert pl.read_csv(files["b.csv"]).height == len(result.layers)
    assert len(json.loads(files["profile.json"].read_text())) == 1 + len(result.layers)
    assert len(json.loads(files["layers.json"].read_text())["Layers"]) == len(result.layers)
    assert len(json.loads(files["times.json"].read_text())) == 5
    again = probe("inspect", files["b.json"], cwd=work)
    assert again.returncode == 0 and again.stdout.splitlines()[:1] == done.stdout.splitlines()[:1]
    for name in ("b.html", "b.md"):
        assert probe("report", files["b.json"], "-o", tmp_path / name, cwd=work).returncode == 0
    assert "roofline-picture" in (tmp_path / "b.html").read_text()


def test_an_emulated_precision_says_so_at_once(work: Path) -> None:
    done = probe("bench", "model.onnx", "--precision", "fp16", *QUICK, cwd=work)
    assert (done.returncode, done.stderr) == (0, "")
    assert "(EMULATED, see below)" in " ".join(done.stdout.split()[:25])
    assert "say nothing of how fast a GPU" in " ".join(done.stdout.split())
    assert "inputs are made up" not in done.stdout, "nothing is judged, so nothing can be hidden"


def test_quiet_streams_and_a_batch_of_its_own(work: Path) -> None:
    done = probe(
        "bench", "model.onnx", "--input-shapes", "x:[7,32]", "--streams", "2", *QUICK, "--no-layers", "-q", cwd=work
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) <= 3
    assert "batch 7 a second on 2 streams" in " ".join(done.stdout.split())


BAD = [
    (("bench", "nothing.onnx"), "nothing.onnx"),
    (("bench", "model.onnx", "--iterations", "1"), "never comes from a single run"),
    (("bench", "model.onnx", "--iterations", "0"), "never comes from a single run"),
    (("bench", "model.onnx", "--duration", "-1"), "--duration"),
    (("bench", "model.onnx", "--streams", "0"), "--streams"),
    (("bench", "model.onnx", "--precision", "int8"), "int8"),
    (("bench", "model.onnx", "--keep", "nowhere", *QUICK), "nothing to keep matches"),
    (("bench", "model.onnx", "--keep", "("), "not a regular expression"),
    (("bench", "model.onnx", "--tactics", "x.npz"), "cannot read the tactic file"),
    (("bench", "model.onnx", "--json", "no/such/b.json"), "its folder does not exist"),
    (("bench", "model.onnx", "--export-times", "no/such/t.json"), "its folder does not exist"),
    (("bench", "model.onnx", "--table", "b.txt"), "as .parquet or .csv"),
    (("bench", "model.onnx", "--no-layers", "--export-profile", "p.json"), "leave --no-layers out"),
]


@pytest.mark.parametrize(("words", "said"), BAD)
def test_what_cannot_be_used_is_exit_2(words: tuple[str, ...], said: str, work: Path) -> None:
    done = probe(*words, cwd=work)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert done.stdout == "" and not (work / "p.json").exists()
