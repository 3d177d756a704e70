"""What starting probe costs: no ONNX library where none is needed, and no more than 0.15 s for --version and --help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import environment

HEAVY = ("onnx", "onnx_ir", "onnxruntime", "polars", "scipy", "torch", "sympy")

_SCRIPT = """
import json, sys
from probe.cli.main import main
try:
    main({words!r})
except SystemExit as left:
    code = left.code
sys.stderr.write("\\n" + json.dumps([code, sorted(sys.modules)]))
"""


def modules_after(*words: str, cwd: Path) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(words=list(words))], cwd=cwd, env=environment(), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize(
    ("words", "code", "light"),
    [
        (("--version",), 0, ("typer", "numpy", "rich")),
        (("--help",), 0, ("numpy", "rich", "msgspec")),
        (("diff", "--help"), 0, ("numpy", "rich", "msgspec", "pydantic")),
        (("run", "--help"), 0, ("numpy", "rich", "msgspec", "pydantic")),
        (("dump", "x", "-h"), 0, ("numpy", "rich", "msgspec", "pydantic")),
        (("diff", "fails.npz", "golden.npz"), 1, ("rich.console",)),
        (("diff", "same.npz", "golden.npz", "--json", "{tmp}/r.json"), 0, ("ml_dtypes",)),
        (("inspect", "golden.npz", "--values", "2"), 0, ("ml_dtypes",)),
    ],
)
def test_light_commands_import_no_onnx(
    words: tuple[str, ...], code: int, light: tuple[str, ...], recordings: Path, tmp_path: Path
) -> None:
    left, modules = modules_after(*(w.format(tmp=tmp_path) for w in words), cwd=recordings)
    assert left == code
    assert modules.isdisjoint((*HEAVY, *light)), sorted(modules & {*HEAVY, *light})


def test_dumps_are_read_without_onnx(recordings: Path, tmp_path: Path) -> None:
    for words in (
        ("dump", "golden.npz", "-o", f"{tmp_path}/d"),
        ("inspect", f"{tmp_path}/d"),
        ("diff", f"{tmp_path}/d", "golden.npz"),
    ):
        code, modules = modules_after(*words, cwd=recordings)
        assert code == 0
        assert modules.isdisjoint(HEAVY)


def test_command_modules_are_light() -> None:
    script = "import sys; before = set(sys.modules); import probe.cli.app; print(*sorted({m.split('.')[0] for m in sys.modules} - {m.split('.')[0] for m in before}))"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stdout.split()).isdisjoint((*HEAVY, "numpy", "msgspec", "rich"))


@pytest.mark.parametrize("words", ["--version", "--help", "diff --help"])
def test_starting_takes_at_most_150_ms(words: str, tmp_path: Path) -> None:
    """Processor time, which other tests running beside this one disturb least; the best of up to ten starts counts.

    With modules compiled, as after the first start of an installed program.
    """
    command = [sys.executable, "-m", "probe", *words.split()]
    compiled = {**environment(), "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    compiled.pop("PYTHONDONTWRITEBYTECODE", None)

    def once() -> float:
        process = subprocess.Popen(command, cwd=tmp_path, env=compiled, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_utime + usage.ru_stime

    assert any(once() <= 0.15 for _ in range(10))
