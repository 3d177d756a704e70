"""``CudaDevice``: the layers of a network on a GPU, each tensor stored in the precision its layer has."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from probe.engine import tactics
from probe.engine.assignment import Choice
from probe.engine.device.cuda.backend import Backend
from probe.engine.device.cuda.compiling.kept_kernels import KeptKernels
from probe.engine.device.cuda.errors import Missing
from probe.engine.device.cuda.layers.refusals import tactic_refusal
from probe.engine.device.cuda.layers.running import RunsLayers
from probe.engine.device.cuda.ops.table import refusal
from probe.engine.device.cuda.queue import Queue, apart_in_words
from probe.engine.device.cuda.runs.context import CudaContext, Means
from probe.engine.device.cuda.runs.one_run import OneRun, with_interiors
from probe.engine.device.cuda.runs.prepared import Prepared
from probe.engine.device.cuda.runs.recording import Computed, Recording
from probe.engine.device.cuda.runs.replays import Replays
from probe.engine.device.cuda.runs.tape import Tape
from probe.engine.device.cuda.runs.watched import Noted, Watched, WatchedRuns
from probe.engine.device.cuda.sums.comparing import ComparesPairs, Held, arrays_of, shown
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.cuda.tuning.tuner import CudaTuner
from probe.engine.device.protocol import Fallback, Tapped
from probe.engine.layers import Layer, all_layers
from probe.engine.network import Network
from probe.engine.rounding import Plan, Rounding
from probe.ort.values import to_ort

Array = np.ndarray[Any, Any]
Values = dict[int, Tensor]


class CudaDevice(RunsLayers, KeptKernels, ComparesPairs):
    """Kernels where there are some, the CPU device's executor for every other layer.

    Attributes:
        replays: runs that are repeated as they were recorded; ``watched`` those whose tensors are handed out.
    """

    name = "cuda"

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        rounding: Rounding,
        backend: Backend,
        *,
        threads: int = 0,
        libraries: Sequence[Path] = (),
    ) -> None:
        super().__init__(network, layers, rounding, backend, threads=threads, libraries=tuple(libraries))
        self._layers = layers
        self._lock = RLock()
        self.replays = Replays(backend, self._compute)
        self.watched = WatchedRuns(backend, self._compute)

    # --- the protocol ------------------------------------------------------------------------------------------------

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """As ``Device.fallbacks``: layers without a kernel, and those that a kernel refused in a run so far. The CPU device computes them."""
        by: Any = "cpu"
        found = []
        for layer in all_layers(self._layers):
            reason = self.fallen.get(layer.name) or self._refusals[layer.name]
            if reason and layer.name not in self.on_host:
                lacking = [node.op_type for node in layer.nodes if refusal(node)]
                found.append(Fallback(layer.name, (lacking or [layer.nodes[0].op_type])[0], reason, by))
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """As ``Tells.notes``."""
        whys = dict.fromkeys((*self.replays.notes, *self.watched.notes))
        return (
            *self.kernel_notes,
            *apart_in_words(self.queue.apart),
            *(f"a run was launched kernel by kernel: {why}" for why in whys),
        )

    def run(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> dict[str, Array]:
        """As ``Device.run``. From the second run with inputs of the same shapes on, what the first one launched is repeated as CUDA graphs."""
        self.backend.enter()
        fed = self._fed(feeds)
        with self._lock:
            self.look_ahead(feeds, plans)
            found = self.replays.run(fed, plans, lambda: self._record(fed, plans)) if self.replays.enabled else None
            if found is not None and not (found[1] and self._faulted()):
                return self._named(found[0])
            running = self._stream(fed, plans, tapped=False, interior=False)
            while True:
                try:
                    next(running)
                except StopIteration as done:
                    return done.value

    def stream(
        self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        """As ``Device.stream``. The same kernels as in ``run``; a tensor is read when somebody asks for its values. From the second run with inputs of
        the same shapes on, what the first one launched is repeated as CUDA graphs; tensors of the one before that are still held move first."""
        self.backend.enter()
        fed = self._fed(feeds)
        with self._lock:
            self.look_ahead(feeds, plans)
            known = self.watched.of((self.replays.key(fed, plans), interior)) if self.replays.enabled else None
            repeated = self.watched.repeat(known, fed) if known is not None else None
            if repeated is not None and repeated.prepared.checks_faults and self._faulted():
                known = repeated = None  # a run anew says what is out of range
        if repeated is not None:
            for tapped, tensor, last in repeated.handed:
                if tensor is None:
                    yield tapped
                else:
                    held = Held(tensor, self.backend, self.queue) if last else shown(tensor, self.backend)
                    yield Tapped(tapped.name, held, tapped.layer, tapped.choice)
            return self._named(repeated.outputs())
        if known is not None and self.watched.wanted(known):
            return (yield from self._recorded(known, fed, plans, interior=interior))
        return (yield from self._stream(fed, plans, tapped=True, interior=interior))

    def prepare(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, side_by_side: bool = False) -> Prepared:
        """A run made ready to be repeated with its inputs and outputs on the device, in memory of its own.

        Args:
            side_by_side: let layers that do not depend on each other run at the same time. Off: measured on an H200, it brought 1 % on
                BERT-base and nothing on ResNet-50.

        Raises:
            InputError: a layer fails; names it.
        """
        self.backend.enter()
        fed = self._fed(feeds)
        with self._lock:
            self.look_ahead(feeds, plans)
            _, recording = self._record(fed, plans)
            prepared = self.replays.prepare(recording, side_by_side=side_by_side)
            prepared.feed(fed)
        return prepared

    def whole(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> float:
        """As ``Tunes.whole``: the median over 5 rounds of the mean over 10 replays."""
        return self.prepare(feeds, plans).time(10, rounds=5)

    def feed(self, prepared: Prepared, feeds: Mapping[str, Array]) -> None:
        """Give a run made ready other inputs of the same shapes. Raises what ``Prepared.feed`` does."""
        self.backend.enter()
        prepared.feed(self._fed(feeds))

    def context(
        self,
        plans: Mapping[str, Plan],
        *,
        graphs: bool = True,
        marked: Callable[[str], None] | None = None,
        stream: Any = None,
    ) -> CudaContext:
        """Inferences under one assignment on a stream of their own, beside those of other contexts.

        Args:
            stream: somebody else's to run on.
            graphs: False launches kernel by kernel.
            marked: told of the layer before each launch that is not part of a graph.
        """

        def record(feeds: Mapping[str, Array], fed: Mapping[str, Tensor]) -> Recording:
            with self._lock:
                self.backend.enter()
                self.look_ahead(feeds, plans)
                _, recording = self._record(fed, plans)
                self.backend.synchronize()  # weights are there, whatever stream reads them
            return recording

        anew = partial(self.run, plans=plans)
        means = Means(self.backend, self._fed, record, self._compute, self._named, anew, self._faults)
        return CudaContext(means, graphs=graphs, marked=marked, stream=stream)

    def shapes(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> dict[str, tuple[int, ...]]:
        """Of every tensor that a run makes; of what stays inside fused layers as the network declares it, or by kernels that write it too,
        which may have to be compiled. Nothing but what decides on shapes leaves the device. Raises as ``run``."""
        self.backend.enter()
        found: dict[str, tuple[int, ...]] | None = None
        for interior in (False, True):
            with self._lock:
                left, made = Counter(self._fallback.uses), {}
                run = OneRun(self.queue, plans, self._valued(self._fed(feeds)), left, True, interior, made)
                deque(self._run_layers(self._layers, run), maxlen=0)
            found = made if interior else with_interiors(self._layers, made)
            if found is not None:
                break
        return found or {}

    @property
    def weight_bytes(self) -> int:
        """Of weights on the device so far, in every precision and order that they are read in."""
        return self._weigh.nbytes

    def evaluate(self, layer: Layer, feeds: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
        """As ``Device.evaluate``."""
        self.backend.enter()
        reads = {id(v): host_tensor(np.asarray(feeds[v.name or ""])) for v in layer.reads}
        made = self._run_layer(layer, reads, plan, self.queue, wants_interior=True)
        return {
            f"{value.name}{suffix}": array
            for value in layer.tensors
            if id(value) in made
            for suffix, array, _ in arrays_of(made[id(value)], self.backend)
            if array is not None
        }

    def supports(self, layer: Layer, precision: str, tactic: str) -> str | None:
        """As ``Device.supports``. A layer that is not supported runs all the same, on the CPU."""
        reason = tactics.supports(layer, precision, tactic)
        return reason or self._refusals[layer.name] or tactic_refusal(layer, tactic)

    def tuner(self, plan_of: Callable[[Layer, Choice], Plan]) -> CudaTuner:
        """As ``Tunes.tuner``."""
        return CudaTuner(self.backend, self.queue.opset, self._rounding, plan_of, self._layers)

    # --- running -----------------------------------------------------------------------------------------------------

    def _record(self, fed: Mapping[str, Tensor], plans: Mapping[str, Plan]) -> tuple[dict[str, Tensor], Recording]:
        """Outputs of a run, and what it did."""
        tape, run = self._taped(self.backend, fed, plans, self.queue.launches)
        try:
            deque(self._run_layers(self._layers, run), maxlen=0)
            results = self._results(run)
            places = {name: tape.place(tensor) for name, tensor in results.items()}
        except BaseException:
            tape.abandon()
            raise
        arrays = {name: tensor.detached(self.backend) for name, tensor in results.items()}
        return arrays, tape.finish(places, checks_faults=run.queue.may_fault)

    def _recorded(
        self, known: Watched, fed: Mapping[str, Tensor], plans: Mapping[str, Plan], *, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        """A run whose tensors are handed out, recorded."""
        tape, run = self._taped(self.backend, fed, plans, self.queue.launches)
        run.tapped, run.interior, run.noted = True, interior, Noted(tape, self.queue)
        try:
            for tapped in self._run_layers(self._layers, run):
                if run.queue.may_fault and self._faulted():
                    deque(self._stream(fed, plans, tapped=False, interior=False), maxlen=0)  # says what is out of range
                yield tapped
            results = self._results(run)
            places = {name: tape.place(tensor) for name, tensor in results.items()}
        except BaseException:
            tape.abandon()
            raise
        named = self._named({name: tensor.detached(self.backend) for name, tensor in results.items()})
        self.watched.learn(known, tape.finish(places, checks_faults=run.queue.may_fault), run.noted)
        return named

    def _taped(
        self, backend: Backend, fed: Mapping[str, Tensor], plans: Mapping[str, Plan], launches: dict[str, int]
    ) -> tuple[Tape, OneRun]:
        """A run that is to be recorded."""
        tape = Tape(backend)
        queue = Queue(
            tape, self.queue.opset, launches=launches, faults=self._faults, recording=True, outside=self.queue, sources=self.queue.sources,
            apart=self.queue.apart,
        )  # fmt: skip
        given = {name: tape.fed(name, tensor) for name, tensor in fed.items()}
        return tape, OneRun(queue, plans, self._valued(given), Counter(self._fallback.uses))

    def _imagine(self, feeds: Mapping[str, Array], backend: Backend, plans: Mapping[str, Plan]) -> int:
        self.backend.enter()
        with self._lock, self._weigh.placed():
            self._faults.address(self.backend)
            known, counted = len(self._templates), (dict(self.fallen), Counter(self.falls))
            tape, run = self._taped(backend, self._fed(feeds), plans, {})
            with suppress(Missing):
                deque(self._run_layers(self._layers, run), maxlen=0)
                self._results(run)
            tape.abandon()
            self.fallen, self.falls = counted  # layers on the host were computed for their shapes: that is no run
        return len(self._templates) - known

    def _faulted(self) -> bool:
        """Whether a kernel found an index out of range since it was last asked."""
        found = np.zeros(1, np.int32)
        self.backend.download(found.view(np.uint8), self._faults.address(self.backend))
        if found[0]:
            self.backend.upload(self._faults.address(self.backend), np.zeros(1, np.int32))
        return bool(found[0])

    def _compute(self, step: Computed, reads: Values) -> Values:
        """A step of a recording that is made on the host."""
        return self._on_cpu(step.layer, reads, step.plan, wants_interior=step.interior)

    def _stream(
        self, fed: Mapping[str, Tensor], plans: Mapping[str, Plan], *, tapped: bool, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        run = OneRun(self.queue, plans, self._valued(fed), Counter(self._fallback.uses), tapped, interior)
        yield from self._run_layers(self._layers, run)
        return self._named(self._results(run))

    def _results(self, run: OneRun) -> dict[str, Tensor]:
        """What the graph returns; floats are made wide on the device, which is faster than on the host."""
        found = {}
        for value in self._network.graph.outputs:
            tensor = self._value_of(value, run.values)
            on_device = (
                tensor.memory is not None or tensor.is_late
            )  # whether or not somebody has read it on the host, which NaNs would show
            if tensor.format is not None and tensor.format.is_float and on_device:
                run.queue.layer = "outputs"
                if isinstance(run.queue.backend, Tape):
                    run.queue.backend.begin()
                tensor = run.queue.convert(tensor, F32)
            found[value.name or ""] = tensor
        return found

    def _named(self, results: Mapping[str, Tensor]) -> dict[str, Array]:
        return {
            f"{name}{suffix}": array
            for name, tensor in results.items()
            for suffix, array, _ in arrays_of(tensor, self.backend)
            if array is not None
        }

    def _fed(self, feeds: Mapping[str, Array]) -> dict[str, Tensor]:
        """Inputs of the network, by name."""
        ports = {port.name: port for port in self._network.model.inputs}
        fed: dict[str, Tensor] = {}
        for value in self._network.graph.inputs:
            name = value.name or ""
            if name in feeds:
                fed[name] = host_tensor(np.asarray(feeds[name]))
            elif name in ports:
                fed[name] = Tensor((), None, opaque=to_ort([ports[name]], feeds)[name])
        return fed

    def _valued(self, fed: Mapping[str, Tensor]) -> Values:
        return {id(value): fed[value.name or ""] for value in self._network.graph.inputs if value.name in fed}
