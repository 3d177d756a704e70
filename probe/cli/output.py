"""Where a command's result goes: text to stdout, JSON to a file, and what happens when either cannot be written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from probe.errors import InputError
from probe.results import json as saved


def check_json(path: str | None) -> None:
    """Refuse an unwritable ``--json FILE`` before any work is done.

    Raises:
        InputError: see ``probe.results.json.check_target``.
    """
    if path not in (None, "-"):
        saved.check_target(path)


def check_table(path: Path | None) -> None:
    """Refuse a ``--table FILE`` of another format before any work is done.

    Raises:
        InputError: another suffix.
    """
    if path is not None and path.suffix not in (".parquet", ".csv"):
        raise InputError(f"{path}: a table is written as .parquet or .csv", where="--table")


def show(
    result: Any,
    json_path: str | None,
    *,
    table: Path | None = None,
    rows: int | None = None,
    all_metrics: bool = False,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Save the table and the JSON first, so that a pipe closed early cannot lose them, then print. With ``--json -`` only the JSON is printed.

    Raises:
        InputError: the table or the JSON file cannot be written.
    """
    if table is not None:
        from probe.results.frames import save_frame

        save_frame(result, table)
    if json_path == "-":
        _write(saved.dumps(result))
        return
    if json_path is not None:
        saved.save(result, json_path)
    from probe.report.terminal import page_for, render

    _write(render(result, page_for(sys.stdout), rows=rows, all_metrics=all_metrics, verbose=verbose, quiet=quiet))


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
