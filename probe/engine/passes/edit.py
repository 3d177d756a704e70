"""What every pass changes a network with: fuel, values that take another's place, new weights. Fates and origins are kept here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probe import ir
from probe.engine.network import Network, bodies_of, origin, set_origin, unused, values_of
from probe.engine.passes.weights import keep_exact, round_to

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the network. The unit that ``--passes-limit`` counts."""

    by: str  # the pass
    what: str  # a sentence
    nodes: tuple[str, ...]  # identities of the ONNX nodes concerned


@dataclass(slots=True)
class Fuel:
    """How many changes the whole pipeline may still make, and those made."""

    limit: int | None = None  # None: as many as there are
    changes: list[Change] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # what could not be changed and why, a sentence each
    stopped: bool = False  # a change was due that the limit forbade


class Edit:
    """The hand of one pass. A pass decides, asks ``take`` for one unit of fuel, and then changes the network through the other methods.

    A pass whose ``take`` is refused changes nothing and may go on: whatever it asks for afterwards is refused as well, so that with a
    limit of N exactly the first N changes of an unlimited run happen.
    """

    def __init__(self, network: Network, by: str, fuel: Fuel) -> None:
        self.network = network
        self.by = by
        self._fuel = fuel
        self._taken: set[str | None] | None = None

    def take(self, what: str, nodes: Iterable[ir.Node]) -> bool:
        """Ask for one change of ``nodes``. ``what`` is a sentence that says it. False: the fuel is used up, change nothing."""
        if self._fuel.limit is not None and len(self._fuel.changes) >= self._fuel.limit:
            self._fuel.stopped = True
            return False
        concerned = dict.fromkeys(identity for node in nodes for identity in origin(node))
        self._fuel.changes.append(Change(self.by, what, tuple(concerned)))
        return True

    def note(self, why: str) -> None:
        """Record why something that looked possible was not done."""
        self._fuel.notes[f"{self.by}: {why}"] = None

    def bypass(self, gone: ir.Value, into: ir.Value) -> None:
        """Let ``into`` stand for ``gone``, whose producer made the same values from it and is removed. See ``can_bypass``.

        A graph output keeps its name: the tensor that stands for it takes the name over.
        """
        node = _producer(gone)
        if gone.is_graph_output():
            self.network.merge(into, gone, self.by)
            self._take_over(into, gone)
        else:
            self.network.merge(gone, into, self.by)
            _learn(into, gone)
            gone.replace_all_uses_with(into)
        for other in node.outputs:  # such as the mask of a Dropout, which nobody reads
            if other is not gone:
                self.network.fold(other, self.by)
        self.remove(node)

    def merge_outputs(self, kept: ir.Node, gone: ir.Node) -> None:
        """Let one node stand for another that makes the same, output by output. See ``can_stand_for``."""
        for value, same in zip(kept.outputs, gone.outputs, strict=True):
            if same.is_graph_output():
                self.network.merge(value, same, self.by)
                self._take_over(value, same)
            else:
                self.network.merge(same, value, self.by)
                _learn(value, same)
                same.replace_all_uses_with(value)
        self.remove(gone)

    def absorb(self, value: ir.Value, gone: ir.Value) -> None:
        """Let the producer of ``value``, changed to do so, make ``gone``; ``value`` was read by the producer of ``gone`` only and is
        computed away. The surviving node has the origins of both."""
        node, follower = _producer(value), _producer(gone)
        self.network.fold(value, self.by)
        self._take_over(value, gone)
        set_origin(node, node, follower)
        self.remove(follower)

    def substitute(self, gone: ir.Value, new: ir.Value) -> None:
        """Let ``new``, made by a new node or an initialiser and holding the same values, take the place and the name of ``gone``."""
        node = _producer(gone)
        self._take_over(new, gone)
        self.remove(node)

    def skip(self, node: ir.Node, index: int, source: ir.Value) -> None:
        """Let a node that was changed to do so read ``source`` instead of what was made from it. It takes on the origins of the node
        it skips; that one is removed if nobody else reads it."""
        skipped = node.inputs[index]
        assert skipped is not None
        node.replace_input_with(index, source)
        set_origin(node, _producer(skipped), node)
        self.release(skipped)

    def release(self, value: ir.Value | None) -> None:
        """Remove the producer of a value that nothing reads any more, and what only that one read, upwards."""
        waiting = [value]
        while waiting:
            last = waiting.pop()
            node = last.producer() if last is not None else None
            if node is None or node.graph is None or not unread(node):
                continue
            before = list(dict.fromkeys(node.inputs))
            for output in node.outputs:
                self.network.fold(output, self.by)
            self.remove(node)
            waiting.extend(reversed(before))

    def remove(self, node: ir.Node) -> None:
        """Remove a node whose outputs nothing reads, with its bodies, and the initialisers that it alone read."""
        assert node.graph is not None
        for body in bodies_of(node).values():
            body.outputs.clear()
            for inner in reversed(tuple(body)):
                for value in inner.outputs:
                    self.network.fold(value, self.by)
                self.remove(inner)
        held = list(dict.fromkeys(node.inputs))
        node.graph.remove(node)
        for value in held:
            self.discard(value)

    def discard(self, value: ir.Value | None) -> bool:
        """Remove an initialiser if nothing reads it; True if so."""
        if value is None or not value.is_initializer() or value.uses() or value.is_graph_output():
            return False
        graph = value.graph
        assert graph is not None and value.name is not None
        del graph.initializers[value.name]
        if (
            value.is_graph_input()
        ):  # IR version 3 lists initialisers among the inputs; without its value it would have to be fed
            at = next(i for i, port in enumerate(graph.inputs) if port is value)
            graph.inputs.pop(at)
        if value.name not in self.network.fates:  # a constant that a pass computed is folded already
            self.network.fold(value, self.by)
        return True

    def weight(self, wanted: str, exact: Array, dtype: ir.DataType, *, fresh: bool = True) -> ir.Value:
        """A new initialiser of the top-level graph, which every body sees.

        Args:
            wanted: its name, varied when taken.
            exact: the values; float64 for a floating-point type, to which they are rounded here, once.
            dtype: the type it is declared in.
            fresh: False when it takes the place of a tensor of that name.
        """
        name = unused(self._names(), wanted) if fresh else wanted
        self._names().add(name)
        stored = round_to(exact, dtype)
        value = ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=ir.Shape(exact.shape),
            const_value=ir.tensor(stored, dtype=dtype, name=name),
        )
        keep_exact(value, exact, stored)
        self.network.graph.initializers.add(value)
        return value

    def reweigh(self, node: ir.Node, index: int, exact: Array) -> None:
        """Give one node other values for a constant it reads. Whoever else reads that constant keeps the old ones."""
        old = node.inputs[index]
        assert old is not None and old.dtype is not None
        node.replace_input_with(index, self.weight(old.name or "weight", exact, old.dtype))
        self.discard(old)

    def insert(
        self, before: ir.Node, op: str, inputs: list[ir.Value], sources: Iterable[ir.Node], **attributes: Any
    ) -> ir.Node:
        """A new standard node with one output, of the type and shape of ``before``'s first, made right before it."""
        like = before.outputs[0]
        made = ir.Value(type=like.type, shape=ir.Shape(like.shape) if like.shape is not None else None)
        node = ir.node(op, inputs, attributes=attributes, outputs=[made], name=before.name)
        made.name = unused(self._names(), f"{like.name}")
        set_origin(node, *sources)
        assert before.graph is not None
        before.graph.insert_before(before, node)
        return node

    def _take_over(self, value: ir.Value, gone: ir.Value) -> None:
        _learn(value, gone)
        gone.replace_all_uses_with(value, replace_graph_outputs=True)
        value.name = gone.name

    def _names(self) -> set[str | None]:
        """Names in use, in any scope, now or before: a removed tensor's name never gets another meaning."""
        if self._taken is None:
            self._taken = {value.name for graph in self.network.graphs() for value in values_of(graph)}
            self._taken |= set(self.network.fates)
        return self._taken


