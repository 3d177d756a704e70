"""Documentation is checked against what it documents: commands, options, transcripts, examples, rooms."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
import typer.main

from probe import demo
from probe.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "kernels" / "README.md", ROOT / "reports" / "README.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def blocks(text: str, language: str) -> Iterator[str]:
    """Fenced blocks of one language."""
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, f"{name} has no help"
    assert re.search(rf"^ *Example: probe {name}\b", command.help, re.MULTILINE), f"{name}'s help ends in no example"
    assert f"probe {name}" in README, f"README.md does not mention probe {name}"
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


def command_lines() -> Iterator[tuple[str, str]]:
    """Every `probe ...` line of the pages and of the commands' own help."""
    for page in PAGES:
        for block in re.finditer(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            joined = re.sub(r"\\\n\s*", "", block[1])
            yield from ((page.name, line) for line in re.findall(r"^(?:\$ )?(probe .*)$", joined, re.MULTILINE))
    for name, command in COMMANDS.items():
        for one in (command, *getattr(command, "commands", {}).values()):
            yield from ((name, line) for line in re.findall(r"Example: (probe .*)", one.help or ""))


@pytest.mark.parametrize(("page", "line"), sorted(set(command_lines())))
def test_a_command_line_in_the_docs_is_valid(page: str, line: str) -> None:
    """Commands and options exist; whether the files do is not asked."""
    name, *rest = shlex.split(line, comments=True)[1:]
    if name.startswith("--"):
        return
    command = COMMANDS[name]
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--debug"}
    for word in rest:
        if re.fullmatch(r"--?[a-z][a-z-]*", word):
            assert word in known, f"{page}: probe {name} has no option {word}"


@pytest.mark.parametrize("block", list(blocks(README, "python")), ids=lambda block: block.splitlines()[0][:40])
def test_python_in_the_readme_runs(block: str, tmp_path: Path) -> None:
    """In a folder with a model and its recordings, as the README's reader has by then."""
    (tmp_path / "model.onnx").write_bytes(demo.build_demo_model())
    (tmp_path / "engine.onnx").write_bytes(demo.build_faulty_model())
    np.savez(tmp_path / "photo.npz", image=np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32))
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_transcript_in_the_readme_is_what_the_demo_prints(tmp_path: Path) -> None:
    """But for numbers, which differ in their last digits from machine to machine."""
    (transcript,) = re.findall(r"<!-- transcript: probe demo -->\n```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    environment = {"PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "probe", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert _words(done.stdout) == _words(transcript)


def _words(text: str) -> list[str]:
    """Lines with every number replaced, and runs of spaces and rules, whose length follows the numbers, shortened."""
    text = re.sub(r"\([0-9a-f]{8}\)", "(hash)", text)
    lines = (re.sub(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", "#", line) for line in text.strip().splitlines())
    return [re.sub(r"[ \u2500-]+", " ", line).strip() for line in lines]


def test_architecture_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = next(block for block in blocks(text, "") if block.startswith("probe/"))
    named = set(re.findall(r"^  (\w+(?:/|\.py))\s", tree, re.MULTILINE))
    rooms = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "probe").iterdir()
        if not path.name.startswith("_") and (path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py"))))
    }
    assert named == rooms


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_named_in_the_docs_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`((?:probe|tests|reports|kernels)/[\w./-]+\.(?:py|md|txt))`", text)):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_report_is_in_the_list() -> None:
    listed = set(
        re.findall(r"^\| ([\w-]+) \| `", (ROOT / "reports/README.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    kinds = {re.sub(r"^\d{4}-\d\d-\d\d-", "", path.stem) for path in (ROOT / "reports").glob("2*.md")}
    assert kinds <= listed, kinds - listed


def test_every_kernel_has_its_row() -> None:
    text = (ROOT / "kernels/README.md").read_text(encoding="utf-8")
    named = {
        name for row in re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+\.cuh?)`", row)
    }
    assert {path.name for path in (ROOT / "kernels").glob("*.cu")} <= named
