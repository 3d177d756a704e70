"""``fp64``: every tensor of a network, computed in float64 with numpy. What FP32 goldens are measured against."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from probe.errors import InputError
from probe.model.feeds import check_feeds, element_type
from probe.precision import dtype_name, numpy_dtype
from probe.results.tensors import RunHeader, TensorInfo
from probe.runners.fp64.calls import WIDENED, Value, widen
from probe.runners.fp64.evaluate import Evaluator
from probe.runners.fp64.frames import Idle, Unfit, in_order
from probe.runners.fp64.rows import Row, Rows
from probe.runners.protocol import DEFAULT_OPTIONS, Array, RunnerOptions, RunnerTensor
from probe.runners.provenance import environment, row_of

if TYPE_CHECKING:
    from probe.model.model import Model

_ELEMENT = re.compile(r"(?P<name>.+)\[\d+\]", re.DOTALL)


class Fp64Runner:
    """Every float32, float16 and bfloat16 tensor of the model in float64: weights, constants, inputs (all exactly), what is computed, and
    types that attributes name. Integers stay what they are; Q/DQ nodes stay, their scales being the stored numbers.

    Tensors are freed after their last reader; those inside If, Loop and Scan are handed out under the names the ``ort`` runner uses.
    Weights are widened once and kept up to 2 GiB.

    Raises:
        InputError: asked to run the model as it is typed.
    """

    name = "fp64"

    def __init__(self, model: Model, options: RunnerOptions = DEFAULT_OPTIONS) -> None:
        if options.as_is:
            raise InputError(
                "fp64 computes in float64, whatever the model's types", where="--as-is", hint="--golden ort"
            )
        self._model = model
        self._rows = Rows(model, options.select, bodies=options.bodies)
        self._evaluator: Evaluator | None = None
        self._notes: list[str] = list(model.notes)
        called = {(node.domain, node.op) for node in model.nodes}
        self._notes += [
            f"local function {f.name}: tensors inside local functions are not recorded, their outputs are"
            for f in model.proto.functions
            if (f.domain, f.name) in called
        ]
        self._elements: dict[str, tuple[str, ...]] = {}  # rows of the current run that stand for one sequence

    @property
    def header(self) -> RunHeader:
        import onnx

        made = ["fp64"]
        made += [f"upcast from {self._model.half}"] if self._model.half else []
        made += ["qdq kept"] if self._model.numerics == "qdq" else []
        return RunHeader(
            runner="fp64",
            model=str(self._model.path),
            model_sha256=self._model.sha256,
            precision="fp64",
            golden=", ".join(made),
            device="cpu",
            passes="none",
            fusion="none",
            environment=environment(onnx=onnx.__version__),
            notes=tuple(self._notes),
        )

    def run(self, feeds: Mapping[str, Array], input_id: str) -> Iterator[RunnerTensor]:
        """As ``Runner.run``. Rows: tensors in execution order, ``not_run`` for those of an If branch that was not taken, at the end
        ``unsupported`` for those that cannot be handed out. A sequence gives a row an element, ``NAME[i]``.

        Raises:
            InputError: the inputs do not fit, or a node cannot be evaluated in float64.
        """
        said: list[str] = []
        checked = check_feeds(self._model, feeds, notes=said)
        self._notes += [note for note in said if note not in self._notes]
        if self._evaluator is None:
            self._evaluator = Evaluator(self._model, self._rows.shown)
        self._elements.clear()
        refused = dict(self._rows.refused)
        for event in self._evaluator.run(_values(self._model, checked), self._rows.returned()):
            if isinstance(event, Idle):
                yield from self._idle(event, input_id)
            elif isinstance(event.value, Unfit):
                refused[event.name] = event.value.reason
            else:
                yield from self._made(self._rows[event.name], event.value, input_id)
        for name, reason in refused.items():
            info = TensorInfo(name, "unknown", (), input_id=input_id, status="unsupported", note=reason)
            yield RunnerTensor(info, None)

    def _made(self, row: Row, value: Value, input_id: str) -> Iterator[RunnerTensor]:
        if isinstance(value, np.ndarray):
            yield RunnerTensor(
                row_of(row, self._elements, input_id, "", dtype_name(value.dtype), value.shape, row.note), value
            )
        elif isinstance(value, list) and value and all(isinstance(one, np.ndarray) for one in value):
            names = tuple(f"[{i}]" for i in range(len(value)))
            self._elements[row.name] = tuple(row.name + suffix for suffix in names)
            for i, (suffix, one) in enumerate(zip(names, value, strict=True)):
                note = f"element {i} of {len(value)} of a sequence"
                yield RunnerTensor(
                    row_of(row, self._elements, input_id, suffix, dtype_name(one.dtype), one.shape, note), one
                )
        elif isinstance(value, list) and not value:
            empty = np.empty(0, self._element_type(row.name))
            yield RunnerTensor(
                row_of(row, self._elements, input_id, "", dtype_name(empty.dtype), (0,), "an empty sequence"), empty
            )
        else:
            note = "an optional without a value" if value is None else "no tensor and no sequence of tensors"
            yield RunnerTensor(row_of(row, self._elements, input_id, "", "unknown", (), note, "unsupported"), None)

    def _element_type(self, name: str) -> np.dtype:
        """Of the tensors in a sequence; float64 where the model does not say."""
        from probe.model.elements import element_name, elements_of

        proto = self._model.root.types.get(name)
        known = next((element_name(number) for number in elements_of(proto)), None) if proto is not None else None
        return np.dtype(np.float64) if known is None or known in WIDENED else numpy_dtype(known)

    def _idle(self, event: Idle, input_id: str) -> Iterator[RunnerTensor]:
        seen = {self._rows.shown(event.taken, name) for name in event.taken.producers}
        for step in in_order(event.body):
            for name in step.outputs:
                shown = self._rows.shown(step.scope, name)
                if shown is None or shown in seen:
                    continue
                seen.add(shown)  # both branches of an If deeper inside may make it
                row = self._rows[shown]
                info = row_of(row, self._elements, input_id, "", row.dtype, (), f"{row.body} did not run", "not_run")
                yield RunnerTensor(info, None)

    def close(self) -> None:
        self._evaluator = None


def _values(model: Model, feeds: Mapping[str, Array]) -> dict[str, Value]:
    """Every graph input as the evaluator takes it: widened, elements of a sequence in a list, None for an optional left out."""
    values: dict[str, Value] = {}
    for port in model.inputs:
        if port.dtype.startswith("seq(") or "seq(" in element_type(port):
            values[port.name] = [
                widen(array)
                for key, array in feeds.items()
                if (m := _ELEMENT.fullmatch(key)) and m["name"] == port.name
            ]
        else:
            values[port.name] = widen(feeds[port.name]) if port.name in feeds else None
    return values
