"""Hand tensors out of the bodies of If, Loop and Scan, through all levels of nesting.

A body tensor becomes one more output of its body, hence of the node that owns the body, hence of the body around that, up to the
graph. If: the branch that does not make the tensor returns an empty constant of its type, and the condition is handed out too, to tell
which branch ran. Loop and Scan: the tensor becomes a scan output, stacked over the iterations on axis 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from probe.model.check import order_nodes
from probe.model.elements import element_name
from probe.model.model import Model
from probe.model.names import TensorNames
from probe.model.scopes import Scope, Step, build_scopes, repeated_names
from probe.model.shapes import inline_indices

if TYPE_CHECKING:
    import onnx

_BOOL = 9
_LOOPS = ("Loop", "Scan")
_STANDARD = ("", "ai.onnx")


@dataclass(slots=True, eq=False)
class BodyTensor:
    """A tensor on its way up; ``output_name`` is what the graph it has reached so far calls it."""

    name: str  # recorded name
    output_name: str
    element: int  # ONNX element type
    rank: int | None
    nodes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    branch: list[tuple[BodyTensor, bool]] = field(
        default_factory=list
    )  # (condition, value it must have), outermost first
    note: str = ""
    is_condition: bool = False


@dataclass(slots=True)
class Surgery:
    """What ``expose_bodies`` made."""

    model_bytes: bytes
    root: Scope
    names: TensorNames
    tensors: dict[str, list[BodyTensor]]  # by identity of the top-level node that owns them
    not_exposed: list[tuple[str, str]]


def expose_bodies(
    model: Model, names: TensorNames, wanted: Callable[[str], bool], *, bodies: bool, loop_bodies: bool
) -> Surgery:
    """The whole model as ONNX Runtime takes it, nodes sorted and no node name used twice in a graph, with the wanted tensors of all bodies made outputs of the top-level nodes that own them.

    The graph's own outputs are not extended: that is the caller's, who knows which of its tensors are wanted.
    """
    import onnx

    proto = onnx.ModelProto()
    with model.data() as view:
        proto.ParseFromString(cast(bytes, view))  # any buffer will do
    root = build_scopes(proto.graph)
    if order_nodes(root, str(model.path)):
        root = build_scopes(proto.graph)
    for scope in root.walk():
        for step in repeated_names(scope):
            step.node.ClearField("name")  # identities were given before
    inline_indices(proto.graph, model.base_dir)
    for mine, known in zip(root.walk(), model.root.walk(), strict=True):
        mine.types = known.types
    names = TensorNames(root, constants=names.constants)
    lifter = _Lifter(root, names, wanted, proto, loop_bodies=loop_bodies)
    tensors: dict[str, list[BodyTensor]] = {}
    for step in list(root.steps):
        if bodies:
            found = lifter.lift(step)
            tensors[step.identity] = [tensor for tensor in found if not tensor.is_condition]
        else:
            lifter.leave_out(step, "inside a body; bodies were left out")
    return Surgery(proto.SerializeToString(), root, names, tensors, list(lifter.not_exposed.items()))


class _Lifter:
    def __init__(
        self,
        root: Scope,
        names: TensorNames,
        wanted: Callable[[str], bool],
        proto: onnx.ModelProto,
        *,
        loop_bodies: bool,
    ) -> None:
        self.not_exposed: dict[str, str] = {}
        self._names = names
        self._wanted = wanted
        self._loop_bodies = loop_bodies
        self._opset = max((entry.version for entry in proto.opset_import if entry.domain in _STANDARD), default=0)
        self._taken = {name for s in root.walk() for name in (*s.producers, *s.initialisers, *s.inputs, *s.types)}
        self._counter = 0

    def lift(self, owner: Step) -> list[BodyTensor]:
        """Make what the bodies of ``owner`` hold its outputs. Returns it under the new names, in execution order."""
        op = owner.node.op_type if owner.node.domain in _STANDARD else ""
        if op == "If" and {body.branch for body in owner.bodies} == {"then_branch", "else_branch"}:
            return self._lift_if(owner)
        if op in _LOOPS and not self._loop_bodies:
            self.leave_out(owner, f"inside a {op}, whose bodies were left out")
        elif op == "Scan" and self._opset < 9:
            self.leave_out(owner, "inside a Scan of opset 8, which stacks in another way")
        elif op in _LOOPS and len(owner.bodies) == 1:
            return self._lift_loop(owner)
        else:
            self.leave_out(owner, f"inside {owner.node.op_type}; only If, Loop and Scan can hand tensors out")
        return []

    def leave_out(self, owner: Step, reason: str) -> None:
        """Note all tensors in the bodies of ``owner``, however deep, as not exposed."""
        for body in owner.bodies:
            for step in body.in_execution_order():
                self._leave_out(((step.scope, name) for name in step.outputs if self._names.counts(step)), reason)

    def _leave_out(self, tensors: Iterable[tuple[Scope, str]], reason: str) -> None:
        for scope, name in tensors:
            shown = self._names.of(scope, name)
            if self._wanted(shown):
                self.not_exposed.setdefault(shown, reason)

    def _collect(self, body: Scope) -> list[BodyTensor]:
        """Everything of a body that can be handed out: what its own nodes make, and what deeper bodies handed to them."""
        found: list[BodyTensor] = []
        for step in list(body.steps):
            if step.bodies:
                found += self.lift(step)
            if self._names.counts(step):
                found += [tensor for name in step.outputs if (tensor := self._own(body, step, name)) is not None]
        return found

    def _own(self, body: Scope, step: Step, name: str) -> BodyTensor | None:
        shown = self._names.of(body, name)
        if not self._wanted(shown):
            return None
        proto = body.types.get(name)
        if proto is None:
            return self._not(shown, "inside a body, and its type is not known")
        if not proto.HasField("tensor_type"):
            return self._not(shown, "inside a body, and no tensor")
        element = proto.tensor_type.elem_type
        if element_name(element) is None:
            return self._not(shown, "inside a body, and its type is not known")
        rank = len(proto.tensor_type.shape.dim) if proto.tensor_type.HasField("shape") else None
        return BodyTensor(shown, name, element, rank, (step.identity,), self._names.reads(step))

    def _not(self, shown: str, reason: str) -> None:
        self.not_exposed.setdefault(shown, reason)

    def _lift_if(self, owner: Step) -> list[BodyTensor]:
        branches = {body.branch: body for body in owner.bodies}
        sides = (branches["then_branch"], branches["else_branch"])
        found = [self._collect(side) for side in sides]
        others = [{tensor.name: tensor for tensor in side if not tensor.is_condition} for side in found]
        looped = any(
            scope.owner is not None and scope.owner.node.op_type in _LOOPS for scope in owner.scope.enclosing()
        )
        condition: BodyTensor | None = None
        lifted: list[BodyTensor] = []
        for i, tensors in enumerate(found):
            for tensor in tensors:
                twin = others[1 - i].get(tensor.name) if not tensor.is_condition else None
                if twin is not None and i == 1:
                    continue  # handed out with the other branch
                if twin is None and looped:
                    self._not(tensor.name, "inside an If inside a loop: not every iteration makes it")
                    continue
                self._return(sides[i], tensor.output_name)
                if twin is not None:
                    self._return(sides[1 - i], twin.output_name)
                    tensor.nodes += twin.nodes
                    tensor.reads = tuple(dict.fromkeys(tensor.reads + twin.reads))
                    tensor.rank = tensor.rank if tensor.rank == twin.rank else None
                else:
                    self._return(sides[1 - i], self._empty(sides[1 - i], tensor))
                    if condition is None:
                        condition = self._condition(owner)
                        lifted.append(condition)
                    tensor.branch.insert(0, (condition, i == 0))
                self._hand_over(owner, tensor)
                lifted.append(tensor)
        return lifted

    def _lift_loop(self, owner: Step) -> list[BodyTensor]:
        (body,) = owner.bodies
        tensors = self._collect(body)
        if not tensors:
            return []
        for tensor in tensors:
            self._return(body, tensor.output_name)
            self._hand_over(owner, tensor)
            tensor.rank = None if tensor.rank is None else tensor.rank + 1
            inner = f"; {tensor.note}" if tensor.note else ""
            tensor.note = f"stacked on axis 0 over the iterations of {owner.identity}{inner}"
        for attribute in owner.node.attribute:  # one entry a scan output, where given at all
            if attribute.name in ("scan_output_axes", "scan_output_directions") and attribute.ints:
                attribute.ints.extend([0] * len(tensors))
        return tensors

    def _return(self, body: Scope, name: str) -> None:
        """One more output of a body."""
        import onnx

        if any(value.name == name for value in body.graph.output):  # a name may be returned once
            copy = self._fresh()
            body.graph.node.append(onnx.NodeProto(op_type="Identity", input=[name], output=[copy]))
            name = copy
        body.graph.output.append(onnx.ValueInfoProto(name=name))

    def _hand_over(self, owner: Step, tensor: BodyTensor) -> None:
        tensor.output_name = self._fresh()
        owner.node.output.append(tensor.output_name)

    def _empty(self, body: Scope, like: BodyTensor) -> str:
        """Add an empty constant of the tensor's type (and rank, where known) to a body."""
        import onnx

        name = self._fresh()
        value = onnx.TensorProto(data_type=like.element, dims=[0] * max(like.rank or 1, 1))
        attribute = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=value)
        body.graph.node.append(onnx.NodeProto(op_type="Constant", output=[name], attribute=[attribute]))
        return name

    def _condition(self, owner: Step) -> BodyTensor:
        """The condition of an If as a tensor of the graph it stands in, to be handed up like any other."""
        import onnx

        scope, name = owner.scope, owner.node.input[0]
        if scope.parent is None and name in scope.producers and self._names.counts(scope.producers[name]):
            return BodyTensor(name, name, _BOOL, 0, is_condition=True)
        copy = self._fresh()
        scope.graph.node.append(onnx.NodeProto(op_type="Identity", input=[name], output=[copy]))
        return BodyTensor(copy, copy, _BOOL, 0, is_condition=True)

    def _fresh(self) -> str:
        while True:
            name = f"probe/{self._counter}"
            self._counter += 1
            if name not in self._taken:
                return name
