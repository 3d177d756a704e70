"""``Engine``: a compiled network. Precision, tactic and tap are arguments of a run, not of the build."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine import tactics
from probe.engine.assignment import Assignment, Choice
from probe.engine.device.protocol import Resumes, RunsBeside, Tells, Tunes
from probe.engine.inferences import Context
from probe.engine.layers import Layer, all_layers
from probe.engine.rounding import Interior, Plan, Rounding
from probe.errors import InputError
from probe.model.feeds import check_feeds

if TYPE_CHECKING:
    from probe.engine.device.protocol import Device, Fallback, Tap, Tapped, Trace, Tuner
    from probe.engine.fusion import Refusal
    from probe.engine.network import Network
    from probe.engine.passes import PassReport
    from probe.model.model import Model

Array = np.ndarray[Any, Any]
TRACE_LIMIT = 2**30  # bytes that a trace may hold


@dataclass(frozen=True, slots=True)
class Settings:
    """How a network was compiled; stands in every result."""

    precision: str = "fp16"
    device: str = "cpu"
    passes: str = "safe"
    fusion: str = "safe"
    interior: Interior = "storage"


class Engine:
    """A network compiled into layers, ready to run under any assignment.

    >>> import numpy as np, probe
    >>> engine = probe.compile("model.onnx", precision="fp16")  # doctest: +SKIP
    >>> outputs = engine({"x": np.ones((1, 3), np.float32)})  # doctest: +SKIP
    >>> lifted = engine.assignment.keeping(tensors=["logits"])  # doctest: +SKIP
    >>> outputs = engine.run({"x": np.ones((1, 3), np.float32)}, lifted)  # doctest: +SKIP

    Attributes:
        model: as loaded.
        network: after the passes.
        layers: in execution order, those of If branches included (before the If).
        settings: precision, device, passes, fusion, interior.
        report: what the passes did.
        refusals: fusions that nearly applied, and why they did not.
        seconds: of each phase of the build.
    """

    def __init__(
        self,
        model: Model,
        network: Network,
        layers: Sequence[Layer],
        rounding: Rounding,
        device: Device,
        settings: Settings,
        *,
        report: PassReport,
        refusals: Sequence[Refusal] = (),
        assignment: Assignment | None = None,
        seconds: Mapping[str, float] | None = None,
        device_for: Callable[[Rounding], Device] | None = None,
    ) -> None:
        """
        Args:
            device_for: makes a device for the same layers with other sites, sharing what it can; for ``with_interior``.
        """
        self.model, self.network, self.settings = model, network, settings
        self.top_layers = tuple(layers)
        self.layers = tuple(all_layers(layers))
        self.report, self.refusals = report, tuple(refusals)
        self.seconds: dict[str, float] = dict(seconds or {})
        self.rounding = rounding
        self.device = device
        self._device_for = device_for
        self._by_name = {layer.name: layer for layer in self.layers}
        self.assignment = assignment or Assignment(Choice(settings.precision))
        self._tuner: tuple[Device, Tuner | None] | None = None
        self._plans = lru_cache(maxsize=256)(self._plan)

    def __repr__(self) -> str:
        return f"Engine({str(self.model.path)!r}, {len(self.layers)} layers, {self.settings.precision} on {self.settings.device})"

    def with_interior(self, interior: Interior) -> Engine:
        """This network with another interior: ``storage`` or ``fp32``. Nothing is compiled again. From ``storage`` to ``fp32`` both engines
        share the device, weights, sessions and all: roundings inside fused layers are switched off. The other way weights are shared."""
        if interior == self.settings.interior:
            return self
        if interior not in ("storage", "fp32"):
            raise InputError(f"no interior is called {interior!r}", hint="storage, fp32")
        if interior == "fp32":
            rounding, device = self.rounding.with_wide_interiors(), self.device
        else:
            assert self._device_for is not None, "an engine that was not built by compile_model"
            rounding = Rounding(self.top_layers, interior)
            device = self._device_for(rounding)
        return Engine(
            self.model, self.network, self.top_layers, rounding, device, replace(self.settings, interior=interior),
            report=self.report, refusals=self.refusals, assignment=self.assignment, seconds=self.seconds, device_for=self._device_for,
        )  # fmt: skip

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the engine into one file, with its model, weights, settings and assignment: ``probe.compile(path)`` reads it back, ready
        to run. It appears whole or not at all.

        Raises:
            InputError: the file is there or cannot be written; the model's file was changed since it was loaded.
        """
        from probe.engine.saved.save import save_engine

        if not isinstance(path, (str, Path)):
            raise InputError(f"a path is no {type(path).__name__}", hint='engine.save("engine.probe")')
        save_engine(self, path, overwrite=overwrite)

    # --- running -----------------------------------------------------------------------------------------------------

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Graph outputs of one inference under ``assignment``, by name. As ``run``."""
        return self.run(inputs)

    def run(
        self, inputs: Mapping[str, Any], assignment: Assignment | None = None, tap: Tap | None = None
    ) -> dict[str, Array]:
        """One inference.

        Args:
            inputs: network inputs by name; a sequence input as ``NAME[0]``, ``NAME[1]``...
            assignment: precision and tactic of every layer; the engine's own when left out.
            tap: called with every tensor a layer stores, in execution order. Looking changes nothing that is computed.

        Returns:
            Graph outputs by name; elements of a sequence as ``NAME[0]``...

        Raises:
            InputError: inputs that do not fit, an assignment that names no layer, or a layer that fails; names it.
        """
        if tap is None:
            return self.device.run(self._feeds(inputs), self.plans(assignment))
        running = self.stream(inputs, assignment)
        while True:
            try:
                tap(next(running))
            except StopIteration as done:
                return done.value

    def stream(
        self, inputs: Mapping[str, Any], assignment: Assignment | None = None
    ) -> Generator[Tapped, None, dict[str, Array]]:
        """One inference, tensor by tensor: every tensor a layer stores, in execution order, memory falling as they are dropped. The
        generator's return value is what ``run`` returns, bit for bit.

        Raises:
            InputError: as ``run``.
        """
        plans = self.plans(assignment)
        interior = self.settings.interior == "storage"
        return (yield from self.device.stream(self._feeds(inputs), plans, interior=interior))

    def context(self, assignment: Assignment | None = None, *, stream: Any = None) -> Context:
        """Inferences that may take place beside those of other contexts, each on a thread of its own: what is returned takes inputs and gives
        graph outputs, the same bits as ``run``.

        On a GPU a context has a stream, memory and pinned buffers of its own over weights and kernels that all share, so that inputs and
        outputs are copied while others compute; ``run`` by itself lets one thread after the other in.

        Args:
            stream: a CUDA stream of the caller's to run on: an object with ``__cuda_stream__`` (cuda.core, torch), or its handle, which must
                then stay valid as long as the context and its outputs.

        Raises:
            InputError: an assignment that names no layer, a stream for a CPU; what is returned raises as ``run``.
        """
        plans = self.plans(assignment)
        if isinstance(self.device, RunsBeside):
            beside = self.device.context(plans, stream=stream)
            return Context(self.network.model, beside.run, beside)
        if stream is not None:
            raise InputError("streams are of GPUs", hint='compile_model(..., device="cuda")')
        return Context(self.network.model, partial(self.device.run, plans=plans), None)

    # --- many runs on the same inputs ----------------------------------------------------------------------------------

    def trace(
        self, inputs: Mapping[str, Any], assignment: Assignment | None = None, *, limit: int = TRACE_LIMIT
    ) -> Trace | None:
        """Run once and hold tensors on the way, so that ``run_from`` runs only what lies downstream of a change.

        The first trace of an engine is slow (it measures where to cut the network, and builds sessions): it pays from some twenty runs on.
        Later ones, on other inputs, take a run each.

        Args:
            limit: bytes it may hold.

        Returns:
            None where nothing is gained: a network that takes less than four milliseconds, layers without a kernel of ONNX Runtime, an
            assignment with other tactics or more than one low precision, tensors beyond ``limit``, a GPU.

        Raises:
            InputError: as ``run``.
        """
        feeds, plans = self._feeds(inputs), self.plans(assignment)
        return self.device.trace(feeds, plans, limit) if isinstance(self.device, Resumes) else None

    def run_from(self, trace: Trace, assignment: Assignment) -> dict[str, Array]:
        """What ``run`` returns for the inputs of ``trace``, bit for bit, without computing what earlier runs of the trace have computed:
        a stretch of layers runs only if their precision changed, or bits that they read did.

        Args:
            trace: of this engine. It holds tensors of this run from then on, within its limit.

        Raises:
            InputError: as ``run``.
        """
        return self._resuming.run_from(trace, self.plans(assignment))

    def estimate_from(self, trace: Trace, assignment: Assignment) -> float:
        """Seconds that ``run_from`` takes at most, as far as measured; ``trace.seconds`` is a whole run's."""
        return self._resuming.estimate_from(trace, self.plans(assignment))

    @property
    def _resuming(self) -> Resumes:
        assert isinstance(self.device, Resumes), "a trace comes from a device that makes them"
        return self.device

    def plans(self, assignment: Assignment | None = None) -> Mapping[str, Plan]:
        """How every layer runs under an assignment, the engine's own when left out, by name; the same object for the same assignment.

        Raises:
            InputError: an assignment that is none, that names no layer, or a tactic that cannot compute one.
        """
        if assignment is not None and not isinstance(assignment, Assignment):
            raise InputError(
                f"an assignment is no {type(assignment).__name__}", hint="engine.assignment.keeping(tensors=[...])"
            )
        return self._plans(self.assignment if assignment is None else assignment)

    def feeds(self, inputs: Mapping[str, Any]) -> Mapping[str, Array]:
        """Inputs as the device takes them.

        Raises:
            InputError: inputs that do not fit.
        """
        return self._feeds(inputs)

    def _feeds(self, inputs: Mapping[str, Any]) -> Mapping[str, Array]:
        return check_feeds(self.network.model, inputs)

    def evaluate(
        self,
        layer: Layer | str,
        feeds: Mapping[str, Array],
        choice: Choice,
        *,
        read_as: str | None = None,
        kept: frozenset[str] = frozenset(),
    ) -> dict[str, Array]:
        """One layer on given inputs.

        With golden inputs g: ``evaluate(layer, g, Choice("fp16"))`` is f_fp16(R(g)), and
        ``evaluate(layer, g, Choice("fp32"), read_as="fp16")`` is f_32(R(g)); their difference is the layer's local error.

        Args:
            feeds: what the layer reads, by name, not rounded; float tensors as float32.
            choice: what it stores in, and the tactic.
            read_as: precision that reads and weights are rounded to, when not ``choice.precision``.
            kept: tensors that are not rounded.

        Returns:
            Every tensor the layer makes, by name, as stored.

        Raises:
            InputError: no such layer, a missing input, an If (evaluate its branches' layers), or the layer fails.
        """
        found = layer if isinstance(layer, Layer) else self.layer(layer)
        if not isinstance(choice, Choice):
            raise InputError(
                f"a choice is no {type(choice).__name__}", hint='Choice("fp16"), of probe.engine.assignment'
            )
        if found.kind == "if":
            raise InputError(f"{found.name} is an If: its layers are evaluated one by one")
        missing = [value.name for value in found.reads if value.name not in feeds]
        if missing:
            raise InputError(f"no data for {missing[0]!r}, which {found.name} reads")
        return self.device.evaluate(found, feeds, self.plan_of(found, choice, read_as=read_as, kept=kept))

    def plan_of(
        self, layer: Layer, choice: Choice, *, read_as: str | None = None, kept: frozenset[str] = frozenset()
    ) -> Plan:
        """How ``evaluate`` runs a layer: every read rounded, whoever made it.

        Raises:
            InputError: another device's tactic, or precisions that do not go together.
        """
        if (reason := tactics.tactic_of(choice.tactic).elsewhere(self.device.name)) is not None:
            raise InputError(f"layer {layer.name}: {reason}")
        reading = read_as or choice.precision
        if reading == "fp32" and choice.precision == "fp32":
            return Plan(choice, "wide")
        if choice.precision not in ("fp32", reading):
            raise InputError(f"a layer cannot read {reading} and store {choice.precision}")
        sites = self.rounding.sites(layer, reading)
        if not sites.any:
            return Plan(choice, "plain")
        stores = choice.precision == reading
        gates = tuple(
            on and (kind != "store" or stores)
            for on, (kind, _) in zip(self.rounding.gates(layer, reading, kept), sites.gates, strict=True)
        )
        every = all(gate for (kind, _), gate in zip(sites.gates, gates, strict=True) if kind == "weight")
        return Plan(Choice(reading, choice.tactic), "switched" if every else "general", gates)

    def _plan(self, assignment: Assignment) -> dict[str, Plan]:
        unknown = [name for name in assignment.layers if name not in self._by_name]
        if unknown:
            raise InputError(f"the assignment names a layer that is not there: {unknown[0]!r}")
        unknown = sorted(assignment.kept - self._tensors)
        if unknown:
            raise InputError(f"the assignment keeps a tensor that is not there: {unknown[0]!r}")
        for name, choice in assignment.layers.items():
            reason = tactics.supports(self._by_name[name], choice.precision, choice.tactic)
            if reason or (reason := tactics.tactic_of(choice.tactic).elsewhere(self.device.name)):
                raise InputError(f"layer {name}: {reason}")
        return self.rounding.plan(assignment)

    # --- asking ------------------------------------------------------------------------------------------------------

    def layer(self, name: str) -> Layer:
        """A layer by name.

        Raises:
            InputError: there is none.
        """
        if not isinstance(name, str):
            raise InputError(f"a layer has a name, and {name!r} is none", hint="names are those of engine.layers")
        if name not in self._by_name:
            import difflib

            near = difflib.get_close_matches(name, self._by_name, 1, 0.5)
            raise InputError(f"no layer is called {name!r}", hint=f"did you mean {near[0]!r}?" if near else "")
        return self._by_name[name]

    @cached_property
    def _tensors(self) -> frozenset[str]:
        return self.network.names()

    @cached_property
    def _makers(self) -> dict[str, Layer]:
        return {value.name or "": layer for layer in self.layers for value in (*layer.tensors, *_inner(layer))}

    def layer_of(self, tensor: str) -> Layer | None:
        """The layer that makes a tensor, in a body of it or not; None for inputs, weights and what passes removed."""
        return self._makers.get(tensor)

    def fate(self, tensor: str) -> tuple[str, str]:
        """What became of a tensor that the ONNX file names: a status and what it refers to.

        ``("made", LAYER)``, ``("interior", LAYER)`` for what stays inside a layer, ``("folded", PASS)``,
        ``("equivalent", TENSOR)`` for values that live on under another name, ``("unknown", "")``.
        """
        layer = self._makers.get(tensor)
        if layer is not None:
            stored = any(value.name == tensor for value in layer.outputs)
            interior = any(value.name == tensor for value in layer.interior)
            if stored or (interior and self.settings.interior == "storage"):
                return "made", layer.name
            return "interior", layer.name
        found = self.network.fate(tensor)
        if found is None:
            return "unknown", ""
        return (found.status, found.by) if found.status == "folded" else ("equivalent", found.to)

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Layers that the device has no kernel for, in execution order. On the CPU, onnx's reference implementation computes them: slowly,
        and without the gated session, so every run goes layer by layer.

        Raises:
            InputError: the network cannot be built for another reason.
        """
        return self.device.fallbacks

    @property
    def notes(self) -> tuple[str, ...]:
        """What its device has to say of how it ran so far."""
        return self.device.notes if isinstance(self.device, Tells) else ()

    @property
    def tuner(self) -> Tuner | None:
        """Of a device that has tactics of its own and measures by itself; None of others."""
        if self._tuner is None or self._tuner[0] is not self.device:
            made = self.device.tuner(self.plan_of) if isinstance(self.device, Tunes) else None
            self._tuner = (self.device, made)
        return self._tuner[1]

    def candidates(self, layer: Layer | str) -> tuple[str, ...]:
        """Tactics that can compute a layer in the engine's precision, exact first."""
        found = layer if isinstance(layer, Layer) else self.layer(layer)
        return tactics.candidates(found, self.settings.precision)


def _inner(layer: Layer):  # noqa: ANN202 - an iterator of values
    """Tensors inside the bodies of a Loop or Scan."""
    from probe.engine.rounding import inner_nodes

    if layer.kind == "if":
        return
    own = set(map(id, layer.nodes))
    for node in inner_nodes(layer.nodes):
        if id(node) not in own:
            yield from (value for value in node.outputs if value.name)
