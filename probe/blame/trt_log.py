"""TensorRT's verbose log of a build with an editable timing cache: which tactics each operator was tried with, and which was taken.

TensorRT 10.8 and later write it with ``BuilderFlag.EDITABLE_TIMING_CACHE``, detailed profiling verbosity and a verbose logger; nothing else
of TensorRT says which candidates there were. A choice is pinned by key and hash: ``cache.update(trt.TimingCacheKey.parse(key), ...)``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probe.errors import InputError
from probe.results.tactics import TacticsLogResult, TrtDifference, TrtOp, TrtTactic

_PREFIX = re.compile(r"^(?:\s*\[[^\[\]]*\])+")  # [07/21/2025-10:11:12] [V] [TRT]
_OP = re.compile(r"Autotuning op (?P<op>.*)\(key: (?P<key>0x[0-9a-fA-F]{32})\):?\s*(?P<layers>.*)$")
_TABLE = re.compile(r"tactic_id\s*,\s*cost")
_ROW = re.compile(
    r"^\s*(?P<id>\d+)\s*,(?P<cost>[^,]+),(?P<slowdown>[^,]+),(?P<correlation>[^,]+),(?P<kernel>.*),\s*(?P<hash>0x[0-9a-fA-F]+)\s*"
    r"(?:,(?P<parameter>.*))?$"
)
_CHOSEN = re.compile(
    r"The selected tactic is \(tactic hash, cost\(in ms\)\)\s*:\s*(?P<hash>0x[0-9a-fA-F]+)\s*,\s*(?P<cost>\S+)"
)


@dataclass(slots=True)
class _Op:
    """An operator while its lines are read."""

    op: str
    key: str
    layers: str
    rows: list[TrtTactic] = field(default_factory=list)
    chosen: str = ""
    chosen_ms: float | None = None

    def done(self) -> TrtOp:
        return TrtOp(self.op, self.key, self.layers, tuple(self.rows), self.chosen, self.chosen_ms)


def read_trt_log(path: str | Path, other: str | Path | None = None, *, command: str = "") -> TacticsLogResult:
    """The autotuning tables of a log, and with ``other`` what that log says otherwise.

    Raises:
        InputError: not readable, or no operator was autotuned in it.
    """
    ops, notes = _ops_in(path)
    if other is None:
        return TacticsLogResult(str(path), ops, notes=notes, command=command)
    others, more = _ops_in(other)
    differences = differences_of(ops, others)
    unlike = {one.op for one in differences if one.kind != "candidates"}
    same = sum(one.op not in unlike for one in ops)
    return TacticsLogResult(str(path), ops, str(other), differences, same, (*notes, *more), command)


def _ops_in(path: str | Path) -> tuple[tuple[TrtOp, ...], tuple[str, ...]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            ops, notes = parse_trt_log(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the log: {getattr(error, 'strerror', None) or error}", where=str(path)
        ) from error
    if not ops:
        raise InputError(
            "no operator is autotuned in this log", where=str(path),
            hint="a verbose log of a build with BuilderFlag.EDITABLE_TIMING_CACHE and detailed profiling verbosity, with an empty cache",
        )  # fmt: skip
    return ops, tuple(f"{path}: {note}" for note in notes)


def parse_trt_log(lines: Iterable[str]) -> tuple[tuple[TrtOp, ...], tuple[str, ...]]:
    """Operators in the order of the log, and what is odd about it. One that is tuned twice (two builds in a log) counts as it was last."""
    found: dict[str, _Op] = {}
    repeated: set[str] = set()
    current: _Op | None = None
    in_table = False
    for raw in lines:
        line = _PREFIX.sub("", raw.rstrip("\r\n"))
        if (match := _OP.search(line)) is not None:
            current = _Op(match["op"].strip(), match["key"].lower(), match["layers"].strip())
            if current.op in found:
                repeated.add(current.op)
            found[current.op] = current
            in_table = False
        elif current is None:
            continue
        elif _TABLE.search(line):
            in_table = True
        elif (match := _CHOSEN.search(line)) is not None:
            current.chosen, current.chosen_ms = match["hash"].lower(), _number(match["cost"])
            current, in_table = None, False
        elif in_table and (match := _ROW.match(line)) is not None and (row := _row(match)) is not None:
            current.rows.append(row)
    ops = tuple(one.done() for one in found.values())
    notes = [f"{one.op} has no choice: the log ends before it" for one in ops if not one.chosen]
    notes += [
        f"{one.op}: the tactic chosen, {one.chosen}, is not in its table"
        for one in ops
        if one.chosen and one.taken is None
    ]
    notes += [f"{name} is autotuned more than once: the last time counts" for name in sorted(repeated)]
    return ops, tuple(notes)


def _row(match: re.Match[str]) -> TrtTactic | None:
    cost = _number(match["cost"])
    if cost is None:
        return None
    return TrtTactic(
        int(match["id"]), cost, _number(match["slowdown"]), _number(match["correlation"]), match["kernel"].strip(),
        match["hash"].lower(), (match["parameter"] or "").strip(" ,"),
    )  # fmt: skip


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None  # TensorRT: negative and NaN times are no times


def differences_of(first: Sequence[TrtOp], second: Sequence[TrtOp]) -> tuple[TrtDifference, ...]:
    """What two builds chose or tried differently, choices first, each in the order of the logs. Operators are met by name."""
    others = {one.op: one for one in second}
    mine = {one.op for one in first}
    choices: list[TrtDifference] = []
    rest: list[TrtDifference] = []
    for one in first:
        other = others.get(one.op)
        if other is None:
            rest.append(TrtDifference(one.op, "only_first", "the second log does not have it", one.chosen))
        elif one.chosen != other.chosen:
            choices.append(_flipped(one, other))
        elif {x.tactic_hash for x in one.tactics} != {x.tactic_hash for x in other.tactics}:
            message = (
                f"the same tactic out of {len(one.tactics)} and {len(other.tactics)} candidates, not the same ones"
            )
            rest.append(TrtDifference(one.op, "candidates", message, one.chosen, other.chosen))
    rest += [
        TrtDifference(one.op, "only_second", "the first log does not have it", second=one.chosen)
        for one in second
        if one.op not in mine
    ]
    return (*choices, *rest)


def _flipped(one: TrtOp, other: TrtOp) -> TrtDifference:
    before, after = one.taken, other.taken
    again = next((x for x in other.tactics if x.tactic_hash == one.chosen), None)
    cost = again.cost_ms / after.cost_ms if again is not None and after is not None and after.cost_ms > 0 else None
    if not one.chosen or not other.chosen:
        message = "one of the logs ends before its choice"
    elif again is None:
        message = "the first log's tactic was no candidate in the second"
    else:
        message = "both were candidates" + (
            f"; the first one costs {cost:.3g} times the second's there" if cost else ""
        )
    kernels = (x.kernel if x is not None else "" for x in (before, after))
    return TrtDifference(one.op, "choice", message, one.chosen, other.chosen, *kernels, cost_of_first=cost)
