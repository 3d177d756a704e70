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

pytestmark = [pytest.mark.wheel, pytest.mark.xdist_group("wheel")]  # one worker builds and installs, for all of them


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of a clean environment that holds the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("clean")
    _run(sys.executable, "-m", "venv", folder, cwd=folder)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    _run(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return programs


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


def test_the_program_runs(installed: Path, tmp_path: Path) -> None:
    assert _run(installed / "probe", "--version", cwd=tmp_path) == f"probe {probe.__version__}\n"
    where = _run(installed / "python", "-c", "import probe; print(probe.__file__)", cwd=tmp_path)
    assert ROOT not in Path(where.strip()).parents, "the source tree was imported, not the wheel"


def test_the_demo_finds_its_fault(installed: Path, tmp_path: Path) -> None:
    said = _run(installed / "probe", "demo", cwd=tmp_path)
    assert demo.FAULTY_NODE in said


def test_record_and_compare(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(demo.build_demo_model())
    (tmp_path / "engine.onnx").write_bytes(demo.build_faulty_model())
    program = installed / "probe"
    _run(program, "dump", "model.onnx", "-o", "golden", "--seed", "0", cwd=tmp_path)
    _run(program, "dump", "model.onnx", "-o", "again", "--inputs", "golden", cwd=tmp_path)
    _run(program, "dump", "engine.onnx", "-o", "engine", "--inputs", "golden", cwd=tmp_path)
    _run(program, "diff", "again", "golden", cwd=tmp_path)
    assert demo.FAULTY_TENSOR in _run(
        program, "diff", "engine", "golden", "--precision", "fp16", cwd=tmp_path, exit_code=1
    )
