"""The language of fusion patterns: a pattern reads like the formula it stands for.

    x, scale = hole("x"), stored("scale")
    centred = let("centred", Sub(x, ReduceMean(x)))
    Mul(Div(centred, Sqrt(Add(ReduceMean(Mul(centred, centred)), scalar()))), scale)

A pattern describes how a value came about, from the value backwards. A *hole* is any value, the same wherever its name stands again.
``either`` lists alternatives, the longest first; ``maybe`` is a part that may be missing; ``let`` names a value inside the pattern that
is read more than once; ``scalar`` is a stored constant of one element. Sums, products, minima and maxima match in either order.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field

from probe import ir
from probe.engine.fusion.kinds import is_standard
from probe.engine.network import constant

COMMUTATIVE = frozenset(("Add", "Mul", "Max", "Min", "And", "Or"))
_TOLERANCE = 2e-3  # exporters write 0.7978845 and 1.4142135 with the digits of FP32 or FP16


@dataclass(frozen=True, slots=True)
class State:
    """What is matched so far.

    Attributes:
        bound: values by the names of holes and lets.
        nodes: matched nodes, the one nearest the result first; a node may be met twice.
    """

    bound: Mapping[str, ir.Value] = field(default_factory=dict)
    nodes: tuple[ir.Node, ...] = ()

    def bind(self, name: str, value: ir.Value) -> State | None:
        """The state with a name bound; None if it already stands for another value."""
        known = self.bound.get(name)
        if known is not None:
            return self if known is value else None
        return State({**self.bound, name: value}, self.nodes) if name else self

    def take(self, node: ir.Node) -> State:
        """The state with one more node."""
        return self if any(node is one for one in self.nodes) else State(self.bound, (*self.nodes, node))


@dataclass(frozen=True, slots=True)
class Ground:
    """Where is being matched: one graph, and nodes of it that are taken."""

    graph: ir.Graph
    taken: Container[ir.Node] = ()

    def maker(self, value: ir.Value) -> ir.Node | None:
        """The node that makes a value, if it can be part of a match."""
        node = value.producer()
        return node if node is not None and node.graph is self.graph and node not in self.taken else None


class Pattern:
    """How a value came about."""

    def match(self, value: ir.Value, state: State, ground: Ground) -> Iterator[State]:
        """Every way in which ``value`` fits, in the order of the alternatives."""
        raise NotImplementedError

    def roots(self) -> frozenset[str]:
        """Operators that can make the value; empty if it can be anything."""
        return frozenset()

    def depth(self) -> int:
        """Nodes on the longest path from the value back to a hole."""
        return 0


@dataclass(frozen=True, slots=True)
class Hole(Pattern):
    """Any value; two holes of one name are the same value. A test may narrow it."""

    name: str = ""
    test: Callable[[ir.Value], bool] | None = None

    def match(self, value: ir.Value, state: State, ground: Ground) -> Iterator[State]:
        if self.test is None or self.test(value):
            bound = state.bind(self.name, value)
            if bound is not None:
                yield bound


@dataclass(frozen=True, slots=True)
class Let(Pattern):
    """A value inside the pattern with a name: where it stands again, it is the same value."""

    name: str
    inner: Pattern

    def match(self, value: ir.Value, state: State, ground: Ground) -> Iterator[State]:
        known = state.bound.get(self.name)
        if known is not None:
            if known is value:
                yield state
            return
        for found in self.inner.match(value, state, ground):
            bound = found.bind(self.name, value)
            if bound is not None:
                yield bound

    def roots(self) -> frozenset[str]:
        return self.inner.roots()

    def depth(self) -> int:
        return self.inner.depth()


@dataclass(frozen=True, slots=True)
class Either(Pattern):
    """The first alternative that fits, or a later one if the rest of the pattern does not follow."""

    choices: tuple[Pattern, ...]

    def match(self, value: ir.Value, state: State, ground: Ground) -> Iterator[State]:
        for choice in self.choices:
            yield from choice.match(value, state, ground)

    def roots(self) -> frozenset[str]:
        each = [choice.roots() for choice in self.choices]
        return frozenset().union(*each) if all(each) else frozenset()

    def depth(self) -> int:
        return max(choice.depth() for choice in self.choices)


@dataclass(frozen=True, slots=True)
class Op(Pattern):
    """What a node makes as its first output.

    Attributes:
        ops: operators of the standard it may be.
        inputs: its inputs, in order; in either order if the operator commutes. The node may not have more, unless ``rest`` fits them.
        rest: a pattern for every further input that is there.
        name: a name for the value made.
        when: what else must hold of the node.
    """

    ops: tuple[str, ...]
    inputs: tuple[Pattern, ...]
    rest: Pattern | None = None
    name: str = ""
    when: Callable[[ir.Node], bool] | None = None

    def match(self, value: ir.Value, state: State, ground: Ground) -> Iterator[State]:
        node = ground.maker(value)
        if node is None or node.op_type not in self.ops or not is_standard(node) or value is not node.outputs[0]:
            return
        if self.when is not None and not self.when(node):
            return
        given = list(node.inputs)
        while given and given[-1] is None:
            given.pop()  # omitted at the end is the same as not there
        if len(given) < len(self.inputs) or (self.rest is None and len(given) > len(self.inputs)):
            return
        bound = state.take(node).bind(self.name, value)
        if bound is None:
            return
        tail = (self.rest or ANY,) * (len(given) - len(self.inputs))
        yield from _match_all((*self.inputs, *tail), given, bound, ground)
        if len(given) == 2 and node.op_type in COMMUTATIVE:
            yield from _match_all((*self.inputs, *tail), given[::-1], bound, ground)

    def roots(self) -> frozenset[str]:
        return frozenset(self.ops)

    def depth(self) -> int:
        parts = (*self.inputs, *((self.rest,) if self.rest is not None else ()))
        return 1 + max((part.depth() for part in parts), default=0)


def _match_all(
    patterns: tuple[Pattern, ...], values: list[ir.Value | None], state: State, ground: Ground
) -> Iterator[State]:
    if not patterns:
        yield state
        return
    value = values[0]
    if value is None:  # an omitted input in the middle
        if patterns[0] is ANY:
            yield from _match_all(patterns[1:], values[1:], state, ground)
        return
    for found in patterns[0].match(value, state, ground):
        yield from _match_all(patterns[1:], values[1:], found, ground)


ANY = Hole()


def hole(name: str = "") -> Hole:
    """Any value."""
    return Hole(name)


def stored(name: str = "") -> Hole:
    """A value that is in the model: a weight or a constant, which no input may override."""
    return Hole(name, lambda value: constant(value) is not None)


def scalar(wanted: float | None = None, name: str = "") -> Hole:
    """A stored constant of one element, of any rank; near ``wanted`` if that is given."""

    def test(value: ir.Value) -> bool:
        found = scalar_value(value)
        return found is not None and (wanted is None or abs(found - wanted) <= _TOLERANCE * abs(wanted))

    return Hole(name, test)


def scalar_value(value: ir.Value | None) -> float | None:
    """The number a stored constant of one element holds; None for anything else."""
    tensor = constant(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    return float(tensor.numpy().reshape(-1)[0])


def let(name: str, inner: Pattern) -> Let:
    """A name for a value inside the pattern."""
    return Let(name, inner)


def either(*choices: Pattern) -> Either:
    """Alternatives, the longest first."""
    return Either(choices)


def op(*ops: str, when: Callable[[ir.Node], bool] | None = None, rest: Pattern | None = None) -> Callable[..., Op]:
    """A way to write a node as a formula: ``op("Add")(x, y)``."""

    def of(*inputs: Pattern, name: str = "") -> Op:
        return Op(ops, inputs, rest, name, when)

    return of


def maybe(around: Callable[[Pattern], Pattern], inner: Pattern) -> Either:
    """``around(inner)`` or ``inner`` alone."""
    return Either((around(inner), inner))


def repeated(steps: Callable[[Pattern], tuple[Pattern, ...]], inner: Pattern, most: int) -> Pattern:
    """``inner``, with up to ``most`` further steps around it; each step is one of ``steps(what it is around)``."""
    found: Pattern = inner
    for _ in range(most):
        found = Either((*steps(found), inner))
    return found
