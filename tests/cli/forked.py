"""A process that has imported what commands import and waits; a call is a fork of it, which then does what ``python -m probe WORDS`` does.

Half of what tests of commands took was importing the same modules hundreds of times. A fork is a process of its own: folder, streams,
arguments, exit and the end of the interpreter are the call's. What cannot be told apart from a start of Python is started here; what is
about starting (light imports, other environments, signals) starts Python itself (``program.py``).
"""

from __future__ import annotations

import array
import atexit
import io
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
OWN = {"PYTEST_CURRENT_TEST"}  # pytest's, another one with every test


class Forked:
    """The waiting process, seen from the tests.

    Args:
        environment: of every call.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = plain(environment)
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, str(Path(__file__).resolve()), str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, env=self._environment, pass_fds=[theirs.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )  # fmt: skip
        self._answers = self._ours.makefile("r")
        atexit.register(self.close)

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Whether a call with this environment is one that forks give: some of it is read when Python starts."""
        return plain(environment) == self._environment

    def run(self, words: Sequence[str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run(["python", "-m", "probe", *words], capture_output=True, text=True)``.

        Raises:
            TimeoutExpired: it was killed.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            handles = array.array("i", [out.fileno(), errors.fileno()])
            request = json.dumps({"words": list(words), "cwd": str(cwd)}).encode()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)]
            self._ours.sendmsg([len(request).to_bytes(4, "little") + request], ancillary)
            child = int(self._answers.readline())
            self._ours.settimeout(timeout)
            try:
                code = int(self._answers.readline())
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                self.close()
                raise subprocess.TimeoutExpired(["probe", *words], timeout) from None
            self._ours.settimeout(None)
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(["probe", *words], code, out.read(), errors.read())

    def close(self) -> None:
        """It ends when nobody can ask any more."""
        forked.cache_clear()
        self._answers.close()
        self._ours.close()
        self._process.wait()


def plain(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if name not in OWN}


@cache
def forked() -> Forked:
    """The one of this test process, in the environment that the first call has."""
    from tests.cli.program import environment

    return Forked(environment())


# --- the waiting process ---------------------------------------------------------------------------------------------------


def import_all() -> None:
    """What commands import, but for what begins threads, which a fork would not have: ONNX Runtime and polars."""
    import pkgutil
    from importlib import import_module

    import onnx_ir  # noqa: F401 - so that importing it is not part of every call that rewrites a model
    import typer  # noqa: F401

    import probe
    import probe.cli.main

    for found in pkgutil.walk_packages(probe.__path__, "probe."):
        if not found.name.startswith("probe.engine.device.cuda") and found.name != "probe.__main__":
            import_module(found.name)
    with redirect_stderr(io.StringIO()):  # what typer imports when it parses
        probe.cli.main.guard(lambda: probe.cli.main._run(["diff", "nothing.npz", "nothing.npz"]), [])
    assert not {"onnxruntime", "polars"} & set(sys.modules)


def wait_for_calls(connection: socket.socket) -> None:
    """Returns in a child that is to become a call; the waiting process itself ends here."""
    while True:
        size, handles, _, _ = socket.recv_fds(connection, 4, 2)
        if not size:
            os._exit(0)
        request = json.loads(connection.recv(int.from_bytes(size, "little"), socket.MSG_WAITALL))
        child = os.fork()
        if not child:
            connection.close()
            for target, handle in enumerate(handles, start=1):
                os.dup2(handle, target)
                os.close(handle)
            os.chdir(request["cwd"])
            sys.path[0] = request["cwd"]
            sys.argv = ["probe", *request["words"]]
            return
        for handle in handles:
            os.close(handle)
        connection.sendall(f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def become_a_call() -> int:
    """Python's part of ``python -m probe``, and its exit code."""
    try:
        runpy.run_module("probe", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """As Python ends, but for giving back its memory piece by piece: that touches every page that the fork shares."""
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    import gc

    sys.path.insert(1, str(ROOT))
    import_all()
    gc.freeze()
    wait_for_calls(socket.socket(fileno=int(sys.argv[1])))
    del gc
    leave(become_a_call())
