"""``Prepared``: a recorded run with every tensor at an address of its own choosing, ready to be repeated as CUDA graphs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.backend import Batch
from probe.engine.device.cuda.errors import CudaError, OutOfMemory
from probe.engine.device.cuda.runs.given import DeviceArray, Given, stored_dtype
from probe.engine.device.cuda.runs.in_place import planned, root_of
from probe.engine.device.cuda.runs.recording import (
    Compared,
    Computed,
    Downloaded,
    Fixed,
    Hosted,
    Place,
    Recording,
    Stored,
    Uploaded,
)
from probe.engine.device.cuda.runs.shared import copy_bytes
from probe.engine.device.cuda.runs.staged import InUse, Staged, in_use
from probe.engine.device.cuda.tensors.formats import packed, unpacked
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor
from probe.engine.plan.memory import ALIGNMENT
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend

Array = np.ndarray[Any, Any]
Compute = Callable[[Computed, "dict[int, Tensor]"], "dict[int, Tensor]"]
Act = Callable[[], None]


class Diverged(Exception):  # noqa: N818 - an answer, not an error: the run is made again from the beginning
    """Something that the recorded launches depend on is not as it was."""


class Prepared:
    """Repeats a recorded run.

    Between two steps on the host all launches are one graph; a network without such steps is one graph altogether. Where capturing fails
    they are launched one by one, and ``note`` says why.

    Args:
        compute: a step on the host: what it makes of its reads.
        arena: gives memory of at least so many bytes.
        graphs: capture; False launches one by one.
        side_by_side: let layers that do not depend on each other run at the same time, where that takes little more memory.
        marked: told of the layer before each launch that is not part of a graph.
        staging: gives pinned memory of at least so many bytes; nothing is kept there between runs.

    Attributes:
        layout: of the memory of the run. ``arena``: that memory.
        side_by_side: layers that do not depend on each other share no memory, and may run at the same time.
        note: why there is no graph; "" when there is.
        graphs: captured.
        launches: in all of them.
        checks_faults: kernels may have found an index out of range.
        pinned_bytes: of host memory that inputs and outputs are copied through.
    """

    def __init__(
        self,
        recording: Recording,
        backend: Backend,
        compute: Compute,
        arena: Callable[[int], Buffer],
        *,
        graphs: bool = True,
        side_by_side: bool = False,
        marked: Callable[[str], None] | None = None,
        staging: Callable[[int], Array] | None = None,
    ) -> None:
        self._marked, self._staging = marked, staging or backend.pinned
        self._recording, self._backend, self._compute = recording, backend, compute
        self.checks_faults = recording.checks_faults
        self._pieces, (self.layout, offsets, self.side_by_side) = planned(
            recording, side_by_side=side_by_side and graphs
        )
        self.arena = self._whole(arena)
        self._addresses = [0] * len(recording.slots)
        self._ranges: dict[int, tuple[int, int]] = {}
        for slot, offset in offsets.items():
            self._addresses[slot] = self.arena.address + offset
            self._ranges[slot] = (offset, offset + max(recording.slots[slot], 1))
        for slot in recording.within:
            root, offset = root_of(slot, recording.within)
            self._addresses[slot] = self._addresses[root] + offset
        self._hosts: list[Tensor | None] = [None] * recording.hosts
        self.note = "" if graphs else "graphs are switched off"
        self.graphs = self.launches = 0
        self._uploads: list[tuple[Uploaded, Array]] = []
        self._checks: list[Compared] = []
        self._downloads: list[tuple[str, Stored, Array]] = []
        self._lying: dict[int, int] = {}
        self._stage()
        self._acts = self._sequence()

    def _whole(self, arena: Callable[[int], Buffer]) -> Buffer:
        try:
            return arena(self.layout.nbytes)
        except OutOfMemory as full:
            most = self.layout.peak_bytes
            raise full.at(
                f"the block for all tensors between layers, of which {most:,} bytes are alive at once"
            ) from full

    def _stage(self) -> None:
        """Pinned memory for what goes in before everything else and comes out behind it."""
        fed = set(self._recording.fed.values())
        uploads = [step for step in self._recording.steps if isinstance(step, Uploaded) and step.host in fed]
        results = [(name, place) for name, place in self._recording.outputs.items() if isinstance(place, Stored)]
        sizes = [self._recording.slots[step.slot] for step in uploads]
        sizes += [_nbytes(place) for _, place in results]
        starts = np.cumsum([0, *(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)]).tolist()
        self.pinned_bytes = starts[-1]
        staging = self._staging(self.pinned_bytes)
        parts = [staging[start : start + size] for start, size in zip(starts, sizes, strict=False)]
        self._uploads = list(zip(uploads, parts, strict=False))
        self._downloads = [
            (name, place, part) for (name, place), part in zip(results, parts[len(uploads) :], strict=True)
        ]
        self._checks = [step for step in self._recording.steps if isinstance(step, Compared) and step.host in fed]

    def _sequence(self) -> list[Act]:
        """Everything between the first upload and the last download, launches joined to graphs."""
        return [self._launching(piece) if isinstance(piece, Staged) else self._act(piece) for piece in self._pieces]

    def _launching(self, piece: Staged) -> Act:
        batches = piece.batches(self._addresses, self._ranges, side_by_side=self.side_by_side)
        self.launches += sum(len(batch.launches) for batch in batches)
        if not self.note:
            try:
                graph = self._backend.capture(batches)
            except CudaError as error:
                self.note = f"not captured: {error.what}"
            else:
                self.graphs += 1
                return graph.launch

        def one_by_one() -> None:
            for one in (one for batch in batches for one in batch.launches):
                if self._marked is not None:
                    self._marked(one.what)
                self._backend.launch(one.source, one.shape, one.arguments, one.what)

        return one_by_one

    def _act(self, step: Uploaded | Downloaded | Compared | Computed) -> Act:
        if isinstance(step, Uploaded):
            return lambda: self._upload(step)
        if isinstance(step, Downloaded):
            return lambda: self._download(step)
        return (lambda: self._check(step)) if isinstance(step, Compared) else (lambda: self._step(step))

    # --- steps -------------------------------------------------------------------------------------------------------

    def _value(self, host: int) -> Tensor:
        found = self._hosts[host]
        assert found is not None
        return found

    def _upload(self, step: Uploaded) -> None:
        tensor = self._value(step.host)
        assert tensor.held is not None and tensor.format is not None
        self._backend.upload(self._addresses[step.slot], packed(tensor.held, tensor.format))

    def _download(self, step: Downloaded) -> None:
        raw = np.empty(_nbytes(step.place), np.uint8)
        self._backend.download(raw, self._addresses[step.place.slot] + step.place.offset)
        array = unpacked(raw, step.place.format, step.place.shape)
        self._hosts[step.host] = Tensor(step.place.shape, step.place.format, array=array)

    def _check(self, step: Compared) -> None:
        found = self._value(step.host).held
        if found is None or found.tobytes() != step.expected.tobytes():
            raise Diverged("values that decide on shapes or places have changed")

    def _step(self, step: Computed) -> None:
        made = self._compute(step, {key: self._given(place) for key, place in step.reads})
        for key, host, before in step.made:
            tensor = made.get(key)
            if tensor is None or (tensor.shape, tensor.format) != (before.shape, before.format):
                raise Diverged(f"{step.layer.name} made another shape")
            self._hosts[host] = tensor

    def _given(self, place: Fixed | Hosted) -> Tensor:
        if isinstance(place, Fixed):
            return place.tensor
        tensor = self._value(place.host)
        return tensor if tensor.opaque is not None else tensor.view(place.shape)

    # --- running -----------------------------------------------------------------------------------------------------

    def run(self, fed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs of one run, on the host.

        Args:
            fed: the network's inputs, of the shapes and types of the recorded run.

        Raises:
            Diverged: the recorded launches do not fit these inputs.
            CudaError: a kernel failed.
        """
        self.feed(fed)
        self.replay()
        return self.outputs()

    def feed(self, fed: Mapping[str, Tensor]) -> None:
        """Copy inputs to the device, where they stay.

        Raises:
            Diverged: as ``run``.
        """
        self.stage(fed)
        self.send()

    @property
    def looked_at(self) -> frozenset[str]:
        """Inputs whose values the host reads in every run."""
        used = {step.host for step in self._recording.steps if isinstance(step, Compared)}
        places = [place for one in self._recording.steps if isinstance(one, Computed) for _, place in one.reads]
        used |= {place.host for place in (*places, *self._recording.outputs.values()) if isinstance(place, Hosted)}
        return frozenset(name for name, host in self._recording.fed.items() if host in used)

    def stage(self, fed: Mapping[str, Tensor], lying: Mapping[str, int] | None = None) -> None:
        """Take over inputs into pinned memory; what was sent from there before must have arrived.

        Args:
            lying: inputs that lie on the device: where. ``send`` copies them from there; those the host does not look at need no values in
                ``fed``.

        Raises:
            Diverged: as ``run``.
        """
        self._lying = {self._recording.fed[name]: address for name, address in (lying or {}).items()}
        for name, host in self._recording.fed.items():
            self._hosts[host] = fed[name]
        for step in self._checks:
            self._check(step)
        for step, part in self._uploads:
            if step.host in self._lying:
                continue
            tensor = self._value(step.host)
            assert tensor.held is not None and tensor.format is not None
            copy_bytes(part, packed(tensor.held, tensor.format).reshape(-1).view(np.uint8))

    def send(self) -> None:
        """Copy the inputs that were taken over to the device. Returns before they are there."""
        for step, part in self._uploads:
            if step.host in self._lying:
                self._backend.copy(self._addresses[step.slot], self._lying[step.host], part.nbytes)
            else:
                self._backend.upload(self._addresses[step.slot], part)

    def replay(self) -> None:
        """Compute again from the inputs that lie on the device. Returns before the device is done."""
        for act in self._acts:
            act()

    def outputs(self) -> dict[str, Tensor]:
        """What the last run made, copied to the host."""
        self.fetch()
        self._backend.synchronize()
        return self.fetched()

    def fetch(self) -> None:
        """Copy what the last run made into pinned memory. Returns before it is there."""
        for _, place, part in self._downloads:
            self._backend.download(part, self._addresses[place.slot] + place.offset, wait=False)

    def fetched(self) -> dict[str, Tensor]:
        """What lies in pinned memory, once it is there."""
        found: dict[str, Tensor] = {}
        for name, place, part in self._downloads:
            array = unpacked(part.copy(), place.format, place.shape)
            found[name] = Tensor(place.shape, place.format, array=array)
        for name, place in self._recording.outputs.items():
            if not isinstance(place, Stored):
                found[name] = self._given(place)
        return {name: found[name] for name in self._recording.outputs}

    def handed(self, out: Mapping[str, Given]) -> dict[str, DeviceArray | Array]:
        """What the last run made, copied to memory of its own on the device, or into ``out``; on the host what was computed there. Returns before
        it is there.

        Raises:
            InputError: an array of ``out`` is of another shape or type.
        """
        unknown = [name for name in out if name not in self._recording.outputs]
        if unknown:
            raise InputError(
                f"no output is called {unknown[0]!r}", hint=f"there are {', '.join(self._recording.outputs)}"
            )
        found: dict[str, DeviceArray | Array] = {}
        for name, place in self._recording.outputs.items():
            into = out.get(name)
            if not isinstance(place, Stored):
                array = self._given(place).held
                assert array is not None, "sequences are not asked for here"
                found[name] = array
                if into is not None:
                    into.fill(self._backend, name, array)
                continue
            nbytes, address = _nbytes(place), self._addresses[place.slot] + place.offset
            if into is not None:
                into.must_be(name, place.shape, stored_dtype(place.format))
                self._backend.copy(into.address, address, nbytes)
                continue
            found[name] = made = DeviceArray(Buffer(self._backend, nbytes), place.shape, place.format, self._backend)
            self._backend.copy(made.address, address, nbytes)
        return found

    def address(self, name: str) -> int:
        """Where an input or output of the network lies on the device.

        Raises:
            KeyError: it lies on the host.
        """
        host = self._recording.fed.get(name)
        for step, _ in self._uploads:
            if step.host == host:
                return self._addresses[step.slot]
        return {other: self._addresses[place.slot] + place.offset for other, place, _ in self._downloads}[name]

    def tensor(self, place: Place | None, memory: Buffer) -> Tensor | None:
        """What the last run made of a tensor that is handed out, in ``memory``, which begins where the run's does."""
        if isinstance(place, Stored):
            begins = self._addresses[place.slot] + place.offset - memory.address
            return Tensor(place.shape, place.format, buffer=memory, begins=begins)
        if isinstance(place, Hosted):
            found = self._given(place)
            return Tensor(found.shape, found.format, array=found.held)
        if place is None or place.tensor.held is not None or place.tensor.memory is None:
            return place.tensor.of(None) if place is not None else None
        return Tensor(place.tensor.shape, place.tensor.format, buffer=place.tensor.memory, begins=place.tensor.begins)

    def in_use(self) -> dict[str, InUse]:
        """Memory of the run while each layer runs, by its name."""
        return in_use(self._recording, self._pieces)

    # --- measuring ---------------------------------------------------------------------------------------------------

    def time(self, repeats: int = 50, *, rounds: int = 7, warm_up: int = 3) -> float:
        """Seconds of a replay on the inputs that lie on the device: the median over rounds of the mean over repeats, by the device's clock."""

        def work() -> None:
            for _ in range(repeats):
                self.replay()

        for _ in range(warm_up):
            self.replay()
        return statistics.median(self._backend.seconds(work) / repeats for _ in range(rounds))

    def timed_layers(self, clock: Callable[[], float]) -> Callable[[], dict[str, float]]:
        """What replays once and says how long each layer took, by name.

        Kernels are timed by the device, within graphs that note the time whenever the layer changes, which costs each about a microsecond;
        layers on the host by ``clock``, from when the device was done with what is before them.
        """
        graphs = {
            at: self._backend.capture(
                [Batch(tuple(step.bound(self._addresses) for step in piece.in_order))], timed=True
            )
            for at, piece in enumerate(self._pieces)
            if isinstance(piece, Staged)
        }

        def once() -> dict[str, float]:
            spent: dict[str, float] = {}
            for at, piece in enumerate(self._pieces):
                if at in graphs:
                    graphs[at].launch()
                    for layer, seconds in graphs[at].seconds():
                        spent[layer] = spent.get(layer, 0.0) + seconds
                    continue
                begin = clock()
                self._acts[at]()
                if isinstance(piece, Computed):
                    spent[piece.layer.name] = spent.get(piece.layer.name, 0.0) + clock() - begin
            return spent

        return once


def _nbytes(place: Stored) -> int:
    return int(np.prod(place.shape, dtype=np.int64)) * place.format.bytes
