"""``compare_builds``: choose N times, see which choices flip, what each flip does to the outputs, and which pins make the builds agree.

Compiling is the same every time; what differs from build to build are the measured times, and with them the tactics.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from probe.blame.choosing import Progress, TacticOptions, Work
from probe.blame.describing import about
from probe.blame.switching import of_judged
from probe.culprits.distance import Distance
from probe.culprits.judge import Judge, Judged
from probe.debug.goldens import open_golden
from probe.engine.tuning.choose import Choices, choose
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.selector import error_class
from probe.engine.tuning.timing import Timings
from probe.errors import InputError
from probe.results.blame import Build, BuildsResult, FlipEffect, FlippingLayer, Pin
from probe.search.find import Options
from probe.search.find import find as search
from probe.search.oracle import Evaluation
from probe.search.units import Unit
from probe.store.feeds import hash_feeds

if TYPE_CHECKING:
    import numpy as np

    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.engine.tuning.selector import Selector
    from probe.model.model import Model
    from probe.results.diff import Verdict
    from probe.store.feeds import InputSet

Selectors = Callable[[int], Sequence["Selector"]]
Tactics = tuple[tuple[str, str], ...]  # (layer, tactic), in execution order


@dataclass(frozen=True, slots=True)
class Ran:
    """A network run on all inputs.

    Attributes:
        outputs: input id -> output -> array; an input that did not run is not there.
        sha256: of all outputs; equal ones are the same bits.
    """

    judged: Judged
    outputs: Mapping[str, Mapping[str, np.ndarray]]
    sha256: str


def compare_builds(
    model: Model,
    sets: Sequence[InputSet],
    count: int,
    options: TacticOptions | None = None,
    *,
    selectors: Selectors = lambda _build: (),
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> BuildsResult:
    """Choose the tactics of a network ``count`` times from new measurements, and compare what comes of it.

    Args:
        sets: the inputs; times are measured on the first.
        selectors: of a build, by its number from 0; asked behind ``Fastest``.

    Raises:
        InputError: fewer than two builds; the model cannot be compiled or run in FP32, or nothing is left of a layer.
    """
    if count < 2:
        raise InputError("one build has nothing to be compared with", where="--builds", hint="at least 2")
    options = options or TacticOptions()
    with ExitStack() as opened:
        work = Work(model, sets, options, progress or (lambda _phase, _what: None), opened)
        engine = work.compile()
        chosen: list[Choices] = []
        for number in range(count):
            with work.phase("choose") as tell:
                tell(f"build {number + 1} of {count}")
                timings = Timings(fingerprint_of(engine))
                chosen.append(choose(engine, sets[0].feeds, selectors(number), timings=timings))
        with work.phase("golden") as tell:
            golden = open_golden(
                options.golden, model, sets, opened, threads=options.threads, outputs_only=True,
                custom_op_libs=options.custom_op_libs, memory_limit=options.memory_limit, progress=tell,
            )  # fmt: skip
        judge = Judge(
            golden, [port.name for port in model.outputs], sets, acceptance=options.acceptance, precision=options.precision,
            preset=options.preset,
        )  # fmt: skip
        compared = _Builds(work, engine, judge, chosen)
        with work.phase("run"):
            builds = [compared.build(one) for one in chosen]
        with work.phase("flip") as tell:
            flipping = compared.flipping(tell)
        with work.phase("pins") as tell:
            pins, passes = compared.pins(tell)
            for_bits = compared.pins_for_bits(flipping, tell)
        return BuildsResult(
            verdict=_worst([one.verdict for one in compared.judged]), builds=tuple(builds), layers=_with_choice(chosen[0]),
            flipping=tuple(flipping), pins=pins, pins_for_bits=for_bits, pinned_passes=passes, evaluations=compared.evaluations,
            acceptance=judge.acceptance, notes=(*notes, *golden.header.notes), **about(work, engine, golden),
        )  # fmt: skip


def _with_choice(choices: Choices) -> int:
    return sum(len(one.candidates) > 1 for one in choices)


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("failed", "not_judged", "warned", "passed")
    return next(one for one in order if one in verdicts)


@dataclass
class _Builds:
    work: Work
    engine: Engine
    judge: Judge
    chosen: Sequence[Choices]
    evaluations: int = 0
    judged: list[Judged] = field(default_factory=list)
    _ran: dict[Tactics, Ran] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = [
            name for name in self.chosen[0].layers if len({one[name].candidate.tactic for one in self.chosen}) > 1
        ]
        self.counts = {name: Counter(one[name].candidate.tactic for one in self.chosen) for name in self.layers}
        # What most builds choose; of equally frequent ones what came first.
        self.usual = {name: counted.most_common(1)[0][0] for name, counted in self.counts.items()}

    # --- running

    def _run(self, tactics: Mapping[str, str]) -> Ran:
        """All inputs, each set of choices once."""
        key = tuple(tactics.items())
        if key not in self._ran:
            base = self.engine.assignment
            changed = {name: tactic for name, tactic in tactics.items() if base.of(name).tactic != tactic}
            self._ran[key] = self._run_anew(base.with_tactics(changed))
            self.evaluations += 1
        return self._ran[key]

    def _run_anew(self, assignment: Assignment) -> Ran:
        outputs: dict[str, Mapping[str, np.ndarray]] = {}
        failures: dict[str, str] = {}
        for one in self.work.sets:
            try:
                outputs[one.id] = self.engine.run(one.feeds, assignment)
            except InputError as error:
                failures[one.id] = error.what
        digest = hashlib.sha256(json.dumps([(name, hash_feeds(made)) for name, made in outputs.items()]).encode())
        return Ran(self.judge(outputs, failures), outputs, digest.hexdigest())

    def build(self, choices: Choices) -> Build:
        """One build, run."""
        ran = self._run(choices.tactics)
        self.judged.append(ran.judged)
        times = [one.candidate.median_us for one in choices if one.candidate.median_us is not None]
        digest = hashlib.sha256(json.dumps(choices.tactics).encode()).hexdigest()
        return Build(digest, ran.sha256, of_judged(ran.judged), math.fsum(times) if times else None)

    # --- what flips do

    def flipping(self, tell: Callable[[str], None]) -> list[FlippingLayer]:
        """Layers that builds do not agree on. Each choice of one is run in the network of what most builds choose."""
        usual = {**self.chosen[0].tactics, **self.usual}
        reference = self._run(usual)
        found = []
        for name in self.layers:
            tell(name)
            context = self.chosen[0][name].context
            effects = []
            for tactic, builds in self.counts[name].most_common():
                ran = self._run({**usual, name: tactic})
                times = tuple(us for one in self.chosen if (us := _time_of(one, name, tactic)) is not None)
                effects.append(FlipEffect(tactic, builds, times, of_judged(ran.judged), _moved(ran, reference)))
            flips = sum(
                before[name].candidate.tactic != after[name].candidate.tactic for before, after in pairwise(self.chosen)
            )
            found.append(FlippingLayer(name, context.outputs, context.kind, tuple(effects), flips))
        return found

    # --- what to pin

    def _pinned(self, pins: Mapping[str, str]) -> list[Ran]:
        """Every build with some layers pinned."""
        return [self._run({**one.tactics, **pins}) for one in self.chosen]

    def _search(
        self, targets: Mapping[str, str], agree: Callable[[list[Ran]], bool], tell: Callable[[str], None]
    ) -> tuple[Pin, ...] | None:
        """Pins of which none can be left out; None: not even all of them do it."""

        def oracle(pinned: frozenset[str], /) -> Evaluation:
            tell(f"{len(pinned)} pinned")
            return Evaluation(agree(self._pinned({name: targets[name] for name in self.layers if name in pinned})))

        units = [Unit(name, frozenset({name})) for name in self.layers]
        keep = search(units, oracle, Options(baseline_repeats=1, reruns=1)).keep
        return None if keep is None else self._as_pins({name: targets[name] for name in keep})

    def _as_pins(self, targets: Mapping[str, str]) -> tuple[Pin, ...]:
        return tuple(Pin(name, self.chosen[0][name].context.outputs, tactic) for name, tactic in targets.items())

    def pins(self, tell: Callable[[str], None]) -> tuple[tuple[Pin, ...], bool]:
        """What makes every build pass, where one fails, and whether that can be done. A layer is pinned to the most accurate tactic that a
        build chose for it; where those are not enough, to the most accurate one there is."""
        if all(one.passed for one in self.judged):
            return (), True
        for every in (False, True):
            targets = {name: self._most_accurate(name, every=every) for name in self.layers}
            found = self._search(targets, lambda ran: all(one.judged.passed for one in ran), tell) if targets else None
            if found is not None:
                return found, True
        return (), False

    def _most_accurate(self, layer: str, *, every: bool) -> str:
        """By what tactics promise; of equals the one that most builds chose."""
        one = self.chosen[0][layer]
        counts = self.counts[layer]
        names = [c.tactic for c in one.candidates] if every else list(counts)
        return min(names, key=lambda name: (error_class(name, one.context.precision), -counts[name]))

    def pins_for_bits(self, flipping: Sequence[FlippingLayer], tell: Callable[[str], None]) -> tuple[Pin, ...]:
        """What makes all builds compute the same bits, as most of them do: layers whose flips change some, and others only if those are not
        enough."""

        def agree(ran: list[Ran]) -> bool:
            return len({one.sha256 for one in ran}) == 1

        changing = {one.layer for one in flipping if any(effect.changed != 0 for effect in one.effects)}
        targets = {name: self.usual[name] for name in self.layers if name in changing}
        return self._as_pins(targets) if agree(self._pinned(targets)) else self._search(self.usual, agree, tell) or ()


def _time_of(choices: Choices, layer: str, tactic: str) -> float | None:
    return next((one.median_us for one in choices[layer].candidates if one.tactic == tactic), None)


def _moved(ran: Ran, reference: Ran) -> float | None:
    """range_rel of the worst output against the reference build; 0: the same bits; None: it did not run."""
    if ran.sha256 == reference.sha256:
        return 0.0
    moved = Distance()
    for name, outputs in reference.outputs.items():
        if name not in ran.outputs:
            return None
        moved.add(ran.outputs[name], outputs)
    return moved.range_rel
