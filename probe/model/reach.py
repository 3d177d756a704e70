"""Where the inputs of a network go: consumers reached through operators that keep values, bodies and local functions included."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.model.scopes import Scope, Step, is_constant, stored_constant

if TYPE_CHECKING:
    import onnx

    from probe.model.model import Model

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Use:
    """One consumer an input reaches."""

    graph: Graph
    scope: Scope  # the consumer's
    node: onnx.NodeProto
    index: int  # of the consumer's input
    through: tuple[str, ...]  # value-preserving operators passed on the way

    def constant(self, index: int) -> Array | None:
        """The consumer's other input, if it is a small constant."""
        return self.graph.constant(self.scope, self.node.input[index]) if index < len(self.node.input) else None

    def weight_shape(self, index: int) -> tuple[int, ...] | None:
        """Shape of the consumer's other input, if it is a weight, also one stored narrow and widened by Cast or DequantizeLinear."""
        found = self.weight(index)
        return None if found is None else tuple(found.dims)

    def weight(self, index: int) -> onnx.TensorProto | None:
        if index >= len(self.node.input):
            return None
        name, scope = self.node.input[index], self.scope
        for _ in range(8):
            tensor = stored_constant(scope, name)
            home = scope.find(name)
            if tensor is not None or home is None or name not in home.producers:
                return tensor
            maker = home.producers[name].node
            if maker.op_type not in ("Cast", "CastLike", "Identity", "DequantizeLinear") or not maker.input:
                return None
            name, scope = maker.input[0], home
        return None

    def integer(self, name: str, default: int) -> int:
        """An integer attribute of the consumer."""
        return next((int(a.i) for a in self.node.attribute if a.name == name), default)


# Operators whose output holds the same numbers (or a part of them), with the input that carries them.
PASSES_VALUES = {
    "Cast": 0, "CastLike": 0, "Identity": 0, "Reshape": 0, "Unsqueeze": 0, "Squeeze": 0, "Transpose": 0, "Flatten": 0,
    "Expand": 0, "Slice": 0, "Dropout": 0,
}  # fmt: skip
_MAX_USES = 4096  # one input of a large network rarely reaches more consumers before its first arithmetic
_SMALL = 4096  # elements of a constant that may be read


class Graph:
    """Where the inputs of a network go, bodies and local functions included."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._consumers: dict[tuple[int, str], list[tuple[Scope, Step, int]]] = {}
        self._functions = {(f.domain, f.name): _function_scope(f) for f in model.proto.functions}
        for scope in (*model.root.walk(), *self._functions.values()):
            for step in scope.steps:
                for index, name in enumerate(step.node.input):
                    home = scope.find(name) if name else None
                    if home is not None:
                        self._consumers.setdefault((id(home), name), []).append((scope, step, index))

    def uses(self, name: str, passes: dict[str, int] = PASSES_VALUES) -> list[Use]:
        """Consumers a graph input reaches, nearest first, through operators that keep values, functions and loop bodies."""
        found: list[Use] = []
        queue: list[tuple[Scope, str, tuple[str, ...]]] = [(self._model.root, name, ())]
        seen: set[tuple[int, str]] = set()
        while queue and len(found) < _MAX_USES:
            home, name, through = queue.pop(0)
            if (id(home), name) in seen:
                continue
            seen.add((id(home), name))
            for scope, step, index in self._consumers.get((id(home), name), ()):
                found.append(Use(self, scope, step.node, index, through))
                if passes.get(step.node.op_type) == index and step.node.domain in ("", "ai.onnx"):
                    queue += [(scope, output, (*through, step.node.op_type)) for output in step.outputs]
                queue += [(*inner, through) for inner in self._inner(step, index)]
        return found

    def _inner(self, step: Step, index: int) -> Iterator[tuple[Scope, str]]:
        """The name an argument has inside a function or a loop body."""
        function = self._functions.get((step.node.domain, step.node.op_type))
        if function is not None and index < len(function.inputs):
            yield function, function.inputs[index]
        if step.node.op_type == "Loop" and index >= 2 and step.bodies and index < len(step.bodies[0].graph.input):
            yield step.bodies[0], step.bodies[0].graph.input[index].name

    def constant(self, scope: Scope, name: str) -> Array | None:
        """The numbers of a small constant."""
        tensor = stored_constant(scope, name)
        if tensor is None:
            home = scope.find(name)
            step = home.producers.get(name) if home is not None else None
            if step is None or not is_constant(step):
                return None
            import onnx

            values = onnx.helper.get_attribute_value(step.node.attribute[0]) if step.node.attribute else None
            return np.asarray(values) if isinstance(values, (int, float, list)) else None
        if math.prod(tensor.dims) > _SMALL:
            return None
        return np.asarray(self._model.tensor(tensor))


def _function_scope(function: onnx.FunctionProto) -> Scope:
    import onnx

    scope = Scope(onnx.GraphProto(), inputs=list(function.input))
    scope.steps = [Step(node, scope) for node in function.node]
    for step in scope.steps:
        for name in step.outputs:
            scope.producers.setdefault(name, step)
    return scope
