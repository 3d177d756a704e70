"""What every tensor of a mixed-precision model is stored in, and what every node reads and makes. Decided here, carried out in ``mixed_casts``.

The contract is the engine's: each tensor is rounded once, where it is produced; data movement takes its inputs' precision. A node is in one of
these modes:

- ``low``: reads and makes the low type wherever its schema allows.
- ``lifted``: produces or reads a kept tensor, hence runs in FP32; its other tensors stay rounded.
- ``fp32``: kept itself, or without a low type in its schema, or arithmetic on extents: runs in FP32 on what is there, rounds nothing.
- ``move``: hands values on; FP32 where it holds a kept tensor or a reader needs more than the low type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from probe.model.graphs import bodies_of, graphs_of
from probe.model.movement import TYPE_ONLY, is_movement, is_standard, parameters, shape_inputs
from probe.model.schemas import Ports, is_float, low_ports

Want = Literal["low", "wide", "rounded"]  # the low type; FP32 as it is; FP32 that went through the low type
Mode = Literal["low", "lifted", "fp32", "move"]
_State = Literal["low", "kept", "wide", "free", "open"]  # free: a weight; open: a move that may be either
_SCAN_WITH_BATCH = 8  # the opset whose Scan has a batch axis and one more input


@dataclass(slots=True)
class MixedPlan:
    """The decisions. Values, nodes and graphs by ``id``; values that are missing are no float tensors and stay as they are.

    Attributes:
        low_stored: values stored in the low type.
        low_made: values that the node (or the graph that feeds them) hands out in the low type.
        wants: (node, position) -> form in which an input is read; missing: as it is stored.
        returns: (body, position) -> form in which a body returns a value.
        kept: values never rounded.
        modes: nodes that read or make floats.
        reasons: identity of a node that has no low type -> why.
        shape_nodes: identities of nodes left in FP32 because they only compute extents.
    """

    low_stored: set[int] = field(default_factory=set)
    low_made: set[int] = field(default_factory=set)
    wants: dict[tuple[int, int], Want] = field(default_factory=dict)
    returns: dict[tuple[int, int], Want] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    modes: dict[int, Mode] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    shape_nodes: list[str] = field(default_factory=list)


def plan_mixed(
    model: ir.Model,
    low: ir.DataType,
    *,
    kept: Iterable[ir.Value],
    kept_nodes: Iterable[ir.Node],
    low_ports_of_graph: Iterable[ir.Value],
) -> MixedPlan:
    """Decide.

    Args:
        low: FLOAT16 or BFLOAT16.
        kept: values stored in FP32 and never rounded.
        kept_nodes: nodes that run in FP32.
        low_ports_of_graph: graph inputs and outputs that have the low type.
    """
    return _Planner(model, low, kept, kept_nodes, low_ports_of_graph).run()


class _Planner:
    def __init__(
        self,
        model: ir.Model,
        low: ir.DataType,
        kept: Iterable[ir.Value],
        kept_nodes: Iterable[ir.Node],
        low_io: Iterable[ir.Value],
    ) -> None:
        self._graph, self._opsets, self._low = model.graph, model.opset_imports, low
        self._named = set(map(id, kept))
        self._kept_nodes = set(map(id, kept_nodes))
        self._low_io = set(map(id, low_io))
        self._shape_nodes = _shape_nodes(model.graph)
        self._state: dict[int, _State] = {}
        self._ports: dict[int, Ports] = {}
        self._returned = {
            (id(value)): [] for graph in graphs_of(model.graph) for value in graph.outputs
        }  # value -> (graph, position)
        self._owners: dict[int, ir.Node] = {}
        for graph in graphs_of(model.graph):
            for at, value in enumerate(graph.outputs):
                self._returned[id(value)].append((graph, at))
            for node in graph:
                self._owners.update((id(body), node) for body in bodies_of(node).values())
        self.plan = MixedPlan()

    def run(self) -> MixedPlan:
        for value in self._graph.inputs:
            if is_float(value) and not value.is_initializer():
                low = id(value) in self._low_io
                self._hold(value, "kept" if id(value) in self._named else "low" if low else "wide", low=low)
        self._forward(self._graph, wide=False)
        self._backward(self._graph)
        self.plan.kept = {key for key, state in self._state.items() if state == "kept"}
        return self.plan

    # --- forward: modes and states

    def _hold(self, value: ir.Value, state: _State, *, low: bool, made_low: bool | None = None) -> None:
        """Note a value's state, whether it is stored low, and whether it arrives low (as stored, if not said)."""
        self._state[id(value)] = state
        for flag, where in ((low, self.plan.low_stored), (low if made_low is None else made_low, self.plan.low_made)):
            (where.add if flag else where.discard)(id(value))

    def _state_of(self, value: ir.Value | None) -> _State:
        return self._state.get(id(value), "wide")

    def _forward(self, graph: ir.Graph, *, wide: bool) -> None:
        """``wide``: everything in the graph belongs to a kept node."""
        for value in graph.initializers.values():
            if is_float(value):
                self._state[id(value)] = "kept" if id(value) in self._named else "free"
        for node in graph:
            if node.op_type == "Constant" and is_standard(node):
                for value in filter(is_float, node.outputs):
                    self._state[id(value)] = "kept" if id(value) in self._named else "free"
            elif bodies_of(node):
                self._control(node, wide=wide or id(node) in self._kept_nodes)
            elif any(map(is_float, (*node.inputs, *node.outputs))):
                self._node(node, wide=wide or id(node) in self._kept_nodes)

    def _node(self, node: ir.Node, *, wide: bool) -> None:
        if node.op_type in TYPE_ONLY and is_standard(node):
            return
        if any(map(_is_opaque, (*node.inputs, *node.outputs))):
            self._set(node, "fp32")
            if any(value is not None and value.name and value.type is None for value in (*node.inputs, *node.outputs)):
                self.plan.reasons[node.name or ""] = "the types of its tensors are not known"
            return
        ports = self._ports[id(node)] = low_ports(node, self._low, self._opsets)
        if is_movement(node):
            self._move(node, ports)
        elif wide or id(node) in self._shape_nodes:
            self._set(node, "fp32")
            if id(node) in self._shape_nodes and node.name not in self.plan.shape_nodes:
                self.plan.shape_nodes.append(node.name or "")
        elif ports.reason:
            self._set(node, "fp32")
            self.plan.reasons[node.name or ""] = ports.reason
        else:
            reads = any(self._state_of(value) == "kept" for _, value in data_inputs(node))
            makes = any(id(value) in self._named for value in node.outputs)
            self._set(node, "lifted" if reads or makes else "low")

    def _set(self, node: ir.Node, mode: Mode) -> None:
        """Note what a node in a mode reads and makes."""
        plan, ports = self.plan, self._ports.get(id(node))
        plan.modes[id(node)] = mode
        casts = node.op_type == "Cast" and is_standard(node)
        spared = parameters(node)
        for at, value in enumerate(node.inputs):
            if not is_float(value):
                continue
            if mode == "fp32" or at in spared:
                plan.wants[id(node), at] = "wide"
            elif mode == "low" and ports is not None and ports.inputs[at]:
                plan.wants[id(node), at] = "low"
            else:
                plan.wants[id(node), at] = "low" if casts else "rounded"  # a Cast widens what it reads itself
            if casts and self._takes_as_stored(node, mode):
                del plan.wants[id(node), at]
        for at, value in enumerate(node.outputs):
            if not is_float(value):
                continue
            named = id(value) in self._named
            if mode == "fp32":
                self._hold(value, "kept" if named else "wide", low=False)
                continue
            # A Cast makes what is stored; any other node that runs in FP32 makes FP32.
            made_low = not named if casts else mode == "low" and ports is not None and ports.outputs[at]
            self._hold(value, "kept" if named else "low", low=not named, made_low=made_low)

    def _takes_as_stored(self, node: ir.Node, mode: Mode) -> bool:
        """Whether a Cast, which takes any type, needs no other one before it. Where it makes an integer, its input is rounded first."""
        state = self._state_of(node.inputs[0])
        if state in ("free", "open"):
            return False
        return state in ("low", "kept") or mode == "fp32" or (mode == "low" and is_float(node.outputs[0]))

    def _move(self, node: ir.Node, ports: Ports) -> None:
        self.plan.modes[id(node)] = "move"
        states: list[_State] = [self._state_of(value) for _, value in data_inputs(node)]
        for at, value in enumerate(node.inputs):
            if at in parameters(node) and is_float(value):
                self.plan.wants[id(node), at] = "wide"
        able = all(ports.inputs[at] for at, _ in data_inputs(node)) and all(
            ports.outputs[at] for at, value in enumerate(node.outputs) if is_float(value)
        )
        able = able and not any(id(value) in self._named for value in node.outputs)  # all it makes has one type
        for value in filter(is_float, node.outputs):
            state = _joined(states, kept=id(value) in self._named)
            if not able and state != "kept":
                state = "wide"
            self._hold(value, state, low=state == "low")

    # --- control flow

    def _control(self, node: ir.Node, *, wide: bool) -> None:
        bodies = list(bodies_of(node).values())
        ports = self._ports[id(node)] = low_ports(node, self._low, self._opsets)
        if node.op_type == "If" and is_standard(node):
            for body in bodies:
                self._forward(body, wide=wide)
            for at, value in enumerate(node.outputs):
                if is_float(value):
                    state = _joined(
                        [self._state_of(body.outputs[at]) for body in bodies], kept=id(value) in self._named
                    )
                    if not ports.outputs[at] and state != "kept":
                        state = "wide"
                    self._hold(value, state, low=state == "low")
        elif node.op_type in ("Loop", "Scan") and is_standard(node) and not self._is_old_scan(node):
            self._loop(node, bodies[0], ports, wide=wide)
        else:
            self._set(node, "fp32")
            self.plan.reasons[node.name or ""] = (
                f"{node.op_type} of opset {self._opsets.get(node.domain, 0)} stays FP32"
            )
            for body in bodies:
                for value in filter(is_float, body.inputs):
                    self._hold(value, "wide", low=False)
                self._forward(body, wide=True)
                self._return_wide(body)

    def _is_old_scan(self, node: ir.Node) -> bool:
        return node.op_type == "Scan" and self._opsets.get("", 0) <= _SCAN_WITH_BATCH

    def _return_wide(self, body: ir.Graph) -> None:
        for at, value in enumerate(body.outputs):
            if is_float(value):
                self.plan.returns[id(body), at] = "wide"

    def _loop(self, node: ir.Node, body: ir.Graph, ports: Ports, *, wide: bool) -> None:
        """Loop and Scan. ``carried``: (input of the node, input of the body, output of the body and of the node)."""
        links = _links(node, body)
        if wide:
            for link in links:
                self._want_input(node, link.outer, "wide")
                if link.inner is not None and is_float(body.inputs[link.inner]):
                    self._hold(body.inputs[link.inner], "wide", low=False)
            self._forward(body, wide=True)
            self._return_wide(body)
            for value in filter(is_float, node.outputs):
                self._hold(value, "kept" if id(value) in self._named else "wide", low=False)
            return
        kept = {
            link for link in links if link.inner is not None and (
                id(body.inputs[link.inner]) in self._named
                or (link.result is None and link.outer is not None and self._state_of(node.inputs[link.outer]) == "kept")
            )
        }  # fmt: skip
        while True:  # a kept tensor that is carried into the next iteration is kept there
            for link in links:
                if link.inner is not None and is_float(value := body.inputs[link.inner]):
                    low = link not in kept and link.outer is not None and ports.inputs[link.outer]
                    self._hold(value, "kept" if link in kept else "low" if low else "wide", low=low)
            self._forward(body, wide=False)
            more = {
                link for link in links
                if link.inner is not None and link.result is not None and self._state_of(body.outputs[link.result]) == "kept"
            } - kept  # fmt: skip
            if not more:
                break
            kept |= more
        for link in links:
            self._finish_link(node, body, link, ports, kept=link in kept)

    def _finish_link(self, node: ir.Node, body: ir.Graph, link: _Link, ports: Ports, *, kept: bool) -> None:
        low = not kept
        if link.outer is not None:
            low = low and ports.inputs[link.outer]
            self._want_input(node, link.outer, "low" if low else "wide" if link.result is None else "rounded")
        if link.result is None or link.made is None or not is_float(result := body.outputs[link.result]):
            return
        if link.inner is None:  # collected over the iterations
            low = self._state_of(result) != "kept" and ports.outputs[link.made]
        self.plan.returns[id(body), link.result] = "low" if low else "rounded"
        final = node.outputs[link.made]
        if final.name:
            named = id(final) in self._named
            self._hold(final, "kept" if named else "low", low=not named, made_low=low)

    def _want_input(self, node: ir.Node, at: int | None, want: Want) -> None:
        if at is not None and is_float(node.inputs[at]):
            self.plan.wants[id(node), at] = want

    # --- backward: moves that may be either

    def _backward(self, graph: ir.Graph) -> None:
        for node in reversed(graph):
            if node.op_type == "If" and is_standard(node):
                for value in filter(is_float, node.outputs):
                    self._decide([value])
                for body in bodies_of(node).values():
                    for at, value in enumerate(node.outputs):
                        if is_float(value):
                            self.plan.returns[id(body), at] = "low" if id(value) in self.plan.low_stored else "wide"
            if self.plan.modes.get(id(node)) == "move":
                floats = [value for value in node.outputs if is_float(value) and value.name]
                self._decide(floats)
                low = any(id(value) in self.plan.low_stored for value in floats)
                for at, _ in data_inputs(node):
                    self.plan.wants[id(node), at] = "low" if low else "wide"
            for body in bodies_of(node).values():
                self._backward(body)

    def _decide(self, values: list[ir.Value]) -> None:
        """Store open values in the low type if nobody needs more."""
        if not any(self._state[id(value)] == "open" for value in values):
            return
        wanted = {want for value in values for want in self._wanted(value)}
        for value in values:
            self._hold(value, "open", low=bool(wanted) and "wide" not in wanted)

    def _wanted(self, value: ir.Value) -> Iterator[Want]:
        """How a value is read, by whom it is decided already. What only looks at extents does not count."""
        for node, at in value.uses():
            want = self.plan.wants.get((id(node), at))
            if want is not None:
                yield want
        for graph, at in self._returned.get(id(value), ()):
            if graph is self._graph:
                yield "low" if id(value) in self._low_io else "wide"
            else:
                want = self.plan.returns.get((id(graph), at))
                if want is not None:
                    yield want


