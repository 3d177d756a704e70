"""Commands that need no model must not pay for loading one: what is imported, by command, in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("onnx", "onnx_ir", "onnxruntime", "polars", "google.protobuf", "sympy", "scipy", "torch")

_REPORT = (
    "import atexit, json, sys\n"
    "atexit.register(lambda: print('LOADED' + json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
)


def loaded(code: str, folder: Path) -> set[str]:
    """Modules loaded when ``code`` ends, however it ends."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # whether or not probe is installed
    done = subprocess.run(
        [sys.executable, "-c", _REPORT + code], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return set(json.loads(done.stderr.rsplit("LOADED", 1)[1]))


def run(*arguments: str) -> str:
    return f"from probe.cli.main import main\nmain({list(arguments)!r})"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    golden = {"y": random.standard_normal((4, 5), dtype=np.float32)}
    np.savez(tmp_path / "golden.npz", **golden)
    np.savez(tmp_path / "actual.npz", y=golden["y"] + np.float32(1e-3))
    return tmp_path


CASES = {
    "version": (("--version",), ("numpy", "typer", "rich", "msgspec")),
    "help": (("--help",), ("numpy", "rich", "msgspec")),
    "help of diff": (("diff", "--help"), ("numpy",)),
    "help of dump": (("dump", "--help"), ("numpy",)),
    "diff": (("diff", "actual.npz", "golden.npz"), ()),
    "diff to json": (("diff", "actual.npz", "golden.npz", "--json", "diff.json"), ()),
    "inspect a recording": (("inspect", "golden.npz"), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_a_command_loads_no_more_than_it_needs(case: str, recordings: Path) -> None:
    arguments, also_not = CASES[case]
    modules = loaded(run(*arguments), recordings)
    assert not modules & {*HEAVY, *also_not}
    assert "probe" in modules


def test_import_probe_loads_the_standard_library_only(tmp_path: Path) -> None:
    modules = loaded("import probe", tmp_path)
    assert not modules & {*HEAVY, "numpy", "msgspec", "typer", "rich"}
    assert {name for name in modules if name.startswith("probe")} == {"probe"}


def test_the_check_itself_sees_heavy_modules(tmp_path: Path) -> None:
    assert "onnx" in loaded("import onnx", tmp_path)
