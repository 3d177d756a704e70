"""The ``probe`` program: finds the command, keeps its promises about exit codes.

0 passed or warned, 1 failed or not found, 2 the user's input, 3 a bug of probe, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence

from probe.errors import EXIT_BUG, EXIT_INPUT, ProbeError, too_long

EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: run ``argv`` (default: the process's arguments) and leave with the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        if (
            getattr(sys, name) is None
        ):  # closed by who started it (>&-): the number is taken, so that no file of ours gets it
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - lives until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a terminal that cannot show a letter gets its escape, not an exception
            stream.reconfigure(errors="backslashreplace")
    if arguments == ["--version"]:
        from probe import __version__

        print(f"probe {__version__}")  # without typer: 0.04 s
        sys.exit(0)
    debug = "--debug" in _options(arguments)
    if debug:
        arguments.remove("--debug")
    elif not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries: what matters to the user is a finding or a note
    sys.exit(guard(lambda: _run(arguments), arguments, debug=debug))


def _options(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _run(arguments: Sequence[str]) -> int:
    import typer

    from probe.cli.app import HELP, app

    program = typer.main.get_command(app)
    if set(HELP) & set(_options(arguments)):
        chosen, words = program, ["probe"]
        for word in arguments:  # a command, or one of a group's
            if (inner := getattr(chosen, "commands", {}).get(word)) is None:
                break
            chosen = inner
            words.append(word)
        if chosen is not program:
            # Parsing would first load what checks values, which costs more than all the rest of --help.
            print(chosen.get_help(typer.Context(chosen, info_name=" ".join(words), help_option_names=list(HELP))))
            return 0
    try:
        code = program.main(list(arguments), prog_name="probe", standalone_mode=False)
    except Exception as error:
        show = getattr(
            error, "show", None
        )  # typer's usage errors know how to say what is wrong; their module moved over time
        if show is None:
            raise
        show()
        return EXIT_INPUT
    if code == EXIT_INTERRUPTED:  # typer turns Ctrl-C into an exit code of its own
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def guard(run: Callable[[], int], arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run and turn whatever comes out into an exit code, with a message on stderr; the traceback only with ``debug``."""
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  (the last line of defence: everything becomes a message and a code)
        if debug:
            import traceback

            traceback.print_exc()
        if _stems_from_ctrl_c(error) or (
            type(error).__name__ == "Abort" and type(error).__module__.startswith(("typer", "click"))
        ):
            print("\ninterrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        message, code = explain(error, arguments)
        print(message, file=sys.stderr)
    return code


def _stems_from_ctrl_c(error: BaseException | None) -> bool:
    """Extension modules and Python itself turn a KeyboardInterrupt that meets them halfway into errors of their own ("initialization failed")."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def explain(error: Exception, arguments: Sequence[str]) -> tuple[str, int]:
    """What to print for an exception, and the exit code."""
    from probe.report.text import escape

    def plain(text: str) -> str:
        lines = [line.rstrip(" ") for line in text.split("\n")]
        return "\n".join(
            " " * (len(line) - len(line.lstrip(" "))) + escape(line.lstrip(" ")) if line else "" for line in lines
        )

    if isinstance(error, OSError):
        error = too_long(error) or error
    if isinstance(error, ProbeError) and error.exit_code == EXIT_INPUT:
        return f"error: {plain(str(error))}", EXIT_INPUT
    if isinstance(error, MemoryError):
        return (
            "error: out of memory\n  try    --memory-limit 2G while recording, or record less with --select or --stats-only",
            EXIT_INPUT,
        )
    if isinstance(error, OSError) and error.filename is None and error.errno in _STREAM_ERRNOS:
        return f"error: cannot write the output: {error.strerror}", EXIT_INPUT
    return plain(_bug_report(error, arguments)), EXIT_BUG


def _stream_errnos() -> frozenset[int]:
    import errno

    return frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO))


_STREAM_ERRNOS = _stream_errnos()


def _bug_report(error: Exception, arguments: Sequence[str]) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = (
        f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else "before any code of probe ran"
    )
    said = str(error)
    said = said if len(said) <= 500 else said[:500] + " ..."
    return (
        "This is a bug in probe, not in your input. Nothing that was written is to be trusted.\n"
        f"  what   {type(error).__name__}: {said}\n"
        f"  where  {where}\n"
        f"  try    {shlex.join(['probe', '--debug', *arguments])}\n"
        "         shows the traceback; please report it with that."
    )


def discard_stdout() -> None:
    """After the reader of a pipe went away: later writes, and the flush at exit, go nowhere instead of failing."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (lives until the process ends)


if __name__ == "__main__":
    main()
