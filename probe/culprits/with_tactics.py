"""``find`` over a network that runs with chosen tactics: their file, the more accurate ones before FP32, fast ones given back."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.culprits.distance import local_changes
from probe.culprits.tactic_cure import Switch, TacticCure, cure_by_tactics, legal, possible_switches
from probe.engine.assignment import FP32, Choice
from probe.engine.tuning.choose import choose, problems_of
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.tactic_file import base_of, read_unedited
from probe.engine.tuning.timing import Timings
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.culprits.find import FindOptions, Found, Work
    from probe.culprits.oracle import Assigns, EngineOracle
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.results.tactics import TacticFile


_MEASURED = 4  # inputs on which suspicion is measured


@dataclass(frozen=True, slots=True)
class Legal:
    """A search space whose assignments have no tactic that does not exist for the precision of its layer."""

    engine: Engine
    space: Assigns

    def assignment(self, base: Assignment, members: frozenset[str]) -> Assignment:
        """As ``Space.assignment``."""
        return legal(self.engine, self.space.assignment(base, members))


def with_file(options: FindOptions) -> tuple[FindOptions, TacticFile | None]:
    """Options with what their tactic file says of the compiler, and that file; None where they name none.

    Raises:
        InputError: the file cannot be read, was edited, or is of another precision; or a log is asked for, whose evaluations do not say
            which tactics they were made with.
    """
    if options.tactics is None:
        return options, None
    file = read_unedited(options.tactics)
    if file.precision != options.precision:
        raise InputError(
            f"the tactic file is of {file.precision}, the search of {options.precision}",
            where=str(options.tactics),
            hint=f"--precision {file.precision}",
        )
    if options.log is not None:
        raise InputError("a search with a tactic file keeps no log", where="--log", hint="leave one of both out")
    if options.device not in ("cpu", file.fingerprint.device.partition(" ")[0]):
        raise InputError(f"the tactic file is of {file.fingerprint.device}", where=str(options.tactics))
    return replace(options, passes=file.passes, fusion=file.fusion, interior=file.interior), file


def with_tactics(work: Work, base: Assignment) -> Assignment:
    """``base`` with the choices of the tactic file, which must fit.

    Raises:
        InputError: it does not; every miss is listed.
    """
    file = work.tactic_file
    if file is None:
        return base
    work.engine.assignment = as_recorded(work, work.engine, work.engine.assignment)
    replay = Replay(file, strict=True, engine=work.engine, edited=False, source=str(work.options.tactics))
    chosen = choose(work.engine, work.sets[0].feeds, [replay]).assignment(base)
    return legal(work.engine, chosen)


def as_recorded(work: Work, engine: Engine, base: Assignment) -> Assignment:
    """``base`` with what the tactic file keeps in FP32, tensors and layers."""
    if work.tactic_file is None:
        return base
    recorded = base_of(work.tactic_file, engine)
    layers = [name for name, choice in recorded.layers.items() if choice.precision == FP32.precision]
    return base.keeping(layers=layers, tensors=recorded.kept)


def switched(work: Work, oracle: EngineOracle, fast: Assignment) -> tuple[Assignment, tuple[Switch, ...]]:
    """More accurate tactics that make the network pass; where none do, the most accurate ones, for the search to go on with."""
    cure = _cured(work, oracle, fast)
    if cure.search is not None and cure.search.status in ("interrupted", "budget"):
        work.ended = cure.search.status  # with the best switches that are known; nothing else is searched
    every = tuple(_switches(fast, cure.assignment))
    return cure.assignment, _timed(work, cure.switches or every)


def given_back(work: Work, found: Found, fast: Assignment) -> tuple[Assignment, tuple[Switch, ...]]:
    """Fast tactics again, wherever the answer passes with them."""
    answer = found.space.assignment(work.base, found.result.members)
    cure = _cured(work, found.oracle, fast, answer)
    if not cure:
        return work.base, work.switches
    chosen = {name: choice.tactic for name, choice in cure.assignment.layers.items()}
    given = legal(work.engine, work.base.with_tactics(chosen))
    fewer = sum(1 for name, choice in work.base.layers.items() if given.of(name).tactic != choice.tactic)
    if fewer:
        work.notes.append(
            "each certificate is an evaluation with the most accurate tactics everywhere; afterwards "
            f"{fewer} {'layer' if fewer == 1 else 'layers'} got the tactic of the file back, and the answer was evaluated again so"
        )
    return given, _timed(work, cure.switches)


def _cured(work: Work, oracle: EngineOracle, fast: Assignment, kept: Assignment | None = None) -> TacticCure:
    """Within what is left of the budget, of which it takes its part."""
    options, begin, before = work.options, time.perf_counter(), oracle.seconds
    cure = cure_by_tactics(
        work.engine, fast, oracle, kept=kept, scores=_suspicion(work, fast), max_evaluations=work.evaluations_left(),
        max_seconds=None if options.max_seconds is None else max(0.0, options.max_seconds - work.seconds_searching),
    )  # fmt: skip
    asked = sum((cure.evaluations or {}).get(kind, 0) for kind in ("search", "probes", "proof"))
    work.evaluated += asked
    work.evaluated_tactics += asked
    work.seconds_searching += time.perf_counter() - begin
    work.seconds_evaluating += oracle.seconds - before
    return cure


def _suspicion(work: Work, fast: Assignment) -> dict[str, float]:
    """How much the tactic of each layer changes what it makes, against the one it could be switched to. Measured once, on a few inputs."""
    if work.suspicious_tactics is None:
        choices = {
            one.layer: (
                Choice(fast.of(one.layer).precision, one.before),
                Choice(fast.of(one.layer).precision, one.after),
            )
            for one in possible_switches(work.engine, legal(work.engine, fast))
        }
        changed = local_changes(work.engine, choices, work.sets[:_MEASURED], kept=fast.kept)
        work.suspicious_tactics = {name: value for name, value in changed.items() if value is not None}
    return work.suspicious_tactics


def _switches(fast: Assignment, accurate: Assignment) -> Iterable[Switch]:
    for name, choice in fast.layers.items():
        after = accurate.of(name).tactic
        if after != choice.tactic:
            yield Switch(name, choice.tactic, after, None)


def _timed(work: Work, switches: tuple[Switch, ...]) -> tuple[Switch, ...]:
    """Switches with what they cost, measured on the first input."""
    names = {one.layer for one in switches}
    feeds = work.sets[0].feeds
    wanted = [
        (p.layer, p.context, p.candidates) for p in problems_of(work.engine, feeds, work.base) if p.layer.name in names
    ]
    times = Timings(fingerprint_of(work.engine)).measure(work.engine, feeds, wanted)
    found: list[Switch] = []
    for one in switches:
        before, after = times.get((one.layer, one.before)), times.get((one.layer, one.after))
        known = (
            before is not None and after is not None and before.median_us is not None and after.median_us is not None
        )
        cost = after.median_us - before.median_us if known else None  # type: ignore[union-attr, operator] - known says so
        found.append(replace(one, cost_us=cost))
    return tuple(found)
