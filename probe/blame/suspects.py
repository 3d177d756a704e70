"""From the choices of good and bad runs to suspects: pure counting and probability, no files.

Two numbers a choice. Fisher's exact test (R. A. Fisher, 1935; one-sided): were the choice innocent, how likely is it that so many of the
runs that have it are bad? And a posterior under a stated prior: one choice is to blame, each equally likely before the runs are seen, or,
with ``OTHER_CAUSE``, none is and runs are bad half of the time. With the guilty choice a run is bad except once in 1 / ``NOISE``, without it
bad as rarely. Few files give weak posteriors, and many choices share what cannot be told apart: that is the difference to a set difference.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

OTHER_CAUSE = 0.1  # prior that no single choice is to blame
NOISE = 0.05  # share of runs whose outcome the guilty choice does not explain
PRIOR = (
    f"one choice is to blame, each equally likely beforehand, with {1 - OTHER_CAUSE:.0%}, and explains all but {NOISE:.0%} of the runs; "
    f"or something else is, with {OTHER_CAUSE:.0%}, and runs are bad half of the time"
)

Run = Mapping[str, Hashable]  # layer -> choice


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A choice and how suspect it is.

    Attributes:
        bad, good: runs that have it; ``bad_runs``, ``good_runs``: that have the layer.
        p_value: of Fisher's exact test.
        posterior: that it alone is to blame.
        alike: other choices in exactly the same runs.
        instead: what good runs have there.
    """

    layer: str
    choice: Hashable
    bad: int
    good: int
    bad_runs: int
    good_runs: int
    p_value: float
    posterior: float
    alike: int
    instead: Mapping[Hashable, int]


def suspects_of(good: Sequence[Run], bad: Sequence[Run]) -> tuple[tuple[Suspicion, ...], float]:
    """Choices that are more frequent in bad runs than in good ones, the most suspect first, and the posterior that none is to blame.

    A layer that a run lacks says nothing about the layer in that run. Ties are broken by the order of the layers in the runs.
    """
    runs = [(run, False) for run in good] + [(run, True) for run in bad]
    layers = list(dict.fromkeys(name for run, _ in runs for name in run))
    patterns: dict[tuple[str, Hashable], tuple[int | None, ...]] = {}
    for name in layers:
        for choice in dict.fromkeys(run[name] for run, _ in runs if name in run):
            patterns[name, choice] = tuple(int(run[name] == choice) if name in run else None for run, _ in runs)
    likelihood = {key: _log_likelihood(pattern, runs) for key, pattern in patterns.items()}
    nothing = math.log(OTHER_CAUSE) + len(runs) * math.log(0.5)
    each = math.log((1 - OTHER_CAUSE) / len(patterns)) if patterns else -math.inf
    weights = {key: each + value for key, value in likelihood.items()}
    total = _log_sum([nothing, *weights.values()])
    alike = Counter(patterns.values())
    found = []
    for (name, choice), pattern in patterns.items():
        has_bad = sum(one or 0 for one, (_, is_bad) in zip(pattern, runs, strict=True) if is_bad)
        has_good = sum(one or 0 for one in pattern) - has_bad
        all_bad, all_good = sum(name in run for run in bad), sum(name in run for run in good)
        if has_bad * max(all_good, 1) <= has_good * max(all_bad, 1):
            continue  # no more frequent in bad runs
        instead = Counter(run[name] for run in good if name in run and run[name] != choice)
        found.append(
            Suspicion(
                name, choice, has_bad, has_good, all_bad, all_good, fisher(has_bad, all_bad, has_good, all_good),
                math.exp(weights[name, choice] - total), alike[pattern] - 1, instead,
            )
        )  # fmt: skip
    place = {name: at for at, name in enumerate(layers)}
    found.sort(key=lambda one: (-round(one.posterior, 12), one.p_value, place[one.layer]))
    return tuple(found), math.exp(nothing - total)


def fisher(bad: int, bad_runs: int, good: int, good_runs: int) -> float:
    """One-sided p-value of Fisher's exact test: the chance that at least ``bad`` of the ``bad + good`` runs that have a choice are bad, when
    which runs are bad has nothing to do with it (hypergeometric tail)."""
    having, runs = bad + good, bad_runs + good_runs
    total = math.comb(runs, having)
    most = min(having, bad_runs)
    return sum(math.comb(bad_runs, k) * math.comb(good_runs, having - k) for k in range(bad, most + 1)) / total


def _log_likelihood(pattern: Sequence[int | None], runs: Sequence[tuple[Run, bool]]) -> float:
    """Of the outcomes of all runs, were this choice to blame; a run without the layer tells nothing: one half."""
    found = 0.0
    for has, (_, is_bad) in zip(pattern, runs, strict=True):
        found += math.log(0.5 if has is None else 1 - NOISE if bool(has) == is_bad else NOISE)
    return found


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(one - top) for one in values))


def same_everywhere(runs: Sequence[Run]) -> tuple[int, int]:
    """How many layers there are, and how many of them have one choice in all runs that have them."""
    choices: dict[str, set[Hashable]] = defaultdict(set)
    for run in runs:
        for name, choice in run.items():
            choices[name].add(choice)
    return len(choices), sum(len(one) == 1 for one in choices.values())