def can_bypass(gone: ir.Value, into: ir.Value) -> bool:
    """Whether ``into`` can stand for ``gone``: of one type, and renaming is possible where ``gone`` is an output of its graph."""
    if gone.type is None or gone.type != into.type:
        return False
    if not gone.is_graph_output():
        return True
    maker = into.producer()
    return maker is not None and maker.graph is _producer(gone).graph and not into.is_graph_output()


def can_stand_for(value: ir.Value, same: ir.Value) -> bool:
    """Whether one value can stand for another of the same graph: of one type, and not both are outputs."""
    return value.type == same.type and not (value.is_graph_output() and same.is_graph_output())


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that reads a value, if it is one, reads it once, in the graph that makes it, and the value is no output."""
    uses = list(value.uses())
    maker = value.producer()
    if len(uses) != 1 or value.is_graph_output() or (maker is not None and maker.graph is not uses[0].node.graph):
        return None
    return uses[0].node


def unread(node: ir.Node) -> bool:
    """Whether nothing reads anything a node makes."""
    return not any(value.uses() or value.is_graph_output() for value in node.outputs)


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None, f"{value.name} is made by no node"
    return node


def _learn(value: ir.Value, same: ir.Value) -> None:
    """Two values hold the same: what is known of the type and shape of one is known of the other."""
    if value.type is None:
        value.type = same.type
    if same.shape is None or (value.shape is not None and len(value.shape) != len(same.shape)):
        return
    if value.shape is None:
        value.shape = ir.Shape(same.shape)
    elif not value.shape.is_static():
        value.shape = ir.Shape(
            [mine if isinstance(mine, int) else other for mine, other in zip(value.shape, same.shape, strict=True)]
        )
