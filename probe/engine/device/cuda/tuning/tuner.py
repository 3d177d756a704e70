"""``CudaTuner``: the device's own tactics of a layer, and what each takes on the device, checked before it is timed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.assignment import EXACT, Choice
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.compiling.workers import compile_ahead
from probe.engine.device.cuda.errors import Refused, Unsupported
from probe.engine.device.cuda.layers.refusals import layer_refusal, tactic_refusal
from probe.engine.device.cuda.layers.siblings import families
from probe.engine.device.cuda.ops.products.wgmma import ARCH
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.channels_last import channels_last
from probe.engine.device.cuda.tensors.formats import F32, storage_of
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.cuda.tuning.planning import Planned, imagined, read_format, run_layer
from probe.engine.device.cuda.tuning.rig import Noted, Rig
from probe.engine.device.cuda.tuning.turning import orders_of, turning_seconds
from probe.engine.device.pairs import Measure
from probe.engine.device.protocol import Measured
from probe.engine.tuning.turns import turn_order

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.costs import Shapes
    from probe.engine.device.cuda.backend import Backend, Graph
    from probe.engine.device.cuda.layers.layer_run import Weigh
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan, Rounding
    from probe.engine.tuning.orders import Pair

Array = np.ndarray[Any, Any]
Values = dict[int, Tensor]
PlanOf = Callable[["Layer", Choice], "Plan"]

ROUNDS = 7  # graphs of repetitions that a median is of
_HOPELESS = 2.0  # times as slow as the fastest: one graph tells
_AXES = 4


class CudaTuner:
    """Of the layers of one network on one GPU.

    Args:
        plan_of: how a layer runs by itself.
        layers: of the network.

    Attributes:
        joined: names of layers that exact computes together with others.
    """

    def __init__(
        self, backend: Backend, opset: int, rounding: Rounding, plan_of: PlanOf, layers: Sequence[Layer] = ()
    ) -> None:
        merged = families(layers).values() if backend.arch == ARCH else ()
        self.joined = frozenset(layer.name for family in merged for layer in family)
        self._backend, self._opset, self._rounding, self._plan_of = backend, opset, rounding, plan_of
        self._planned = lru_cache(maxsize=4096)(self._plan)
        self._ordered = lru_cache(maxsize=4096)(self._order)

    # --- what there is -----------------------------------------------------------------------------------------------

    def offered(self, layer: Layer, precision: str, shapes: Shapes) -> tuple[str, ...]:
        """The device's own tactics that compute all products of a layer, the most promising first; none where a shape is not known.

        Args:
            shapes: of what it reads, by name.
        """
        known = self.planned(layer, Choice(precision), shapes)
        if known is None:
            return ()
        return tuple(name for name in known.tactics if tactic_refusal(layer, name) is None)

    def refusal(self, layer: Layer, choice: Choice, shapes: Shapes) -> str | None:
        """As ``Tuner.refusal``."""
        if (reason := tactic_refusal(layer, choice.tactic)) is not None:
            return reason
        known = self.planned(layer, choice, shapes)
        return "it cannot be planned" if known is None else known.reason or None

    def planned(self, layer: Layer, choice: Choice, shapes: Shapes) -> Planned | None:
        """What a layer would launch; None where a shape is not known, or the layer has no kernels."""
        reads = tuple((value, shapes.get(value.name or "")) for value in layer.reads)
        if layer_refusal(layer) is not None or layer.kind == "if" or any(shape is None for _, shape in reads):
            return None
        return self._planned(layer, choice, tuple(tuple(shape or ()) for _, shape in reads))

    def _plan(self, layer: Layer, choice: Choice, shapes: tuple[tuple[int, ...], ...]) -> Planned | None:
        try:
            reads = {
                id(value): imagined(self._backend, value, shape, read_format(value, choice.precision))
                for value, shape in zip(layer.reads, shapes, strict=True)
            }
        except Unsupported:
            return None
        plan, sites = self._plan_of(layer, choice), self._rounding.sites(layer, choice.precision)
        return Planned(self._backend, self._opset, layer, plan, sites, reads)

    def orders(self, layer: Layer, choice: Choice, shapes: Shapes) -> frozenset[Pair]:
        """As ``Tuner.orders``."""
        reads = tuple(shapes.get(value.name or "") for value in layer.reads)
        if layer_refusal(layer) is not None or layer.kind == "if" or any(shape is None for shape in reads):
            return frozenset()
        return self._ordered(layer, choice, tuple(tuple(shape or ()) for shape in reads))

    def _order(self, layer: Layer, choice: Choice, shapes: tuple[tuple[int, ...], ...]) -> frozenset[Pair]:
        plan, sites = self._plan_of(layer, choice), self._rounding.sites(layer, choice.precision)
        return orders_of(self._backend, self._opset, layer, plan, sites, shapes)

    def turning(self, shape: Sequence[int], precision: str) -> float:
        """As ``Tuner.turning``."""
        return turning_seconds(self._backend, shape, precision)

    def ahead(
        self,
        work: Sequence[tuple[Layer, str, Sequence[str]]],
        shapes: Shapes,
        progress: Callable[[str], None] | None = None,
    ) -> int:
        """As ``Tuner.ahead``. Nothing is done for a backend that does not compile."""
        compiler = getattr(self._backend, "compiler", None)
        if compiler is None:
            return 0
        sources: dict[Source, None] = {}
        for layer, precision, names in work:
            for name in names:
                known = self.planned(layer, Choice(precision, name), shapes)
                sources |= {one: None for one in known.sources if isinstance(one, Source)} if known is not None else {}
        told = None if progress is None else lambda done, of: progress(f"compiling kernel {done} of {of}")
        return compile_ahead(compiler, sources, told)

    # --- what it takes -----------------------------------------------------------------------------------------------

    def measure(
        self, layer: Layer, reads: Mapping[str, Array], precision: str, budgets: Mapping[str, float]
    ) -> dict[str, Measured]:
        """Run tactics of a layer on real activations: each is compared with ``exact`` first, and timed if it is near enough.

        Args:
            reads: by name, float32.
            budgets: tactic -> how far it may be from exact (``engine.tuning.budget``).

        Raises:
            CudaError: a kernel failed.
        """
        self._backend.enter()
        rig = Rig(self._backend)
        work = _Work(rig, self._opset, layer, precision, self._plan_of, self._rounding, reads)
        try:
            found, noted = work.checked(budgets)
            return found | self._timed(rig, noted)
        finally:
            work.release()
            rig.forget()

    def _timed(self, rig: Rig, noted: Mapping[str, Noted]) -> dict[str, Measured]:
        """Medians, the candidates taking turns, in another order each."""
        graphs: dict[str, tuple[Graph, int]] = {}
        taken: dict[str, list[float]] = {}
        for name, one in noted.items():
            if one.launches:
                graphs[name] = rig.repetitions(one)
                self._once(*graphs[name])  # the first one warms up
                taken[name] = [self._once(*graphs[name])]
        near = _HOPELESS * min((times[0] for times in taken.values()), default=math.inf)
        for turn in range(ROUNDS - 1):
            for name in turn_order([name for name, times in taken.items() if times[0] <= near], turn):
                taken[name].append(self._once(*graphs[name]))
        found = {name: Measured(statistics.median(times), len(times)) for name, times in taken.items()}
        return found | {
            name: Measured(0.0, 1) for name in noted if name not in taken
        }  # nothing to launch takes no time

    def _once(self, graph: Graph, repetitions: int) -> float:
        return self._backend.seconds(graph.launch) / repetitions


class _Work:
    """One layer with its reads on the device."""

    def __init__(
        self,
        rig: Rig,
        opset: int,
        layer: Layer,
        precision: str,
        plan_of: PlanOf,
        rounding: Rounding,
        reads: Mapping[str, Array],
    ) -> None:
        self._rig, self._layer, self._precision = rig, layer, precision
        self._queue = Queue(rig, opset)
        self._plan_of, self._sites = plan_of, rounding.sites(layer, precision)
        self._weights: dict[tuple[int, str], Tensor] = {}
        self._reads: Values = {}
        for value in layer.reads:
            tensor, wanted = host_tensor(np.asarray(reads[value.name or ""])), read_format(value, precision)
            if wanted is not None and wanted is not tensor.format:
                tensor = self._queue.convert(tensor, wanted)  # as the layer before has stored it
            tensor.address(rig)
            if tensor.format is not None and tensor.format.is_float and len(tensor.shape) == _AXES and tensor.size:
                channels_last(
                    self._queue, tensor
                )  # both orders are there: turning one into the other is no part of the layer
            self._reads[id(value)] = tensor

    def release(self) -> None:
        """Give all memory back."""
        self._reads.clear()
        self._weights.clear()

    def checked(self, budgets: Mapping[str, float]) -> tuple[dict[str, Measured], dict[str, Noted]]:
        """Candidates that are not to be timed, and the launches of the others."""
        golden = {key: self._golden(made) for key, made in self._run(EXACT).items()}
        wrong: dict[str, Measured] = {}
        noted: dict[str, Noted] = {}
        pairs, places = Pairs(self._queue), []
        others: dict[str, str] = {}
        for name in budgets:
            try:
                made = self._run(name)  # compiles, and makes what is made once
                for key, tensor in made.items():
                    wide = golden[key]
                    if isinstance(wide, Tensor):
                        places.append((name, pairs.add(tensor, wide, Measure())))
                    elif not np.array_equal(tensor.array(self._rig), wide):
                        others[name] = "integers that are not those of exact"
                noted[name] = self._rig.note(lambda name=name: self._kept(name))
            except (Unsupported, Refused) as refused:
                wrong[name] = Measured(None, wrong=str(refused))
        found = pairs.fetch()
        for name, at in places:
            others |= {name: reason} if (reason := _distance(found[at][0], budgets[name])) else {}
        wrong |= {name: Measured(None, wrong=reason) for name, reason in others.items()}
        return wrong, {name: one for name, one in noted.items() if name not in wrong}

    def _golden(self, made: Tensor) -> Tensor | Array:
        if made.format is None or not made.format.is_float or not made.size:
            return made.array(self._rig)
        return self._queue.convert(made, F32)

    def _run(self, tactic: str) -> Values:
        plan = self._plan_of(self._layer, Choice(self._precision, tactic))
        return run_layer(self._queue, self._layer, plan, self._sites, self._reads, self._weigh)

    def _kept(self, tactic: str) -> None:
        self._run(tactic)

    @property
    def _weigh(self) -> Weigh:
        return self._weight

    def _weight(self, value: ir.Value, precision: str) -> Tensor:
        key = (id(value), precision)
        if key not in self._weights:
            assert value.const_value is not None
            made = host_tensor(value.const_value.numpy())
            if precision:
                made = self._queue.convert(made, storage_of(precision), precision if precision == "tf32" else "")
            self._weights[key] = made
        return self._weights[key]


def _distance(sums: Any, allowed: float) -> str:
    """What is wrong with sums of a candidate over exact's result; "" where nothing is."""
    if sums.nonfinite_mismatch:
        return f"{sums.nonfinite_mismatch} of {sums.count} elements are NaN or Inf where those of exact are not, or the other way round"
    largest = max(abs(sums.golden_min), abs(sums.golden_max)) if sums.compared else 0.0
    for what, off, scale in (
        ("the largest error", sums.max_abs, largest),
        ("the RMS of the error", math.sqrt(sums.squared_error), math.sqrt(sums.golden_squared)),
    ):
        if off > allowed * scale:
            share = off / scale if scale else math.inf
            return f"{what} is {share:.2g} of exact's own, over {allowed:.2g}"
    return ""
