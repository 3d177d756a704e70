"""Programs and functions that judge in place of an acceptance, or beside one."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.culprits.check_program import Answer, Program, checker
from probe.culprits.judge import Judge
from probe.errors import InputError
from probe.metrics.acceptance import parse_criterion
from probe.store.feeds import InputSet
from tests.culprits.recordings import Outputs

ONE = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
GOLDEN = {"i": {"y": ONE}}


def command(tmp_path: Path, body: str, *arguments: str) -> str:
    path = tmp_path / "check it.py"
    path.write_text(body)
    return f"{sys.executable} '{path}' {{dump}} {' '.join(arguments)}"


def exits(tmp_path: Path, code: str) -> str:
    return command(tmp_path, f"import os, signal, sys\nprint('said so', file=sys.stderr)\n{code}\n")


# --- programs


@pytest.mark.parametrize(("code", "accepted"), [("sys.exit(0)", True), ("", True), ("sys.exit(1)", False)])
def test_exit_codes(tmp_path: Path, code: str, accepted: bool) -> None:
    answer = checker(exits(tmp_path, code))(GOLDEN)
    assert answer.accepted is accepted and math.isnan(answer.margin)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit(2)", "exit code 2"),
        ("sys.exit(-3)", "exit code 253"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.abort()", "SIGABRT"),
    ],
)
def test_anything_else_is_an_error_with_what_the_program_said(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        checker(exits(tmp_path, f"sys.stderr.flush()\n{code}"))(GOLDEN)
    assert "said so" in caught.value.where and "{dump}" in caught.value.hint


def test_what_a_program_says_is_part_of_the_reason(tmp_path: Path) -> None:
    """Python ends with 1 after any exception, a failed import too: a rejection by the exit code, so it must be seen."""
    judge = Judge(GOLDEN, check=command(tmp_path, "print('reading')\nimport no_such_package\n"))
    judged = judge(GOLDEN)
    assert judged.verdict == "failed"
    assert judged.reasons == ("the check rejects it: ModuleNotFoundError: No module named 'no_such_package'",)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("true", "where the outputs are"),
        ("prog {outputs}", "where the outputs are"),
        ("prog '{dump}", "cannot be read"),
        ("", "where the outputs are"),
    ],
)
def test_commands_that_cannot_be_used(text: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        checker(text)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"cannot start the check '/no/such/program'"):
        checker("/no/such/program {dump}")(GOLDEN)


READS = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import probe
with probe.open_recording(sys.argv[1]) as dump:
    found = {{(row.name, row.input_id, row.role, tuple(row.shape)) for row in dump.rows()}}
    assert dump.input_ids == ("m", "n"), dump.input_ids
    assert found == {{(n, i, r, (3, 4)) for i in "mn" for n, r in (("x", "input"), ("y", "output"))}}, found
    largest = max(abs(dump.read("y", i) - dump.read("x", i)).max() for i in dump.input_ids)
sys.exit(0 if largest <= float(sys.argv[2]) else 1)
"""


def test_a_program_reads_outputs_and_inputs_of_every_input(tmp_path: Path) -> None:
    sets = [InputSet(key, {"x": ONE}, "test") for key in "mn"]
    outputs = {"m": {"y": ONE, "x": ONE}, "n": {"y": ONE + np.float32(0.5)}}
    assert checker(command(tmp_path, READS, "0.6"), sets)(outputs).accepted
    assert not checker(command(tmp_path, READS, "0.4"), sets)(outputs).accepted


def test_the_recording_is_gone_afterwards(tmp_path: Path) -> None:
    kept = tmp_path / "where"
    checker(command(tmp_path, f"import sys; open({str(kept)!r}, 'w').write(sys.argv[1])"))(GOLDEN)
    assert kept.read_text() and not Path(kept.read_text()).parent.exists()


def test_a_timeout_ends_the_program_and_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    body = f"import subprocess, time\nchild = subprocess.Popen(['sleep', '60'])\nopen({str(mark)!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"did not end within 1.5 s"):
        checker(command(tmp_path, body), timeout=1.5)(GOLDEN)
    assert time.monotonic() - begin < 20
    assert gone(int(mark.read_text()))


def gone(pid: int) -> bool:
    for _ in range(50):
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
        if not state.strip() or state.startswith("Z"):
            return True
        time.sleep(0.1)
    return False


def test_ctrl_c_ends_a_program_that_hangs(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    program = Program(
        command(tmp_path, f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    )

    def interrupt() -> None:
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.05)
        # To the thread that waits: another one that is interrupted leaves it waiting for the program's own end.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    signal.siginterrupt(signal.SIGINT, True)  # a library that some other test used may have asked for the reverse
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        program(GOLDEN)
    assert gone(int(mark.read_text()))


# --- functions


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (True, (True, math.nan)), (False, (False, math.nan)), (np.bool_(True), (True, math.nan)), (0.25, (True, 0.25)),
        (0.0, (True, 0.0)), (-0.5, (False, -0.5)), (np.float32(-2), (False, -2.0)), (math.nan, (False, math.nan)),
    ],
)  # fmt: skip
def test_what_functions_say(said: Any, answer: tuple[bool, float]) -> None:
    found = checker(lambda _: said)(GOLDEN)
    assert isinstance(found, Answer) and found.accepted is answer[0]
    assert found.margin == pytest.approx(answer[1], nan_ok=True)


