"""If, Loop, Scan and SequenceMap: the operators that run graphs. Tensors of a loop's body are stacked over its iterations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from probe.errors import InputError
from probe.model.elements import element_name, shape_of
from probe.model.scopes import Scope, Step
from probe.precision import numpy_dtype
from probe.runners.fp64.calls import WIDENED, Value
from probe.runners.fp64.frames import Frame, Idle, Made, Unfit, Walk, Walker
from probe.runners.protocol import Array


def run_if(walker: Walker, step: Step, frame: Frame) -> Walk:
    """One of two branches; the other is ``Idle``, in its place: then before else."""
    (condition,) = walker.inputs(step, frame)
    if condition.size != 1:
        raise ValueError(f"the condition has {condition.size} elements")
    branches = {body.branch: body for body in step.bodies}
    first, second = branches["then_branch"], branches["else_branch"]
    if bool(condition.reshape(-1)[0]):
        made = yield from walker.walk(frame.inside(first, {}))
        yield Idle(second, first)
    else:
        yield Idle(first, second)
        made = yield from walker.walk(frame.inside(second, {}))
    return made


def run_loop(walker: Walker, step: Step, frame: Frame) -> Walk:
    """Inputs: trip count, condition, states. Outputs: states, then what each iteration hands out, stacked."""
    (body,) = step.bodies
    given = walker.inputs(step, frame)
    count = None if not given or given[0] is None else int(given[0].reshape(-1)[0])
    condition = np.array(True) if len(given) < 2 or given[1] is None else given[1]
    names = [value.name for value in body.graph.input]
    states, scans = given[2:], _Stacks(step, len(body.outputs) - 1 - len(names[2:]))
    iteration = 0
    while (count is None or iteration < count) and bool(condition.reshape(-1)[0]):
        values = dict(zip(names, (np.array(iteration, np.int64), condition, *states), strict=True))
        condition, *rest = yield from scans.iterate(walker, frame.inside(body, values))
        states = rest[: len(states)]
        scans.add(rest[len(states) :])
        iteration += 1
    yield from scans.tensors(walker, body)
    return [*states, *scans.outputs(body.outputs[1 + len(states) :], body, [0] * len(scans.rows))]


def run_scan(walker: Walker, step: Step, frame: Frame) -> Walk:
    """Inputs: states, then tensors to go through slice by slice. Outputs: states, then slices put together."""
    if frame.opsets.get("", 9) < 9:
        raise InputError("Scan of operator set 8 is not evaluated", hint="export the model again, for opset 9 or later")
    (body,) = step.bodies
    scanned = next(a.i for a in step.node.attribute if a.name == "num_scan_inputs")
    attributes = {a.name: list(a.ints) for a in step.node.attribute}
    given = walker.inputs(step, frame)
    states, sequences = given[: len(given) - scanned], given[len(given) - scanned :]
    axes = attributes.get("scan_input_axes") or [0] * scanned
    backwards = attributes.get("scan_input_directions") or [0] * scanned
    names = [value.name for value in body.graph.input]
    scans = _Stacks(step, len(body.outputs) - len(states))
    length = sequences[0].shape[axes[0]]
    for t in range(length):
        slices = [
            np.take(x, length - 1 - t if back else t, axis)
            for x, axis, back in zip(sequences, axes, backwards, strict=True)
        ]
        values = dict(zip(names, (*states, *map(np.asarray, slices)), strict=True))
        rest = yield from scans.iterate(walker, frame.inside(body, values))
        states = rest[: len(states)]
        scans.add(rest[len(states) :])
    yield from scans.tensors(walker, body)
    outputs = len(scans.rows)
    flipped = attributes.get("scan_output_directions") or [0] * outputs
    scans.rows = [rows[::-1] if back else rows for rows, back in zip(scans.rows, flipped, strict=True)]
    return [
        *states,
        *scans.outputs(body.outputs[len(states) :], body, attributes.get("scan_output_axes") or [0] * outputs),
    ]


def run_sequence_map(walker: Walker, step: Step, frame: Frame) -> Walk:
    """A body for each element of a sequence; further inputs are sequences too, or the same for all."""
    (body,) = step.bodies
    first, *others = walker.inputs(step, frame)
    names = [value.name for value in body.graph.input]
    made: list[list[Value]] = [[] for _ in body.outputs]
    for i, element in enumerate(first):
        arguments = [element, *(other[i] if isinstance(other, list) else other for other in others)]
        values = dict(zip(names, arguments, strict=True))
        walk = walker.walk(frame.inside(body, values))
        for column, value in zip(made, finish(walk), strict=True):
            column.append(value)
    yield from ()
    return made


CONTROL: dict[str, Callable[[Walker, Step, Frame], Walk]] = {
    "If": run_if,
    "Loop": run_loop,
    "Scan": run_scan,
    "SequenceMap": run_sequence_map,
}


def finish(walk: Walk) -> list[Value]:
    """Outputs of a walk whose inner tensors nobody wants."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            return end.value


