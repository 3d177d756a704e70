"""Where a command's result goes: text to stdout, JSON to a file, and what happens when either cannot be written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from probe.errors import InputError
from probe.results import json as saved


def check_json(path: str | None) -> None:
    """Refuse an unwritable ``--json FILE`` before any work is done.

    Raises:
        InputError: see ``probe.results.json.check_target``.
    """
    if path is not None and path != "-":
        saved.check_target(path)
        check_named_once(path)


def check_named_once(path: str | Path) -> None:
    """Refuse to write where the command line also reads or writes: ``--json model.onnx`` behind ``run model.onnx``.

    Raises:
        InputError: the file is named twice.
    """
    target = os.path.realpath(path)
    words = [word.partition("=")[2] if word.startswith("--") and "=" in word else word for word in sys.argv[1:]]
    if sum(os.path.realpath(word) == target for word in words if word) > 1:
        raise InputError(
            f"{str(path)!r} is named twice: what is written there would replace the other", hint="name another file"
        )


def check_table(path: Path | None) -> None:
    """Refuse a ``--table FILE`` of another format, or an unwritable one, before any work is done.

    Raises:
        InputError: another suffix; see ``probe.results.json.check_target``.
    """
    if path is None:
        return
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"{path}: a table is written as .parquet or .csv", where="--table")
    saved.check_target(path, text=False)
    check_named_once(path)


def show(
    result: Any,
    json_path: str | None,
    *,
    table: Path | None = None,
    files: Iterable[Callable[[], None]] = (),
    rows: int | None = None,
    all_metrics: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Save all files first, so that a pipe closed early cannot lose them, then print. With ``--json -`` only the JSON is printed. A file that
    cannot be written takes neither the others nor the page with it.

    Args:
        files: what writes those of this command alone.

    Raises:
        InputError: a file cannot be written; the first of them.
    """
    refused: list[InputError] = []
    for write in (*files, lambda: _save(result, table, json_path)):
        try:
            write()
        except InputError as error:
            refused.append(error)
    if json_path == "-":
        _write(saved.dumps(result))
    else:
        from probe.report.terminal import page_for, render

        _write(render(result, page_for(sys.stdout), rows=rows, all_metrics=all_metrics, verbose=verbose, quiet=quiet))
    if refused:
        raise refused[0]


def _save(result: Any, table: Path | None, json_path: str | None) -> None:
    try:
        if table is not None:
            from probe.results.frames import save_frame

            save_frame(result, table)
    finally:
        if json_path not in (None, "-"):
            saved.save(result, json_path)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # `probe diff ... | head`: the verdict still is the exit code
        from probe.cli.main import discard_stdout

        discard_stdout()


def narrate(*paragraphs: str) -> None:
    """Plain sentences around a result: wrapped to the terminal; lines indented by four spaces are commands and stay whole."""
    from probe.report.terminal import page_for
    from probe.report.text import escape, wrap

    width = page_for(sys.stdout).width
    lines: list[str] = []
    for text in paragraphs:
        lines += [text] if text.startswith("    ") or not text else wrap(escape(text), width)
    _write("\n".join(lines) + "\n")
