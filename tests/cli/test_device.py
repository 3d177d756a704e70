"""``--device cuda`` where there is no GPU: exit 2, the reason, and what to type instead; nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from probe import api
from probe.cli.app import app
from probe.engine.device.cuda.guard import find_gpu
from probe.errors import InputError
from tests.cli.program import probe
from tests.debug import faulty

COMMANDS = {
    "run": ("run", "m.onnx"), "find": ("find", "m.onnx", "-o", "left.onnx"), "build": ("build", "m.onnx", "-o", "left.probe"),
    "dump": ("dump", "m.onnx", "--runner", "engine", "-o", "left"), "bench": ("bench", "m.onnx", "--iterations", "2"),
    "run builds": ("run", "m.onnx", "--builds", "2"), "tactics record": ("tactics", "record", "m.onnx", "-o", "left.tactics"),
    "tactics table": ("tactics", "table", "m.onnx"),
}  # fmt: skip
OF_A_FILE = {"tactics replay", "tactics bisect"}  # the device is the tactic file's, or must be


def _with_device(group: Any, path: str = "") -> Iterator[str]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _with_device(one, f"{path}{name} ")
        elif any("--device" in param.opts for param in one.params):
            yield path + name


def test_every_command_that_takes_a_device_is_among_them() -> None:
    assert set(_with_device(typer.main.get_command(app))) == OF_A_FILE | (set(COMMANDS) - {"run builds"})


def test_no_golden_is_made_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    if find_gpu():
        pytest.skip("there is one")
    faulty.build(tmp_path / "m.onnx")
    phases: list[str] = []
    with pytest.raises(InputError, match="no CUDA device"):
        api.run(tmp_path / "m.onnx", device="cuda", progress=lambda phase, _name: phases.append(phase))
    assert phases == []


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
