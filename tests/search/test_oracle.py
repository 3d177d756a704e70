"""An inquiry remembers, votes, notices contradictions, and keeps to budgets and allowances."""

from __future__ import annotations

import math
import random

import pytest

from probe.search.oracle import BudgetSpentError, ContradictionError, Entry, Evaluation, Inquiry
from probe.search.units import Unit
from probe.search.voting import CALIBRATION, FAILING_RATE, HIGHEST_NOISE, Voting, noise_of

UNITS = [Unit(one, frozenset({f"{one}1", f"{one}2"})) for one in "abcd"]
A, AB, ABC = frozenset("a"), frozenset("ab"), frozenset("abc")


class Script:
    """An oracle that says what it is told to, in order."""

    def __init__(self, *said: bool) -> None:
        self.said = list(said)
        self.asked: list[frozenset[str]] = []

    def __call__(self, kept: frozenset[str]) -> Evaluation:
        self.asked.append(kept)
        return Evaluation(self.said.pop(0), 0.1 * len(self.asked))


def test_a_set_is_asked_once_by_its_members() -> None:
    oracle = Script(True)
    asked = Inquiry(oracle, UNITS)
    assert asked.ask(A).passed and asked.ask(A).passed
    assert oracle.asked == [{"a1", "a2"}]
    assert asked.counts == {"search": 1, "probes": 0, "proof": 0, "cached": 1} and asked.questions == 1


def test_afresh_it_is_asked_again() -> None:
    asked = Inquiry(Script(True, True), UNITS)
    asked.ask(A)
    assert asked.ask(A, "proof", fresh=True).margin == pytest.approx(0.2)
    assert asked.counts["proof"] == 1 and len(asked.margins(A)) == 2


def test_a_contradiction_is_an_event_and_the_set_no_longer_passes() -> None:
    asked = Inquiry(Script(True, False), UNITS)
    asked.ask(A)
    assert asked.best() == A
    with pytest.raises(ContradictionError, match="1 units kept"):
        asked.ask(A, fresh=True)
    assert asked.best() is None and not asked.history


def test_keeping_more_was_worse_is_asked_again_before_it_is_believed() -> None:
    asked = Inquiry(Script(True, False, True, False), UNITS)
    asked.ask(A)
    asked.ask(AB)
    (found,) = asked.violations
    assert (found.passing, found.failing) == (A, AB) and asked.total == 4


@pytest.mark.parametrize("again", [(False,), (True, True)])
def test_keeping_more_was_worse_by_accident(again: tuple[bool, ...]) -> None:
    asked = Inquiry(Script(True, False, *again), UNITS)
    asked.ask(A)
    with pytest.raises(ContradictionError):
        asked.ask(AB)
    assert not asked.violations


def test_budgets_count_what_was_evaluated_here() -> None:
    entries = [Entry(0, "search", "", frozenset({"a1", "a2"}), Evaluation(True, 0.5))]
    oracle = Script(False)
    asked = Inquiry(oracle, UNITS, max_evaluations=1, log=entries)
    assert asked.ask(A).margin == 0.5 and not oracle.asked and asked.total == 1
    assert not asked.ask(frozenset()).passed
    with pytest.raises(BudgetSpentError):
        asked.ask(AB)
    assert asked.total == 2


def test_entries_of_a_set_answer_in_their_order() -> None:
    members = frozenset({"a1", "a2"})
    log = [Entry(i, "search", "", members, Evaluation(True, float(i))) for i in range(2)]
    new: list[Entry] = []
    asked = Inquiry(Script(True), UNITS, log=log, on_entry=new.append)
    margins = [asked.ask(A).margin, *(asked.ask(A, fresh=True).margin for _ in range(2))]
    assert margins[:2] == [0.0, 1.0] and [entry.index for entry in new] == [2]


def test_an_allowance_ends_its_block_only() -> None:
    asked = Inquiry(Script(*[True] * 9), UNITS)
    with asked.allowance(2):
        for name in "abcd":
            asked.ask(frozenset(name))
    assert asked.questions == 2
    with asked.allowance(0):
        asked.ask(A)  # known: free
        asked.ask(ABC)
    assert asked.questions == 2 and asked.known(ABC) is None
    assert asked.ask(ABC).passed, "outside, everything may be asked"
    with asked.allowance(1):
        with asked.allowance(5):
            asked.ask(AB)
            asked.ask(frozenset("bc"))
        pytest.fail("the outer allowance is spent too")


def test_history_keeps_what_is_better() -> None:
    asked = Inquiry(Script(True, True, True), UNITS)
    for kept in (ABC, A, AB):
        asked.ask(kept)
    assert [(one.index, one.kept, one.weight) for one in asked.history] == [(0, ABC, 3), (1, A, 1)]
    assert asked.best() == A


def test_cost_says_what_is_better() -> None:
    units = [Unit("a", frozenset("a"), cost=9), Unit("b", frozenset("b")), Unit("c", frozenset("c"))]
    asked = Inquiry(Script(True, True), units, objective="cost")
    asked.ask(A)
    asked.ask(frozenset("bc"))
    assert asked.best() == frozenset("bc")


# --- voting ------------------------------------------------------------------------------------------------------------


def test_votes_decide() -> None:
    asked = Inquiry(Script(*[False] * 2, *[True] * 40), UNITS)
    asked.ask(A)
    asked.start_voting(Voting(noise_of(22, 2)))
    verdict = asked.ask(A)
    assert verdict.passed and verdict.decided and verdict.fails == 2 and verdict.passes > 8
    again = asked.ask(A, fresh=True)
    assert again.fails == 0, "a fresh question is judged by its own votes"


def test_undecided_counts_as_failing() -> None:
    asked = Inquiry(Script(*[True, True, True, False] * 10), UNITS)
    asked.start_voting(Voting(HIGHEST_NOISE, most=12))
    verdict = asked.ask(A)
    assert not verdict.passed and not verdict.decided and verdict.passes + verdict.fails == 12
    assert asked.best() is None


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1, 0.2])
def test_wrong_decisions_are_as_rare_as_stated(noise: float) -> None:
    """With the noise measured as the search does, questions about sets of either rate."""
    rng = random.Random(f"{noise}")
    wrong, questions = {noise: 0, FAILING_RATE: 0}, 2000
    for rate in wrong:
        for _ in range(questions):
            fails = sum(rng.random() < noise for _ in range(CALIBRATION))
            voting = Voting(min(noise_of(CALIBRATION - fails, fails), HIGHEST_NOISE), 0.99)
            passes = fails = 0
            while (decision := voting.decide(passes, fails)) is None and passes + fails < voting.most:
                bad = rng.random() < rate
                passes, fails = passes + (not bad), fails + bad
            wrong[rate] += bool(decision) is not (rate != FAILING_RATE)  # undecided counts as failing
    assert wrong[FAILING_RATE] <= 0.01 * questions, "a false pass"
    # The noise is known from two dozen votes only, which may show too little of it.
    assert wrong[noise] <= 0.05 * questions


def test_noise_is_never_taken_for_none() -> None:
    assert 0.02 < noise_of(CALIBRATION, 0) < 0.06
    assert noise_of(0, 10) > FAILING_RATE and math.isclose(noise_of(500, 500), 0.5, abs_tol=0.02)
