"""``Timeline``: what a device tells of the time it takes. Measuring is the device's own: a CPU reads a clock, a GPU records events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from probe.results.bench import Ceilings

Array = np.ndarray[Any, Any]
Clock = Callable[[], float]  # seconds, never going back


@dataclass(frozen=True, slots=True)
class Moments:
    """One inference on the host's clock, in seconds.

    Attributes:
        begin: the host hands the inputs over.
        fed: they are where the device reads them.
        computed: the device is done.
        end: the outputs are back on the host.
        issuing: the host begins to issue the work, which may be before the inputs are there.
        enqueued: all of it is issued and the host is free; None where the host computes itself, like ``issuing``.
        sent: the copy of the inputs begins, behind whatever the host did to them; None where it is not known: then as ``begin``.
        back: the copy of the outputs has ended, before the host looks at them; None: as ``end``.
    """

    begin: float
    fed: float
    computed: float
    end: float
    enqueued: float | None = None
    issuing: float | None = None
    sent: float | None = None
    back: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Memory that a device has taken for one context, in bytes.

    Attributes:
        arena: the block of all tensors between layers, workspace of kernels included.
        peak_live: the largest sum alive in it at once.
        weights: in every precision and order that they are read in; all contexts share them.
        pinned: memory of the host that inputs and outputs are copied through.
        live: alive in the arena while a layer runs, by its name.
        workspace: the most that a layer has for itself alone.
    """

    arena: int
    peak_live: int
    weights: int
    pinned: int
    live: Mapping[str, int] = field(default_factory=dict)
    workspace: int = 0


class Context(Protocol):
    """One stream of inferences, with tensors of its own; others may run beside it."""

    def run(self, feeds: Mapping[str, Array]) -> Moments:
        """One inference.

        Raises:
            InputError: it fails.
        """
        ...


class Timeline(Protocol):
    """A network under one assignment on one device, ready to be timed.

    Attributes:
        one_at_a_time: why contexts cannot run side by side; "" where they can.
    """

    one_at_a_time: str

    @property
    def executor(self) -> str:
        """In words, what computes when ``Context.run`` is called; asked for when it has been."""
        ...

    @property
    def layerwise(self) -> bool:
        """Whether that is layer after layer from the host, slower than the network as one program."""
        ...

    def context(self) -> Context:
        """A new context."""
        ...

    def shapes(self, feeds: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """Actual shape of every tensor that one inference makes, in fused layers too; elements of a sequence as ``NAME[i]``.

        Raises:
            InputError: a layer fails.
        """
        ...

    def layers(self, feeds: Mapping[str, Array]) -> dict[str, float]:
        """Seconds of every layer that runs in one inference, each by itself, by name. Apart from ``context``: what looks at layers must
        not slow down what is timed as a whole.

        Raises:
            InputError: a layer fails.
        """
        ...

    def call_seconds(self) -> float:
        """What running a layer that computes nothing takes: the part of every layer's time that a network as a whole does not spend."""
        ...

    def held(self) -> Held | None:
        """What the device took for the run that was repeated last; None where it does not plan memory itself."""
        ...

    def ceilings(self) -> Ceilings:
        """What this machine reaches at best, measured now or earlier in this process."""
        ...
