"""``Timings``: what candidates take on real activations, measured once and kept in a readable file."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.activations import activations
from probe.engine.assignment import Choice
from probe.engine.network import constant
from probe.engine.rounding import multiplies
from probe.engine.tactics import tactic_of
from probe.engine.tuning.budget import budget
from probe.engine.tuning.context import Candidate, LayerContext
from probe.engine.tuning.turns import turn_order
from probe.errors import InputError
from probe.results.tactics import Fingerprint

if TYPE_CHECKING:
    from probe.engine.costs import Shapes
    from probe.engine.device.protocol import Tuner
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

Array = np.ndarray[Any, Any]
Wanted = tuple["Layer", LayerContext, Sequence[Candidate]]

SCHEMA = "probe.timings/1"
RUNS = 9  # of a candidate, at most
BUDGET = 0.15  # seconds for the repetitions of one candidate
_LEAST = 3  # that are made in any case, so that one disturbed run does not decide
_LONGEST = 1e15  # microseconds: 30 years
_HOPELESS = 4.0  # times as slow as the fastest: one measurement tells


@dataclass(frozen=True, slots=True)
class Timing:
    """What one tactic took on one problem.

    Attributes:
        median_us: microseconds; None: it was not timed.
        runs: that the median is of; the first one, which sets things up, counts only where it takes long. On a device that measures by
            itself: graphs of repetitions.
        wrong: why it was not: it does not compute what exact does.
    """

    median_us: float | None
    runs: int
    wrong: str = ""


class Timings:
    """Measured times by problem and tactic, on one device with one version of the tactics.

    Attributes:
        measured, reused: times measured by this object, and taken from what it was opened with.
        notes: what was noticed: a cache of another device, say.
    """

    def __init__(self, fingerprint: Fingerprint, known: Mapping[tuple[str, str], Timing] | None = None) -> None:
        self.fingerprint = fingerprint
        self._known = dict(known or {})
        self._counted: set[tuple[str, str]] = set()
        self.measured = self.reused = 0
        self.notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, problem: str, tactic: str) -> Timing | None:
        """The time of a tactic on a problem (``LayerContext.problem``); None: not measured."""
        return self._known.get((problem, tactic))

    def turning(self, tuner: Tuner) -> Callable[[tuple[int, ...], str], float]:
        """Microseconds for turning an image of a shape and a precision from channels first into last; measured once, and kept in the file."""

        def turn(shape: tuple[int, ...], precision: str) -> float:
            stored = "fp32" if precision == "tf32" else precision
            key = (f"{stored}[{','.join(map(str, shape))}]", "channels_last")
            return self._once(key, lambda: tuner.turning(shape, stored))

        return turn

    def whole(self, problem: str, tactics: str, seconds: Callable[[], float]) -> float:
        """Microseconds of a whole network under some tactics; measured once, and kept in the file."""
        return self._once((problem, tactics), seconds)

    def _once(self, key: tuple[str, str], seconds: Callable[[], float]) -> float:
        self._count(*key)
        found = self._known.get(key)
        if found is None or found.median_us is None:
            found = self._known[key] = Timing(round(seconds() * 1e6, 3), 1)
            self._counted.add(key)
            self.measured += 1
        return found.median_us or 0.0

    # --- measuring ---------------------------------------------------------------------------------------------------

    def measure(
        self,
        engine: Engine,
        inputs: Mapping[str, Any],
        wanted: Sequence[Wanted],
        *,
        shapes: Shapes | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> dict[tuple[str, str], Candidate]:
        """Candidates with their times, by layer name and tactic. What is not known yet is measured, each problem once, on the activations
        of one run in FP32. Layers of which nothing arrives (of a branch that was not taken), and those that read sequences, have no time.
        A device that measures by itself (``Tunes``) also checks: what is wrong has no time, and says so.

        Args:
            shapes: of the network's tensors by name, where they are known; kernels are compiled ahead then.

        Raises:
            InputError: the network does not run in FP32.
        """
        wanted = [
            (layer, replace(context, problem=_under(engine, layer, context.problem)), candidates)
            for layer, context, candidates in wanted
        ]
        lacking: dict[str, Wanted] = {}
        for layer, context, candidates in wanted:
            for candidate in candidates:
                self._count(context.problem, candidate.tactic)
            if any((context.problem, one.tactic) not in self._known for one in candidates):
                lacking[layer.name] = (layer, context, candidates)
        if lacking:
            if engine.tuner is not None and shapes is not None:
                once = {
                    context.problem: (layer, context, candidates) for layer, context, candidates in lacking.values()
                }
                work = [
                    (layer, context.precision, [one.tactic for one in found]) for layer, context, found in once.values()
                ]
                engine.tuner.ahead(work, shapes, progress)
            self._measure(engine, inputs, lacking, progress, shapes)
        return {
            (context.layer, one.tactic): replace(one, median_us=found.median_us, wrong=found.wrong)
            for _, context, candidates in wanted
            for one in candidates
            if (found := self._known.get((context.problem, one.tactic))) is not None
        }

    def _count(self, problem: str, tactic: str) -> None:
        key = (problem, tactic)
        if key in self._known and key not in self._counted:
            self._counted.add(key)
            self.reused += 1

    def _measure(
        self,
        engine: Engine,
        inputs: Mapping[str, Any],
        wanted: Mapping[str, Wanted],
        progress: Callable[[str], None] | None,
        shapes: Shapes | None,
    ) -> None:
        for layer, reads in activations(engine, inputs, [layer for layer, _, _ in wanted.values()]):
            _, context, candidates = wanted[layer.name]
            if all((context.problem, one.tactic) in self._known for one in candidates):
                continue  # another layer with the same problem was met before
            if progress is not None:
                progress(layer.name)
            try:
                # Those that are known too: a choice compares, and times of one hour compare better than those of two.
                if engine.tuner is not None:
                    found = _on_device(engine.tuner, layer, reads, context.precision, candidates, shapes)
                else:
                    found = _time_all(engine, layer, reads, context.precision, candidates)
            except InputError as error:
                self.notes = (*self.notes, f"{layer.name} was not measured: {error.what}")
                continue
            for tactic, timing in found.items():
                key = (context.problem, tactic)
                if timing.wrong:
                    self.notes = (*self.notes, f"{tactic} is no candidate of {layer.name}: {timing.wrong}")
                self.measured += 1
                self.reused -= key in self._counted
                self._counted.discard(key)
                self._known[key] = timing

    # --- the file ----------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, fingerprint: Fingerprint) -> Timings:
        """The times in a file; none if it is not there yet. Times of another device, driver or version of the tactics are left out, and
        ``notes`` says so.

        Raises:
            InputError: it cannot be read, or holds something else.
        """
        timings = cls(fingerprint)
        if Path(path).exists() and not Path(path).is_file():  # a device may never end
            raise InputError(f"cannot read the timing cache {path}: it is no file")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return timings
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot read the timing cache {path}: {getattr(error, 'strerror', None) or error}"
            ) from error
        head, rows = _parsed(text, str(path))
        mine = _head(fingerprint)
        stale = [name for name, value in mine.items() if head.get(name) != value]
        if stale:
            what = ", ".join({"sources": "version of the tactics"}.get(name, name) for name in stale)
            timings.notes = (f"{len(rows)} times in {path} are of another {what}: measured anew",)
            return timings
        timings._known = rows
        return timings

    def text(self) -> str:
        """The file: JSON with a line a time, ordered by problem and tactic, so that two files can be compared as text."""
        lines = [
            json.dumps({"problem": problem, "tactic": tactic, **_fields(timing)})
            for (problem, tactic), timing in sorted(self._known.items())
        ]
        head = "".join(
            f'"{name}": {json.dumps(value)},\n' for name, value in {"schema": SCHEMA, **_head(self.fingerprint)}.items()
        )
        return "{\n" + head + '"times": [\n' + ",\n".join(lines) + "\n]\n}\n"


def _under(engine: Engine, layer: Layer, problem: str) -> str:
    """A problem with what its times depend on beside it, where that is not as usual: the same layer takes another time, or other kernels."""
    told = []
    if engine.settings.interior == "fp32" and len(layer.nodes) > 1:
        told.append("interior fp32")
    if any(multiplies(node) and constant(node.inputs[1]) is None for node in layer.nodes):
        told.append("operands computed")
    if threads := getattr(engine.device, "threads", 0):
        told.append(f"threads {threads}")
    return f"{problem} [{', '.join(told)}]" if told else problem


def _head(fingerprint: Fingerprint) -> dict[str, str]:
    """What times depend on: no model, so that networks share them."""
    return {name: getattr(fingerprint, name) for name in ("device", "processor", "driver", "sources")}


def _fields(timing: Timing) -> dict[str, Any]:
    """As they are written: what is wrong only where something is."""
    return {name: value for name, value in asdict(timing).items() if name != "wrong" or value}


def _parsed(text: str, path: str) -> tuple[dict[str, Any], dict[tuple[str, str], Timing]]:
    try:
        tree = json.loads(text)
        if tree["schema"] != SCHEMA:
            raise InputError(f"{path} is a {tree['schema']}, not a timing cache")
        rows = {
            (one["problem"], one["tactic"]): Timing(one["median_us"], one["runs"], one.get("wrong", ""))
            for one in tree["times"]
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a timing cache: {type(error).__name__} {error}", hint="remove it, and it is made anew"
        ) from error
    for (problem, tactic), timing in rows.items():
        texts = all(isinstance(one, str) for one in (problem, tactic, timing.wrong))
        if not (texts and type(timing.runs) is int and _is_time(timing)):
            raise InputError(
                f"{path} holds a time that is none: {timing.median_us!r} of {tactic!r}", hint="a positive number of us"
            )
    return tree, rows


def _is_time(timing: Timing) -> bool:
    if timing.median_us is None:
        return bool(timing.wrong)
    return type(timing.median_us) in (int, float) and 0 <= timing.median_us < _LONGEST and not timing.wrong


def _on_device(
    tuner: Tuner,
    layer: Layer,
    reads: Mapping[str, Array],
    precision: str,
    candidates: Sequence[Candidate],
    shapes: Shapes | None,
) -> dict[str, Timing]:
    """As a device measures by itself. What it does not say anything of has no time."""
    allowed = {one.tactic: budget(tactic_of(one.tactic), layer, precision, shapes) for one in candidates}
    return {
        name: Timing(None if one.seconds is None else round(one.seconds * 1e6, 3), one.runs, one.wrong)
        for name, one in tuner.measure(layer, reads, precision, allowed).items()
    }


def _time_all(
    engine: Engine, layer: Layer, reads: Mapping[str, Array], precision: str, candidates: Sequence[Candidate]
) -> dict[str, Timing]:
    """Medians, the candidates taking turns, so that what else the machine does meets all alike. Each turn has another order: what ran just
    before leaves caches, and threads that still wait for work, to what runs next."""

    def once(tactic: str) -> float:
        begin = time.perf_counter()
        engine.evaluate(layer, reads, Choice(precision, tactic))
        return (time.perf_counter() - begin) * 1e6

    taken: dict[str, list[float]] = {}
    best: dict[str, float] = {}
    for one in candidates:
        first = once(one.tactic)  # sets up sessions and memory, which next to a long run is nothing
        taken[one.tactic] = [first if first > BUDGET * 1e6 else once(one.tactic)]
        best[one.tactic] = min(first, *taken[one.tactic])
    near = _HOPELESS * min(best.values(), default=0.0)
    for turn in range(RUNS - 1):
        for tactic in turn_order(list(taken), turn):
            times = taken[tactic]
            # One far behind is not measured again, nor one whose runs have taken long enough.
            if best[tactic] <= near and (len(times) < _LEAST or sum(times) < BUDGET * 1e6):
                times.append(once(tactic))
    return {tactic: Timing(round(statistics.median(times), 2), len(times)) for tactic, times in taken.items()}
