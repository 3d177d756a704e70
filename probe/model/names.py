"""What recordings call a tensor. At the top level its ONNX name; inside bodies, where siblings may reuse a name, a unique one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from probe.model.scopes import Scope, Step, is_constant


class TensorNames:
    """Names of all tensors that nodes make, by the scope that makes them.

    A name that only one graph uses stays as it is. A name that both branches of one If use, for tensors of one type, means "whichever
    branch ran" and stands for both. Any other name that several bodies use gets the body before it: ``OWNER/BRANCH/NAME`` (for both
    branches of one If among several: ``OWNER/NAME``).
    """

    def __init__(self, root: Scope, *, constants: bool = False) -> None:
        """
        Args:
            constants: also name what Constant nodes make.
        """
        self._names: dict[tuple[int, str], str] = {}
        self.constants = constants
        makers: defaultdict[str, list[Scope]] = defaultdict(list)
        for scope in root.walk():
            for step in scope.steps:
                if self.counts(step):
                    for name in step.outputs:
                        makers[name].append(scope)
        taken = set(makers) | set(root.inputs)
        for name, scopes in makers.items():
            groups = list(_groups(name, scopes))
            for group in groups:
                shown = name
                if len(groups) > 1 and group[0].path:
                    owner = group[0].owner
                    shown = f"{owner.identity}/{name}" if owner and len(group) > 1 else f"{group[0].path}/{name}"
                    while shown in taken:
                        shown += "'"
                    taken.add(shown)
                for scope in group:
                    self._names[id(scope), name] = shown

    def counts(self, step: Step) -> bool:
        """Whether what the node makes is a tensor users see; constants are part of the model, as weights are."""
        return self.constants or not is_constant(step)

    def of(self, scope: Scope, name: str) -> str:
        """The recorded name of a tensor that ``scope`` makes."""
        return self._names.get((id(scope), name), name)

    def reads(self, step: Step) -> tuple[str, ...]:
        """Recorded names of the tensors a node depends on, each once: what it lists, what its bodies read from around it, and
        what they return. Weights, constants and omitted inputs are left out."""
        found: dict[str, None] = {}
        for name in (*step.inputs, *sorted(step.captured)):
            found.update(dict.fromkeys(self._resolve(step.scope, name)))
        for body in step.bodies:
            for name in body.outputs:
                found.update(dict.fromkeys(self._resolve(body, name)))
        return tuple(found)

    def _resolve(self, scope: Scope, name: str) -> Iterator[str]:
        home = scope.find(name)
        if home is None or name in home.initialisers:
            return
        if name in home.producers:
            if self.counts(home.producers[name]):
                yield self.of(home, name)
        elif home.owner is None:
            yield name
        else:
            yield from self._fed_by(home, home.owner, name)

    def _fed_by(self, body: Scope, owner: Step, name: str) -> Iterator[str]:
        """What the owner feeds to a body's input: Loop and Scan hand their own inputs on in order."""
        index = [value.name for value in body.graph.input].index(name)
        counter = owner.node.op_type == "Loop" and index == 0  # the iteration number comes from nowhere
        if (
            not counter
            and owner.node.op_type in ("Loop", "Scan")
            and index < len(owner.node.input)
            and owner.node.input[index]
        ):
            yield from self._resolve(owner.scope, owner.node.input[index])


def _groups(name: str, scopes: list[Scope]) -> Iterator[list[Scope]]:
    """Scopes that make ``name``, the two branches of an If together when they make the same type."""
    rest = list(scopes)
    while rest:
        scope = rest.pop(0)
        twin = next((other for other in rest if same_if(scope, other) and _same_type(scope, other, name)), None)
        if twin is not None:
            rest.remove(twin)
        yield [scope] if twin is None else [scope, twin]


def same_if(scope: Scope, other: Scope) -> bool:
    """Whether two bodies are the branches of one If: exactly one of them runs."""
    return scope.owner is not None and scope.owner is other.owner and scope.owner.node.op_type == "If"


def _same_type(scope: Scope, other: Scope, name: str) -> bool:
    mine, theirs = scope.types.get(name), other.types.get(name)
    if mine is None or theirs is None or not mine.HasField("tensor_type") or not theirs.HasField("tensor_type"):
        return False
    return mine.tensor_type.elem_type == theirs.tensor_type.elem_type != 0
