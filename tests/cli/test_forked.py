"""A fork of what has imported already is a start of Python, as far as tests of commands can see."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.program import environment, probe
from tests.forked import Forked, run_forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks there alone")


@pytest.fixture(scope="module")
def server():
    made = Forked(environment())
    yield made
    made.close()


@pytest.mark.parametrize(
    "words",
    [
        ("--version",), (), ("--bogus",), ("diff", "--help"), ("diff", "fails.npz", "golden.npz"), ("diff", "nothing.npz", "golden.npz"),
        ("inspect", "golden.npz"), ("diff", "nan.npz", "golden.npz", "--json", "-", "-q"),
    ],
)  # fmt: skip
def test_it_says_what_a_start_says(words, server, recordings):
    command = [sys.executable, "-m", "probe", *words]
    started = subprocess.run(command, cwd=recordings, env=environment(), capture_output=True, text=True, check=False)
    forked = server.run(["-m", "probe", *words], recordings, 60)
    assert (forked.returncode, forked.stderr) == (started.returncode, started.stderr)
    assert timeless(forked.stdout) == timeless(started.stdout)


def timeless(text: str) -> list[str]:
    return [line for line in text.splitlines() if "compared in" not in line and '"seconds"' not in line]


def test_every_call_has_its_folder(server, recordings, tmp_path):
    words = ["-m", "probe", "diff", "golden.npz", "golden.npz"]
    assert server.run(words, tmp_path, 60).returncode == 2
    assert server.run(words, recordings, 60).returncode == 0


def test_code_and_the_ways_it_ends(server, tmp_path):
    for code, ended, said in (
        ("import os; print(os.getcwd())", 0, f"{tmp_path}\n"), ("raise SystemExit('no')", 1, "no\n"), ("1 / 0", 1, "ZeroDivisionError"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""), ("import atexit; atexit.register(print, 'bye')", 0, "bye\n"),
        ("import sys; sys.modules.clear(); sys.exit(3)", 3, ""), ("import sys; print(len(sys.modules) > 500, end='')", 0, "True"),
    ):  # fmt: skip
        done = server.run(["-c", code], tmp_path, 60)
        assert done.returncode == ended and said in done.stdout + done.stderr, (code, done)


def test_a_call_that_takes_too_long_is_killed_and_the_next_one_works(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_forked(["-c", "import time; time.sleep(60)"], tmp_path, environment(), 0.5)
    assert run_forked(["-c", "print(1)"], tmp_path, environment()).stdout == "1\n"


def test_another_environment_starts_python(recordings):
    narrow, wide = (probe("diff", "--help", cwd=recordings, env=one) for one in ({"COLUMNS": "40"}, None))
    assert narrow.returncode == 0 and len(narrow.stdout.splitlines()) > len(wide.stdout.splitlines())
