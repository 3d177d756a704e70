"""``probe check`` as a user types it: exit codes, page, JSON, options."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from probe.results import json as saved
from probe.results.check import CheckResult
from tests.cli.program import probe
from tests.debug import faulty
from tests.debug.check import graphs as g
from tests.model.builders import save


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, ordinary inputs, inputs that overflow, and a golden of those."""
    folder = tmp_path_factory.mktemp("work")
    faulty.build(folder / "model.onnx")
    save(g.rms_norm(), folder / "norm.onnx")
    loud = g.UNIT.copy()
    loud[1, 17] = 400.0
    np.savez(folder / "calm.npz", x=faulty.feeds()["x"])
    np.savez(folder / "loud.npz", x=loud)
    assert probe("dump", "norm.onnx", "--inputs", "loud.npz", "-o", "golden", cwd=folder).returncode == 0
    return folder


def test_nothing_to_say_is_exit_0(work: Path) -> None:
    done = probe("check", "model.onnx", "--inputs", "calm.npz", cwd=work)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("CLEAN  fp16: nothing seen that breaks results")


def test_an_error_is_exit_1_and_says_what_and_what_then(work: Path, tmp_path: Path) -> None:
    done = probe("check", "norm.onnx", "--inputs", "loud.npz", "--json", tmp_path / "check.json", cwd=work)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("ERRORS  fp16: 1 finding breaks results")
    for words in (
        "breaks",
        "square overflows: golden reaches",
        "margin 0.409",
        "x / Inf = 0: finite",
        "before the square",
        "only a run tells",
    ):
        assert words in " ".join(done.stdout.split()), words
    assert not [line for line in done.stdout.splitlines() if len(line) > 80 and not line.startswith("    ")]
    tree = json.loads((tmp_path / "check.json").read_text(), parse_constant=pytest.fail)
    jsonschema.validate(tree, saved.schema_of(CheckResult))
    result = saved.load(tmp_path / "check.json")
    assert isinstance(result, CheckResult) and result.command.startswith("probe check norm.onnx --inputs loud.npz")
    again = probe("inspect", tmp_path / "check.json", cwd=work)
    assert again.returncode == 0 and again.stdout.splitlines()[:1] == done.stdout.splitlines()[:1]


def test_the_commands_on_the_page_work(work: Path) -> None:
    """Copied from the page and run: the run fails as predicted, and passes with what the page keeps."""
    text = probe("check", "norm.onnx", "--inputs", "loud.npz", cwd=work).stdout.replace(" \\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("probe run")]
    assert len(lines) == 2
    codes = [probe(*shlex.split(line)[1:], "--fusion", "none", cwd=work).returncode for line in lines]
    assert codes == [1, 0]


def test_a_recorded_golden_brings_its_inputs(work: Path) -> None:
    done = probe("check", "norm.onnx", "--golden", "golden", cwd=work)
    assert done.returncode == 1, done.stderr
    assert "golden      golden" in done.stdout and "made up" not in done.stdout


def test_other_precisions(work: Path) -> None:
    for precision, code in (("bf16", 0), ("tf32", 0), ("int8", 0)):
        done = probe("check", "norm.onnx", "--precision", precision, "--inputs", "loud.npz", cwd=work)
        assert (done.returncode, done.stderr) == (code, ""), precision
    assert "the graph alone was read" in done.stdout


def test_without_inputs_they_are_made_up_and_said_to_be(work: Path) -> None:
    done = probe("check", "norm.onnx", "--seed", "3", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "seed 3" in done.stdout and "hide" in done.stdout and "FILE.npz" in done.stdout


def test_quiet_verbose_and_select(work: Path) -> None:
    quiet = probe("check", "norm.onnx", "--inputs", "loud.npz", "-q", cwd=work).stdout
    assert quiet.startswith("ERRORS") and len(quiet.splitlines()) <= 2
    assert "square overflows" in probe("check", "norm.onnx", "--inputs", "loud.npz", "-v", cwd=work).stdout
    other = probe("check", "norm.onnx", "--inputs", "loud.npz", "--select", "^root$", cwd=work)
    assert other.returncode == 0 and "overflows" not in other.stdout


BAD = [
    (("check", "nothing.onnx"), "nothing.onnx"),
    (("check", "norm.onnx", "--golden", "nowhere"), "there is no golden 'nowhere'"),
    (
        ("check", "norm.onnx", "--golden", "calm.npz", "--inputs", "loud.npz"),
        "no tensor that norm.onnx makes is in calm.npz",
    ),
    (("check", "norm.onnx", "--select", "("), "not a regular expression"),
    (("check", "norm.onnx", "--select", "rooot"), "no tensor or node matches 'rooot'"),
    (("check", "norm.onnx", "--precision", "fp8"), "fp8"),
    (("check", "norm.onnx", "--memory-limit", "lots"), "not a size"),
    (("check", "norm.onnx", "--json", "no/such/check.json"), "its folder does not exist"),
]


@pytest.mark.parametrize(("words", "said"), BAD)
def test_what_cannot_be_used_is_exit_2(words: tuple[str, ...], said: str, work: Path) -> None:
    done = probe(*words, cwd=work)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
