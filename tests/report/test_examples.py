"""The worked examples that are kept: whole, of modest size, naming no machine, and their commands and pages are those of this program."""

from __future__ import annotations

import re
import shlex

import pytest
import typer.main

from probe.cli.app import app
from tests.bench.examples import EXAMPLES, FOLDER, Example, faults
from tests.report.test_html import Tree

COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_an_example_is_whole(example: Example) -> None:
    text = (FOLDER / f"{example.name}.md").read_text(encoding="utf-8")
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"({example.name}.md)" in index and f"({example.name}.html)" in index
    named = re.findall(r"\]\(([^)]+)\)", text)
    assert {f"{example.name}.html", f"{example.name}-wide.png", f"{example.name}-narrow.png"} <= set(named)
    assert [one for one in named if not (FOLDER / one).exists()] == []
    assert list(faults(FOLDER, [example])) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_the_page_is_that_of_the_commands(example: Example) -> None:
    tree = Tree((FOLDER / f"{example.name}.html").read_text(encoding="utf-8"))
    assert shlex.split(example.commands[-1])[-1] in tree.text, "the page says which command made it"
    assert not re.search(r"(?<![\w.])/(home|root|tmp|usr|work)/", tree.text)


@pytest.mark.parametrize("line", [line for example in EXAMPLES for line in example.commands])
def test_commands_have_these_options(line: str) -> None:
    name, *rest = shlex.split(line)[1:]
    command = COMMANDS[name]
    while rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if re.fullmatch(r"--?[a-z][a-z-]*", word)} <= known
