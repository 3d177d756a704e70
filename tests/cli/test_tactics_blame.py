"""``probe tactics diff``, ``bisect``, ``table`` and ``probe run --builds`` as a user types them: exit codes, files, pages, what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from probe.cli.main import main
from probe.results import json as saved
from probe.results.json import class_of, schema_of
from tests.blame.planted import chain
from tests.cli.program import probe

INPUTS = ("--inputs", "x.npz")
BISECT = ("tactics", "bisect", "good", "bad", "model.onnx", *INPUTS)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in which acc16 loses something on product 3, and on products 5 and 8 together; a good and a bad run, recorded."""
    folder = tmp_path_factory.mktemp("blame")
    made = chain(folder / "model.onnx", 10, {3: 0.2, 5: 0.035, 8: 0.035})
    chain(folder / "other.onnx", 10, {1: 0.2}, seed=1)
    np.savez(folder / "x.npz", **made.sets[0].feeds)  # type: ignore[arg-type] - names are the network's
    runs = {"good": ("--deny", "acc16"), "bad": ("--allow", "acc16"), "bad2": ("--allow", "acc16 @ product [358]")}
    for name, rules in runs.items():
        done = probe(
            "tactics", "record", "model.onnx", *INPUTS, "--no-times", *rules, "-o", name, "-q", cwd=folder
        )  # fmt: skip
        assert done.returncode == (0 if name == "good" else 1), done.stderr
    return folder


Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """``probe`` in this process."""
    monkeypatch.chdir(work)

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        arguments = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["probe", *arguments])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            main(arguments)
        done = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), done.out, done.err)

    return run


def words(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stdout.split())


def check_saved(path: Path) -> dict:
    """A saved result fits its published schema, and is read again."""
    tree = json.loads(path.read_text())
    jsonschema.validate(tree, schema_of(class_of(tree["schema"])))
    saved.load(path)
    return tree


def test_diff_names_suspects(typed: Typed, work: Path) -> None:
    done = typed("tactics", "diff", "--good", "good", "--bad", "bad", "--bad", "bad2", "--json", "diff.json")
    assert (done.returncode, done.stderr) == (0, "")
    text = words(done)
    assert "SUSPECT acc16 on product 3: in 2 of 2 bad runs and 0 of 1 good ones" in text
    assert "probe tactics bisect good bad MODEL" in text
    tree = check_saved(work / "diff.json")
    assert tree["schema"] == "probe.tactics-diff/1" and [one["layer"] for one in tree["suspects"][:3]] == [
        "product 3", "product 5", "product 8",
    ]  # fmt: skip


def test_diff_of_a_folder_with_good_and_bad(typed: Typed, work: Path, tmp_path: Path) -> None:
    for side, name in (("good", "good"), ("bad", "bad")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "run.json").write_bytes((work / name).read_bytes())
    assert words(typed("tactics", "diff", tmp_path, "-q")) == words(typed("tactics", "diff", "good", "bad", "-q"))


def test_diff_without_a_suspect(typed: Typed, work: Path) -> None:
    (work / "twin").write_bytes((work / "good").read_bytes())
    done = typed("tactics", "diff", "good", "twin")
    assert done.returncode == 1 and done.stdout.startswith("NO SUSPECT")


def test_bisect_finds_confirms_pins_and_denies(typed: Typed, work: Path) -> None:
    done = typed(*BISECT, "-o", "pinned", "--deny-list", "deny.txt", "--json", "bisect.json", "-v")
    assert (done.returncode, done.stderr) == (0, "")
    text = words(done)
    assert text.startswith("GUILTY 2 of 10 differences must be pinned")
    assert "1. acc16 on product 3 (good: exact)" in text and "with acc16 on product" in text
    assert "good, guilty choices flipped to bad fails" in text and "bad, guilty choices pinned to good passes" in text
    tree = check_saved(work / "bisect.json")
    assert tree["confirmed"] and [len(one["group"]) for one in tree["guilty"]] == [1, 2]
    assert len(tree["steps"]) == sum(tree["evaluations"].values())
    replayed = typed("tactics", "replay", "model.onnx", "pinned", *INPUTS, "-q")
    assert replayed.returncode == 0 and "bit for bit" in words(replayed)
    assert re.findall(r"^acc16 @ .*$", (work / "deny.txt").read_text(), re.MULTILINE)
    again = typed(
        "tactics", "record", "model.onnx", *INPUTS, "--choose", "random", "--deny", "@deny.txt", "-o", "again", "-q"
    )
    assert again.returncode == 0, again.stdout


