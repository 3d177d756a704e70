"""``CudaContext``: inferences on a stream of their own, in memory of their own, over weights and kernels that others use too."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.errors import CudaError
from probe.engine.device.cuda.runs.given import DEFAULT_STREAM, Given, given
from probe.engine.device.cuda.runs.prepared import Compute, Diverged, Prepared
from probe.engine.device.cuda.runs.recording import Launched, Recording
from probe.engine.device.cuda.runs.shared import SharedMemory
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.timeline import Clock, Moments
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
Fed = Mapping[str, Tensor]
_MOST = 16  # shapes of inputs made ready
_PATIENCE = 3  # recordings of the same shapes that may go wrong before every run is made anew


@dataclass(frozen=True, slots=True)
class Means:
    """What a context has of its device.

    Attributes:
        backend: of the device; the context works beside it.
        fed: inputs as tensors.
        record: what a run on these inputs, given in both forms, does; its weights are on the device then.
        compute: a step of a recording on the host.
        named: results as arrays.
        anew: a run on the device's own stream, for what cannot be repeated.
        faults: where the device's kernels note that an index is out of range.
    """

    backend: Backend
    fed: Callable[[Feeds], Fed]
    record: Callable[[Feeds, Fed], Recording]
    compute: Compute
    named: Callable[[Fed], dict[str, Array]]
    anew: Callable[[Feeds], dict[str, Array]]
    faults: Tensor


class CudaContext:
    """Repeats the runs of one network under one assignment: the same bits as ``Device.run``, while other contexts run beside it.

    Inputs and outputs go through pinned memory, so that they are copied while others compute. A context may be used by any thread, by one
    at a time: a second one waits.

    Args:
        graphs: capture launches; False makes them one by one.
        marked: told of the layer before each launch that is not part of a graph.
        stream: somebody else's to run on.

    Attributes:
        note: why runs are not repeated, or not as graphs; "" when they are.
    """

    def __init__(
        self, means: Means, *, graphs: bool = True, marked: Callable[[str], None] | None = None, stream: Any = None
    ) -> None:
        self._means, self._graphs, self._marked, self._borrows = means, graphs, marked, stream is not None
        self._backend = means.backend.beside(stream)
        self._faults = host_tensor(np.zeros(1, np.int32))
        self._ready: OrderedDict[Hashable, Prepared] = OrderedDict()
        self._given_up: dict[Hashable, str] = {}
        self._memory = SharedMemory(self._backend)
        self._lock = Lock()
        self._watch: _Watch | None = None

    def __del__(self) -> None:
        # What runs may still read weights and kernels that go with the device.
        if hasattr(self, "_backend"):
            with suppress(CudaError):
                self._backend.enter()
                self._backend.synchronize()

    @property
    def note(self) -> str:
        notes = [*self._given_up.values(), *(one.note for one in self._ready.values())]
        return next((note for note in notes if note), "")

    @property
    def prepared(self) -> Prepared | None:
        """The run that was repeated last."""
        return next(reversed(self._ready.values()), None)

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs of the network, by name.

        Raises:
            InputError: a layer fails; names it.
            CudaError: a kernel failed, or there is no memory left.
        """
        with self._lock:
            return self._run(feeds, _nothing)

    def held(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Given], dict[str, Array]]:
        """Inputs that lie on the device, and the others."""
        found = self._given(inputs)
        return found, {name: np.asarray(value) for name, value in inputs.items() if name not in found}

    def run_held(self, lying: Mapping[str, Given], feeds: Feeds, out: Mapping[str, Any]) -> dict[str, Any]:
        """As ``Inferences.run_held``."""
        into = self._given(out)
        if len(into) < len(out):
            raise InputError("arrays that outputs are copied into lie on the device", hint="__cuda_array_interface__")
        with self._lock:
            self._backend.enter()
            for stream in {one.stream for one in (*lying.values(), *into.values())}:
                if stream is not None or not self._borrows:
                    self._backend.wait_for(stream or DEFAULT_STREAM)
            found = self._run_held(lying, feeds, into)
            if not self._borrows:
                self._backend.synchronize()
        return {**found, **out}

    def _given(self, arrays: Mapping[str, Any]) -> dict[str, Given]:
        """Those that lie on the device."""
        stream = self._backend.handle
        return {name: one for name, value in arrays.items() if (one := given(name, value, stream)) is not None}

    def _run_held(self, lying: Mapping[str, Given], feeds: Feeds, into: Mapping[str, Given]) -> dict[str, Any]:
        feeds = {**feeds, **{name: one.like() for name, one in lying.items()}}
        fed = self._means.fed(feeds)
        key = tuple((name, tensor.shape, tensor.format) for name, tensor in fed.items())
        if len(fed) != len(feeds) or any(fed[name].format is None for name in lying):
            raise InputError(
                "sequences and types that no kernel reads do not lie on the device", hint="run with host arrays"
            )
        for _ in range(_PATIENCE):
            known = self._ready.get(key)
            here = {name: self._copied(lying[name]) for name in lying if known is None or name in known.looked_at}
            if here:
                feeds = {**feeds, **here}
                fed = self._means.fed(feeds)
            try:
                prepared = self._made_ready(key, feeds, fed)
                if len(lying) < len(fed):
                    self._backend.synchronize()  # what was sent from pinned memory before has arrived
                prepared.stage(fed, {name: one.address for name, one in lying.items()})
                prepared.send()
                prepared.replay()
                made = prepared.handed(into)
            except Diverged:
                self._ready.pop(key, None)
                continue
            if not (prepared.checks_faults and self._faulted()):
                return made
            break
        made = self._means.anew({**feeds, **{name: self._copied(one) for name, one in lying.items()}})
        for name, one in into.items():
            one.fill(self._backend, name, made[name])
        return dict(made)

    def _copied(self, one: Given) -> Array:
        """On the host."""
        found = np.empty(one.shape, one.dtype)
        self._backend.download(found.reshape(-1).view(np.uint8), one.address)
        return found

    def measured(self, feeds: Feeds, clock: Clock) -> tuple[dict[str, Array], Moments]:
        """``run``, with its moments.

        Raises:
            InputError, CudaError: as ``run``.
        """
        with self._lock:
            self._backend.enter()
            if self._watch is None:
                self._watch = _Watch(self._backend)
            begin = clock()
            made = self._run(feeds, self._watch.starting(clock))
            return made, self._watch.moments(begin, clock())

    def _run(self, feeds: Feeds, noted: Callable[[str], None]) -> dict[str, Array]:
        self._backend.enter()
        fed = self._means.fed(feeds)
        key = tuple((name, tensor.shape, tensor.format) for name, tensor in fed.items())
        why = ""
        for _ in range(_PATIENCE + 1):
            if key in self._given_up:
                break
            try:
                return self._repeat(self._made_ready(key, feeds, fed), fed, feeds, noted)
            except Diverged as error:
                self._ready.pop(key, None)
                why = str(error)
        else:
            self._given_up[key] = why
        return self._means.anew(feeds)

    def _repeat(self, prepared: Prepared, fed: Fed, feeds: Feeds, noted: Callable[[str], None]) -> dict[str, Array]:
        try:
            prepared.stage(fed)
            noted("sent")
            prepared.send()
            noted("fed")
            prepared.replay()
            noted("computed")
            prepared.fetch()
            noted("back")
            self._backend.synchronize()
        except BaseException:
            # Interrupted, too: pinned memory is written to again, and must not be on its way then.
            with suppress(CudaError):
                self._backend.synchronize()
            raise
        noted("waited")
        if prepared.checks_faults and self._faulted():
            return self._means.anew(feeds)  # which says what is out of range
        return self._means.named(prepared.fetched())

    def _made_ready(self, key: Hashable, feeds: Feeds, fed: Fed) -> Prepared:
        found = self._ready.get(key)
        if found is None:
            recording = self._means.record(feeds, fed)
            self._note_faults_here(recording)
            found = Prepared(
                recording, self._backend, self._means.compute, self._memory.block, graphs=self._graphs, marked=self._marked,
                staging=self._memory.pinned,
            )  # fmt: skip
            self._ready[key] = found
            if len(self._ready) > _MOST:
                self._ready.popitem(last=False)
        self._ready.move_to_end(key)
        return found

    def _note_faults_here(self, recording: Recording) -> None:
        """Let kernels note in this context that an index is out of range, and not in another."""
        there, here = self._means.faults.address(self._means.backend), self._faults.address(self._backend)
        for at, step in enumerate(recording.steps):
            if isinstance(step, Launched) and any(_points(one, there) for one in step.arguments):
                moved = tuple(ctypes.c_void_p(here) if _points(one, there) else one for one in step.arguments)
                recording.steps[at] = replace(step, arguments=moved)

    def _faulted(self) -> bool:
        found = np.zeros(1, np.int32)
        address = self._faults.address(self._backend)
        self._backend.download(found.view(np.uint8), address)
        if found[0]:
            self._backend.upload(address, np.zeros(1, np.int32))
        return bool(found[0])


class _Watch:
    """Moments of one inference: noted on the device's clock and on the host's."""

    def __init__(self, backend: Backend) -> None:
        self._events = {what: backend.event() for what in ("sent", "fed", "computed", "back")}
        self._host: dict[str, float] = {}

    def starting(self, clock: Clock) -> Callable[[str], None]:
        """What notes a moment by its name, of an inference that begins now."""
        self._host.clear()

        def note(what: str) -> None:
            if what in self._events:
                self._events[what].note()
            self._host[what] = clock()

        return note

    def moments(self, begin: float, end: float) -> Moments:
        """The device's moments lie before the host's of having waited for it by as much as the device's clock says."""
        if "waited" not in self._host:
            return Moments(begin, begin, end, end)
        waited, last = self._host["waited"], self._events["back"]
        found = {what: max(begin, waited - event.until(last)) for what, event in self._events.items()}
        return Moments(
            begin, found["fed"], found["computed"], end, enqueued=self._host["computed"], issuing=self._host["fed"],
            sent=found["sent"], back=found["back"],
        )  # fmt: skip


def _nothing(_: str) -> None:
    pass


def _points(argument: Any, address: int) -> bool:
    return isinstance(argument, ctypes.c_void_p) and argument.value == address
