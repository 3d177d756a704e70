"""Every outcome has its exit code, and every message its form."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probe.cli import main as program
from probe.errors import InputError
from tests.cli.program import environment, probe

# words, exit code, beginning of stdout, something stderr says
OUTCOMES: dict[str, tuple[tuple[str, ...], int, str, str]] = {
    "passed": (("diff", "same.npz", "golden.npz"), 0, "PASSED  ", ""),
    "warned": (("diff", "warns.npz", "golden.npz", "--precision", "fp16"), 0, "WARNED  ", ""),
    "failed": (("diff", "fails.npz", "golden.npz", "--precision", "fp16"), 1, "FAILED  logits", ""),
    "failed by fp32": (("diff", "warns.npz", "golden.npz"), 1, "FAILED  logits", ""),
    "accepted": (("diff", "fails.npz", "golden.npz", "--accept", "range_rel<=0.5"), 0, "PASSED  ", ""),
    "accepted by output": (("diff", "fails.npz", "golden.npz", "--accept", "cosine>=0.1 @ logits"), 0, "PASSED  ", ""),
    "not accepted": (("diff", "warns.npz", "golden.npz", "--accept", "max_abs<=0"), 1, "FAILED  ", ""),
    "NaN": (("diff", "nan.npz", "golden.npz", "--accept", "cosine>=0"), 1, "FAILED  logits", ""),
    "missing output": (("diff", "missing.npz", "golden.npz"), 1, "FAILED  logits", ""),
    "shape": (("diff", "shape.npz", "golden.npz"), 1, "FAILED  logits", ""),
    "kind": (("diff", "ints.npz", "golden.npz"), 1, "FAILED  logits", ""),
    "preset": (("diff", "same.npz", "golden.npz", "--preset", "torch"), 0, "PASSED  ", ""),
    "preset fails": (("diff", "warns.npz", "golden.npz", "--preset", "numpy"), 1, "FAILED  ", ""),
    "output not selected": (("diff", "same.npz", "golden.npz", "--select", "hidden"), 1, "NOT JUDGED  ", ""),
    "inspect": (("inspect", "golden.npz"), 0, ".npz file golden.npz", ""),
    "no such file": (("diff", "nothing.npz", "golden.npz"), 2, "", "error: nothing.npz does not exist"),
    "no such model": (("inspect", "nothing.onnx"), 2, "", "error: "),
    "not a recording": (("diff", "notes.txt", "golden.npz"), 2, "", "error: "),
    "not a model": (("inspect", "notes.txt"), 2, "", "error: "),
    "truncated": (("diff", "truncated.npz", "golden.npz"), 2, "", "error: "),
    "empty polygraphy": (("diff", "polygraphy.json", "golden.npz"), 2, "", "error: "),
    "bad criterion": (("diff", "same.npz", "golden.npz", "--accept", "goodness>1"), 2, "", "unknown metric 'goodness'"),
    "criterion for no output": (("diff", "same.npz", "golden.npz", "--accept", "max_abs<=1 @ nope"), 2, "", "nope"),
    "bad precision": (("diff", "same.npz", "golden.npz", "--precision", "fp12"), 2, "", "fp12"),
    "bad pattern": (("diff", "same.npz", "golden.npz", "--select", "("), 2, "", "not a regular expression"),
    "bad map": (("diff", "same.npz", "golden.npz", "--map", "notes.txt"), 2, "", "cannot read the map"),
    "bad preset": (("diff", "same.npz", "golden.npz", "--preset", "excel"), 2, "", "excel"),
    "a report of what is no text": (("report", "golden.npz"), 2, "", "not a result of probe: the file is not text"),
    "long name": (("diff", "same.npz", "golden.npz", "--json", "n" * 300), 2, "", "error: File name too long: "),
    "long name to read": (("tactics", "diff", "--good", "n" * 300, "--bad", "no"), 2, "", "error: File name too long: "),
    "no json folder": (("diff", "same.npz", "golden.npz", "--json", "no/r.json"), 2, "", "folder does not exist"),
    "some operators": (("inspect", "ops", "--select", "Conv"), 2, "", "operators are listed whole"),
    "nothing selected": (("inspect", "golden.npz", "--select", "nope"), 2, "", "no tensor matches 'nope'"),
    "no arguments": ((), 2, "", "Usage: probe"),
    "unknown command": (("compare",), 2, "", "No such command"),
    "unknown option": (("diff", "--bogus"), 2, "", "No such option"),
    "missing argument": (("diff", "same.npz"), 2, "", "GOLDEN"),
    "bad number": (("diff", "a", "b", "--worst", "x"), 2, "", "--worst"),
    "negative number": (("diff", "a", "b", "--worst", "0"), 2, "", "--worst"),
    "dump without -o": (("dump", "golden.npz"), 2, "", "--output"),
    "dump over a file": (("dump", "golden.npz", "-o", "same.npz"), 2, "", "exists"),
    "dump with two minds": (("dump", "golden.npz", "-o", "new", "--runner", "python:x.y"), 2, "", "is a recording"),
    "bad size": (("dump", "golden.npz", "-o", "new", "--memory-limit", "much"), 2, "", "not a size"),
    "version": (("--version",), 0, "probe ", ""),
    "help": (("--help",), 0, "Usage: probe", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTCOMES)
def test_outcome(case: str, recordings: Path) -> None:
    words, code, said, complained = OUTCOMES[case]
    done = probe(*words, cwd=recordings)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.startswith(said)
    assert complained in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if code == 0:
        assert done.stderr == ""
    if code == 2:
        assert done.stdout == ""


def test_every_row_of_the_diff_page_fits(recordings: Path) -> None:
    for name in ("fails.npz", "nan.npz", "missing.npz", "shape.npz"):
        done = probe("diff", name, "golden.npz", "-v", "--metrics", "all", "--smallest-tolerance", cwd=recordings)
        wide = [line for line in done.stdout.splitlines() if len(line) > 80 and not line.startswith("    ")]
        assert not wide and "\x1b" not in done.stdout


def test_regression_of_two_results(recordings: Path, tmp_path: Path) -> None:
    for name in ("same", "fails"):
        probe("diff", recordings / f"{name}.npz", recordings / "golden.npz", "--json", f"{name}.json", cwd=tmp_path)
    better = probe("diff", "fails.json", "same.json", cwd=tmp_path)
    worse = probe("diff", "same.json", "fails.json", "--json", "regression.json", cwd=tmp_path)
    assert (better.returncode, worse.returncode) == (0, 1), better.stdout + worse.stdout + better.stderr + worse.stderr
    assert worse.stdout.startswith("FAILED  ") and "logits" in worse.stdout
    assert json.loads((tmp_path / "regression.json").read_text())["schema"] == "probe.regression/1"
    mixed = probe("diff", "same.json", recordings / "golden.npz", cwd=tmp_path)
    assert mixed.returncode == 2 and "saved result" in mixed.stderr
    wrong = probe("diff", "regression.json", "same.json", cwd=tmp_path)
    assert wrong.returncode == 2 and "probe.regression/1" in wrong.stderr
    (tmp_path / "cut.json").write_bytes((tmp_path / "same.json").read_bytes()[:900])
    cut = probe("diff", "cut.json", "same.json", cwd=tmp_path)
    assert cut.returncode == 2 and "cut short" in cut.stderr


def test_the_map_recipe_works_as_printed(recordings: Path, tmp_path: Path) -> None:
    import numpy as np

    arrays = dict(np.load(recordings / "golden.npz"))
    arrays["out/logits_"] = arrays.pop("out/logits")
    np.savez(tmp_path / "renamed.npz", **arrays)  # type: ignore[arg-type]
    first = probe("diff", "renamed.npz", recordings / "golden.npz", cwd=tmp_path)
    assert first.returncode == 1
    recipe = next(line for line in first.stdout.splitlines() if line.startswith("    echo"))
    subprocess.run(["bash", "-c", recipe], cwd=tmp_path, check=True, timeout=20)
    assert json.loads((tmp_path / "map.json").read_text()) == {"logits_": "logits"}
    assert probe("diff", "renamed.npz", recordings / "golden.npz", "--map", "map.json", cwd=tmp_path).returncode == 0


def test_json_to_standard_output_is_only_json(recordings: Path) -> None:
    done = probe("diff", "nan.npz", "golden.npz", "--json", "-", cwd=recordings)
    assert done.returncode == 1
    result = json.loads(done.stdout, parse_constant=lambda c: pytest.fail(f"bare {c}"))
    assert result["command"] == "probe diff nan.npz golden.npz --json -"


def test_quiet_is_the_verdict_alone(recordings: Path) -> None:
    done = probe("diff", "fails.npz", "golden.npz", "-q", cwd=recordings)
    assert done.stdout.startswith("FAILED  ") and len(done.stdout.splitlines()) <= 2


def test_copying_a_recording_keeps_every_tensor(recordings: Path, tmp_path: Path) -> None:
    for target in ("copy", "copy.npz", "copy.safetensors"):
        made = probe("dump", recordings / "golden.npz", "-o", target, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert probe("diff", target, recordings / "golden.npz", "--accept", "max_abs<=0", cwd=tmp_path).returncode == 0
    again = probe("dump", recordings / "golden.npz", "-o", "copy", cwd=tmp_path)
    assert again.returncode == 2 and "exists" in again.stderr
    small = probe("dump", "copy", "-o", "copy", "--overwrite", "--select", "hidden", "--stats-only", cwd=tmp_path)
    assert small.returncode == 0, small.stderr
    shown = probe("inspect", "copy", cwd=tmp_path).stdout
    assert "hidden" in shown and "logits" not in shown and "stats only" in shown


# --- main itself


def test_our_bug_is_told_from_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> int:
        raise KeyError("x\x1b[2J")

    assert program.guard(broken, ["diff", "my file"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("This is a bug in probe, not in your input.")
    assert "KeyError: 'x\\x1b[2J'" in said
    assert "test_exit_codes.py" in said and "in broken" in said
    assert "try    probe --debug diff 'my file'" in said
    assert "Traceback" not in said
    assert program.guard(broken, [], debug=True) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("bad \x1b[31m", where="a\nb", hint="c"), 2, "error: bad \\x1b[31m\n  where  a\nb\n  try    c\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (MemoryError(), 2, "error: out of memory\n"),
        (OSError(28, "No space left on device"), 2, "error: cannot write the output: No space left on device\n"),
        (OSError(2, "No such file", "x"), 3, "This is a bug"),
        (RecursionError("deep"), 3, "This is a bug"),
    ],
)
def test_exceptions_become_codes(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising() -> int:
        raise error

    assert program.guard(raising, []) == code
    assert capsys.readouterr().err.startswith(said)


def test_a_traceback_is_shown_only_with_debug(recordings: Path) -> None:
    for words in (("--debug", "diff", "nothing", "golden.npz"), ("diff", "nothing", "--debug", "golden.npz")):
        done = probe(*words, cwd=recordings)
        assert done.returncode == 2
        assert "Traceback" in done.stderr and "error: nothing does not exist" in done.stderr


def test_a_closed_pipe_is_quiet_and_keeps_the_verdict(recordings: Path) -> None:
    line = f"{sys.executable} -m probe diff fails.npz golden.npz -v --metrics all | head -n 1; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=recordings,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        assert done.returncode == 1
        assert done.stdout.startswith("FAILED") and done.stdout.count("\n") == 1


def test_ctrl_c_that_an_import_turned_into_its_own_error(capsys: pytest.CaptureFixture[str]) -> None:
    def halfway() -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise ImportError("initialization failed") from interrupt

    assert program.guard(halfway, ["run", "m.onnx"]) == program.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_were_closed_before_take_nothing_along(closed: str, recordings: Path) -> None:
    line = f"{sys.executable} -m probe diff fails.npz golden.npz --json closed.json {closed}; exit $?"
    done = subprocess.run(
        ["bash", "-c", line], cwd=recordings, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stdout + done.stderr
    saved = recordings / "closed.json"
    assert json.loads(saved.read_text())["verdict"] == "failed"  # and no page in it
    saved.unlink()


def test_a_full_disk_behind_stdout(recordings: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "probe", "inspect", "golden.npz"], cwd=recordings, env=environment(), stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_behind_a_file_takes_nothing_else_along(recordings: Path) -> None:
    """The page of ten minutes' work is there, and so is the other file."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    done = probe("diff", "fails.npz", "golden.npz", "--json", "/dev/full", "--table", "rows.csv", cwd=recordings)
    assert (done.returncode, done.stderr) == (2, "error: cannot write '/dev/full': No space left on device\n")
    assert done.stdout.startswith("FAILED") and (recordings / "rows.csv").read_text().count("\n") > 1


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_full_disk_behind_a_table(recordings: Path, kind: str) -> None:
    line = f"ulimit -f 0; {sys.executable} -m probe diff fails.npz golden.npz --table full.{kind}"  # as good as a full disk
    done = subprocess.run(
        ["bash", "-c", line], cwd=recordings, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith(f"error: cannot write full.{kind}: ")
    assert done.stdout.startswith("FAILED") and not [one for one in recordings.iterdir() if "full" in one.name]


def test_a_table_that_could_not_be_written_is_refused_before_the_work(recordings: Path) -> None:
    done = probe("diff", "fails.npz", "golden.npz", "--table", "nowhere/rows.csv", cwd=recordings)
    assert done.returncode == 2 and "its folder does not exist" in done.stderr and done.stdout == ""


def test_interrupt_is_clean(recordings: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "slow.json"
    os.mkfifo(fifo)  # opening it for reading waits for a writer: a command that hangs
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.argv[1:] = ['inspect', {str(fifo)!r}]; from probe.cli.main import main; main()"],
        cwd=recordings, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "\ninterrupted\n"


def test_a_terminal_that_knows_only_ascii(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "x.npz", **{"層/é": np.ones(3, np.float32)})  # type: ignore[arg-type]
    done = probe("inspect", "x.npz", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0
    assert r"\u5c64/\xe9" in done.stdout
