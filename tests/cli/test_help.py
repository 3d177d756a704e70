"""Help: every command says what it does, names every option, and ends in an example that can be typed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from probe.cli.app import COMMANDS, app
from tests.cli.program import probe

COMMAND_LINE = typer.main.get_command(app)
NAMES = [command.__name__ for command in COMMANDS]


def example_of(name: str) -> list[str]:
    command = next(c for c in COMMANDS if c.__name__ == name)
    (line,) = [line.strip() for line in (command.__doc__ or "").splitlines() if line.strip().startswith("Example: ")]
    return shlex.split(line.removeprefix("Example: "))


@pytest.mark.parametrize("name", NAMES)
def test_docstring_ends_in_an_example_that_parses(name: str) -> None:
    command = next(c for c in COMMANDS if c.__name__ == name)
    assert (command.__doc__ or "").strip().splitlines()[-1].strip().startswith("Example: ")
    words = example_of(name)
    assert words[:2] == ["probe", name]
    COMMAND_LINE.commands[name].make_context(name, words[2:], parent=None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_the_example_and_explains_every_option(name: str, tmp_path: Path) -> None:
    done = probe(name, "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "Example: probe " + name in " ".join(done.stdout.split())
    for parameter in COMMAND_LINE.commands[name].params:  # type: ignore[attr-defined]
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_the_summary_is_not_cut(name: str, tmp_path: Path) -> None:
    lines = probe("--help", cwd=tmp_path).stdout.splitlines()
    (line,) = [line for line in lines if line.split()[:1] == [name]]
    assert not line.endswith("...")


COMMON = {"dump": "--inputs --input-shapes --seed --val-range --select --layers --threads --providers --custom-op-lib --runner --stats-only "
                  "--memory-limit --as-is --overwrite --json -o -v -q",
          "bench": "--precision --device --iterations --duration --warmup --streams --inputs --input-shapes --seed --val-range --keep --tactics "
                   "--passes --passes-limit --fusion --interior --no-layers --worst --table --export-profile --export-layers --export-times "
                   "--threads --custom-op-lib --json -v -q",
          "build": "--precision --keep --tactics --device --passes --passes-limit --fusion --interior --inputs --input-shapes --seed --val-range "
                   "--threads --custom-op-lib --overwrite --json -o -v -q",
          "diff": "--accept --preset --precision --map --select --layers --worst --smallest-tolerance --strict-layers --metrics "
                  "--worse-factor --json -v -q",
          "find": "--precision --inputs --input-shapes --seed --val-range --golden --accept --preset --check --aggregate --held-out --split "
                  "--granularity --objective --keep --probes --max-evals --max-seconds --log --resume --no-cures --tactics --passes --fusion "
                  "--interior --overwrite --keep-list --table --threads --custom-op-lib --json -o -v -q",
          "check": "--precision --inputs --input-shapes --seed --val-range --golden --select --threads --custom-op-lib --memory-limit "
                   "--json -v -q",
          "run": "--precision --device --inputs --input-shapes --seed --val-range --golden --accept --preset --keep --layers --interior --passes "
                 "--passes-limit --fusion --observe --strict-layers --threads --custom-op-lib --memory-limit --table --json -v -q",
          "convert": "--precision --inputs --input-shapes --seed --val-range --golden --accept --preset --keep --convert-io --no-proof --threads "
                     "--custom-op-lib --overwrite --json -o -v -q",
          "inspect": "--select --values --json -v -q",
          "report": "--format --worse-factor -o",
          "demo": "-o --json -v -q"}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_options_have_their_contracted_names(name: str) -> None:
    there = {option for p in COMMAND_LINE.commands[name].params for option in p.opts}  # type: ignore[attr-defined]
    assert set(COMMON[name].split()) <= there
