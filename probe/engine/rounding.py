"""Where a layer rounds, and what an assignment makes of it. Pure bookkeeping: no numbers are touched here.

The contract (arithmetic of a layer in precision p): ``y = R(f(R(x), R(w)))``. Each tensor is rounded once, where it is produced; a read
is rounded only when its producer stored it wider, a kept tensor never. TF32 rounds what matmul, gemm and conv read, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from probe.engine.assignment import Assignment, Choice
from probe.engine.layers import Layer, all_layers
from probe.engine.network import bodies_of
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
    if node.op_type == "Clip" and ("min" in node.attributes or "max" in node.attributes):
        return False  # before opset 11 the bounds are attributes, which nobody rounded
    return node.op_type in _EXACT_OPS or is_movement(node)


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


class Rounding:
    """The sites of all layers of a network, and the plan of each for an assignment."""

    def __init__(self, layers: Sequence[Layer], interior: Interior = "storage") -> None:
        """
        Args:
            layers: top-level; branches are found below them.
            interior: ``storage`` rounds every tensor inside a fused layer, ``fp32`` only what leaves it.
        """
        self._layers = tuple(all_layers(layers))
        self._interior: Interior = interior
        self._sites: dict[tuple[int, bool], Sites] = {}
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
                passes_on = any(edge.get(id(v), True) for v in layer.reads if is_float(v)) or any(
                    map(is_float, layer.weights)
                )
                edge.update(dict.fromkeys(map(id, layer.tensors), passes_on))
            else:
                edge.update(dict.fromkeys(map(id, layer.tensors), False))

    def sites(self, layer: Layer, precision: str) -> Sites:
        return self._sites[id(layer), precision == "tf32"]

    def plan(self, assignment: Assignment) -> dict[str, Plan]:
        """Layer name -> plan."""
        states: dict[int, _State] = {}
        kept = assignment.kept
        plans: dict[str, Plan] = {}
        for layer in self._layers:
            choice = assignment.of(layer.name)
            state = {id(v): _KEPT if v.name in kept else states.get(id(v), _WIDE) for v in layer.reads}
            if layer.kind == "if":
                plans[layer.name] = Plan(choice, "plain")
                for value, sources in zip(_outputs(layer), _branch_values(layer), strict=True):
                    states[id(value)] = (
                        _KEPT if value.name in kept else _joined({states.get(id(v), _WIDE) for v in sources})
                    )
                continue
            if layer.moves:
                plans[layer.name] = Plan(choice, "plain")
                read = [state[id(v)] for v in layer.reads if is_float(v)]
                read += [_KEPT if v.name in kept else _WIDE for v in layer.weights if is_float(v)]
                joined = _joined(set(read))
                states.update({id(v): _KEPT if v.name in kept else joined for v in layer.tensors})
                continue
            plans[layer.name] = self._plan(layer, choice, state, kept)
            stored = choice.precision if choice.precision not in ("fp32", "tf32") else _WIDE
            states.update({id(v): _KEPT if v.name in kept else stored for v in layer.outputs})
        return plans

    def _plan(self, layer: Layer, choice: Choice, state: dict[int, _State], kept: frozenset[str]) -> Plan:
        precision = choice.precision
        sites = self.sites(layer, precision)
        if not sites.any:
            return Plan(choice, "plain")
        if precision == "fp32":
            return Plan(choice, "wide")
        rounded = {id(v) for v in layer.reads if state[id(v)] == precision}
        spared = {id(v) for v in layer.reads if state[id(v)] == _KEPT}
        reads = [id(v) not in rounded and id(v) not in spared and v.name not in kept for v in sites.reads]
        weights = [v.name not in kept for v in sites.weights]
        stores = [v.name not in kept for v in sites.stores]
        gates = (*reads, *weights, *stores)
        as_low = [id(v) in sites.at_edge or precision == "tf32" for v in sites.reads]
        # What the low form leaves unrounded must be rounded already, where it counts on that.
        relied_on = not sites.skips or not any(id(v) in spared for v in sites.reads)
        if reads == as_low and all(weights) and all(stores) and relied_on:
            return Plan(choice, "low", gates)
        return Plan(choice, "switched" if all(weights) else "general", gates)


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
    outer = {id(v) for v in layer.outputs}
    # Loop and Scan bodies are no fused interior: their tensors are stored in any runtime.
    own = {id(v) for node in layer.nodes for v in node.outputs}
    stores = tuple(
        v for key, v in made.items() if interior == "storage" or len(layer.nodes) == 1 or key in outer or key not in own
    )
    returned = {id(v) for node in inner for body in bodies_of(node).values() for v in body.outputs}
    weights = tuple(v for v in layer.weights if is_float(v) and (id(v) in data or id(v) in returned))
    reads = tuple(v for v in layer.reads if is_float(v) and (id(v) in data or id(v) in returned))
    skips = any(is_exact(node) for node in inner)
    return Sites(reads, weights, stores, at_edge, skips=skips)


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
