"""``--device cuda`` where there is no GPU: exit 2, the reason, and what to type instead; nothing is left behind."""

from __future__ import annotations

import pytest

from probe.engine.device.cuda.guard import find_gpu
from tests.cli.program import probe
from tests.debug import faulty

COMMANDS = {
    "run": ("run", "m.onnx"), "find": ("find", "m.onnx", "-o", "left.onnx"), "build": ("build", "m.onnx", "-o", "left.probe"),
    "dump": ("dump", "m.onnx", "--runner", "engine", "-o", "left"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_gpu(command, tmp_path):
    found = find_gpu()
    if found:
        pytest.skip(f"there is one: {found.name}")
    faulty.build(tmp_path / "m.onnx")
    done = probe(*COMMANDS[command], "--device", "cuda", cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    said = " ".join(done.stderr.split())
    assert "no CUDA device:" in said and found.reason[:30] in said and "--device cpu" in said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx"]


@pytest.mark.parametrize(
    "typed", [("--device", "cuda"), ("--keep", "y"), ("--precision", "fp16")], ids=lambda typed: typed[0]
)
def test_dump_ignores_nothing_of_the_engine(typed, tmp_path):
    """A golden of ONNX Runtime would be taken for what the GPU computes."""
    faulty.build(tmp_path / "m.onnx")
    done = probe("dump", "m.onnx", "-o", "left", *typed, cwd=tmp_path)
    assert done.returncode == 2 and f"{typed[0]} is of the engine" in done.stderr and "--runner engine" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.onnx"]
