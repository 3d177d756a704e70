"""Planted problems: oracles whose smallest passing set is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from probe.search.oracle import Evaluation
from probe.search.units import Unit

Truth = Callable[[frozenset[str]], float]  # kept members -> margin


@dataclass
class Problem:
    """A planted fault.

    Attributes:
        truth: margin of a set of kept members; passes from 0 on. No noise.
        minimum: size of the smallest passing set.
        planted: units that the fault is made of (culprits, partners of compensating pairs): k of the evaluation bar.
        noise: turns a true verdict into what one evaluation says.
    """

    family: str
    seed: int
    units: list[Unit]
    truth: Truth
    minimum: int
    planted: int
    noise: Callable[[bool, random.Random], bool] | None = None
    asked: list[frozenset[str]] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.family}/{self.seed}/noise")

    def __call__(self, kept: frozenset[str]) -> Evaluation:
        self.asked.append(kept)
        margin = self.truth(kept)
        passed = margin >= 0
        if self.noise is None:
            return Evaluation(passed, margin)
        said = self.noise(passed, self._random)
        return Evaluation(said, margin if said == passed else -margin)

    def passes(self, kept: frozenset[str]) -> bool:
        return self.truth(kept) >= 0

    def one_minimal(self, keep: Sequence[str]) -> bool:
        return self.passes(frozenset(keep)) and not any(self.passes(frozenset(keep) - {one}) for one in keep)

    @property
    def bar(self) -> float:
        """4 k log2 n."""
        return 4 * self.planted * math.log2(len(self.units))


def names(count: int) -> list[str]:
    return [f"u{i}" for i in range(count)]


def scored(ids: Sequence[str], true: dict[str, float], rng: random.Random, spread: float) -> list[Unit]:
    """Units with a score off by a log-normal factor; ``spread`` 1 is exact, Inf says nothing."""
    if math.isinf(spread):
        return [Unit(one, frozenset({one})) for one in ids]
    return [
        Unit(one, frozenset({one}), score=true.get(one, 0.0) * math.exp(rng.gauss(0, math.log(spread)))) for one in ids
    ]


def spikes(family: str, seed: int, n: int, k: int, spread: float, decoys: int = 0) -> Problem:
    """Each culprit alone breaks the outputs. Decoys have the largest scores and do no harm."""
    rng = random.Random(f"{family}/{seed}")
    ids = names(n)
    chosen = rng.sample(ids, k + decoys)
    culprits = frozenset(chosen[:k])
    true = {one: math.exp(rng.gauss(0, 1)) for one in ids}
    true |= {one: 10 * math.exp(rng.gauss(0, 0.5)) for one in culprits}
    true |= dict.fromkeys(chosen[k:], 1e4)

    def truth(kept: frozenset[str]) -> float:
        low = len(culprits - kept)
        return 0.5 if not low else 0.5 - low

    return Problem(family, seed, scored(ids, true, rng, spread), truth, k, k)


def smooth(family: str, seed: int, n: int, k: int, spread: float) -> Problem:
    """Errors of all low units add up; the minimum keeps the k largest."""
    rng = random.Random(f"{family}/{seed}")
    ids = names(n)
    error = {one: math.exp(rng.gauss(0, 1)) for one in ids}
    order = sorted(ids, key=error.__getitem__, reverse=True)
    # Halfway between what passes with k and what would pass with k - 1 kept.
    limit = sum(error[one] for one in order[k:]) + 0.5 * error[order[k - 1]]

    def truth(kept: frozenset[str]) -> float:
        return 1 - sum(error[one] for one in ids if one not in kept) / limit

    return Problem(family, seed, scored(ids, error, rng, spread), truth, k, k)


def compensating(family: str, seed: int, n: int, k: int, pairs: int, spread: float, *, apart: bool = False) -> Problem:
    """Culprits, and pairs of which both halves are low or both kept: one kept alone breaks the outputs by the pair's own amount.

    The halves are neighbours in model order, or anywhere with ``apart``.
    """
    rng = random.Random(f"{family}/{seed}")
    ids = names(n)
    culprits = frozenset(rng.sample(ids, k))
    free = [i for i in range(0, n - 1, 2) if not {ids[i], ids[i + 1]} & culprits]
    couples = [(ids[i], ids[i + 1], 2 + 3 * rng.random()) for i in rng.sample(free, pairs)]
    if apart:
        halves = rng.sample([one for one in ids if one not in culprits], 2 * pairs)
        couples = [(halves[2 * i], halves[2 * i + 1], couples[i][2]) for i in range(pairs)]
    true = {one: math.exp(rng.gauss(0, 1)) for one in ids} | {one: 10 * math.exp(rng.gauss(0, 0.5)) for one in culprits}
    true |= {one: size * 5 for first, second, size in couples for one in (first, second)}

    def truth(kept: frozenset[str]) -> float:
        error = sum(2.0 for one in culprits if one not in kept)
        error += sum(size for first, second, size in couples if (first in kept) != (second in kept))
        return 0.5 - error

    return Problem(family, seed, scored(ids, true, rng, spread), truth, k, k + 2 * pairs)


def substitutes(family: str, seed: int, n: int, spread: float) -> Problem:
    """Groups that fail only when all of them are low: a hub shared by three pairs, and a culprit of its own. Minimum: hub and culprit."""
    rng = random.Random(f"{family}/{seed}")
    ids = names(n)
    hub, alone, *partners = rng.sample(ids, 5)
    groups = [frozenset({alone}), *(frozenset({hub, one}) for one in partners)]
    true = {one: math.exp(rng.gauss(0, 1)) for one in ids} | dict.fromkeys((hub, alone, *partners), 10.0)

    def truth(kept: frozenset[str]) -> float:
        return 0.5 - sum(not group & kept for group in groups)

    return Problem(family, seed, scored(ids, true, rng, spread), truth, 2, 5)


def blocks(family: str, seed: int, n: int, size: int, spread: float) -> Problem:
    """A network of repeated blocks; the same unit of each block is a culprit."""
    problem = spikes(family, seed, n, 0, spread)
    rng = random.Random(f"{family}/{seed}/which")
    which = rng.randrange(size)
    culprits = frozenset(one for i, one in enumerate(names(n)) if i % size == which)
    units = [replace(unit, group=f"part {i % size}") for i, unit in enumerate(problem.units)]

    def truth(kept: frozenset[str]) -> float:
        return 0.5 - len(culprits - kept)

    return Problem(family, seed, units, truth, len(culprits), len(culprits))


def flaky(problem: Problem, passing_fails: float, failing_passes: float) -> Problem:
    """The same problem with an oracle that errs at random."""

    def noise(passed: bool, rng: random.Random) -> bool:
        wrong = rng.random() < (passing_fails if passed else failing_passes)
        return passed != wrong

    return replace(problem, noise=noise, asked=[], _random=random.Random())


FAMILIES: dict[str, Callable[[str, int], Problem]] = {
    "1 of 60, no ranking": lambda f, s: spikes(f, s, 60, 1, math.inf),
    "3 of 200, no ranking": lambda f, s: spikes(f, s, 200, 3, math.inf),
    "12 of 200, noisy ranking": lambda f, s: spikes(f, s, 200, 12, 2.7),
    "5 of 1000, 20 decoys first": lambda f, s: spikes(f, s, 1000, 5, 1.6, decoys=20),
    "40 of 1000, noisy ranking": lambda f, s: spikes(f, s, 1000, 40, 2.7),
    "12 of 200, accumulated": lambda f, s: smooth(f, s, 200, 12, 1.2),
    "5 of 1000, accumulated": lambda f, s: smooth(f, s, 1000, 5, 1.2),
    "3 of 200, 2 compensating pairs": lambda f, s: compensating(f, s, 200, 3, 2, 1.6),
    "3 of 200, 2 pairs far apart": lambda f, s: compensating(f, s, 200, 3, 2, math.inf, apart=True),
    "hub of 3 pairs in 200": lambda f, s: substitutes(f, s, 200, 2.7),
    "12 repeated of 240": lambda f, s: blocks(f, s, 240, 20, 2.7),
    "3 of 60, flaky both ways": lambda f, s: flaky(spikes(f, s, 60, 3, 2.7), 0.1, 0.1),
    "3 of 60, fails 2 of 3 times": lambda f, s: flaky(spikes(f, s, 60, 3, 2.7), 0.0, 0.33),
}


def campaign(seeds: int) -> Iterator[Problem]:
    for family, make in FAMILIES.items():
        for seed in range(seeds):
            yield make(family, seed)
