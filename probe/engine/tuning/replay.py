"""``Replay``: the selector that takes what a tactic file says, and tells what it cannot take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.engine.tactics import is_known
from probe.engine.tuning.context import Candidate, LayerContext, on_one_line
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.tactic_file import Lines, tensors_of
from probe.errors import InputError
from probe.results.tactics import MissKind, TacticFile, TacticLine, TacticMiss

if TYPE_CHECKING:
    from probe.engine.engine import Engine


class Replay:
    """Takes the tactics of a file.

    Strict: anything that is not as it was recorded (``TacticMiss``) is an error, and all of it is listed. Lenient: a layer that the file
    does not fit is left to the selectors before this one, which by default take the fastest, and ``misses`` says what was chosen instead.

    Attributes:
        misses: what did not fit; of the last choice.
    """

    def __init__(
        self,
        file: TacticFile,
        *,
        strict: bool = True,
        engine: Engine | None = None,
        edited: bool = False,
        source: str = "",
    ) -> None:
        """
        Args:
            engine: whose model, device and settings must be the file's; None: only layers are compared.
            edited: the file is not as it was written (``read_tactic_file``).
            source: what errors call the file.
        """
        self.file, self.strict = file, strict
        self.source = source or "the tactic file"
        self.name = f"replay {source}".strip() + ("" if strict else " (lenient)")
        self._lines = Lines(file)
        self._layers: Counter[tuple[str, ...]] = Counter()  # of the network, by the tensors they make
        self._of_file = (_edited() if edited else []) + (_of_engine(file, engine) if engine is not None else [])
        self.misses: list[TacticMiss] = list(self._of_file)

    def begin(self, layers: Sequence[tuple[LayerContext, Sequence[Candidate]]]) -> None:
        """As ``Begins.begin``.

        Raises:
            InputError: strict, and something does not fit; lists everything that does not.
        """
        self._layers = Counter(context.outputs for context, _ in layers)
        met = {self._line(context) for context, _ in layers}
        gone = [
            TacticMiss("missing_layer", f"no layer makes {_tensors(line)}", line.layer, line.tactic)
            for line in self.file.layers
            if line not in met
        ]
        found = [miss for context, candidates in layers if (miss := self._miss(context, candidates)) is not None]
        self.misses = [*self._of_file, *gone] + (found if self.strict else [])
        if self.strict and self.misses:
            lines = [f"  {on_one_line(_told(miss))}" for miss in self.misses]
            what = f"{self.source} does not fit: {len(lines)} {'miss' if len(lines) == 1 else 'misses'}"
            raise InputError(
                "\n".join([what, *lines]), hint="--lenient takes what fits; or record this network anew on this device"
            )

    def named(self, context: LayerContext) -> Sequence[str]:
        """As ``Names.named``: what the file says of the layer."""
        line = self._line(context)
        return () if line is None or not is_known(line.tactic) else (line.tactic,)

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """As ``Selector.select``: the recorded one alone when strict, else the recorded one first.

        Raises:
            InputError: strict, and the layer does not fit.
        """
        miss = self._miss(context, candidates)
        if miss is None:
            line = self._line(context)
            recorded = [one for one in candidates if line is not None and one.tactic == line.tactic]
            return recorded if self.strict else [*recorded, *(one for one in candidates if one not in recorded)]
        if self.strict:
            raise InputError(_told(miss), hint="--lenient takes another where the file does not fit")
        return candidates

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        """As ``Selector.chosen``.

        Raises:
            InputError: strict, and something else was taken than what the file says.
        """
        line = self._line(context)
        if line is not None and line.tactic == candidate.tactic and self._changed(line, context) is None:
            return
        if self.strict:
            wanted = f"{line.tactic} in {line.precision}" if line is not None else "nothing"
            raise InputError(f"layer {context.layer}: {candidate.tactic} was taken, the file says {wanted}")
        miss = self._miss(context, [candidate])
        if miss is not None:
            self.misses.append(replace(miss, chosen=candidate.tactic))

    # --- what does not fit -------------------------------------------------------------------------------------------

    def _miss(self, context: LayerContext, candidates: Sequence[Candidate]) -> TacticMiss | None:
        line = self._line(context)
        if line is None:
            names = ", ".join(context.outputs) or "nothing"
            return TacticMiss("new_layer", f"the file says nothing of the layer that makes {names}", context.layer)
        changed = self._changed(line, context)
        if changed is not None:
            return changed
        if not is_known(line.tactic):
            return _of_line("unknown_tactic", f"no tactic is called {line.tactic!r}", line)
        if line.tactic not in {one.tactic for one in candidates}:
            left = ", ".join(one.tactic for one in candidates) or "nothing"
            return _of_line("unsupported_tactic", f"{line.tactic} is no candidate; there is {left}", line)
        return None

    def _line(self, context: LayerContext) -> TacticLine | None:
        return self._lines.of(context.outputs, context.layer, alone=self._layers[context.outputs] <= 1)

    @staticmethod
    def _changed(line: TacticLine, context: LayerContext) -> TacticMiss | None:
        if line.precision != context.precision:
            message = f"recorded in {line.precision}, here in {context.precision}"
            return _of_line("changed_precision", message, line)
        if line.problem != context.problem:
            return _of_line("changed_problem", f"recorded for {line.problem}, here {context.problem}", line)
        if line.reads != context.reads:
            message = f"recorded reading {', '.join(line.reads)}, here {', '.join(context.reads)}"
            return _of_line("changed_problem", message, line)
        return None


def _of_line(kind: MissKind, message: str, line: TacticLine) -> TacticMiss:
    return TacticMiss(kind, message, line.layer, line.tactic)


def _tensors(line: TacticLine) -> str:
    return ", ".join(line.outputs) or "nothing"


def _told(miss: TacticMiss) -> str:
    return f"layer {miss.layer}: {miss.message}" if miss.layer else miss.message


def _edited() -> list[TacticMiss]:
    return [TacticMiss("edited", "the file was edited, damaged or cut short: its hash is not that of its text")]


def _of_engine(file: TacticFile, engine: Engine) -> list[TacticMiss]:
    """The model, the device, and how it was compiled."""
    here, then, settings = fingerprint_of(engine), file.fingerprint, engine.settings
    found = []
    if then.model_sha256 != here.model_sha256:
        message = f"recorded of another model: {then.model_sha256[:12]}, this is {here.model_sha256[:12]}"
        found.append(TacticMiss("other_model", message))
    if then.device != here.device:
        found.append(TacticMiss("other_device", f"recorded on another device: {then.device}, this is {here.device}"))
    for name in ("precision", "passes", "fusion", "interior"):
        recorded, now = getattr(file, name), getattr(settings, name)
        if recorded != now:
            found.append(TacticMiss("other_settings", f"recorded with {name} {recorded}, this is {now}"))
    kept, there = frozenset(file.kept), tensors_of(engine)
    for words, names in (
        ("kept in FP32 and not there", kept - there),
        ("kept in FP32 and rounded here", (kept & there) - engine.assignment.kept),
        ("kept in FP32 here and rounded there", engine.assignment.kept - kept),
    ):
        if names:
            found.append(TacticMiss("other_settings", f"{words}: {', '.join(sorted(names))}"))
    return found
