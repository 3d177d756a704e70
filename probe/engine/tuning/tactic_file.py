"""The tactic file: which tactic each layer runs, one line a layer, readable and stable, so that two files can be compared as text.

It is JSON. Layers stand in execution order and are found again by the tensors they make (in two branches of an If, which may give them the
same names, by the layer's name too); no time is in it, which would differ from run to run. The last line is the hash of all before it: what was edited or cut short is not taken for what was recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probe.engine.assignment import Assignment, Choice
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.errors import InputError
from probe.results.tactics import Fingerprint, RecordedOutputs, TacticFile, TacticLine

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.tuning.choose import Choices
    from probe.engine.tuning.context import LayerContext
    from probe.results.diff import Verdict

SCHEMA = "probe.tactics/1"
_SEAL = '"sha256": "'
_LISTED = ("recorded", "layers")  # fields with a line for each of their entries; they come last


def tactic_file_of(
    engine: Engine, choices: Choices, recorded: Iterable[RecordedOutputs] = (), verdict: Verdict = "not_judged"
) -> TacticFile:
    """What was chosen for a network, as it goes into a file.

    Args:
        recorded: outputs of the run with these choices.

    Raises:
        InputError: the model's file is gone.
    """
    settings = engine.settings
    return TacticFile(
        fingerprint=fingerprint_of(engine), precision=settings.precision, passes=settings.passes, fusion=settings.fusion,
        interior=settings.interior, layers=tuple(line_of(one.context, one.candidate.tactic) for one in choices),
        kept=tuple(sorted(engine.assignment.kept)), recorded=tuple(recorded), verdict=verdict,
    )  # fmt: skip


def line_of(context: LayerContext, tactic: str) -> TacticLine:
    """A layer and its tactic."""
    return TacticLine(
        tactic, context.precision, context.layer, context.kind, context.outputs, context.reads, context.problem
    )


class Lines:
    """The lines of a file, found again by the tensors that a layer makes; by its name, too, where several lines or layers make the same."""

    def __init__(self, file: TacticFile) -> None:
        self._exactly = {(line.outputs, line.layer): line for line in file.layers}
        self._by_outputs: dict[tuple[str, ...], list[TacticLine]] = {}
        for line in file.layers:
            self._by_outputs.setdefault(line.outputs, []).append(line)

    def of(self, outputs: tuple[str, ...], layer: str, *, alone: bool = True) -> TacticLine | None:
        """The line of a layer; None: there is none.

        Args:
            alone: no other layer of the network makes tensors of these names.
        """
        found = self._exactly.get((outputs, layer))
        named = self._by_outputs.get(outputs, ())
        return found if found is not None or not alone or len(named) != 1 else named[0]


def with_tactics(file: TacticFile, tactics: Mapping[tuple[tuple[str, ...], str], str]) -> TacticFile:
    """Another file with other tactics for some layers, by the tensors they make and their names. What was recorded of the old ones is gone."""
    lines = Lines(file)
    changed = {line: tactic for (outputs, layer), tactic in tactics.items() if (line := lines.of(outputs, layer))}
    layers = tuple(replace(line, tactic=changed.get(line, line.tactic)) for line in file.layers)
    return replace(file, layers=layers, recorded=(), verdict="not_judged")


def text_of(file: TacticFile) -> str:
    """The file's text, hash included."""
    parts = []
    fields = {"schema": file.schema, **asdict(file)}
    for name in (*(one for one in fields if one not in _LISTED), *_LISTED):
        value = fields[name]
        if name in _LISTED:
            rows = ",\n".join(json.dumps(one) for one in value)
            parts.append(f'"{name}": [\n{rows}\n]' if rows else f'"{name}": []')
        else:
            parts.append(f'"{name}": {json.dumps(value)}')
    body = "{\n" + ",\n".join(parts) + ",\n"
    return f'{body}{_SEAL}{_hash(body)}"\n}}\n'


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_tactic_file(path: str | Path) -> tuple[TacticFile, bool]:
    """A tactic file, and whether it is as it was written.

    Raises:
        InputError: it cannot be read, is none, is cut short, or has two lines for one layer.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the tactic file: {getattr(error, 'strerror', None) or error}", where=str(path)
        ) from error
    file = parse_tactic_file(text, where=str(path))
    text = text.replace("\r\n", "\n")  # a checkout may have changed line ends, which changes nothing
    body, seal, end = text.rpartition(_SEAL)
    return file, bool(seal) and end == f'{_hash(body)}"\n}}\n'


def read_unedited(path: str | Path) -> TacticFile:
    """A tactic file that is as it was written.

    Raises:
        InputError: it is not; or as ``read_tactic_file``.
    """
    file, as_written = read_tactic_file(path)
    if not as_written:
        raise InputError(
            "the tactic file was edited, damaged or cut short: its hash is not that of its text", where=str(path),
            hint="probe tactics replay --lenient -o writes a file that can be used",
        )  # fmt: skip
    return file


def parse_tactic_file(text: str, *, where: str = "") -> TacticFile:
    """The text of a tactic file; its hash is not looked at.

    Raises:
        InputError: as ``read_tactic_file``.
    """
    from probe.results.json import loads

    try:
        file = loads(text, where=where)
    except InputError as error:
        raise InputError(f"no tactic file: {error.what}", where=where, hint=error.hint) from None
    if not isinstance(file, TacticFile):
        raise InputError(
            f"no tactic file: it holds a {getattr(file, 'schema', 'result')}", where=where,
            hint="probe tactics record MODEL -o FILE writes one",
        )  # fmt: skip
    counted = Counter((line.outputs, line.layer) for line in file.layers)
    twice = [outputs for (outputs, _), count in counted.items() if count > 1]
    if twice:
        raise InputError(f"damaged tactic file: two lines for the layer that makes {', '.join(twice[0])}", where=where)
    return file


def base_of(file: TacticFile, engine: Engine) -> Assignment:
    """The precisions a file was recorded with, on a network: what is kept, and layers stored in another precision than the rest. Layers and
    tensors that are not there are left out; ``Replay`` says which.

    Raises:
        InputError: an unknown precision.
    """
    lines, made = Lines(file), [tuple(value.name or "" for value in layer.outputs) for layer in engine.layers]
    counted = Counter(made)
    layers = {
        layer.name: Choice(line.precision)
        for layer, outputs in zip(engine.layers, made, strict=True)
        if (line := lines.of(outputs, layer.name, alone=counted[outputs] == 1)) and line.precision != file.precision
    }
    return Assignment(Choice(file.precision), layers, frozenset(file.kept) & tensors_of(engine))


def tensors_of(engine: Engine) -> frozenset[str]:
    """Names of all tensors of a network, weights included."""
    return frozenset(
        value.name or ""
        for layer in engine.layers
        for value in (*layer.reads, *layer.weights, *layer.tensors)
    )  # fmt: skip


def differences(recorded: Fingerprint, here: Fingerprint) -> tuple[str, ...]:
    """What is not as it was where a file was recorded and need not matter: the bits of the outputs tell."""
    words = {"processor": "processor", "driver": "driver", "sources": "version of the tactics"}
    notes = []
    for name, said in words.items():
        then, now = getattr(recorded, name), getattr(here, name)
        if then != now:
            notes.append(f"recorded with another {said}" + (f": {then}; here {now}" if name != "sources" else ""))
    return tuple(notes)