@pytest.mark.parametrize("said", [None, 1, 0, "yes", [True]])
def test_what_is_neither_yes_nor_no(said: Any) -> None:
    with pytest.raises(InputError, match="the check returned"):
        checker(lambda _: said)(GOLDEN)


def test_functions_get_one_input_or_all_by_id() -> None:
    seen: list[Any] = []
    check = checker(lambda outputs: bool(seen.append(outputs)) or True)
    check({"i": {"y": ONE}})
    check({"i": {"y": ONE}, "j": {"y": ONE}})
    assert set(seen[0]) == {"y"} and set(seen[1]) == {"i", "j"} and set(seen[1]["j"]) == {"y"}


def test_a_function_that_fails_is_shown() -> None:
    def check(outputs: Any) -> bool:
        return outputs["no such output"] > 0

    with pytest.raises(InputError, match=r"the check failed: KeyError: 'no such output'") as caught:
        checker(check)(GOLDEN)
    assert "in check" in caught.value.where
    with pytest.raises(KeyboardInterrupt):
        checker(raising(KeyboardInterrupt))(GOLDEN)
    with pytest.raises(InputError, match="SystemExit"):
        checker(raising(SystemExit))(GOLDEN)


def raising(error: type[BaseException]) -> Any:
    def check(outputs: Any) -> bool:
        raise error

    return check


# --- as part of a judge


def outputs(error: float) -> Outputs:
    return {"i": {"y": ONE + np.float32(error)}}


def close(limit: float) -> Any:
    return lambda named: bool(abs(named["y"] - ONE).max() <= limit)


def test_a_check_alone_decides() -> None:
    judge = Judge(GOLDEN, check=close(0.5))
    accepted, rejected = judge(outputs(0.4)), judge(outputs(0.6))
    assert (accepted.verdict, accepted.failing_inputs, accepted.reasons) == ("passed", (), ())
    assert math.isnan(accepted.margin) and accepted.worst == pytest.approx(0.4, rel=1e-6)
    assert (rejected.verdict, rejected.failing_inputs, rejected.reasons) == (
        "failed",
        ("i",),
        ("the check rejects it",),
    )


def test_a_check_may_say_how_far() -> None:
    judge = Judge(GOLDEN, check=lambda named: float(0.5 - abs(named["y"] - ONE).max()))
    assert judge(outputs(0.4)).margin == pytest.approx(0.1, rel=1e-5)
    assert judge(outputs(0.6)).margin == pytest.approx(-0.1, rel=1e-5)


def test_a_check_beside_an_acceptance() -> None:
    asked: list[Any] = []

    def check(named: Any) -> bool:
        asked.append(named)
        return close(0.5)(named)

    judge = Judge(GOLDEN, acceptance=[parse_criterion("range_rel<=0.8")], check=check)
    assert judge(outputs(0.4)).passed and judge(outputs(0.4)).margin == pytest.approx(0.5, rel=1e-5)
    assert judge(outputs(0.6)).reasons == ("the check rejects it",)
    assert len(asked) == 3
    assert judge(outputs(0.9)).reasons == ("y: range_rel 0.9 > 0.8",) and len(asked) == 3, "it is failed already"


def test_what_golden_lacks_fails_before_a_check_is_asked() -> None:
    """Every comparison with NaN is false, so that ``not error > limit`` would accept it."""
    judge = Judge(GOLDEN, check=lambda named: not bool(abs(named["y"] - ONE).max() > 0.1))
    assert judge(outputs(0.05)).passed
    broken = outputs(0)
    broken["i"]["y"][0, 0] = math.nan
    assert (judge(broken).verdict, judge(broken).margin) == ("failed", -math.inf)
    assert judge({"i": {}}).verdict == "failed"
    assert judge({}, {"i": "it stops"}).verdict == "failed"


def test_a_check_judges_where_there_is_no_acceptance() -> None:
    golden = {"i": {"y": np.ones(2, np.complex64)}}
    actual = {"i": {"y": np.ones(2, np.complex64) * 2}}
    assert Judge(golden)(actual).verdict == "not_judged"
    assert Judge(golden, check=lambda _: True)(actual).verdict == "passed"


def test_a_check_is_asked_about_all_inputs_or_not_at_all(tmp_path: Path) -> None:
    golden = {"i": {"y": ONE}, "j": {"y": ONE}}
    judge = Judge(golden, check=lambda named: set(named) == {"i", "j"})
    assert judge(golden).passed
    assert judge({"i": {"y": ONE}}).verdict == "not_judged"
    assert Judge(golden, check=exits(tmp_path, "sys.exit(1)"))(golden).failing_inputs == ()
