"""``Device``: what the engine asks of whatever runs layers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from probe.engine.assignment import Choice
from probe.engine.device.pairs import Answer, Asked
from probe.engine.layers import Layer
from probe.engine.rounding import Plan

Array = np.ndarray[Any, Any]


class Resident(Protocol):
    """A tensor that stays where the device has it until its values are asked for; they never change.

    Attributes:
        dtype: of the array that stands for it.
        nbytes: that it takes on the device.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int

    def array(self) -> Array:
        """Its values on the host; nobody writes to them."""
        ...

    def window(self, start: int, stop: int) -> Array:
        """Elements of the flattened tensor."""
        ...


@dataclass(slots=True)  # not frozen, which takes three times as long to make
class Tapped:
    """A tensor as a layer stored it; nobody changes one.

    Attributes:
        name: ONNX name; an element of a sequence ``NAME[i]``.
        held: its values, or the tensor on the device; None where there is none.
        status: ``recorded``; ``not_run`` for a branch that was not taken; ``unsupported`` for what is no tensor.
        note: why there is no array.
    """

    name: str
    held: Array | Resident | None
    layer: Layer
    choice: Choice
    status: Literal["recorded", "not_run", "unsupported"] = "recorded"
    note: str = ""

    @property
    def array(self) -> Array | None:
        """Its values on the host; nobody writes to them later. None where there is none."""
        return self.held if self.held is None or isinstance(self.held, np.ndarray) else self.held.array()

    @property
    def resident(self) -> Resident | None:
        """The tensor on the device; None where it is on the host, or nowhere."""
        return None if isinstance(self.held, np.ndarray) else self.held


@dataclass(frozen=True, slots=True)
class Fallback:
    """A layer that the device has no kernel for.

    Attributes:
        layer: its name.
        op: the operator that is missing.
        reason: why it is not there.
        by: what computes the layer instead: onnx's ``reference`` implementation; the ``cpu`` device, for a
            layer that a GPU has no kernel for; ``nothing``: running it is an error.
    """

    layer: str
    op: str
    reason: str
    by: Literal["reference", "cpu", "nothing"] = "reference"


Tap = Callable[[Tapped], None]


class Device(Protocol):
    """Runs the layers of one network."""

    name: str

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """Layers it has no kernel for, in execution order.

        Raises:
            InputError: the network cannot be built for another reason.
        """
        ...

    def run(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> dict[str, Array]:
        """Graph outputs by name.

        Raises:
            InputError: a layer fails; names it.
        """
        ...

    def stream(
        self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], *, interior: bool
    ) -> Generator[Tapped, None, dict[str, Array]]:
        """Every tensor that layers store, in execution order; the return value is what ``run`` returns, bit for bit.

        Args:
            interior: also what stays inside fused layers.

        Raises:
            InputError: a layer fails; names it.
        """
        ...

    def evaluate(self, layer: Layer, feeds: Mapping[str, Array], plan: Plan) -> dict[str, Array]:
        """All tensors of one layer on given reads, by name.

        Raises:
            InputError: the layer fails.
        """
        ...

    def supports(self, layer: Layer, precision: str, tactic: str) -> str | None:
        """None when the device computes this layer so, else the reason why not."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of timing one tactic on one layer.

    Attributes:
        seconds: of the device; None: it was not timed.
        runs: that the median is of.
        wrong: why it was not timed: it does not compute what exact does, or not at all.
    """

    seconds: float | None
    runs: int = 0
    wrong: str = ""


