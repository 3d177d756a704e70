"""``find`` over a network that runs with chosen tactics: their file, the more accurate ones before FP32, fast ones given back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.culprits.tactic_cure import Switch, cure_by_tactics, legal
from probe.engine.tuning.choose import choose, problems_of
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.tactic_file import read_tactic_file
from probe.engine.tuning.timing import Timings
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.culprits.find import FindOptions, Found, Work
    from probe.culprits.oracle import Assigns, EngineOracle
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Legal:
    """A search space whose assignments have no tactic that does not exist for the precision of its layer."""

    engine: Engine
    space: Assigns

    def assignment(self, base: Assignment, members: frozenset[str]) -> Assignment:
        """As ``Space.assignment``."""
        return legal(self.engine, self.space.assignment(base, members))


def with_file(options: FindOptions) -> FindOptions:
    """Options with what a tactic file says of the compiler.

    Raises:
        InputError: the file cannot be read, was edited, or is of another precision; or a log is asked for, whose evaluations do not say
            which tactics they were made with.
    """
    assert options.tactics is not None
    file, as_written = read_tactic_file(options.tactics)
    if not as_written:
        raise InputError(
            "the tactic file was edited, damaged or cut short: its hash is not that of its text", where=str(options.tactics),
            hint="probe tactics replay --lenient -o writes a file that can be used",
        )  # fmt: skip
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
    return replace(options, passes=file.passes, fusion=file.fusion, interior=file.interior)


def with_tactics(work: Work, base: Assignment) -> Assignment:
    """``base`` with the choices of the tactic file, which must fit.

    Raises:
        InputError: it does not; every miss is listed.
    """
    path = work.options.tactics
    if path is None:
        return base
    file, _ = read_tactic_file(path)
    replay = Replay(file, strict=True, engine=work.engine, edited=False, source=str(path))
    chosen = choose(work.engine, work.sets[0].feeds, [replay]).assignment(base)
    return legal(work.engine, chosen)


def switched(work: Work, oracle: EngineOracle, fast: Assignment) -> tuple[Assignment, tuple[Switch, ...]]:
    """More accurate tactics that make the network pass; where none do, the most accurate ones, for the search to go on with."""
    cure = cure_by_tactics(work.engine, fast, oracle)
    work.evaluated += sum((cure.evaluations or {}).get(kind, 0) for kind in ("search", "probes", "proof"))
    every = tuple(_switches(fast, cure.assignment))
    return cure.assignment, _timed(work, cure.switches or every)


def given_back(work: Work, found: Found, fast: Assignment) -> tuple[Assignment, tuple[Switch, ...]]:
    """Fast tactics again, wherever the answer passes with them."""
    answer = found.space.assignment(work.base, found.result.members)
    cure = cure_by_tactics(work.engine, fast, found.oracle, kept=answer)
    if not cure:
        return work.base, work.switches
    chosen = {name: choice.tactic for name, choice in cure.assignment.layers.items()}
    return legal(work.engine, work.base.with_tactics(chosen)), _timed(work, cure.switches)


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
