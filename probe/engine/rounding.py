"""Where a layer rounds, and what an assignment makes of it. Pure bookkeeping: no tensor is touched here.

The contract (arithmetic of a layer in precision p): ``y = R(f(R(x), R(w)))``. Each tensor is rounded once, where it is produced; a read
is rounded only when its producer stored it wider, a kept tensor never. TF32 rounds what matmul, gemm and conv read, nothing else. A constant that
rounding destroys stays as it is for nodes that run in FP32 because of a kept tensor, as it does in an export (``probe.model.mixed``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from probe import ir
from probe.engine.assignment import Assignment, Choice
from probe.engine.layers import Layer, all_layers
from probe.engine.network import bodies_of
from probe.model.lost import lost_in
from probe.model.movement import is_movement, is_standard, parameters

Form = Literal["plain", "wide", "low", "switched", "general"]
Interior = Literal["storage", "fp32"]
_State = str  # a precision tensors are stored in, _WIDE, or _KEPT
_WIDE, _KEPT = "wide", "kept"

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
TF32_OPS = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose"))
# Every element of what they make is one of what they read (or an integer no larger): rounded inputs give a rounded output.
_EXACT_OPS = frozenset(
    "Relu Abs Neg Sign Max Min Clip Where MaxPool GlobalMaxPool ReduceMax ReduceMin Floor Ceil Round Identity MaxUnpool TopK".split()
)


def is_float(value: ir.Value | None) -> bool:
    """Whether precision concerns a value: float32 and float64 tensors, not sequences of them."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype in FLOATS


def is_exact(node: ir.Node) -> bool:
    """Whether a node of rounded inputs makes a rounded output, so that rounding it again would change nothing."""
    if not is_standard(node):
        return False
    if node.op_type == "Clip":
        # Before opset 11 the bounds are attributes, which nobody rounded; a bound that is missing is the largest FP32 number.
        return len(node.inputs) == 3 and all(value is not None for value in node.inputs)
    return node.op_type in _EXACT_OPS or (is_movement(node) and not _puts_number(node))


def _puts_number(node: ir.Node) -> bool:
    """Whether data movement puts a number among what it moves that nobody rounded: before opset 11 Pad has it as an attribute."""
    return node.op_type == "Pad" and node.attributes.get_float("value", 0.0) != 0


def multiplies(node: ir.Node) -> bool:
    """Whether TF32 concerns a node."""
    return is_standard(node) and node.op_type in TF32_OPS


def data_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """The float inputs of a node that are data."""
    spared = parameters(node)
    for position, value in enumerate(node.inputs):
        if position not in spared and is_float(value):
            assert value is not None
            yield value


