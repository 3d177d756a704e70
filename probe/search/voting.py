"""``Voting``: how often an oracle that contradicts itself is asked, and when its answer is trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

CALIBRATION = 24  # evaluations of all-FP32 that its failure rate is read from
FAILING_RATE = 0.5  # a set that fails every other time is not acceptable
HIGHEST_NOISE = 0.35  # all-FP32 failing more often cannot be told from FAILING_RATE in a sensible number of votes


@dataclass(frozen=True, slots=True)
class Voting:
    """Wald's sequential probability ratio test between "fails as seldom as all-FP32" and "fails at least every other time".

    A set that fails with a rate between the two is decided by the side that it is nearer to in likelihood: with no noise measured on
    all-FP32, about one failure in five is already called failing. Wald (1945), Sequential Tests of Statistical Hypotheses.

    Attributes:
        noise: failure rate of a set that passes, measured on all-FP32 and at most ``HIGHEST_NOISE``.
        confidence: probability that a decision is right, for sets of either rate.
        most: evaluations a question may take; what is undecided then counts as failing.
    """

    noise: float
    confidence: float = 0.995
    most: int = 200

    def decide(self, passes: int, fails: int) -> bool | None:
        """True: passes. False: fails. None: not decided yet."""
        limit = math.log(self.confidence / (1 - self.confidence))
        ratio = fails * math.log(FAILING_RATE / self.noise) + passes * math.log((1 - FAILING_RATE) / (1 - self.noise))
        if ratio >= limit:
            return False
        return True if ratio <= -limit else None


def noise_of(passes: int, fails: int) -> float:
    """Failure rate of a passing set from its votes, a standard error above the Krichevsky-Trofimov estimate: no failure in 24 is 4 %, and
    a noise taken too low would call sets failing that pass."""
    votes = passes + fails
    rate = (fails + 0.5) / (votes + 1)
    return rate + math.sqrt(rate * (1 - rate) / (votes + 1))