class Tuner(Protocol):
    """The tactics that a device has beside those of every device, and what they take.

    Attributes:
        joined: names of layers that ``exact`` computes together with others, faster than any tactic of theirs by itself.
    """

    joined: frozenset[str]

    def offered(self, layer: Layer, precision: str, shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
        """Of one layer, the most promising first.

        Args:
            shapes: by tensor name.
        """
        ...

    def refusal(self, layer: Layer, choice: Choice, shapes: Mapping[str, Sequence[int]]) -> str | None:
        """Why a tactic of the device does not compute a layer, offered or not; None when it does."""
        ...

    def orders(self, layer: Layer, choice: Choice, shapes: Mapping[str, Sequence[int]]) -> frozenset[tuple[int, int]]:
        """The orders that a layer reads images in and makes them in (``engine.tuning.orders``), without turning what it reads; empty where that
        cannot be said."""
        ...

    def turning(self, shape: Sequence[int], precision: str) -> float:
        """Seconds of the device for turning an image of such a shape, stored so, from one order into the other."""
        ...

    def ahead(
        self,
        work: Sequence[tuple[Layer, str, Sequence[str]]],
        shapes: Mapping[str, Sequence[int]],
        progress: Callable[[str], None] | None = None,
    ) -> int:
        """Compile what tactics of layers (layer, precision, tactics) launch, as many at once as there are processors.

        Returns:
            how many kernels were compiled.
        """
        ...

    def measure(
        self, layer: Layer, reads: Mapping[str, Array], precision: str, budgets: Mapping[str, float]
    ) -> dict[str, Measured]:
        """Times of tactics on real activations, each checked against ``exact`` before it is timed.

        Args:
            reads: by name, float32.
            budgets: tactic -> how far it may be from exact, of exact's largest result and of its root mean square.
        """
        ...


@runtime_checkable
class Tunes(Protocol):
    """A device that measures by itself."""

    def tuner(self, plan_of: Callable[[Layer, Choice], Plan]) -> Tuner:
        """Of the device's network.

        Args:
            plan_of: how a layer runs by itself.
        """
        ...

    def whole(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> float:
        """Seconds of a run by the device's clock, its inputs and outputs on the device.

        Raises:
            InputError: a layer fails; names it.
        """
        ...


@runtime_checkable
class Warms(Protocol):
    """A device that compiles what runs need, and can do so before them."""

    def warm(
        self,
        feeds: Mapping[str, Array],
        plans: Iterable[Mapping[str, Plan]],
        tell: Callable[[int, int], None] | None = None,
    ) -> int:
        """Compile all that runs under ``plans`` on inputs of these shapes launch, as far as it is not there; returns how many kernels.

        Args:
            tell: called with how many of how many are done.
        """
        ...


@runtime_checkable
class Learns(Protocol):
    """A device that plans a run before it is asked for, so that it need not be planned when it is."""

    def learn(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan]) -> int:
        """Plan a run on inputs of these shapes, as far as that can be done without making it; returns how many layers were new."""
        ...

    def compile_learnt(self, tell: Callable[[int, int], None] | None = None) -> int:
        """Compile what planned runs launch, as far as it is not there; returns how many kernels.

        Args:
            tell: called with how many of how many are done.

        Raises:
            CompileError: a kernel is refused.
        """
        ...


@runtime_checkable
class Tells(Protocol):
    """A device that has something to say about how its runs took place."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What made them slower than they might have been, in sentences; none of it changes what was computed."""
        ...


class Comparison(Protocol):
    """Pairs of tensors that a device compares where they lie: asked for one by one, answered together."""

    def hold(self, array: Array) -> Resident | None:
        """A copy of an array on the device; None for types that it does not compare, and when it has no room."""
        ...

    def add(self, actual: Resident, golden: Resident, asked: Asked) -> int | None:
        """Compare a pair; both are held until it is answered.

        Returns:
            Its place among the answers; None where the device does not do that.
        """
        ...

    def answers(self) -> list[Answer]:
        """All answers, in order; waits for them. Nothing is asked afterwards."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A device that compares tensors where they lie."""

    def comparing(self, worst: int = 5) -> Comparison:
        """A new comparison.

        Args:
            worst: largest errors looked up of a pair that asks for them.
        """
        ...

    def room(self) -> int:
        """Bytes of memory that are free on the device."""
        ...

    def evaluate_held(
        self, layer: Layer, feeds: Mapping[str, Array | Resident], plan: Plan
    ) -> dict[str, Array | Resident]:
        """As ``Device.evaluate``, of what the layer hands to others; what lies on the device stays there.

        Raises:
            InputError: the layer fails.
        """
        ...


class Inferences(Protocol):
    """Runs under one assignment that may take place beside others."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """As ``Device.run``. One at a time: a second thread waits."""
        ...

    def held(self, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Any], dict[str, Array]]:
        """Inputs that lie on the device (``shape``, ``dtype``, ``like()``), and the others.

        Raises:
            InputError: one is not in C order.
        """
        ...

    def run_held(self, lying: Mapping[str, Any], feeds: Mapping[str, Array], out: Mapping[str, Any]) -> dict[str, Any]:
        """``run`` with what ``held`` says of inputs on the device, and outputs left there.

        Args:
            out: where outputs are copied to.

        Raises:
            InputError: a layer fails; names it. What does not fit into ``out``.
        """
        ...


@runtime_checkable
class RunsBeside(Protocol):
    """A device that computes several runs at once, where each has a context of its own."""

    def context(self, plans: Mapping[str, Plan], *, stream: Any = None) -> Inferences:
        """A new context.

        Args:
            stream: somebody else's to run on.
        """
        ...


class Trace(Protocol):
    """What a device holds of earlier runs on one set of inputs.

    Attributes:
        bytes: that the first run's tensors take.
        seconds: that a run takes of which nothing is held.
    """

    bytes: int

    @property
    def seconds(self) -> float: ...


@runtime_checkable
class Resumes(Protocol):
    """A device that can begin a run where it begins to differ from earlier ones."""

    def trace(self, feeds: Mapping[str, Array], plans: Mapping[str, Plan], limit: int) -> Any:
        """A run whose tensors are held, as a ``Trace``; None where nothing can be gained, or the tensors take more than ``limit`` bytes.

        Raises:
            InputError: a layer fails; names it.
        """
        ...

    def run_from(self, trace: Any, plans: Mapping[str, Plan]) -> dict[str, Array]:
        """What ``run`` returns for the trace's inputs, bit for bit. Its own tensors are held from then on too.

        Raises:
            InputError: a layer fails; names it.
        """
        ...

    def estimate_from(self, trace: Any, plans: Mapping[str, Plan]) -> float:
        """Seconds that ``run_from`` takes at most, as far as measured; Inf where it cannot begin anywhere but at the start."""
        ...
