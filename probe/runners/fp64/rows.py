"""What recordings say of each tensor: which are handed out, under which name, made by which node, read from what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.model.elements import UNKNOWN, element_name
from probe.model.names import TensorNames
from probe.model.quantised import steps as quantisation_steps
from probe.model.scopes import Scope, Step
from probe.results.tensors import Role
from probe.runners.fp64.calls import WIDENED
from probe.runners.fp64.frames import in_order

if TYPE_CHECKING:
    from probe.model.model import Model

_LOOPS = ("Loop", "Scan")
_STANDARD = ("", "ai.onnx")


@dataclass(slots=True)
class Row:
    """What is known of a tensor before the network runs."""

    name: str  # recorded name
    role: Role
    nodes: tuple[str, ...]  # two where both branches of an If make it
    reads: tuple[str, ...]
    step: float | None  # quantisation step
    dtype: str  # as declared, for branches that do not run
    body: str  # path of the body it stands in
    note: str = ""


class Rows:
    """All tensors of a model that are asked for, by recorded name, in execution order.

    Attributes:
        refused: those that cannot be handed out, and why.
    """

    def __init__(self, model: Model, select: Callable[[str], bool] | None, *, bodies: bool) -> None:
        self._names = TensorNames(model.root)
        self._root = model.root
        self._wanted = select if select is not None else lambda _name: True
        self._by_name: dict[str, Row] = {}
        self.refused: dict[str, str] = {}
        self._steps = quantisation_steps(model)
        outputs = set(model.root.outputs)
        makers = Counter(shown for _, _, shown in self._all())
        for step, name, shown in self._all():
            inside = step.scope is not model.root
            reason = _refusal(step, name, twin=makers[shown] > 1, bodies=bodies) if inside else ""
            if reason:
                self.refused[shown] = reason
            elif shown in self._by_name:
                row = self._by_name[shown]
                row.nodes += (step.identity,)
                row.reads = tuple(dict.fromkeys(row.reads + self._names.reads(step)))
            else:
                self._by_name[shown] = self._row(step, name, shown, is_output=not inside and name in outputs)
        for name in dict.fromkeys(model.root.outputs):  # weights and constants that the graph returns
            if name not in model.root.inputs and name not in self._by_name and self._wanted(name):
                self._by_name[name] = Row(name, "output", (), (), None, UNKNOWN, "")

    def _all(self) -> Iterator[tuple[Step, str, str]]:
        for step in in_order(self._root):
            if self._names.counts(step):
                for name in step.outputs:
                    shown = self._names.of(step.scope, name)
                    if self._wanted(shown):
                        yield step, name, shown

    def _row(self, step: Step, name: str, shown: str, *, is_output: bool) -> Row:
        loops = [
            scope.owner.identity for scope in step.scope.enclosing() if _is_loop(scope) and scope.owner is not None
        ]
        note = "; ".join(f"stacked on axis 0 over the iterations of {owner}" for owner in reversed(loops))
        reads = self._names.reads(step)
        role: Role = "output" if is_output else "internal"
        dtype = _declared(step.scope, name)
        return Row(shown, role, (step.identity,), reads, self._steps.get(shown), dtype, step.scope.path, note)

    def __getitem__(self, shown: str) -> Row:
        return self._by_name[shown]

    def shown(self, scope: Scope, name: str) -> str | None:
        """Recorded name of a tensor; None where it is not handed out."""
        step = scope.producers.get(name)
        if step is None or not self._names.counts(step):
            return None
        shown = self._names.of(scope, name)
        return shown if shown in self._by_name and self._by_name[shown].nodes else None

    def returned(self) -> tuple[str, ...]:
        """Weights and constants that the graph returns."""
        return tuple(name for name, row in self._by_name.items() if not row.nodes)


def _is_loop(scope: Scope) -> bool:
    return scope.owner is not None and scope.owner.node.op_type in _LOOPS


def _refusal(step: Step, name: str, *, twin: bool, bodies: bool) -> str:
    """Why a tensor inside a body is not handed out; '' where it is."""
    if not bodies:
        return "inside a body; bodies were left out"
    proto = step.scope.types.get(name)
    if proto is not None and proto.WhichOneof("value") is not None and not proto.HasField("tensor_type"):
        return "inside a body, and no tensor"
    for scope in step.scope.enclosing():
        owner = scope.owner
        if owner is None:
            break
        op = owner.node.op_type if owner.node.domain in _STANDARD else ""
        if op not in ("If", *_LOOPS):
            return f"inside {owner.node.op_type}; only If, Loop and Scan can hand tensors out"
        either = twin and scope is step.scope  # whichever branch runs, it is made
        if op == "If" and not either and any(map(_is_loop, owner.scope.enclosing())):
            return "inside an If inside a loop: not every iteration makes it"
    return ""


def _declared(scope: Scope, name: str) -> str:
    proto = scope.types.get(name)
    known = element_name(proto.tensor_type.elem_type) if proto is not None else None
    if known is None:
        return UNKNOWN
    return "float64" if known in WIDENED else known
