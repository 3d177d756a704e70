"""``Replays``: which runs are recorded, and when a recording is made ready to be repeated."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from probe.engine.device.cuda.errors import CudaError, OutOfMemory
from probe.engine.device.cuda.runs.prepared import Compute, Diverged, Prepared
from probe.engine.device.cuda.runs.recording import Recording
from probe.engine.device.cuda.runs.shared import SharedMemory
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.rounding import Plan

T = TypeVar("T")
Array = np.ndarray[Any, Any]
Results = dict[str, Tensor]
_MOST = 64  # recordings held
_PATIENCE = 3  # recordings of the same shapes and plans that may go wrong before every run is made anew


@dataclass(slots=True)
class Replay:
    """What is known of runs with inputs of the same shapes under the same plans.

    Attributes:
        diverged: how often a recording did not fit the next inputs.
        why: why they are not repeated from a recording; "" when they are.
    """

    recording: Recording | None = None
    prepared: Prepared | None = None
    diverged: int = 0
    why: str = ""


class Replays:
    """The first run of its kind is recorded while it is made, the second prepares the recording, later ones repeat it.

    All share one block of memory: they are run one at a time, and nothing is kept there between runs.
    """

    def __init__(self, backend: Backend, compute: Compute) -> None:
        self._backend, self._compute = backend, compute
        self._known: OrderedDict[Hashable, Replay] = OrderedDict()
        self._plans: OrderedDict[int, tuple[Mapping[str, Plan], int]] = OrderedDict()
        self._numbers: OrderedDict[Hashable, int] = OrderedDict()
        self._next = count(1)
        self._memory = SharedMemory(backend)
        self.enabled = True

    def of(self, fed: Mapping[str, Tensor], plans: Mapping[str, Plan]) -> Replay:
        """What is known of a run."""
        key = self.key(fed, plans)
        if key not in self._known:
            self._known[key] = Replay()
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def key(self, fed: Mapping[str, Tensor], plans: Mapping[str, Plan]) -> Hashable:
        """Equal for runs with inputs of the same shapes under the same plans."""
        return tuple((name, tensor.shape, tensor.format) for name, tensor in fed.items()), self._number(plans)

    def _number(self, plans: Mapping[str, Plan]) -> int:
        """A number for what plans are, found once an object: an engine hands out the same one for the same assignment."""
        found = self._plans.get(id(plans))
        if found is None:
            content = tuple(plans.items())
            number = self._numbers[content] = self._numbers.pop(content, None) or next(self._next)
            if len(self._numbers) > _MOST:
                self._numbers.popitem(last=False)
            found = self._plans[id(plans)] = (plans, number)
            if len(self._plans) > _MOST:
                self._plans.popitem(last=False)
        return found[1]

    def run(
        self,
        fed: Mapping[str, Tensor],
        plans: Mapping[str, Plan],
        record: Callable[[], tuple[Results, Recording]],
    ) -> tuple[Results, bool] | None:
        """Outputs, and whether kernels may have found an index out of range; None for runs that are not repeated.

        Args:
            record: makes the run and records it.
        """
        known = self.of(fed, plans)
        if known.why:
            return None
        if known.recording is not None:
            try:
                if known.prepared is None:
                    known.prepared = self._with_room(partial(self._shared, known.recording))
                try:
                    return known.prepared.run(fed), known.recording.checks_faults
                except BaseException:
                    # Interrupted, too: pinned memory is written to again, and must not be on its way then.
                    with suppress(CudaError):
                        self._backend.synchronize()
                    raise
            except Diverged as error:
                known.recording = known.prepared = None
                known.diverged += 1
                if known.diverged > _PATIENCE:
                    known.why = str(error)
                    return None
        results, known.recording = self._with_room(record)
        return results, known.recording.checks_faults

    def _shared(self, recording: Recording) -> Prepared:
        return self.prepare(recording, self._memory.block, staging=self._memory.pinned)

    def _with_room(self, work: Callable[[], T]) -> T:
        """What ``work`` makes; where there is no memory for it, once more without that of the runs made ready before: they are made ready again
        when they come again."""
        try:
            return work()
        except OutOfMemory:
            if not any(known.prepared is not None for known in self._known.values()):
                raise
        for known in self._known.values():  # not while the error holds what it passed through
            known.prepared = None
        self._memory = SharedMemory(self._backend)
        return work()

    def prepare(
        self,
        recording: Recording,
        arena: Callable[[int], Buffer] | None = None,
        *,
        side_by_side: bool = False,
        staging: Callable[[int], Array] | None = None,
    ) -> Prepared:
        """A recording made ready, by default in memory of its own."""
        own = arena or (lambda nbytes: Buffer(self._backend, nbytes))
        return Prepared(recording, self._backend, self._compute, own, side_by_side=side_by_side, staging=staging)

    @property
    def notes(self) -> tuple[str, ...]:
        """Why runs are not repeated, or not as graphs; each reason once."""
        found = [known.why or (known.prepared.note if known.prepared else "") for known in self._known.values()]
        return tuple(dict.fromkeys(note for note in found if note))