@dataclass(frozen=True, slots=True)
class _Link:
    """A value on its way through a Loop or Scan, by positions: input of the node, input and output of the body, output of the node."""

    outer: int | None
    inner: int | None
    result: int | None
    made: int | None


def _links(node: ir.Node, body: ir.Graph) -> list[_Link]:
    outputs = len(node.outputs)
    if node.op_type == "Loop":
        carried = max(len(node.inputs) - 2, 0)
        links = [_Link(2 + k, 2 + k, 1 + k, k if k < outputs else None) for k in range(carried)]
        return links + [_Link(None, None, 1 + k, k) for k in range(carried, outputs)]
    scanned = node.attributes.get_int("num_scan_inputs", 0)
    carried = len(body.inputs) - scanned
    links = [_Link(k, k, k, k if k < outputs else None) for k in range(carried)]
    links += [_Link(carried + k, carried + k, None, None) for k in range(scanned)]
    return links + [_Link(None, None, k, k) for k in range(carried, outputs)]


def data_inputs(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    """Positions and values of the float inputs of a node that are data."""
    spared = parameters(node)
    for at, value in enumerate(node.inputs):
        if is_float(value) and at not in spared:
            assert value is not None
            yield at, value


def _joined(states: Sequence[_State], *, kept: bool) -> _State:
    """The state of values handed on from several."""
    if kept or "kept" in states:
        return "kept"
    return "low" if states and set(states) == {"low"} else "open" if states else "wide"


def _is_opaque(value: ir.Value | None) -> bool:
    """A sequence, an optional, or something whose type is not known."""
    return value is not None and bool(value.name) and not isinstance(value.type, ir.TensorType)


def _shape_nodes(graph: ir.Graph) -> set[int]:
    """Nodes with float tensors all of whose results end as extents: rounding them would change shapes, not accuracy."""
    found: set[int] = set()
    extents: set[int] = set()  # values that nothing but extents come from
    for node in _reversed_nodes(graph):
        if bodies_of(node):
            continue
        outputs = [value for value in node.outputs if value.name]
        if all(_only_extents(value, extents) for value in outputs):
            extents.update(map(id, outputs))
            if any(map(is_float, (*node.inputs, *outputs))):
                found.add(id(node))
    return found


def _only_extents(value: ir.Value, extents: set[int]) -> bool:
    uses = value.uses()
    if not uses or value.is_graph_output():
        return False
    return all(
        at in shape_inputs(node)
        or (
            not bodies_of(node)
            and not (node.op_type in TYPE_ONLY and is_standard(node))
            and all(id(made) in extents for made in node.outputs if made.name)
        )
        for node, at in uses
    )


def _reversed_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in reversed(graph):
        for body in bodies_of(node).values():
            yield from _reversed_nodes(body)
        yield node
