"""A recording from one format into another, or part of one."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from probe.errors import InputError

if TYPE_CHECKING:
    from probe.store.opening import Sink
    from probe.store.source import TensorSource


def convert(
    path: str | Path,
    out: str | Path,
    *,
    select: re.Pattern[str] | None = None,
    stats_only: bool = False,
    overwrite: bool = False,
) -> None:
    """Copy a recording of any format to ``out`` (``.npz``, ``.safetensors``, else a dump folder), one tensor in memory at a time.

    The header goes along, with a note of where it came from. Network inputs are kept whatever ``select`` says: a recording without
    them cannot be repeated.

    Args:
        select: only tensors whose name it is found in.
        stats_only: statistics and hashes instead of values.

    Raises:
        InputError: no recording, a damaged one, nothing selected, ``out`` exists or cannot be written, or cannot hold these types.
    """
    from probe.store.opening import open_sink, open_source

    with closing(open_source(path)) as source:
        rows = source.rows()
        if select is not None and not any(select.search(row.name) for row in rows):
            raise InputError(
                f"no tensor matches {select.pattern!r}", where=str(path), hint=f"probe inspect {path} lists them"
            )
        header = replace(source.header, notes=(*source.header.notes, f"copied from {path}"))
        with open_sink(out, header, overwrite=overwrite, stats_only=stats_only) as sink:
            copy(source, sink, select)


def copy(source: TensorSource, sink: Sink, select: re.Pattern[str] | None = None) -> None:
    """Add the selected tensors of ``source``, and its network inputs, to ``sink``."""
    from probe.store.opening import read_array

    for row in source.rows():
        if select is None or row.role == "input" or select.search(row.name):
            sink.add(row, read_array(source, row) if row.status == "recorded" else None)
