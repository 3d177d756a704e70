"""``probe find`` as typed: exit codes, files, the page, the JSON, a program that judges."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import probe
from probe.results.find import FindResult
from tests.cli.program import probe as run
from tests.culprits.networks import inputs, norms


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("find")
    norms(made / "m.onnx", (600.0, 1.0))
    norms(made / "fine.onnx", (1.0,))
    inputs(made)
    inputs(made, "tiny", seed=1, scale=1e-3)
    return made


def test_found_written_and_handed_on(folder: Path) -> None:
    """What find writes is what convert and run take."""
    done = run(
        "find", "m.onnx", "-o", "mixed.onnx", "--inputs", "in.npz", "--keep-list", "keep.txt", "--json", "r.json", "--log", "log.jsonl",
        "--table", "log.csv", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("FOUND  fp16 passes with")
    result = probe.load_result(folder / "r.json")
    assert isinstance(result, FindResult)
    assert result.command.startswith("probe find m.onnx -o mixed.onnx")
    names = (folder / "keep.txt").read_text().split()
    assert tuple(names) == result.tensors
    assert len((folder / "log.csv").read_text().splitlines()) == len(result.steps) + 1
    again = run(
        "run",
        "m.onnx",
        "--keep",
        "@keep.txt",
        "--inputs",
        "in.npz",
        "--passes",
        "none",
        "--fusion",
        "none",
        "-q",
        cwd=folder,
    )
    assert again.returncode == 0, again.stdout
    converted = run("convert", "m.onnx", "-o", "c.onnx", "--keep", "@keep.txt", "--inputs", "in.npz", "-q", cwd=folder)
    assert converted.returncode == 0, converted.stdout
    assert (folder / "c.onnx").stat().st_size == (folder / "mixed.onnx").stat().st_size


def test_nothing_needed_is_a_pass(folder: Path) -> None:
    done = run("find", "fine.onnx", "--inputs", "in.npz", "-q", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NOTHING NEEDED")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--max-evals", "3", "--no-probes"), 1, "BUDGET SPENT"),
        (("--held-out", "in.npz", "--inputs", "tiny.npz"), 1, "held-out inputs fail"),
        (("--resume",), 2, "no log to resume"),
        (("--check", "prog"), 2, "{dump}"),
        (("--check", "false {dump}x"), 1, "UNREACHABLE"),
        (("--aggregate", "best"), 2, "best"),
        (("-o", "m.onnx"), 2, "the model itself"),
        (("-o", "no/x.onnx"), 2, "does not exist"),
        (("--keep", "[", "--inputs", "in.npz"), 2, "regular expression"),
        (("--precision", "int8"), 2, "int8"),
        (("--granularity", "node"), 2, "node"),
        (("--table", "t.txt"), 2, ".parquet or .csv"),
    ],
)
def test_exit_codes(folder: Path, words: tuple[str, ...], code: int, said: str) -> None:
    more = () if "--inputs" in words else ("--inputs", "in.npz")
    done = run("find", "m.onnx", *words, *more, "--no-cures", cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())


def test_a_program_judges(folder: Path, tmp_path: Path) -> None:
    """It reads the dump with probe's own library and accepts what is within 2 % of what it knows to be right."""
    program = tmp_path / "judge.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(Path(probe.__file__).parents[1])!r})\n"
        "import numpy as np, probe\n"
        "made = probe.open_recording(sys.argv[1])['y']\n"
        "golden = np.load(sys.argv[2])['out/y']\n"
        "sys.exit(0 if abs(made - golden).max() <= 0.02 * abs(golden).max() else 1)\n"
    )
    probe.dump(folder / "m.onnx", tmp_path / "g.npz", inputs=folder / "in.npz").close()
    done = run(
        "find", "m.onnx", "--inputs", "in.npz", "--check", f"{sys.executable} {program} {{dump}} {tmp_path / 'g.npz'}", "--no-probes",
        "--json", "p.json", "--no-cures", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "p.json").read_text())
    assert result["status"] == "found"
    assert {one["tensor"].partition(".")[0] for one in result["keep"]} == {"norm0"}
