"""The measuring loop: warm-up, then inferences back to back on one or several streams, each with its moments."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from probe.engine.device.timeline import Clock, Context, Moments
from probe.errors import InputError

Feeds = Mapping[str, np.ndarray[Any, Any]]
ITERATIONS, DURATION, WARMUP = 10, 3.0, 0.5  # what is asked for by default: inferences, seconds, seconds
MOST = 1_000_000  # inferences whose moments fit into memory; measuring ends there in any case


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured: both bounds must be reached.

    Attributes:
        iterations: inferences of all streams together, at least two.
        duration: seconds.
        warmup: seconds before that; each stream runs twice in any case, once to set things up.
    """

    iterations: int = ITERATIONS
    duration: float = DURATION
    warmup: float = WARMUP

    @classmethod
    def asked(cls, iterations: int | None, duration: float | None, warmup: float) -> Amount:
        """What a user asked for: a number of iterations alone means just so many.

        Raises:
            InputError: fewer than two iterations or more than ``MOST``, or a time that is negative or has no end.
        """
        if iterations is not None and iterations < 2:
            raise InputError(
                f"{iterations} measured iteration{'' if iterations == 1 else 's'}: a result never comes from a single run",
                where="--iterations", hint="ask for at least two",
            )  # fmt: skip
        if iterations is not None and iterations > MOST:
            raise InputError(
                f"{iterations} iterations are more than can be kept", where="--iterations", hint=f"at most {MOST}"
            )
        for name, value in (("--duration", duration), ("--warmup", warmup)):
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"{value} seconds", where=name, hint="a number of seconds, zero or more")
        if duration is None:
            duration = DURATION if iterations is None else 0.0
        return cls(iterations or ITERATIONS, duration, warmup)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        moments: of each inference, with its stream, in the order of their begin.
        warmup: inferences before them.
    """

    moments: tuple[tuple[int, Moments], ...]
    warmup: int

    @property
    def seconds(self) -> float:
        """From the first begin to the last end."""
        return max(m.end for _, m in self.moments) - self.moments[0][1].begin

    @property
    def throughput(self) -> float:
        """Inferences a second, all streams together."""
        return len(self.moments) / self.seconds if self.seconds > 0 else float("inf")


def measure(
    contexts: Sequence[Context],
    sets: Sequence[Feeds],
    amount: Amount,
    clock: Clock,
    tell: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Run every context again and again, each in a thread of its own where there are several; the input sets take turns.

    Raises:
        InputError: there is no context or no input; an inference fails, and all streams stop.
    """
    if not contexts or not sets:
        raise InputError("nothing to measure: no stream or no input")
    tell("warm-up")
    with _no_collection():
        return _measured(contexts, sets, amount, clock, tell)


def _measured(
    contexts: Sequence[Context], sets: Sequence[Feeds], amount: Amount, clock: Clock, tell: Callable[[str], None]
) -> Measured:
    warmed = sum(_warm(context, sets, amount.warmup / len(contexts), clock) for context in contexts)
    tell("measuring")
    shared = _Shared(amount, clock, len(contexts))
    if len(contexts) == 1:
        shared.run(0, contexts[0], sets)
    else:
        threads = [
            threading.Thread(
                target=shared.run_caught, args=(stream, context, sets), name=f"stream {stream}", daemon=True
            )
            for stream, context in enumerate(contexts)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            shared.stopped = True
        if shared.errors:
            raise shared.errors[0]
    return Measured(tuple(sorted(shared.done, key=lambda one: one[1].begin)), warmed)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collection, as in ``timeit``: a full one takes tens of milliseconds, a hundred small inferences."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _warm(context: Context, sets: Sequence[Feeds], seconds: float, clock: Clock) -> int:
    """Inferences until ``seconds`` have passed, at least two and each input once."""
    begin, runs = clock(), 0
    while runs < max(2, len(sets)) or clock() - begin < seconds:
        context.run(sets[runs % len(sets)])
        runs += 1
    return runs


class _Shared:
    """What streams have in common: when to stop, and what was measured."""

    def __init__(self, amount: Amount, clock: Clock, streams: int) -> None:
        self.done: list[tuple[int, Moments]] = []
        self.errors: list[BaseException] = []
        self.stopped = False
        self._amount, self._clock = amount, clock
        self._start = threading.Barrier(streams)  # starting a thread takes as long as a small inference
        self._begin = clock()

    def run(self, stream: int, context: Context, sets: Sequence[Feeds]) -> None:
        """Until enough was measured; at least one inference, so that every stream has a share."""
        at = stream
        self._start.wait()
        while not self.stopped:
            moments = context.run(sets[at % len(sets)])
            self.done.append((stream, moments))  # atomic in Python: streams need no lock
            at += 1
            if len(self.done) >= MOST or self._enough():
                return

    def run_caught(self, stream: int, context: Context, sets: Sequence[Feeds]) -> None:
        try:
            self.run(stream, context, sets)
        except BaseException as error:  # noqa: BLE001 - raised again where the threads are joined
            self.errors.append(error)
            self.stopped = True

    def _enough(self) -> bool:
        return len(self.done) >= self._amount.iterations and self._clock() - self._begin >= self._amount.duration
