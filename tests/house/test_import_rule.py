"""Who may import whom. The rule is a table; this file walks every module of probe and shows each line that breaks it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "probe"

COMMON = {"results", "precision", "errors"}  # every room may import these

# room -> the other rooms it may import, beside itself and COMMON. A room that is not here may not exist.
ALLOWED = {
    "__init__": {"api"},
    "__main__": {"cli"},
    "cli": {"api", "demo", "report", "culprits", "debug", "compare", "model", "runners", "store"},
    "demo": {"api", "demo_model"},
    "demo_model": set(),
    "api": {
        "blame",
        "timing",
        "culprits",
        "report",
        "debug",
        "engine",
        "compare",
        "metrics",
        "model",
        "runners",
        "store",
    },
    "blame": {"culprits", "search", "debug", "runners", "engine", "compare", "metrics", "model", "store", "ir"},
    "timing": {"debug", "engine", "compare", "model", "store", "ir"},
    "culprits": {"search", "debug", "runners", "engine", "compare", "metrics", "model", "store", "ir"},
    "debug": {"runners", "engine", "compare", "metrics", "model", "store", "ir"},
    "runners": {"engine", "ort", "model", "store", "ir"},
    "engine": {"ort", "model", "ir"},
    "ort": {"model"},
    "compare": {"metrics", "store"},
    "model": {"store", "ir"},
    "ir": set(),
    "store": set(),
    "metrics": set(),
    "search": set(),
    "report": set(),
    "results": set(),
    "precision": set(),
    "errors": set(),
}
BENEATH = {"results": {"precision", "errors"}, "precision": {"errors"}, "errors": set()}  # COMMON is layered too


@dataclass(frozen=True)
class Fence:
    """A third-party package and the rooms, as dotted prefixes below probe, that may import it."""

    package: str
    rooms: tuple[str, ...]
    at_top: bool  # False: inside functions only


FENCES = (
    Fence("numpy", ("",), at_top=True),
    Fence("onnx", ("ir", "model", "engine", "demo_model", "runners.fp64"), at_top=True),
    Fence("google", ("model",), at_top=False),  # protobuf, which comes with onnx
    Fence("onnx_ir", ("model", "engine.reading"), at_top=True),
    Fence("onnxruntime", ("runners", "ort", "engine.device.cpu"), at_top=True),
    Fence("cuda", ("engine.device.cuda",), at_top=True),
    Fence("nvmath", ("engine.device.cuda.library",), at_top=False),
    Fence("cudnn", ("engine.device.cuda.library",), at_top=False),
    Fence("polars", ("results", "compare", "debug", "report", "cli"), at_top=False),
    Fence("ml_dtypes", ("precision", "store", "model", "runners"), at_top=False),
    Fence("msgspec", ("results", "store"), at_top=True),
    Fence("safetensors", ("store",), at_top=False),
    Fence("typer", ("cli",), at_top=True),
    Fence("click", ("cli",), at_top=True),
)


@dataclass(frozen=True)
class Import:
    module: str  # dotted name below probe of the importing module, "compare.diff"
    target: str  # full dotted name of what is imported
    line: int
    at_top: bool


def imports(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import statement of a module, those under TYPE_CHECKING and inside functions included."""

    def walk(node: ast.AST, at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(module, name.name, child.lineno, at_top) for name in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parts = ["probe", *module.split(".")]
                    parts = parts[: len(parts) - child.level + is_package]
                    base = ".".join([*parts, base]).rstrip(".")
                # `from probe import compare` imports a room by the name after "import"
                names = [f"probe.{name.name}" for name in child.names] if base == "probe" else [base]
                yield from (Import(module, name, child.lineno, at_top) for name in names)
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk(child, at_top and not inside and not typing_only)

    yield from walk(ast.parse(source), at_top=True)


def broken(one: Import) -> str | None:
    """Why an import breaks the rule; None when it does not."""
    room, package = one.module.split(".")[0], one.target.split(".")[0]
    if package == "probe":
        target = [*one.target.split("."), "__init__"][1]
        if target not in ALLOWED:
            return None if target.startswith("__") else f"no room is called {target!r}"
        may = ALLOWED[room] | BENEATH.get(room, COMMON) | {room}
        return None if target in may else f"{room} may import {', '.join(sorted(may - {room})) or 'nothing of probe'}"
    for fence in FENCES:
        if fence.package == package:
            if not any(f"{one.module}.".startswith(f"{prefix}." if prefix else "") for prefix in fence.rooms):
                return f"{package} belongs to {', '.join(fence.rooms)}"
            if one.at_top and not fence.at_top:
                return f"{package} is imported inside functions only"
            return None
    return None if package in sys.stdlib_module_names else f"{package} has no row in FENCES"


def modules() -> list[tuple[Path, str]]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert found, "the walk found no module: is PACKAGE right?"
    return [(path, _dotted(path)) for path in found]


def _dotted(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def test_every_import_of_probe_follows_the_rule() -> None:
    wrong = []
    for path, module in modules():
        for one in imports(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py"):
            why = broken(one)
            if why:
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{one.line} imports {one.target}: {why}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_room_has_a_row() -> None:
    rooms = {module.split(".")[0] for _, module in modules()}
    assert rooms <= ALLOWED.keys(), f"no row for {rooms - ALLOWED.keys()}"


def test_the_rule_has_no_cycle() -> None:
    seen: dict[str, bool] = {}

    def visit(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, f"cycle: {' -> '.join((*path, room))}"
        if not seen.get(room):
            for other in ALLOWED[room] | BENEATH.get(room, COMMON):
                visit(other, (*path, room))
            seen[room] = True

    for room in ALLOWED:
        visit(room, ())


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("compare.diff", "from probe.model.load import load", "compare may import"),
        ("compare.diff", "from probe import model", "compare may import"),
        ("report.html", "def f():\n    import probe.store.dump", "report may import"),
        ("report.html", "from ..compare import diff", "report may import"),
        ("results.diff", "if TYPE_CHECKING:\n    from probe.compare.diff import x", "results may import"),
        ("errors", "from probe.precision import x", "errors may import nothing"),
        ("cli.diff", "from probe.tools import x", "no room is called"),
        ("runners.ort", "import onnx_ir as ir", "belongs to model"),
        ("compare.diff", "import onnxruntime", "belongs to runners"),
        ("modelling", "import onnx", "belongs to ir, model"),
        ("engine.device.cpu", "from cuda import core", "belongs to engine.device.cuda"),
        ("results.frames", "import polars as pl", "inside functions only"),
        ("compare.diff", "import requests", "no row"),
    ],
)
def test_the_rule_catches(module: str, source: str, reason: str) -> None:
    (found,) = [why for one in imports(source, module, is_package=False) if (why := broken(one))]
    assert reason in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("compare.diff", "from probe.metrics.measure import measure\nfrom probe.store.source import TensorSource"),
        ("runners.ort", "import onnxruntime\nfrom probe.model.expose import expose"),
        ("store.dump", "from .source import Array"),
        ("results.frames", "def frame():\n    import polars as pl"),
        ("results.frames", "if TYPE_CHECKING:\n    import polars as pl"),
        ("engine.device.cuda.launch", "from cuda import core"),
        ("errors", "import json"),
    ],
)
def test_the_rule_allows(module: str, source: str) -> None:
    assert not [why for one in imports(source, module, is_package=False) if (why := broken(one))]
