"""What ``import probe`` promises: these names, no others, with their types visible."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import probe

NAMES = [
    "Criterion",
    "InputError",
    "ProbeError",
    "__version__",
    "check",
    "compile",
    "convert",
    "diff",
    "dump",
    "find",
    "load",
    "load_result",
    "open_recording",
    "run",
    "tactics",
]


def test_the_names_are_these() -> None:
    assert sorted(probe.__all__) == NAMES
    assert len(NAMES) <= 15
    assert dir(probe) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(probe, name)
    assert name == "__version__" or (value.__doc__ or "").strip()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'comparee'"):
        _ = probe.comparee


def test_type_checkers_see_the_types(tmp_path: Path) -> None:
    """The lazy names resolve to the real ones: a wrong argument is an error, a right one is not."""
    pytest.importorskip("pyright")
    (tmp_path / "user.py").write_text(
        "import probe\n"
        "from probe.results.diff import DiffResult\n"
        "result: DiffResult = probe.diff('a', 'b', accept=['cosine>=0.9'])\n"
        "shape: int = result.tensors[0].metrics.count if result.tensors[0].metrics else 0\n"
        "model = probe.load('m.onnx')\n"
        "probe.diff('a', 'b', accept=3)\n"
        "probe.comparee\n"
    )
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(Path(probe.__file__).parents[1])]}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "user.py"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {one["range"]["start"]["line"]: one["message"] for one in found if one["severity"] == "error"}
    assert errors.keys() == {5, 6}, errors


DOCTESTED = [
    "probe",
    *(
        ".".join(path.relative_to(Path(probe.__file__).parents[1]).with_suffix("").parts)
        for path in sorted(Path(probe.__file__).parent.rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8") and path.name != "__init__.py"
    ),
]


@pytest.mark.parametrize("module", DOCTESTED)
def test_docstring_examples_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = importlib.import_module(module)
    for name, value in list(vars(loaded).items()):
        monkeypatch.setattr(loaded, name, inspect.unwrap(value))  # doctest passes functions over that a decorator wraps
    result = doctest.testmod(loaded, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
