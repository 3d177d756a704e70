"""``Evidence``: a compiled network with what it should compute and what it computed, tensor by tensor. What findings are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.debug.causes import Event, Operand, is_float, largest
from probe.debug.steps import Step, operator_of, steps_of
from probe.engine.network import constant
from probe.errors import InputError
from probe.precision import PRECISIONS, kind_of
from probe.results.diff import TensorDiff
from probe.results.tensors import TensorInfo
from probe.store.opening import read_array

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource

Array = np.ndarray[Any, Any]


@dataclass
class Evidence:
    """
    Args:
        golden, actual: recordings; ``actual`` of this engine under ``assignment``.
        pairs: input id of ``actual`` -> input id of ``golden``.
        sets: the network inputs by input id of ``actual``.
        tensors: what comparing the two gave, by golden name.
    """

    engine: Engine
    assignment: Assignment
    golden: TensorSource
    actual: TensorSource
    pairs: Mapping[str, str]
    sets: Mapping[str, InputSet]
    tensors: Mapping[str, TensorDiff] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._reaches: dict[tuple[str, str], float | None] = {}
        self._golden_rows = _rows(self.golden)
        self._actual_rows = _rows(self.actual)
        self.steps = steps_of(self.engine.layers)
        self.readers: dict[str, list[str]] = {}
        for step in self.steps.values():
            for read in step.reads:
                self.readers.setdefault(read, []).append(step.name)
        # Values that the network makes under one name and the golden has under another.
        self._aliases: dict[str, str] = {}
        for name in {name for name, _ in self._golden_rows} - self.steps.keys():
            status, to = self.engine.fate(name)
            if status == "equivalent":
                self._aliases.setdefault(to, name)

    # --- arrays ------------------------------------------------------------------------------------------------------

    def golden_array(self, name: str, input_id: str) -> Array | None:
        """What a tensor should be; None where the golden does not have it."""
        other = self.pairs[input_id]
        row = self._golden_rows.get((name, other)) or self._golden_rows.get((self._aliases.get(name, ""), other))
        if row is not None and row.status == "recorded":
            return _countable(read_array(self.golden, row))
        fed = self.sets[input_id].feeds.get(name)
        return None if fed is None else _countable(np.asarray(fed))

    def actual_array(self, name: str, input_id: str) -> Array | None:
        """What the run made; None for what nothing was handed out of."""
        row = self._actual_rows.get((name, input_id))
        if row is not None and row.status == "recorded":
            return _countable(read_array(self.actual, row))
        fed = self.sets[input_id].feeds.get(name)
        return None if fed is None else _countable(np.asarray(fed))

    def golden_reach(self, name: str, input_id: str) -> float | None:
        """max |golden| of a float tensor over finite elements; None for others and for what the golden does not have."""
        key = (name, input_id)
        if key not in self._reaches:
            row = self.golden_row(name, input_id)
            if row is not None and row.absmax_finite is not None:
                self._reaches[key] = row.absmax_finite if kind_of(row.dtype) == "float" else None
            else:
                array = self.golden_array(name, input_id)
                self._reaches[key] = largest(array) if array is not None and is_float(array) else None
        return self._reaches[key]

    def actual_row(self, name: str, input_id: str) -> TensorInfo | None:
        return self._actual_rows.get((name, input_id))

    def golden_row(self, name: str, input_id: str) -> TensorInfo | None:
        other = self.pairs[input_id]
        return self._golden_rows.get((name, other)) or self._golden_rows.get((self._aliases.get(name, ""), other))

    def golden_reads(self, layer: Layer, input_id: str) -> dict[str, Array] | str:
        """What a layer should read, in the types it reads; or why that is not known."""
        found: dict[str, Array] = {}
        for value in layer.reads:
            array = self.golden_array(value.name or "", input_id)
            if array is None:
                row = self.golden_row(value.name or "", input_id)
                return f"did not run: {row.note}" if row is not None and row.status == "not_run" else (
                    f"reads {value.name}, which the golden does not have"
                )  # fmt: skip
            found[value.name or ""] = _as_read(array, value)
        return found

    def actual_reads(self, layer: Layer, input_id: str) -> dict[str, Array] | None:
        """What a layer read in the run; None where something of it was not handed out."""
        found: dict[str, Array] = {}
        for value in layer.reads:
            array = self.actual_array(value.name or "", input_id)
            if array is None:
                return None
            found[value.name or ""] = _as_read(array, value)
        return found

    # --- events ------------------------------------------------------------------------------------------------------

    def event(self, name: str, input_id: str, *, on_golden: bool = False) -> Event | None:
        """A tensor with its golden and actual values and those of what its node reads; None where a side is not known."""
        step = self.steps.get(name)
        if step is None:
            return None
        golden, actual = self.golden_array(name, input_id), self.actual_array(name, input_id)
        if golden is None or actual is None or golden.shape != actual.shape or not is_float(golden):
            return None
        choice = self.assignment.of(step.layer.name)
        return Event(
            tensor=name,
            node=step.identity,
            op=operator_of(step.node),
            form=PRECISIONS[choice.precision],
            golden=golden,
            actual=actual,
            operands=tuple(self._operands(step, input_id)),
            on_golden=self._on_golden(step, input_id) if on_golden else None,
        )

    def _operands(self, step: Step, input_id: str) -> Iterator[Operand]:
        for value in step.node.inputs:
            if value is None:
                continue
            held = constant(value)
            if held is not None:
                yield Operand(value.name or "", _countable(np.asarray(held.numpy())), constant=True)
                continue
            golden = self.golden_array(value.name or "", input_id)
            if golden is not None:
                yield Operand(value.name or "", golden, self.actual_array(value.name or "", input_id))

    def _on_golden(self, step: Step, input_id: str) -> Array | None:
        """What the layer makes of the tensor from golden inputs, in its own precision."""
        reads = self.golden_reads(step.layer, input_id)
        if isinstance(reads, str) or step.layer.kind == "if":
            return None
        try:
            made = self.engine.evaluate(
                step.layer, reads, self.assignment.of(step.layer.name), kept=self.assignment.kept
            )
        except InputError:
            return None  # it fails on the golden's inputs, too: then nothing can be told from it
        return made.get(step.name)

    # --- the graph ---------------------------------------------------------------------------------------------------

    def inputs_of(self, name: str) -> tuple[str, ...]:
        """What the node of a tensor reads, network inputs included; () for those."""
        step = self.steps.get(name)
        return () if step is None else step.reads

    def worst_input(self, name: str) -> str:
        """The input (id of ``actual``) on which a tensor is worst; the first when there is only one."""
        tensor = self.tensors.get(name) or self.tensors.get(self._aliases.get(name, ""))
        ours = {label: one for one, label in self.pairs.items()}
        if tensor is not None and tensor.worst_input in ours:
            return ours[tensor.worst_input or ""]
        return next(iter(self.pairs))

    def tensor(self, name: str) -> TensorDiff | None:
        """What comparing a tensor gave, under this name or the one that the golden has its values under."""
        return self.tensors.get(name) or self.tensors.get(self._aliases.get(name, ""))


def _rows(source: TensorSource) -> dict[tuple[str, str], TensorInfo]:
    return {(row.name, row.input_id): row for row in source.rows() if row.role != "input" or source.roles_known}


def _as_read(array: Array, value: ir.Value) -> Array:
    """An FP64 golden, or one stored narrower, in the type that the network reads."""
    wanted = value.dtype
    if wanted is None or not is_float(array):
        return array
    with np.errstate(over="ignore"):  # what FP64 reaches and FP32 does not is Inf there
        return array.astype(wanted.numpy(), copy=False)


def _countable(array: Array) -> Array:
    """bfloat16 and 8-bit floats as FP32, which holds them exactly: between their own numbers and a format's limits numpy would round."""
    return array.astype(np.float32) if is_float(array) and array.dtype.kind != "f" else array
