"""The measuring loop on a clock of its own: how often, how long, who waits for whom. No wall time is looked at."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from probe.engine.device.timeline import Moments
from probe.errors import InputError
from probe.timing.loop import DURATION, ITERATIONS, MOST, Amount, measure

FEEDS = {"x": np.zeros(1, np.float32)}


class FakeClock:
    """Seconds that pass when someone lets them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeContext:
    """Takes ``seconds`` of the clock: a tenth to hand over, a tenth to get back."""

    def __init__(self, clock: FakeClock, seconds: float = 1.0, fails_at: int = -1) -> None:
        self.clock, self.seconds, self.fails_at = clock, seconds, fails_at
        self.fed: list[Mapping[str, Any]] = []

    def run(self, feeds: Mapping[str, Any]) -> Moments:
        if len(self.fed) == self.fails_at:
            raise InputError("layer a fails")
        self.fed.append(feeds)
        begin = self.clock.now
        self.clock.now += self.seconds
        return Moments(begin, begin + 0.1 * self.seconds, begin + 0.9 * self.seconds, begin + self.seconds)


# iterations, duration and warm-up asked for (seconds), seconds of an inference -> measured, warmed
AMOUNTS = {
    "iterations decide": (Amount(7, 0.0, 0.0), 1.0, 7, 2),
    "duration decides": (Amount(2, 10.0, 0.0), 1.0, 10, 2),
    "both must be reached": (Amount(20, 10.0, 0.0), 1.0, 20, 2),
    "warm-up in seconds": (Amount(2, 0.0, 5.0), 1.0, 2, 5),
    "one longer than all": (Amount(2, 1.0, 1.0), 60.0, 2, 2),
}


@pytest.mark.parametrize(("amount", "seconds", "measured", "warmed"), AMOUNTS.values(), ids=AMOUNTS)
def test_how_much_is_measured(amount: Amount, seconds: float, measured: int, warmed: int) -> None:
    clock = FakeClock()
    context = FakeContext(clock, seconds)
    found = measure([context], [FEEDS], amount, clock)
    assert (len(found.moments), found.warmup) == (measured, warmed)
    assert len(context.fed) == measured + warmed
    assert found.seconds == pytest.approx(measured * seconds)
    assert found.throughput == pytest.approx(1 / seconds)


def test_inputs_take_turns_and_each_is_warmed_up() -> None:
    clock = FakeClock()
    context = FakeContext(clock)
    sets = [{"x": np.full(1, at, np.float32)} for at in range(3)]
    found = measure([context], sets, Amount(4, 0.0, 0.0), clock)
    order = [int(feeds["x"][0]) for feeds in context.fed]
    assert found.warmup == 3 and order == [0, 1, 2, 0, 1, 2, 0]


def test_streams_run_on_threads_of_their_own_and_share_the_count() -> None:
    clock, lock, seen = FakeClock(), threading.Lock(), set()

    class Shared(FakeContext):
        def run(self, feeds: Mapping[str, Any]) -> Moments:
            with lock:
                seen.add(threading.current_thread().name)
                return super().run(feeds)

    contexts = [Shared(clock) for _ in range(3)]
    found = measure(contexts, [FEEDS], Amount(30, 0.0, 0.0), clock)
    assert 30 <= len(found.moments) <= 32  # those under way when the last one is counted end, too
    assert {stream for stream, _ in found.moments} == {0, 1, 2}
    assert {"stream 0", "stream 1", "stream 2"} < seen and len(seen) == 4, "the fourth warmed them up"
    assert [m.begin for _, m in found.moments] == sorted(m.begin for _, m in found.moments)


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("fails_at", [0, 5])
def test_a_failure_stops_everything_and_is_told(streams: int, fails_at: int) -> None:
    clock = FakeClock()
    contexts = [FakeContext(clock, fails_at=fails_at) for _ in range(streams)]
    with pytest.raises(InputError, match="layer a fails"):
        measure(contexts, [FEEDS], Amount(10**6, 0.0, 0.0), clock)


@pytest.mark.parametrize("nothing", ["streams", "inputs"])
def test_nothing_to_measure_is_an_error(nothing: str) -> None:
    clock = FakeClock()
    contexts = [] if nothing == "streams" else [FakeContext(clock)]
    with pytest.raises(InputError, match="nothing to measure"):
        measure(contexts, [] if nothing == "inputs" else [FEEDS], Amount(2, 0.0, 0.0), clock)


ASKED = {
    "nothing": ((None, None, 0.5), Amount(ITERATIONS, DURATION, 0.5)),
    "iterations alone": ((25, None, 0.5), Amount(25, 0.0, 0.5)),
    "duration alone": ((None, 2.0, 0.0), Amount(ITERATIONS, 2.0, 0.0)),
    "both": ((2, 2.0, 0.0), Amount(2, 2.0, 0.0)),
    "as many as can be kept": ((MOST, None, 0.0), Amount(MOST, 0.0, 0.0)),
}


@pytest.mark.parametrize(("asked", "amount"), ASKED.values(), ids=ASKED)
def test_what_was_asked_for(asked: tuple[int | None, float | None, float], amount: Amount) -> None:
    assert Amount.asked(*asked) == amount


@pytest.mark.parametrize(
    ("iterations", "duration", "warmup", "said"),
    [
        (0, None, 0.0, "0 measured iterations: a result never comes from a single run"),
        (1, None, 0.0, "1 measured iteration: a result never comes from a single run"),
        (1, 10.0, 0.0, "never comes from a single run"),
        (-3, None, 0.0, "never comes from a single run"),
        (MOST + 1, None, 0.0, "more than can be kept"),
        (None, -1.0, 0.0, "--duration"),
        (None, float("nan"), 0.0, "--duration"),
        (None, float("inf"), 0.0, "--duration"),
        (None, None, -0.1, "--warmup"),
    ],
)
def test_what_cannot_be_measured(iterations: int | None, duration: float | None, warmup: float, said: str) -> None:
    with pytest.raises(InputError) as found:
        Amount.asked(iterations, duration, warmup)
    assert said in str(found.value)
