"""Walking a network in float64, a node at a time: values live until their last reader is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.errors import InputError
from probe.model.scopes import Scope, Step
from probe.runners.fp64 import functions
from probe.runners.fp64.calls import WIDENED, Call, Kernel, Value, dense, read_call, widen
from probe.runners.fp64.catalogue import find_kernel
from probe.runners.fp64.control import CONTROL, finish
from probe.runners.fp64.frames import Event, Frame, Made, Walk, last_uses
from probe.runners.protocol import Array

if TYPE_CHECKING:
    import onnx

    from probe.model.model import Model

_STANDARD = ("", "ai.onnx")
_KEPT_BYTES = 2 << 30  # of weights in float64: above this they are widened anew each time they are read
_REFUSALS = (ValueError, IndexError, TypeError, KeyError, ZeroDivisionError, OverflowError, NotImplementedError, RuntimeError,
             AssertionError, np.linalg.LinAlgError)  # fmt: skip


@dataclass(slots=True)
class _Prepared:
    """A node made ready to run."""

    call: Call
    kernel: Kernel | None  # None: evaluated by the function of its definition


class Evaluator:
    """Runs a model in float64.

    Args:
        shown: recorded name of a tensor by the scope that makes it and its name there; None for those nobody wants.
    """

    def __init__(self, model: Model, shown: Callable[[Scope, str], str | None]) -> None:
        self._model = model
        self.shown = shown
        self._functions = functions.Functions(model.proto.functions)
        self._prepared: dict[int, _Prepared] = {}  # by the step's id; the scopes that hold steps live as long as this
        self._drops: dict[tuple[int | str, ...], list[tuple[str, ...]]] = {}
        self._weights: dict[tuple[int, str], Array] = {}
        self._kept_bytes = 0

    def run(self, feeds: Mapping[str, Value], returned: Sequence[str]) -> Iterator[Event]:
        """Every wanted tensor in execution order, then ``returned``.

        Args:
            feeds: every graph input, widened; a list for a sequence, None for an optional that is left out.
            returned: weights and constants that the graph returns.

        Raises:
            InputError: a node that cannot be evaluated in float64, or whose inputs do not fit.
        """
        root = self._model.root
        values = yield from self.walk(Frame(root, self._model.opset, dict(feeds), returned))
        for name, value in zip(returned, values, strict=True):
            yield Made(name, value)

    def walk(self, frame: Frame) -> Walk:
        """As ``Walker.walk``."""
        scope = frame.scope
        key = (id(scope), *frame.returns)
        if key not in self._drops:
            self._drops[key] = last_uses(scope, frame.returns)
        for step, drops in zip(scope.steps, self._drops[key], strict=True):
            results = yield from self._step(step, frame)
            frame.values.update((name, value) for name, value in zip(step.node.output, results, strict=False) if name)
            del results
            for name in step.outputs:
                shown = self.shown(scope, name)
                if shown is not None:
                    yield Made(shown, frame.values[name])
            for name in drops:
                frame.values.pop(name, None)
        return [self._value(name, frame) for name in frame.returns]

    def inputs(self, step: Step, frame: Frame) -> list[Value]:
        """As ``Walker.inputs``."""
        return [self._value(name, frame) if name else None for name in step.node.input]

    def _value(self, name: str, frame: Frame) -> Value:
        for one in frame.enclosing():
            if name in one.values:
                return one.values[name]
            if name in one.scope.initialisers:
                return self._weight(one.scope, name)
        raise InputError(f"nothing makes the tensor {name!r}", where=str(self._model.path))

    def _weight(self, scope: Scope, name: str) -> Array:
        key = (id(scope), name)
        if key in self._weights:
            return self._weights[key]
        sparse = next((one for one in scope.graph.sparse_initializer if one.values.name == name), None)
        value = (
            widen(self._model.tensor(scope.initialisers[name])) if sparse is None else dense(sparse, self._model.tensor)
        )
        if self._kept_bytes + value.nbytes <= _KEPT_BYTES:
            self._kept_bytes += value.nbytes
            self._weights[key] = value
        return value

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _step(self, step: Step, frame: Frame) -> Walk:
        """Outputs of one node."""
        try:
            if step.node.domain in _STANDARD and step.node.op_type in CONTROL:
                made = yield from CONTROL[step.node.op_type](self, step, frame)
            else:
                made = self._apply(step, frame)
        except InputError as error:
            if error.where:
                raise
            raise InputError(error.what, where=self._where(step), hint=error.hint) from error.__cause__
        except MemoryError as error:
            raise InputError(
                f"not enough memory for {step.node.op_type}",
                where=self._where(step),
                hint="smaller inputs: --input-shapes",
            ) from error
        except _REFUSALS as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"{step.node.op_type} failed: {said[:400]}",
                where=self._where(step),
                hint="the inputs may not fit the model: give real ones with --inputs, or other shapes with --input-shapes",
            ) from error
        missing = [name for name in step.node.output[len(made) :] if name]
        if missing:
            raise InputError(
                f"fp64 does not make the output {missing[0]!r} of {step.node.op_type}",
                where=self._where(step),
                hint="--golden ort",
            )
        return [_settled(value, step) for value in made]

    def _where(self, step: Step) -> str:
        return f"{self._model.path}, node {step.identity}"

    def _apply(self, step: Step, frame: Frame) -> list[Value]:
        node = step.node
        values = self.inputs(step, frame)
        local = self._functions.local(node)
        if local is not None:
            return self._call_function(local, values, node)
        prepared = self._prepared.get(id(step))
        if prepared is None:
            domain = "" if node.domain in _STANDARD else node.domain
            call = read_call(node, frame.opsets.get(domain, 1), self._model.tensor)
            prepared = self._prepared[id(step)] = _Prepared(call, find_kernel(call, domain))
        if prepared.kernel is None:
            return self._call_function(self._functions.of_definition(prepared.call, values), values, node)
        with np.errstate(all="ignore"):
            made = prepared.kernel(prepared.call, *values)
        return list(made) if isinstance(made, tuple) else [made]

    def _call_function(self, function: functions.Body, values: list[Value], node: onnx.NodeProto) -> list[Value]:
        given = dict(zip(function.scope.inputs, values, strict=False))
        inputs = {name: given.get(name) for name in function.scope.inputs}
        # Outputs that the node does not name need not be made: some definitions make them only for those who do.
        outputs = list(zip(node.output, function.scope.outputs, strict=False))
        wanted = [name for given_name, name in outputs if given_name]
        made = iter(finish(self.walk(Frame(function.scope, function.opsets, inputs, wanted))))
        return [next(made) if given_name else None for given_name, _ in outputs]


def _settled(value: Value, step: Step) -> Value:
    """A kernel's result as it is kept: arrays in C order that hold no memory but their own.

    Raises:
        InputError: it is in a type narrower than float64 though the model computes with it.
    """
    if isinstance(value, list):
        return [_settled(one, step) for one in value]
    if value is None or isinstance(value, dict):
        return value
    array = np.asarray(value, order="C")
    if array.dtype.name in WIDENED:
        raise InputError(
            f"{step.node.op_type} was not computed in float64", hint="--golden ort", where=f"node {step.identity}"
        )
    if isinstance(array.base, np.ndarray) and array.base.nbytes > array.nbytes:
        return array.copy()  # a part of a tensor would keep all of it alive
    return array
