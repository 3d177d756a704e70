"""A process that has imported what probe imports and waits; a call is a fork of it, which then does what ``python ARGUMENTS`` does.

More than half of what tests of commands took was importing the same modules hundreds of times. A fork is a process of its own: folder,
streams, arguments and exit are the call's. What is about starting (light imports, other environments, signals) starts Python itself.
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
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
OWN = {"PYTEST_CURRENT_TEST"}  # pytest's, another one with every test


class Forked:
    """The waiting process, seen from the tests.

    Args:
        environment: of every call.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._ours, theirs = socket.socketpair()
        command = [sys.executable, str(Path(__file__).resolve()), str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, env=plain(environment), pass_fds=[theirs.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )  # fmt: skip
        self._answers = self._ours.makefile("r")
        atexit.register(self.close)

    def run(self, arguments: Sequence[str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run(["python", *arguments], capture_output=True, text=True)``.

        Args:
            arguments: ``-m MODULE WORDS`` or ``-c CODE``.

        Raises:
            TimeoutExpired: it was killed.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            handles = array.array("i", [out.fileno(), errors.fileno()])
            request = json.dumps({"arguments": list(arguments), "cwd": str(cwd)}).encode()
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)]
            self._ours.sendmsg([len(request).to_bytes(4, "little") + request], ancillary)
            child = int(self._answers.readline())
            self._ours.settimeout(timeout)
            try:
                code = int(self._answers.readline())
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                raise subprocess.TimeoutExpired(["python", *arguments], timeout) from None
            self._ours.settimeout(None)
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(["python", *arguments], code, out.read(), errors.read())

    def close(self) -> None:
        """It ends when nobody can ask any more."""
        self._answers.close()
        self._ours.close()
        self._process.wait()


def plain(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if name not in OWN}


_running: dict[frozenset[tuple[str, str]], Forked] = {}


def run_forked(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """``Forked.run`` of the process that waits in this environment, which is started when it is first asked for."""
    wanted = frozenset(plain(environment).items())
    if wanted not in _running:
        _running[wanted] = Forked(environment)
    try:
        return _running[wanted].run(arguments, cwd, timeout)
    except BaseException:
        _running.pop(wanted).close()  # what it answers next is not known
        raise


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


def wait_for_calls(connection: socket.socket) -> list[str]:
    """Returns Python's arguments in a child that is to become a call; the waiting process itself ends here."""
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
            return request["arguments"]
        for handle in handles:
            os.close(handle)
        try:
            connection.sendall(f"{child}\n".encode())
            _, status = os.waitpid(child, 0)
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        except OSError:  # nobody waits for it
            os._exit(0)


def become_python(option: str, what: str, *words: str) -> int:
    """``python -m MODULE WORDS`` or ``python -c CODE``, and its exit code."""
    sys.argv = [option, *words]
    try:
        if option == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
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
    arguments = wait_for_calls(socket.socket(fileno=int(sys.argv[1])))
    del gc
    leave(become_python(*arguments))
