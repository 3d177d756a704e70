"""Which tensors cannot differ: keeping one without the other changes nothing, so the search decides for both at once.

Rounding R commutes with operators that pick, order or negate elements: R(relu(x)) = relu(R(x)), for R is monotone, odd and leaves 0, Inf
and NaN where they are. Let y = f(x) be stored by such an operator.

- y kept without x: f(R(x)) is rounded already, so storing it rounded or not is the same.
- x kept without y: R(f(x)) = f(R(x)), what there is when neither is kept - as far as this reader goes. It is the same for the network if
  every reader of x is of this kind, and x is no output.

Then x and y share a unit. Where f reads several tensors, or x has several such readers, each by itself changes nothing and only some pairs
do: they are one unit, too, which is more than needed at times; the last refinement of an answer takes its members one by one.

What meets an unrounded tensor in a view (a Concat with a graph input) shares with nobody that it is made from: a view with a kept part is
read as it is, so keeping y keeps that other tensor, too, and is something by itself.

The other way round, what can reach its readers through the same views only (two graph inputs of one Concat) is kept as soon as one is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe import ir
from probe.culprits.keepable import executed
from probe.engine.network import bodies_of
from probe.engine.rounding import is_float
from probe.model.movement import TYPE_ONLY, is_movement, is_standard, parameters
from probe.precision import round_to

if TYPE_CHECKING:
    from probe.culprits.keepable import Keepable
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

# R(f(x)) = f(R(x)) for these. Of the operators that map rounded to rounded, Floor, Ceil, Round and Sign are missing: they see what rounding
# moved over a step; and TopK, whose indices do.
_COMMUTE = frozenset(
    "Relu Abs Neg Max Min Clip Where MaxPool GlobalMaxPool ReduceMax ReduceMin Identity MaxUnpool".split()
)


@dataclass(frozen=True, slots=True)
class Coupled:
    """Tensors that are kept or rounded as one, in model order, and why."""

    names: tuple[str, ...]
    why: str


def commutes(node: ir.Node, precision: str) -> bool:
    """Whether rounding what a node reads and rounding what it makes are the same, all its float inputs taken together.

    A bound that a Clip leaves out is the largest finite number, which only Inf tells apart; that counts as the same.
    """
    if not is_standard(node) or any(value.name and not is_float(value) for value in node.outputs):
        return False
    if node.op_type in ("Cast", "CastLike"):
        before, after = node.inputs[0], node.outputs[0]
        return (
            before is not None
            and before.dtype == ir.DataType.FLOAT
            and after.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
        )
    if node.op_type == "Clip":
        # Before opset 11 the bounds are attributes, which nobody rounds.
        bounds = np.array([node.attributes.get_float(name, 0.0) for name in ("min", "max")], np.float32)
        return bool(np.array_equal(round_to(bounds, precision), bounds))
    return node.op_type in _COMMUTE or is_movement(node)


def couplings(engine: Engine, found: Mapping[str, Keepable], precision: str) -> tuple[Coupled, ...]:
    """Sets of tensors of ``found`` that share a unit, disjoint, in model order."""
    return _Couplings(engine, found, precision).run()


class _Couplings:
    def __init__(self, engine: Engine, found: Mapping[str, Keepable], precision: str) -> None:
        self._layers, self._found, self._precision = engine.layers, found, precision
        self._layer_of: dict[int, Layer] = {}  # node -> layer that computes it
        for layer in engine.layers:
            nodes = layer.nodes if layer.kind == "if" else executed(layer.nodes)
            self._layer_of.update((id(node), layer) for node in nodes)
        self._returned: dict[
            int, list[tuple[ir.Node | None, str, int]]
        ] = {}  # value -> (owner of the body, attribute, position)
        self._note_returned(engine.network.graph, None, "")
        # Tensors that are rounded whatever the value they were made from was: stored, or rounded by whoever reads them.
        self._rounded = {id(value): one.name for one in found.values() for value in one.values if one.role != "weight"}
        # Views by whose readers graph inputs and weights are rounded.
        self._unrounded = {site for one in found.values() if one.role != "stored" for site, _ in one.sites}
        self._absorbed: dict[int, bool] = {}
        self._visited: set[int] = set()  # views that a tensor was followed through
        self._sets = _Sets()

    def _note_returned(self, graph: ir.Graph, owner: ir.Node | None, attribute: str) -> None:
        for at, value in enumerate(graph.outputs):
            self._returned.setdefault(id(value), []).append((owner, attribute, at))
        for node in graph:
            for name, body in bodies_of(node).items():
                self._note_returned(body, node, name)

    def run(self) -> tuple[Coupled, ...]:
        for value in self._values_backwards():
            self._absorbed[id(value)] = self._is_absorbed(value)
        for one in self._found.values():
            if one.role != "weight" and all(self._absorbed.get(id(value), False) for value in one.values):
                for value in one.values:
                    self._pass_on(one.name, value)
        alike: dict[frozenset[tuple[int, str]], str] = {}
        for one in self._found.values():
            if one.role != "stored":
                other = alike.setdefault(frozenset(one.sites), one.name)
                if other != one.name:
                    self._sets.join(
                        other, one.name, "reach their readers through the same views: keeping one keeps all"
                    )
        order = {name: at for at, name in enumerate(self._found)}
        sets = [
            (sorted(filter(order.__contains__, names), key=order.__getitem__), why)
            for names, why in self._sets.groups()
        ]
        return tuple(
            Coupled(tuple(names), "; ".join(why)) for names, why in sorted(sets, key=lambda one: order[one[0][0]])
        )

    # --- which values nobody reads but what rounds them all the same

    def _values_backwards(self) -> Iterator[ir.Value]:
        """Everything that is made, readers' results before what they read, then graph inputs."""
        for layer in reversed(self._layers):
            nodes = layer.nodes if layer.kind == "if" else tuple(executed(layer.nodes))
            for node in reversed(nodes):
                yield from node.outputs
        for one in self._found.values():
            yield from (value for value in one.values if value.producer() is None)

    def _is_absorbed(self, value: ir.Value) -> bool:
        uses = list(self._uses(value))
        return bool(uses) and all(use is not None and self._rounds(use) for use in uses)

    def _rounds(self, target: ir.Value) -> bool:
        return id(target) in self._rounded or self._absorbed.get(id(target), False)

    def _uses(self, value: ir.Value) -> Iterator[ir.Value | None]:
        """What becomes of a value: tensors it is handed on to, None where something else reads it."""
        for node, at in value.uses():
            if node.op_type in TYPE_ONLY and is_standard(node):
                continue
            layer = self._layer_of.get(id(node))
            if layer is None or bodies_of(node) or at in parameters(node):
                yield None
            elif layer.moves or commutes(node, self._precision):
                yield from (made for made in node.outputs if made.name)
            else:
                yield None
        for owner, attribute, at in self._returned.get(id(value), ()):
            yield self._result(owner, attribute, at)

    def _result(self, owner: ir.Node | None, attribute: str, at: int) -> ir.Value | None:
        """What a node makes of what its body returns, if it is that and nothing else."""
        if owner is None:
            return None
        if owner.op_type == "If":
            return owner.outputs[at]
        if owner.op_type in ("Loop", "Scan") and attribute == "body":
            # Carried values come back into the body; those collected over the iterations do not.
            body = owner.attributes[attribute].as_graph()
            if owner.op_type == "Loop":
                carried, at = len(body.inputs) - 2, at - 1
            else:
                carried = len(body.inputs) - owner.attributes.get_int("num_scan_inputs", 0)
            if carried <= at < len(owner.outputs):
                return owner.outputs[at] if owner.outputs[at].name else None
        return None

    # --- who shares a unit with whom

    def _pass_on(self, name: str, value: ir.Value) -> None:
        """Join a tensor with the rounded ones that it is handed on to, through views or not."""
        pending = [value]
        while pending:
            for target in self._uses(pending.pop()):
                assert target is not None, f"{name} is read by more than what hands it on"
                known = self._rounded.get(id(target))
                if known is not None and not self._absorbed.get(id(target), False) and self._is_mixed(target):
                    continue
                maker = target.producer()
                why = f"{maker.op_type if maker is not None else '?'} rounds alike before and after"
                self._sets.join(name, known or id(target), why if known else "")
                if known is None and id(target) not in self._visited:
                    self._visited.add(id(target))
                    pending.append(target)

    def _is_mixed(self, value: ir.Value) -> bool:
        """Whether a view of a value holds something that nobody rounds but those that read the view."""
        pending, seen = [value], {id(value)}
        while pending:
            for node, _ in pending.pop().uses():
                layer = self._layer_of.get(id(node))
                for made in node.outputs if layer is not None and layer.moves else ():
                    if id(made) in self._unrounded:
                        return True
                    if id(made) not in seen:
                        seen.add(id(made))
                        pending.append(made)
        return False


class _Sets:
    """Disjoint sets that are joined two by two, with the reasons."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}
        self._joins: list[tuple[Hashable, str]] = []

    def join(self, one: Hashable, other: Hashable, why: str) -> None:
        self._parent[self._root(other)] = self._root(one)
        self._joins.append((one, why))

    def _root(self, key: Hashable) -> Hashable:
        self._parent.setdefault(key, key)
        while self._parent[key] != key:
            self._parent[key] = key = self._parent[self._parent[key]]
        return key

    def groups(self) -> list[tuple[list[str], list[str]]]:
        """The sets of two names and more (other keys left out) and why they are one."""
        members: dict[Hashable, list[str]] = {}
        for key in self._parent:
            if isinstance(key, str):
                members.setdefault(self._root(key), []).append(key)
        reasons: dict[Hashable, dict[str, None]] = {}
        for key, why in self._joins:
            if why:
                reasons.setdefault(self._root(key), {})[why] = None
        return [(names, list(reasons.get(root, ()))) for root, names in members.items() if len(names) > 1]