def test_bisect_the_wrong_way_round(typed: Typed, work: Path) -> None:
    done = typed("tactics", "bisect", "bad", "good", "model.onnx", *INPUTS, "-o", "none")
    assert done.returncode == 1 and "the bad run passes here" in words(done) and not (work / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tactics", "bisect", "good", "bad", "other.onnx", *INPUTS), "recorded of another model"),
        (("tactics", "bisect", "good", "good", "model.onnx", *INPUTS), "choose the same"),
        (("tactics", "bisect", "good", "nowhere", "model.onnx", *INPUTS), "cannot read"),
        (("tactics", "bisect", "good", "x.npz", "model.onnx", *INPUTS), "cannot read the tactic file"),
        ((*BISECT, "-o", "good"), "exists"),
        ((*BISECT, "--deny-list", "no/folder/deny"), "its folder does not exist"),
        ((*BISECT, "--accept", "magic<=1"), "magic"),
        (("tactics", "diff"), "no good run is named"),
        (("tactics", "diff", "good"), "no folder called 'good'"),
        (("tactics", "diff", "good", "bad", "bad2"), "3 files without a side"),
        (("tactics", "diff", "good", "--bad", "bad"), "with and without --good"),
        (("tactics", "diff", "good", "model.onnx"), "cannot read the tactic file"),
        (("tactics", "table", "model.onnx", *INPUTS, "--layers", "nothing"), "no layer with a choice matches"),
        (("tactics", "table", "model.onnx", *INPUTS, "--tactics", "magic"), "no candidate is called"),
        (("tactics", "table", "other.onnx", *INPUTS, "--start", "good"), "recorded of another model"),
        (("tactics", "table", "model.onnx", *INPUTS, "--table", "t.xlsx"), ".parquet or .csv"),
        (("run", "model.onnx", *INPUTS, "--builds", "2", "--observe"), "--observe is about one build"),
        (("run", "model.onnx", *INPUTS, "--builds", "2", "--table", "t.csv"), "--table is about one build"),
    ],
)
def test_what_is_refused(typed: Typed, arguments: tuple[str, ...], said: str) -> None:
    done = typed(*arguments)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr


def test_a_tampered_file_is_refused(typed: Typed, work: Path) -> None:
    """Files that bisect replays are held to their hash."""
    (work / "edited").write_text((work / "good").read_text().replace('"tactic": "exact"', '"tactic": "splitk2"', 1))
    done = typed("tactics", "bisect", "edited", "bad", "model.onnx", *INPUTS)
    assert done.returncode == 2 and "edited" in done.stderr


def test_table_shows_candidates_and_flips(typed: Typed, work: Path) -> None:
    done = typed(
        "tactics", "table", "model.onnx", *INPUTS, "--layers", "product [34]", "--json", "table.json", "--table", "table.csv",
        "--timing-cache", "times.json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    text = words(done)
    assert "1 of 8 single flips break it, first acc16 on product 3" in text and re.search(r"- acc16 .* FAIL", text)
    tree = check_saved(work / "table.json")
    assert [len(one["candidates"]) for one in tree["layers"]] == [5, 5] and (work / "times.json").exists()
    header, *rows = (work / "table.csv").read_text().splitlines()
    assert header.startswith("layer,outputs,kind") and len(rows) == 10
    second = typed(
        "tactics",
        "table",
        "model.onnx",
        *INPUTS,
        "--layers",
        "product 3$",
        "--no-times",
        "--no-flips",
        "--start",
        "bad",
    )
    assert second.returncode == 1 and "* acc16" in words(second)


def test_builds_of_one_network(typed: Typed, work: Path) -> None:
    done = typed("run", "model.onnx", *INPUTS, "--builds", "2", "--json", "builds.json")
    tree = check_saved(work / "builds.json")
    assert tree["schema"] == "probe.builds/1" and len(tree["builds"]) == 2 and tree["layers"] == 10
    assert done.returncode == (0 if all(one["run"]["passed"] for one in tree["builds"]) else 1)
    assert "of 2 builds pass" in words(done)


@pytest.mark.parametrize("name", ["diff", "bisect", "table"])
def test_help_shows_an_example(typed: Typed, name: str) -> None:
    done = typed("tactics", name, "--help")
    assert done.returncode == 0 and f"Example: probe tactics {name}" in words(done)