class _Stacks:
    """What the iterations of a loop leave behind: outputs to put together, and tensors of its body."""

    def __init__(self, step: Step, outputs: int) -> None:
        self.rows: list[list[Array]] = [[] for _ in range(outputs)]
        self._step = step
        self._iterations = 0
        self._tensors: dict[str, list[Value | Unfit]] = {}

    def iterate(self, walker: Walker, frame: Frame) -> Walk:
        """One iteration, its tensors kept."""
        walk = walker.walk(frame)
        self._iterations += 1
        while True:
            try:
                event = next(walk)
            except StopIteration as end:
                return end.value
            if isinstance(event, Made):
                self._tensors.setdefault(event.name, []).append(event.value)
        yield  # a generator like all walks, though nothing can be told before the last iteration

    def add(self, values: Sequence[Array]) -> None:
        for row, value in zip(self.rows, values, strict=True):
            row.append(value)

    def tensors(self, walker: Walker, body: Scope) -> Walk:
        """Tensors of the body, a ``Made`` each."""
        if not self._iterations:
            for name, value in _of_no_iteration(walker, body):
                yield Made(name, value)
        for name, values in self._tensors.items():
            yield Made(name, self._stacked(values))
            values.clear()
        return []

    def _stacked(self, values: list[Value | Unfit]) -> Array | Unfit:
        unfit = next((value for value in values if isinstance(value, Unfit)), None)
        if unfit is not None:
            return unfit
        identity = self._step.identity
        if len(values) != self._iterations:
            return Unfit(f"not every iteration of {identity} makes it")
        arrays = [value for value in values if isinstance(value, np.ndarray)]
        if len(arrays) != len(values):
            return Unfit("inside a body, and no tensor")
        if len({(array.shape, array.dtype) for array in arrays}) > 1:
            return Unfit(f"its shape changes from one iteration of {identity} to the next")
        return np.stack(arrays)

    def outputs(self, names: Sequence[str], body: Scope, axes: Sequence[int]) -> list[Array]:
        return [
            np.stack(rows, axis) if rows else _empty(body, name, 1)
            for rows, name, axis in zip(self.rows, names, axes, strict=True)
        ]


def _of_no_iteration(walker: Walker, body: Scope) -> list[tuple[str, Array | Unfit]]:
    found: dict[str, Array | Unfit] = {}
    for step in body.in_execution_order():
        for name in step.outputs:
            shown = walker.shown(step.scope, name)
            if shown is not None:
                known = name in step.scope.types
                found[shown] = (
                    _empty(step.scope, name, 1) if known else Unfit("no iteration ran, and its type is not known")
                )
    return list(found.items())


def _empty(scope: Scope, name: str, leading: int) -> Array:
    """No elements, of the type the body declares; extents it leaves open are 0."""
    home = scope.find(name)
    proto = None if home is None else home.types.get(name)
    dtype = element_name(proto.tensor_type.elem_type) if proto is not None else None
    dims: Sequence[Any] = (proto is not None and shape_of(proto)) or ()
    kind = np.dtype(np.float64) if dtype is None or dtype in WIDENED else numpy_dtype(dtype)
    return np.empty(((0,) * leading) + tuple(dim if isinstance(dim, int) else 0 for dim in dims), kind)
