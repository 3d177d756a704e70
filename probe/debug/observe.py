"""The engine's tensors on tape, and whether looking at them changed what was computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from probe.debug.steps import steps_of
from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.run import ObservedDifference, ObserverCheck
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.feeds import input_infos

if TYPE_CHECKING:
    from probe.engine.assignment import Assignment
    from probe.engine.device.protocol import Resident, Tapped
    from probe.engine.engine import Engine
    from probe.store.feeds import InputSet
    from probe.store.opening import Sink

Array = np.ndarray[Any, Any]
Outputs = dict[str, dict[str, Array]]  # input id -> output -> array


@runtime_checkable
class Holds(Protocol):
    """A sink that holds tensors where the device has them."""

    def hold(self, info: TensorInfo, resident: Resident, /) -> TensorInfo: ...


def record_engine(
    engine: Engine,
    assignment: Assignment,
    sets: Sequence[InputSet],
    sink: Sink,
    *,
    aliases: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Outputs, str]:
    """Run with every stored tensor tapped into ``sink``, network inputs first.

    Args:
        aliases: tensor of the network -> names whose values it holds; each gets a row of its own.

    Returns:
        The graph outputs, and why the engine stopped ("" when it did not): what was recorded until then stays.
    """
    steps = steps_of(engine.layers)
    returned = {port.name for port in engine.network.model.outputs}
    fed = {port.name for port in engine.network.model.inputs}
    outputs: Outputs = {}
    failure = ""
    for one in sets:
        for name, value in one.feeds.items():
            array = np.asarray(value)
            sink.add(TensorInfo(name, dtype_name(array.dtype), array.shape, one.id, role="input"), array)
        seen: set[str] = set()

        def add(
            name: str, held: Array | Resident | None, info: dict[str, Any], note: str = "", input_id: str = one.id
        ) -> None:
            role = "output" if name in returned or name.partition("[")[0] in returned else "internal"
            dtype, shape = ("unknown", ()) if held is None else (dtype_name(held.dtype), tuple(held.shape))
            status = "recorded" if held is not None else "unsupported"
            row = TensorInfo(name, dtype, shape, input_id, role=role, status=status, note=note, **info)
            if held is None or isinstance(held, np.ndarray):
                sink.add(row, held)
            elif isinstance(sink, Holds):
                sink.hold(row, held)
            else:
                sink.add(row, held.array())

        def tap(tapped: Tapped, seen: set[str] = seen, add: Callable[..., None] = add) -> None:
            if progress is not None:
                progress(tapped.name)
            step = steps.get(tapped.name) or steps.get(tapped.name.partition("[")[0])  # an element of a sequence
            info = {
                "precision": "fp32" if tapped.name in assignment.kept else tapped.choice.precision,
                "layer": tapped.layer.name, "nodes": step.nodes if step else (), "reads": step.reads if step else (),
                "tactic": tapped.choice.tactic,
            }  # fmt: skip
            for name in (tapped.name, *(aliases or {}).get(tapped.name, ())):
                if name not in seen:
                    seen.add(name)
                    add(name, tapped.held, info, tapped.note)

        try:
            outputs[one.id] = engine.run(one.feeds, assignment, tap)
        except InputError as error:
            failure = failure or _sentence(error) + (f" (input {one.id})" if len(sets) > 1 else "")
            continue
        for name, array in outputs[one.id].items():  # a weight that is returned comes from no layer
            if name not in seen and name not in fed:
                add(name, array, {})
    settings = engine.settings
    sink.replace_header(
        RunHeader(
            runner="engine", model=str(engine.model.path), model_sha256=engine.model.sha256, precision=settings.precision,
            device=settings.device, interior=settings.interior, passes=settings.passes, fusion=settings.fusion,
            inputs=input_infos(sets),
        )
    )  # fmt: skip
    return outputs, failure


def record_outputs(engine: Engine, assignment: Assignment, sets: Sequence[InputSet], sink: Sink) -> tuple[Outputs, str]:
    """Run without taps; graph outputs alone go into ``sink``. As ``record_engine``."""
    outputs: Outputs = {}
    failure = ""
    fed = {port.name for port in engine.network.model.inputs}
    for one in sets:
        try:
            outputs[one.id] = engine.run(one.feeds, assignment)
        except InputError as error:
            failure = failure or _sentence(error)
            continue
        for name, array in outputs[one.id].items():
            if name not in fed:
                sink.add(TensorInfo(name, dtype_name(array.dtype), array.shape, one.id, role="output"), array)
    sink.replace_header(RunHeader(runner="engine", precision=engine.settings.precision, inputs=input_infos(sets)))
    return outputs, failure


def check_observer(engine: Engine, assignment: Assignment, sets: Sequence[InputSet], tapped: Outputs) -> ObserverCheck:
    """Run again without taps and compare the outputs bit by bit with ``tapped``."""
    differences: list[ObservedDifference] = []
    compared = 0
    for one in sets:
        if one.id not in tapped:
            continue
        untapped = engine.run(one.feeds, assignment)
        for name, array in tapped[one.id].items():
            compared += 1
            found = difference(name, one.id, array, untapped[name])
            differences += [found] if found is not None else []
    return ObserverCheck(not differences, compared, tuple(differences))


def difference(name: str, input_id: str, tapped: Array, untapped: Array) -> ObservedDifference | None:
    """Of two arrays, bit by bit; None where there is none."""
    if tapped.shape != untapped.shape or tapped.dtype != untapped.dtype:
        return ObservedDifference(name, input_id, max(tapped.size, untapped.size), untapped.size, math.inf)
    if tapped.dtype.kind in "OSUT":
        unequal = int((tapped != untapped).sum())
        return ObservedDifference(name, input_id, unequal, tapped.size, 0.0) if unequal else None
    bits = [np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, x.itemsize) for x in (tapped, untapped)]
    unequal = int((bits[0] != bits[1]).any(axis=1).sum()) if tapped.size else 0
    if not unequal:
        return None
    with np.errstate(invalid="ignore"):
        error = np.abs(tapped.astype(np.float64) - untapped.astype(np.float64))
    same = (
        (tapped == untapped) | (np.isnan(tapped) & np.isnan(untapped))
        if tapped.dtype.kind == "f"
        else tapped == untapped
    )
    error[same] = 0.0
    largest = float(error.max())
    return ObservedDifference(name, input_id, unequal, tapped.size, largest if math.isfinite(largest) else math.inf)


def _sentence(error: InputError) -> str:
    return error.what + (f" ({error.where})" if error.where else "")
