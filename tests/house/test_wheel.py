"""The wheel, installed into an environment that has nothing else, away from the source tree."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import probe
from probe import demo

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def _run(*command: object, cwd: Path, exit_code: int = 0) -> str:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PROBE_", "VIRTUAL_"))
    }
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )  # fmt: skip
    assert done.returncode == exit_code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"probe", next(top for top in tops if top.endswith(".dist-info"))}
    for source in (ROOT / "probe").rglob("*.py"):
        assert source.relative_to(ROOT).as_posix() in names
    for source in (ROOT / "kernels").iterdir():
        assert f"probe/_kernels/{source.name}" in names
    assert "probe/py.typed" in names
    assert not [name for name in names if name.endswith((".pyc", ".onnx", ".npz"))]


def test_the_installed_program_works(wheel: Path, tmp_path: Path) -> None:
    """One test, because an environment takes long to install and workers do not share fixtures."""
    environment, here = tmp_path / "environment", tmp_path / "here"
    here.mkdir()
    _run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=here)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    # Not compiled: Python does that with the little that is imported.
    _run(sys.executable, "-m", "pip", "--python", environment, "install", "--quiet", "--no-compile", wheel, cwd=here)
    program = programs / "probe"

    assert _run(program, "--version", cwd=here) == f"probe {probe.__version__}\n"
    where = _run(programs / "python", "-c", "import probe; print(probe.__file__)", cwd=here)
    assert environment in Path(where.strip()).parents, "the source tree was imported, not the wheel"

    assert demo.OVERFLOWING_TENSOR in _run(program, "demo", cwd=here)

    (here / "model.onnx").write_bytes(demo.build_demo_model())
    (here / "engine.onnx").write_bytes(demo.build_faulty_model())
    _run(program, "dump", "model.onnx", "-o", "golden", "--seed", "0", cwd=here)
    _run(program, "dump", "model.onnx", "-o", "again", "--inputs", "golden", cwd=here)
    _run(program, "dump", "engine.onnx", "-o", "engine", "--inputs", "golden", cwd=here)
    _run(program, "diff", "again", "golden", cwd=here)
    assert demo.FAULTY_TENSOR in _run(program, "diff", "engine", "golden", "--precision", "fp16", cwd=here, exit_code=1)
