"""``import probe`` costs nothing, and comparing from Python loads no ONNX. What commands load: ``tests/cli/test_startup.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"onnx", "onnx_ir", "onnxruntime", "polars", "google.protobuf", "sympy", "scipy", "torch"}


def loaded(code: str, folder: Path) -> set[str]:
    """Modules loaded after ``code`` in a fresh process."""
    code += "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # whether or not probe is installed
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_import_probe_loads_the_standard_library_only(tmp_path: Path) -> None:
    modules = loaded("import probe", tmp_path)
    assert not modules & {*HEAVY, "numpy", "msgspec", "typer", "rich"}
    assert {name for name in modules if name.startswith("probe")} == {"probe"}


def test_comparing_loads_no_onnx(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", y=np.ones(3))
    modules = loaded(
        "import probe\nassert probe.diff('golden.npz', {'y': [1.0, 1.0, 1.0]}, accept=['max_abs<=0'])", tmp_path
    )
    assert "probe.compare.diff" in modules
    assert not modules & {*HEAVY, "typer", "rich"}


def test_the_check_itself_sees_heavy_modules(tmp_path: Path) -> None:
    assert "onnx" in loaded("import onnx", tmp_path)


def test_the_engine_compiles_without_a_runtime_or_a_terminal(tmp_path: Path) -> None:
    code = """
import onnx, onnx.parser
from pathlib import Path
text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }'
onnx.save(onnx.parser.parse_model(text), "m.onnx")
from probe.engine.build import compile_model
from probe.model import load
assert len(compile_model(load("m.onnx")).layers) == 1
"""
    modules = loaded(code, tmp_path)
    assert "probe.engine.engine" in modules
    assert not modules & {"onnxruntime", "polars", "typer", "rich", "msgspec"}
    assert not modules & {"onnx_ir", "sympy"}  # half a thousand modules, two thirds of what building ResNet-50 took