def inner_nodes(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Nodes and those of their bodies."""
    for node in nodes:
        yield node
        for body in bodies_of(node).values():
            yield from inner_nodes(body)


@dataclass(frozen=True, slots=True)
class Sites:
    """What a layer rounds in a low precision when nothing is kept.

    Attributes:
        reads: data from outside that must be rounded where its producer did not; for TF32 also tensors inside that a product reads.
        weights: initialisers that are rounded.
        stores: tensors it makes that are rounded as they are stored.
        at_edge: reads that no producer ever rounds (graph inputs, views of them), whatever the assignment.
        skips: whether the ``low`` form leaves out roundings that change nothing when all reads are rounded.
    """

    reads: tuple[ir.Value, ...]
    weights: tuple[ir.Value, ...]
    stores: tuple[ir.Value, ...]
    at_edge: frozenset[int]
    skips: bool

    @property
    def any(self) -> bool:
        return bool(self.reads or self.weights or self.stores)

    @property
    def gates(self) -> tuple[tuple[str, ir.Value], ...]:
        """Every rounding that can be switched, in order."""
        return (
            *(("read", value) for value in self.reads),
            *(("weight", value) for value in self.weights),
            *(("store", value) for value in self.stores),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How one layer runs under an assignment.

    Attributes:
        form: ``plain`` rounds nothing in any case; ``wide`` is FP32; ``low`` rounds everything that needs it; ``switched`` has a
            switch for every read and store, weights are low; ``general`` has one for the weights too.
        gates: the switches, one for each of ``Sites.gates``.
    """

    choice: Choice
    form: Form
    gates: tuple[bool, ...] = ()


@dataclass(slots=True)
class _Known:
    """What planning asks of a layer again and again.

    Attributes:
        reads: ids of what its plan depends on: what it reads; of an If, what its branches return.
        made: ids of what it hands on.
        names: of all tensors and weights it has to do with.
        plans: (choice, states of ``reads``) -> its plan and the states of ``made``, where none of ``names`` is kept.
    """

    layer: Layer
    reads: tuple[int, ...]
    made: tuple[int, ...]
    names: frozenset[str | None]
    plans: dict[tuple[str, str, tuple[_State, ...]], tuple[Plan, tuple[_State, ...]]] = field(default_factory=dict)


class Rounding:
    """The sites of all layers of a network, and the plan of each for an assignment."""

    def __init__(
        self, layers: Sequence[Layer], interior: Interior = "storage", *, off: frozenset[int] = frozenset()
    ) -> None:
        """
        Args:
            layers: top-level; branches are found below them.
            interior: ``storage`` rounds every tensor inside a fused layer, ``fp32`` only what leaves it.
            off: ids of tensors that are never rounded as they are stored, though they are sites.
        """
        self._top, self._layers, self._off = tuple(layers), tuple(all_layers(layers)), off
        self._sites: dict[tuple[int, bool], Sites] = {}
        self._destroyed: dict[tuple[int, str], bool] = {}
        edge: dict[int, bool] = {}  # value -> whether it reaches its readers unrounded, whatever the assignment
        for layer in self._layers:
            at_edge = frozenset(id(v) for v in layer.reads if edge.get(id(v), True))
            for tf32 in (False, True):
                self._sites[id(layer), tf32] = _sites(layer, tf32=tf32, interior=interior, at_edge=at_edge)
            if layer.kind == "if":
                outer = _branch_values(layer)
                edge.update(
                    {id(v): any(edge.get(id(b), True) for b in outer[i]) for i, v in enumerate(_outputs(layer))}
                )
            elif layer.moves:
                # It rounds nothing itself: what it hands on is as rounded as what it got.
                passes_on = (
                    any(edge.get(id(v), True) for v in layer.reads if is_float(v))
                    or any(map(is_float, layer.weights))
                    or any(map(_puts_number, layer.nodes))
                )
                edge.update(dict.fromkeys(map(id, layer.tensors), passes_on))
            else:
                edge.update(dict.fromkeys(map(id, layer.tensors), False))
        self._known = [_known(layer) for layer in self._layers]

    def with_wide_interiors(self) -> Rounding:
        """Of ``storage``: what ``fp32`` rounds, by the same sites with switches off, so that what was built for these sites serves both."""
        off = frozenset().union(*(_interior(layer) for layer in self._layers))
        return Rounding(self._top, "storage", off=off)

    def sites(self, layer: Layer, precision: str) -> Sites:
        return self._sites[id(layer), precision == "tf32"]

    def plan(self, assignment: Assignment) -> dict[str, Plan]:
        """Layer name -> plan."""
        states: dict[int, _State] = {}
        kept = assignment.kept
        plans: dict[str, Plan] = {}
        for known in self._known:
            name = known.layer.name
            choice = assignment.layers.get(name, assignment.default)
            read = tuple([states.get(key, _WIDE) for key in known.reads])
            if kept and not known.names.isdisjoint(kept):
                plan, made = self._planned(known, choice, read, kept)
            else:
                key = (choice.precision, choice.tactic, read)
                if key not in known.plans:
                    known.plans[key] = self._planned(known, choice, read, frozenset())
                plan, made = known.plans[key]
            plans[name] = plan
            states.update(zip(known.made, made, strict=True))
        return plans

    def _planned(
        self, known: _Known, choice: Choice, read: Sequence[_State], kept: frozenset[str]
    ) -> tuple[Plan, tuple[_State, ...]]:
        """The plan of a layer, and the states of what it hands on."""
        layer = known.layer
        state = dict(zip(known.reads, read, strict=True))
        if layer.kind == "if":
            joined = [_joined({state[id(v)] for v in sources}) for sources in _branch_values(layer)]
            made = (_KEPT if v.name in kept else one for v, one in zip(_outputs(layer), joined, strict=True))
            return Plan(choice, "plain"), tuple(made)
        state = {id(v): _KEPT if v.name in kept else state[id(v)] for v in layer.reads}
        if layer.moves:
            held = {state[id(v)] for v in layer.reads if is_float(v)}
            held |= {_KEPT if v.name in kept else _WIDE for v in layer.weights if is_float(v)}
            held |= {_WIDE for node in layer.nodes if _puts_number(node)}
            one = _joined(held)
            return Plan(choice, "plain"), tuple(_KEPT if v.name in kept else one for v in layer.tensors)
        stored = choice.precision if choice.precision not in ("fp32", "tf32") else _WIDE
        return self._rounded(layer, choice, state, kept), tuple(
            _KEPT if v.name in kept else stored for v in layer.outputs
        )

    def _rounded(self, layer: Layer, choice: Choice, state: Mapping[int, _State], kept: frozenset[str]) -> Plan:
        precision = choice.precision
        sites = self.sites(layer, precision)
        if not sites.any:
            return Plan(choice, "plain")
        if precision == "fp32":
            return Plan(choice, "wide")
        rounded = {id(v) for v in layer.reads if state[id(v)] == precision}
        spared = frozenset(id(v) for v in layer.reads if state[id(v)] == _KEPT)
        gates = self.gates(layer, precision, kept, spared=spared, rounded=rounded)
        reads = gates[: len(sites.reads)]
        as_low = tuple(id(v) in sites.at_edge or precision == "tf32" for v in sites.reads)
        # What the low form leaves unrounded must be rounded already, where it counts on that.
        relied_on = not sites.skips or not any(id(v) in spared for v in sites.reads)
        if reads == as_low and all(gates[len(reads) :]) and relied_on:
            return Plan(choice, "low", gates)
        weights = gates[len(reads) : len(reads) + len(sites.weights)]
        return Plan(choice, "switched" if all(weights) else "general", gates)

    def gates(
        self,
        layer: Layer,
        precision: str,
        kept: frozenset[str],
        *,
        spared: Collection[int] = (),
        rounded: Collection[int] = (),
    ) -> tuple[bool, ...]:
        """What a layer rounds: a switch for each of ``Sites.gates``.

        Args:
            kept: names of tensors that are not rounded.
            spared: ids of reads that hold a kept tensor under another name.
            rounded: ids of reads that are rounded already.
        """
        sites = self.sites(layer, precision)
        reads = [id(v) not in rounded and id(v) not in spared and v.name not in kept for v in sites.reads]
        weights = [v.name not in kept for v in sites.weights]
        stores = [v.name not in kept and id(v) not in self._off for v in sites.stores]
        if precision != "tf32" and sites.weights and (spared or kept):
            lifted = _lifted(layer, kept, spared)
            weights = [
                on and not (id(v) in lifted and self._is_destroyed(v, precision))
                for on, v in zip(weights, sites.weights, strict=True)
            ]
        return (*reads, *weights, *stores)

    def _is_destroyed(self, weight: ir.Value, precision: str) -> bool:
        """Whether rounding makes Inf of a finite number, or 0 of a scalar: what a node that runs in FP32 is not given."""
        key = (id(weight), precision)
        if key not in self._destroyed:
            assert weight.const_value is not None
            self._destroyed[key] = bool(lost_in(weight.const_value, precision, weight.name or ""))
        return self._destroyed[key]


def _known(layer: Layer) -> _Known:
    made: Sequence[ir.Value] = layer.tensors if layer.moves else layer.outputs
    reads: Iterable[ir.Value] = layer.reads
    if layer.kind == "if":
        made, reads = _outputs(layer), (v for sources in _branch_values(layer) for v in sources)
    names = frozenset(v.name for v in (*layer.reads, *layer.weights, *layer.tensors, *_inside(layer)))
    return _Known(layer, tuple(dict.fromkeys(map(id, reads))), tuple(map(id, made)), names)


def _inside(layer: Layer) -> Iterator[ir.Value]:
    """What the nodes of a layer make, in bodies too."""
    return (value for node in inner_nodes(layer.nodes) for value in node.outputs)


def _lifted(layer: Layer, kept: frozenset[str], spared: Collection[int]) -> set[int]:
    """Weights (by id) that a node reads which makes or reads a kept tensor, and therefore runs in FP32."""
    found: set[int] = set()
    for node in inner_nodes(layer.nodes):
        data = list(data_inputs(node))
        if any(v.name in kept or id(v) in spared for v in data) or any(v.name in kept for v in node.outputs):
            found |= {id(v) for v in data}
    return found


def _sites(layer: Layer, *, tf32: bool, interior: Interior, at_edge: frozenset[int]) -> Sites:
    inner = list(inner_nodes(layer.nodes))
    if layer.kind == "if" or layer.moves:
        return Sites((), (), (), frozenset(), skips=False)
    if tf32:
        read = {id(v): v for node in inner if multiplies(node) for v in data_inputs(node)}
        weights = tuple(v for v in read.values() if v.is_initializer())
        reads = tuple(v for v in read.values() if not v.is_initializer())
        return Sites(reads, weights, (), at_edge, skips=False)
    data = {id(v) for node in inner for v in data_inputs(node)}
    made = {id(v): v for node in inner for v in node.outputs if is_float(v) and v.name}
    wide = _interior(layer) if interior == "fp32" else frozenset()
    stores = tuple(v for key, v in made.items() if key not in wide)
    returned = {id(v) for node in inner for body in bodies_of(node).values() for v in body.outputs}
    weights = tuple(v for v in layer.weights if is_float(v) and (id(v) in data or id(v) in returned))
    reads = tuple(v for v in layer.reads if is_float(v) and (id(v) in data or id(v) in returned))
    skips = any(is_exact(node) for node in inner)
    return Sites(reads, weights, stores, at_edge, skips=skips)


def _interior(layer: Layer) -> frozenset[int]:
    """Tensors (by id) inside a fused layer. Loop and Scan bodies are none: what they hold is stored in any runtime."""
    return frozenset(map(id, layer.interior)) if len(layer.nodes) > 1 else frozenset()


def _outputs(layer: Layer) -> list[ir.Value]:
    return list(layer.nodes[0].outputs)


def _branch_values(layer: Layer) -> list[tuple[ir.Value, ...]]:
    """For each output of an If, what its branches return for it."""
    return list(zip(*(body.outputs for body in bodies_of(layer.nodes[0]).values()), strict=True))


def _joined(states: set[_State]) -> _State:
    """What is known of a value that may come from several."""
    if _KEPT in states:
        return _KEPT
    return states.pop() if len(states) == 1 else _WIDE
