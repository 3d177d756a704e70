"""The evaluations of a search as a file of JSON lines that is only ever appended to: what a search is resumed from, and what it is audited by.

First line: what was searched (schema ``probe.find-log/1``). Every further line: one evaluation. A line that a killed process left without
its end is no evaluation. As in results, NaN and infinities are strings.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from probe.culprits.check_program import name_of_check
from probe.errors import InputError
from probe.results.diff import Criterion
from probe.search.oracle import Entry, Evaluation, Kind

try:
    import fcntl
except ImportError:  # not a POSIX system: two searches on one log are then the user's to avoid
    fcntl = None

if TYPE_CHECKING:
    from probe.engine.engine import Settings
    from probe.model.model import Model
    from probe.store.feeds import InputSet

SCHEMA = "probe.find-log/1"
_KINDS: dict[str, Kind] = {"search": "search", "probes": "probes", "proof": "proof"}
_FOR_THE_READER = frozenset(("model", "input_ids"))  # may differ: their contents are what counts
_OTHER = "start a new log, or repeat model, inputs and options; budgets may differ"


def fingerprint(
    model: Model,
    sets: Sequence[InputSet],
    *,
    precision: str,
    granularity: str,
    objective: str,
    acceptance: Sequence[Criterion] = (),
    preset: str | None = None,
    aggregate: str = "worst",
    check: str | Callable[..., Any] | None = None,
    golden: str = "",
    kept: Sequence[str] = (),
    settings: Settings | None = None,
) -> dict[str, Any]:
    """What a search depends on, as the first line of its log has it. Budgets are not part of it.

    Args:
        golden: what stands for it: ort, fp64, or the hash of a recording.
        kept: names that stay FP32 whatever the search says.
        settings: of the engine.
    """
    from probe import __version__

    return {
        "schema": SCHEMA, "probe": __version__, "model": str(model.path), "model_sha256": model.sha256,
        "input_ids": [one.id for one in sets], "inputs": [one.sha256 for one in sets],
        "precision": precision, "granularity": granularity, "objective": objective,
        "acceptance": [_bound(one) for one in acceptance], "preset": preset or "", "aggregate": aggregate, "check": name_of_check(check),
        "golden": golden, "kept": sorted(kept), "device": settings.device if settings else "",
        "passes": settings.passes if settings else "", "fusion": settings.fusion if settings else "",
        "interior": settings.interior if settings else "",
    }  # fmt: skip


def _bound(one: Criterion) -> str:
    return str(one) + (" (warning)" if one.level == "warn" else "")


class EvaluationLog:
    """The log of one search. A context manager; every evaluation is in the file when ``append`` returns.

    Args:
        path: made anew, or with ``resume`` continued.
        header: ``fingerprint`` of the search.

    Attributes:
        entries: evaluations that were there already, in order.

    Raises:
        InputError: the file exists and is not to be resumed, is no log, is damaged, belongs to another search (with every
            difference), is being written by another process, or cannot be written.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = Path(path)
        self.entries: tuple[Entry, ...] = ()
        self._file = _open(self.path, resume)
        try:
            _hold(self._file, self.path)
            if resume:
                self._continue(header)
            else:
                self._write(dict(header))
        except BaseException:
            self._file.close()
            raise

    def _continue(self, header: Mapping[str, Any]) -> None:
        with _readable(self.path):
            content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        found, entries = _parse(whole, self.path)
        _check_same(found, header, self.path)
        self.entries = tuple(entries)
        with _writable(self.path):
            self._file.truncate(len(whole))  # a torn line must not grow into the next one
            self._file.seek(len(whole))

    def append(self, entry: Entry) -> None:
        """Add one evaluation.

        Raises:
            InputError: the disk is full.
        """
        evaluation = entry.evaluation
        self._write(
            {
                "index": entry.index, "kind": entry.kind, "why": entry.why, "passed": evaluation.passed,
                "margin": evaluation.margin, "measured": dict(evaluation.measured), "kept": sorted(entry.kept),
            }
        )  # fmt: skip

    def _write(self, line: dict[str, Any]) -> None:
        # ASCII: a lone surrogate, which an ONNX name may hold, stays representable.
        data = json.dumps(_plain(line), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with _writable(self.path):
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_log(path: str | Path) -> tuple[dict[str, Any], list[Entry]]:
    """Header and evaluations of a log, a torn last line left out.

    Raises:
        InputError: it cannot be read, is no log, or is damaged.
    """
    path = Path(path)
    with _readable(path):
        content = path.read_bytes()
    return _parse(content[: content.rfind(b"\n") + 1], path)


def _open(path: Path, resume: bool) -> BinaryIO:
    """Unbuffered: what was written has left the process."""
    try:
        return path.open("r+b" if resume else "xb", buffering=0)
    except FileExistsError:
        raise InputError(f"the log {path} exists", hint="--resume takes it up; or name another, or remove it") from None
    except FileNotFoundError:
        what = f"there is no log {path}" if resume else f"there is no folder {path.parent}"
        raise InputError(what, hint="start without --resume" if resume else f"mkdir -p {path.parent}") from None
    except OSError as error:
        raise InputError(f"cannot open the log {path}: {error.strerror or error}") from error


def _hold(file: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another search is writing to the log {path}", hint="wait for it, or name another") from None
    except OSError:  # a file system without locks
        return


class _errors:  # noqa: N801  (reads as a statement)
    """OSError as the user's error."""

    def __init__(self, doing: str, path: Path) -> None:
        self._doing, self._path = doing, path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise InputError(f"cannot {self._doing} the log {self._path}: {error.strerror or error}") from error


def _readable(path: Path) -> _errors:
    return _errors("read", path)


def _writable(path: Path) -> _errors:
    return _errors("write", path)


# --- what a line says


def _parse(whole: bytes, path: Path) -> tuple[dict[str, Any], list[Entry]]:
    lines = whole.split(b"\n")[:-1]
    header = _object(lines[0]) if lines else None
    if header is None or header.get("schema") != SCHEMA:
        known = header is not None and str(header.get("schema", "")).startswith("probe.find-log/")
        hint = "it was made by another version of probe" if known else "a log begins with the search it belongs to"
        raise InputError(f"{path} is no log of a search that this version reads", hint=hint)
    entries: list[Entry] = []
    for number, line in enumerate(lines[1:], 2):
        entry = _entry(_object(line))
        if entry is None:
            raise InputError(
                f"the log {path} is damaged in line {number}", hint="cut it off before that line to resume from there"
            )
        entries.append(entry)
    return header, entries


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _entry(row: dict[str, Any] | None) -> Entry | None:
    """None where a field is missing or of another type."""
    if row is None:
        return None
    index, kind, why, kept = (row.get(key) for key in ("index", "kind", "why", "kept"))
    passed, margin, measured = row.get("passed"), _number(row.get("margin")), row.get("measured")
    if not (isinstance(index, int) and isinstance(kind, str) and kind in _KINDS and isinstance(why, str)):
        return None
    if not (isinstance(kept, list) and all(isinstance(one, str) for one in kept)):
        return None
    if not (isinstance(passed, bool) and isinstance(margin, (int, float)) and isinstance(measured, dict)):
        return None
    values = {key: _number(value) for key, value in measured.items()}
    return Entry(index, _KINDS[kind], why, frozenset(kept), Evaluation(passed, float(margin), values))


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity") else value


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    wanted = json.loads(json.dumps(_plain(dict(wanted))))
    keys = [key for key in dict.fromkeys((*wanted, *found)) if key not in _FOR_THE_READER]
    different = [key for key in keys if found.get(key) != wanted.get(key)]
    if different:
        said = [
            f"{key.replace('_', ' ')}: {_shown(found.get(key))} there, {_shown(wanted.get(key))} here"
            for key in different
        ]
        raise InputError(
            "the log belongs to another search",
            where=os.linesep.join([str(path), *(f"         {one}" for one in said)]),
            hint=_OTHER,
        )


def _shown(value: Any) -> str:
    if value in (None, "", []):
        return "none"
    if isinstance(value, list):
        shown = ", ".join(_shown(one) for one in value[:4])
        return shown + (f", ... ({len(value)})" if len(value) > 4 else "")
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and all(c in "0123456789abcdef" for c in text) else text
