"""Inputs that hold NaN or Inf: every command that computes from them says so, on its page and in its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.program import probe
from tests.culprits.networks import WIDTH, norms

COMMANDS = {
    "bench": ("--iterations", "2"),
    "check": (),
    "run": (),
    "run fp32": ("--precision", "fp32"),
    "convert": ("-o", "mixed.onnx"),
    "dump": ("-o", "golden"),
    "tactics record": ("-o", "some.tactics"),
    "tactics table": ("--no-times", "--no-flips"),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("not-finite")
    norms(folder / "model.onnx", (1.0,))
    x = np.zeros((4, WIDTH), np.float32)
    x[3, 2] = np.nan
    np.savez(folder / "in.npz", x=x)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_nan_in_an_input_is_said(command: str, work: Path) -> None:
    name, *sub = command.split()
    words = (name, *(word for word in sub if word != "fp32"), "model.onnx", "--inputs", "in.npz", *COMMANDS[command])
    saved = () if name == "dump" else ("--json", "result.json")
    done = probe(*words, *saved, cwd=work)
    said = "input 'x' holds 1 NaN of"
    assert said in " ".join(done.stdout.split()), done.stdout + done.stderr
    if saved:
        result = json.loads((work / "result.json").read_text())
        assert any(note.startswith(said) for note in result.get("run", result)["notes"])


def test_made_up_values_that_overflow_their_type_are_said(work: Path) -> None:
    done = probe("check", "model.onnx", "--val-range", "[0,1e39]", cwd=work)
    assert "input 'x' holds" in done.stdout and "unless it is a mask" not in done.stdout


def test_a_golden_without_numbers_needs_no_acceptance(work: Path) -> None:
    """Saying what is good enough, as an unjudged output otherwise asks for, would change nothing."""
    with np.load(work / "in.npz") as file:
        np.savez(work / "blank.npz", x=file["x"] * np.float32(np.nan))
    done = probe("convert", "model.onnx", "-o", "blank.onnx", "--inputs", "blank.npz", cwd=work)
    assert done.returncode == 1 and "Say what is good enough" not in done.stdout
    assert "probe dump model.onnx -o golden --inputs blank.npz" in " ".join(done.stdout.split())
    refused = probe("find", "model.onnx", "--inputs", "blank.npz", cwd=work)
    assert refused.returncode == 2 and "golden is NaN or Inf in every element" in refused.stderr
