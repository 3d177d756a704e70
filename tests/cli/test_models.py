"""The commands on real models: record, look, compare with stored outputs; and the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from probe.results import json as saved
from tests.cli.program import environment, probe

SAME = "range_rel<=1e-6"  # the last bit of a sum is the processor's
SMALL = ("mnist__main", "occ_image_classifier32__main", "magika_fast_v2_1__main", "dtln_1__main")


@pytest.mark.parametrize("data", SMALL)
def test_record_and_match_the_stored_outputs(data: str, models: Path, tmp_path: Path) -> None:
    model, stored = models / "models" / f"{data.partition('__')[0]}.onnx", models / "data" / f"{data}.npz"
    made = probe("dump", model, "--inputs", stored, "-o", "golden", "--json", "dump.json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("RECORDED  golden: ")
    assert "hide failures" not in made.stdout
    done = probe("diff", "golden", stored, "--accept", SAME, "--json", "diff.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    shown = probe("inspect", "golden", "--json", "inspect.json", cwd=tmp_path)
    assert shown.returncode == 0 and shown.stderr == ""
    described = probe("inspect", model, "--json", "model.json", cwd=tmp_path)
    assert described.returncode == 0
    for name in ("dump", "diff", "inspect", "model"):
        tree = json.loads((tmp_path / f"{name}.json").read_text(), parse_constant=pytest.fail)
        jsonschema.validate(tree, saved.schema_of(saved.class_of(tree["schema"])))
        again = probe("inspect", f"{name}.json", cwd=tmp_path)
        assert again.returncode == 0 and again.stdout
    for text in (made.stdout, done.stdout, shown.stdout, described.stdout):
        assert not [line for line in text.splitlines() if len(line) > 80 and not line.startswith("    ")]


def test_the_record_says_that_inputs_were_made_up(models: Path, tmp_path: Path) -> None:
    model = models / "models" / "mnist.onnx"
    for target in ("golden", "golden.npz", "golden.safetensors"):
        made = probe("dump", model, "-o", target, "--seed", "3", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert "hide failures" in made.stdout
    same = probe("diff", "golden", "golden.npz", cwd=tmp_path)
    assert same.returncode == 0, same.stdout
    assert "random" in probe("diff", "golden", "golden", cwd=tmp_path).stdout


def test_selecting_and_statistics_only(models: Path, tmp_path: Path) -> None:
    model = models / "models" / "mnist.onnx"
    made = probe("dump", model, "-o", "stats", "--stats-only", "--json", "stats.json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads((tmp_path / "stats.json").read_text())["statuses"].keys() == {"stats_only"}
    output = json.loads(probe("inspect", model, "--json", "-", cwd=tmp_path).stdout)["model"]["outputs"][0]["name"]
    picked = probe("dump", model, "-o", "picked", "--layers", f"^{output}$", "--json", "picked.json", cwd=tmp_path)
    assert picked.returncode == 0, picked.stderr
    assert json.loads((tmp_path / "picked.json").read_text())["tensors"] == 2, "the selected tensor and the input"
    none = probe("dump", model, "-o", "none", "--select", "nothing like it", cwd=tmp_path)
    assert none.returncode == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--inputs", "nothing.npz"), "nothing.npz"),
        (("--input-shapes", "Input3:1,1"), "--input-shapes"),
        (("--input-shapes", "nope:[1]"), "nope"),
        (("--val-range", "x:[1,0]"), "--val-range"),
        (("--runner", "tensorflow"), "tensorflow"),
        (("--runner", "python:no_such_module.fn"), "no_such_module"),
        (("--providers", "tpu"), "tpu"),
        (("--custom-op-lib", "nothing.so"), "nothing.so"),
    ],
)
def test_bad_options_leave_nothing(words: tuple[str, ...], said: str, models: Path, tmp_path: Path) -> None:
    done = probe("dump", models / "models" / "mnist.onnx", "-o", "out", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_users_engine_is_recorded_and_compared(models: Path, tmp_path: Path) -> None:
    stored = models / "data" / "mnist__main.npz"
    (tmp_path / "engine.py").write_text(
        "import numpy as np\n"
        f"stored = np.load({str(stored)!r})\n"
        "def infer(feeds):\n"
        "    return {k[4:]: stored[k] * 1.5 for k in stored if k.startswith('out/')}\n"
    )
    model = models / "models" / "mnist.onnx"
    made = probe("dump", model, "--runner", "python:engine.py:infer", "--inputs", stored, "-o", "engine", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    done = probe("diff", "engine", stored, "--precision", "fp16", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED  ") and "range_rel 0.5 > 0.05" in done.stdout


def test_a_model_is_listed_by_node(models: Path, tmp_path: Path) -> None:
    done = probe("inspect", models / "models" / "silero_vad.onnx", "--select", "LSTM", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nodes matching LSTM" in done.stdout and " reads " in done.stdout
    assert "bodies      25 If; largest: If_0 " in done.stdout
    none = probe("inspect", models / "models" / "mnist.onnx", "--select", "nothing", cwd=tmp_path)
    assert none.returncode == 2 and "no node matches" in none.stderr
    values = probe("inspect", models / "models" / "mnist.onnx", "--values", "8", cwd=tmp_path)
    assert values.returncode == 2 and "--values is about the tensors of a recording" in values.stderr


def test_recording_writes_progress_to_a_terminal_only(models: Path, tmp_path: Path) -> None:
    import os
    import pty

    model = models / "models" / "ultraface_slim_320.onnx"
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "probe", "dump", str(model), "-o", "golden"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=terminal, timeout=120, check=False
    )
    os.close(terminal)
    drawn = os.read(main, 1 << 16).decode()
    os.close(main)
    assert done.returncode == 0
    assert "recording 1 " in drawn and drawn.endswith("\r\x1b[K")
    assert b"\x1b" not in done.stdout


def test_the_demo(tmp_path: Path) -> None:
    from probe import demo

    done = probe("demo", "-o", "here", "--json", "demo.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert demo.OVERFLOWING_TENSOR in done.stdout and "\nWhat was planted was found.\n" in done.stdout
    assert saved.load(tmp_path / "demo.json").tensors == (demo.OVERFLOWING_TENSOR,)
    shown = [line.strip() for line in done.stdout.splitlines() if line.startswith("    probe ")]
    assert {chapter.command(Path("here")) for chapter in demo.CHAPTERS} <= set(shown)
