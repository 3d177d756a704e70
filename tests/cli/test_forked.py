"""A fork of what has imported already is a start of Python, as far as tests of commands can see."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.forked import Forked
from tests.cli.program import environment, probe

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
    forked = server.run(words, recordings, 60)
    assert (forked.returncode, forked.stderr) == (started.returncode, started.stderr)
    assert timeless(forked.stdout) == timeless(started.stdout)


def timeless(text: str) -> list[str]:
    return [line for line in text.splitlines() if "compared in" not in line and '"seconds"' not in line]


def test_every_call_has_its_folder(server, recordings, tmp_path):
    assert server.run(["diff", "golden.npz", "golden.npz"], tmp_path, 60).returncode == 2
    assert server.run(["diff", "golden.npz", "golden.npz"], recordings, 60).returncode == 0


def test_a_call_that_takes_too_long_is_killed(recordings):
    made = Forked(environment())
    with pytest.raises(subprocess.TimeoutExpired):
        made.run(["diff", "golden.npz", "golden.npz"], recordings, 0.01)


def test_another_environment_starts_python(server, recordings):
    assert server.serves(environment())
    assert not server.serves(environment({"COLUMNS": "40"}))
    narrow, wide = (probe("diff", "--help", cwd=recordings, env=one) for one in ({"COLUMNS": "40"}, None))
    assert narrow.returncode == 0 and len(narrow.stdout.splitlines()) > len(wide.stdout.splitlines())
