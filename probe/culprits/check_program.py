"""The user's own judge: a program that is shown a recording of the outputs, or a function that is given them."""

from __future__ import annotations

import math
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probe.errors import InputError, ProbeError
from probe.precision import dtype_name
from probe.results.tensors import Role, RunHeader, TensorInfo
from probe.runners.callable import explain_failure
from probe.runners.process import NotStartedError, run_logged, signal_name, tail_of
from probe.store.feeds import InputSet, input_infos
from probe.store.writer import DumpWriter

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Mapping[str, Array]]  # input id -> output -> array
Check = str | Callable[[Any], Any]
_USAGE = 'write "PROGRAM {dump}": exit code 0 accepts, 1 rejects, anything else is an error'


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check says.

    Attributes:
        margin: how far inside the limit, negative beyond; NaN: it did not say.
        said: the last line that a program which rejects has written. Python ends with 1 after any exception, and here it is named.
    """

    accepted: bool
    margin: float = math.nan
    said: str = ""


Checker = Callable[[Outputs], Answer]


def name_of_check(check: str | Callable[..., Any] | None) -> str:
    """The command, or the full name of a function; "" for none."""
    if check is None or isinstance(check, str):
        return check or ""
    return f"{getattr(check, '__module__', '?')}.{getattr(check, '__qualname__', type(check).__name__)}"


def checker(check: Check, inputs: Sequence[InputSet] = (), timeout: float | None = None) -> Checker:
    """A command or a function as a check of outputs.

    Args:
        check: a command line with ``{dump}`` in it, or a function. The function is given ``{output: array}`` where there is one input,
            ``{input_id: {output: array}}`` where there are several, and returns whether they will do, or how far they are inside what
            will do, as a float: at least 0 accepts.
        inputs: recorded beside the outputs for a program.
        timeout: seconds the program may take; None: as long as it likes.

    Raises:
        InputError: a command that cannot be read or has no ``{dump}``.
    """
    if isinstance(check, str):
        return Program(check, inputs, timeout)
    return lambda outputs: _call(check, outputs)


def _call(function: Callable[[Any], Any], outputs: Outputs) -> Answer:
    given: Any = next(iter(outputs.values())) if len(outputs) == 1 else outputs
    try:
        said = function(given)
    except (ProbeError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: the user's code ended, not probe
        raise explain_failure("the check failed", error) from error
    if isinstance(said, (bool, np.bool_)):
        return Answer(bool(said))
    if isinstance(said, (float, np.floating)):
        return Answer(bool(said >= 0), float(said))
    what = "nothing" if said is None else f"a {type(said).__name__}"
    raise InputError(
        f"the check returned {what}", hint="return True or False, or a float that is at least 0 for what will do"
    )


class Program:
    """A program that accepts (exit code 0) or rejects (1) a dump folder of outputs, and the inputs they belong to.

    Started without a shell, in the current folder; what it says is shown only where it fails. The folder is gone afterwards.
    """

    def __init__(self, command: str, inputs: Sequence[InputSet] = (), timeout: float | None = None) -> None:
        self._command, self._inputs, self._timeout = command, {one.id: one for one in inputs}, timeout
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise InputError(f"the check cannot be read: {error}", where=command, hint=_USAGE) from None
        if not any("{dump}" in argument for argument in self._arguments):
            raise InputError("the check is not told where the outputs are", where=command, hint=_USAGE)

    def __call__(self, outputs: Outputs) -> Answer:
        """Ask about the outputs of all inputs.

        Raises:
            InputError: the program cannot be started, ends with another code, by a signal or too late, or the disk is full.
        """
        with tempfile.TemporaryDirectory(prefix="probe-check-") as name:
            folder = Path(name)
            self._write(folder / "dump", outputs)
            code = self._run(
                [argument.replace("{dump}", str(folder / "dump")) for argument in self._arguments], folder / "said"
            )
            if code not in (0, 1):
                how = f"was ended by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
                raise InputError(f"the check {how}", where=self._command + tail_of(folder / "said"), hint=_USAGE)
            said = _last_line(folder / "said") if code else ""
        return Answer(code == 0, said=said)

    def _write(self, path: Path, outputs: Outputs) -> None:
        shown = [self._inputs[key] for key in outputs if key in self._inputs]
        header = RunHeader(runner="find", inputs=input_infos(shown))
        with DumpWriter(path, header) as dump:
            for key, named in outputs.items():
                feeds = self._inputs[key].feeds if key in self._inputs else {}
                for name, value in feeds.items():
                    _add(dump, name, value, key, "input")
                for name, value in named.items():
                    if name not in feeds:
                        _add(dump, name, value, key, "output")

    def _run(self, arguments: list[str], said: Path) -> int:
        try:
            return run_logged(arguments, said, self._timeout)
        except NotStartedError as error:
            raise InputError(f"cannot start the check {arguments[0]!r}: {error}", where=self._command) from None
        except subprocess.TimeoutExpired:
            raise InputError(
                f"the check did not end within {self._timeout:g} s", where=self._command + tail_of(said)
            ) from None


def _last_line(said: Path) -> str:
    lines = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _add(dump: DumpWriter, name: str, value: Array, key: str, role: Role) -> None:
    array = np.asarray(value)
    dump.add(TensorInfo(name, dtype_name(array.dtype), array.shape, key, role=role), array)
