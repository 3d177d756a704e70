"""The golden of a search: graph outputs of every input in memory, found once by whatever id the golden gives the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from probe.compare.align import pair_inputs
from probe.errors import InputError
from probe.metrics.acceptance import BLANK
from probe.metrics.plain import Reference
from probe.precision import Kind, dtype_name, kind_of
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.feeds import InputSet, input_infos
from probe.store.numpy_files import ArrayReader
from probe.store.opening import read_array

if TYPE_CHECKING:
    from probe.results.diff import Criterion
    from probe.store.source import TensorSource

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Mapping[str, Array]]  # input id -> output -> array


@dataclass(frozen=True, slots=True)
class Golden:
    """One output of one input. ``reference`` None: golden has no values, ``note`` says why."""

    dtype: str
    kind: Kind
    shape: tuple[int, ...]
    reference: Reference | None
    note: str = ""
    step: float | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What the outputs should be.

    Attributes:
        ids: of the inputs that are judged, in order.
        names: of the graph outputs, in recorded order.
        known: every name that golden has.
        fed: names of network inputs; a graph that returns one computes nothing there.
        quantised: the golden is of a Q/DQ model, for which there is no default acceptance.
        tensors: input id -> output -> golden.
        first: output -> golden of the first input that has it: its type is the output's.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    known: frozenset[str]
    fed: frozenset[str]
    quantised: bool
    tensors: Mapping[str, Mapping[str, Golden]]
    first: Mapping[str, Golden]


def expected_of(golden: TensorSource | Arrays, outputs: Sequence[str], inputs: Sequence[InputSet | str]) -> Expected:
    """Read the outputs of a golden.

    Args:
        golden: a recording, or arrays by input id and name.
        outputs: names of the graph outputs, for recordings without roles; elements of a sequence count with it. Empty: every tensor is one.
        inputs: to be judged. Ids alone are found as the only one, or by the id; input sets by content too. Empty: all of golden's.

    Raises:
        InputError: an input that golden lacks, no outputs, or an output without values.
    """
    source: Any = golden if hasattr(golden, "rows") else _InMemory(cast(Arrays, golden))
    partner = _partners(source, inputs)
    rows = [row for row in source.rows() if row.role != "input"]
    judged = [row for row in rows if (row.role == "output" if source.roles_known else _is_one_of(row.name, outputs))]
    if not judged:
        raise InputError(f"{source.path} holds no outputs of the network", hint="record outputs with probe dump")
    tensors: dict[str, dict[str, Golden]] = {}
    read: dict[str, dict[str, Golden]] = {}
    for row in judged:
        if row.input_id in partner.values():
            read.setdefault(row.input_id, {})[row.name] = _read(source, row)
    for mine, theirs in partner.items():
        tensors[mine] = read.get(theirs, {})
    fed = {row.name for row in source.rows() if row.role == "input"}
    fed |= {name for one in inputs if not isinstance(one, str) for name in one.feeds}
    names = tuple(dict.fromkeys(row.name for row in judged if row.input_id in read))
    known = frozenset(row.name for row in rows)
    first = {name: next(found[name] for found in tensors.values() if name in found) for name in names}
    return Expected(tuple(partner), names, known, frozenset(fed), "qdq" in source.header.golden, tensors, first)


def check_criteria(expected: Expected, criteria_for: Callable[[str], Sequence[Criterion]]) -> None:
    """Whether every output is judged by something: by nothing, it passes only where it is identical.

    Args:
        criteria_for: type of an output -> the criteria of outputs of this type.

    Raises:
        InputError: naming an output that no criterion is of.
    """
    for name in expected.names:
        if not any(one.output in (None, name) for one in criteria_for(expected.first[name].dtype)):
            default = "; Q/DQ models have no default acceptance" if expected.quantised else ""
            raise InputError(
                f"nothing says what is good enough for output {name!r}", where="--accept",
                hint=f"--accept 'range_rel<=0.01' is for all outputs{default}",
            )  # fmt: skip


def check_numbers(expected: Expected, blank: Callable[[str, Array, str], bool]) -> None:
    """Whether golden has something to compare with in every output: by one that has not, whatever is kept, nothing passes.

    Args:
        blank: output, its golden, id of the input -> whether nothing can be compared with it.

    Raises:
        InputError: naming an output without numbers for any input.
    """
    for name in expected.names:
        each = {key: found[name].reference for key, found in expected.tensors.items() if name in found}
        if each and all(one is not None and blank(name, one.array, key) for key, one in each.items()):
            raise InputError(
                f"output {name!r}: {BLANK}", where="by it, neither FP32 nor anything else passes",
                hint="see where NaN or Inf begin, in the inputs or inside the network: probe dump MODEL -o golden",
            )  # fmt: skip


def _is_one_of(name: str, outputs: Sequence[str]) -> bool:
    return not outputs or name in outputs or name.rpartition("[")[0] in outputs


def _partners(source: TensorSource, inputs: Sequence[InputSet | str]) -> dict[str, str]:
    """Id of a judged input -> id of golden."""
    if not inputs:
        return {key: key for key in dict.fromkeys(row.input_id for row in source.rows())}
    pairs, _ = pair_inputs(cast("TensorSource", _Wanted(inputs)), source)
    found = {pair.actual: pair.golden for pair in pairs}
    ids = [one if isinstance(one, str) else one.id for one in inputs]
    missing = [key for key in ids if key not in found]
    if missing:
        have = ", ".join(list(dict.fromkeys(row.input_id for row in source.rows()))[:5])
        raise InputError(
            f"the golden has no recording of input {missing[0]!r}", where=f"{source.path} has {have}",
            hint="record it with the same --inputs",
        )  # fmt: skip
    return {key: found[key] for key in ids}


def _read(source: TensorSource, row: TensorInfo) -> Golden:
    if row.status == "stats_only":
        raise InputError(
            f"the golden holds no values of output {row.name!r}", where=source.path,
            hint="record it without --stats-only",
        )  # fmt: skip
    if row.status != "recorded":
        note = "ran in actual only" if row.status == "not_run" else row.note
        return Golden(row.dtype, kind_of(row.dtype), row.shape, None, note, row.step)
    return Golden(row.dtype, kind_of(row.dtype), row.shape, Reference(read_array(source, row)), step=row.step)


class _Wanted:
    """Inputs as the side of a comparison that has them."""

    path = "the inputs"

    def __init__(self, inputs: Sequence[InputSet | str]) -> None:
        sets = [one for one in inputs if not isinstance(one, str)]
        self._ids = [one if isinstance(one, str) else one.id for one in inputs]
        self.header = RunHeader(inputs=input_infos(sets))

    def rows(self) -> Sequence[TensorInfo]:
        return [TensorInfo("", "float32", (), key, role="input", status="not_run") for key in self._ids]


class _InMemory:
    """Arrays by input id as a recording of outputs."""

    path = "golden arrays in memory"
    roles_known = True
    header = RunHeader()

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = {
            (name, key): np.asarray(array) for key, named in arrays.items() for name, array in named.items()
        }

    def rows(self) -> Sequence[TensorInfo]:
        return [
            TensorInfo(name, dtype_name(array.dtype), array.shape, key, role="output")
            for (name, key), array in self._arrays.items()
        ]

    def open(self, row: TensorInfo) -> ArrayReader:
        return ArrayReader(self._arrays[row.name, row.input_id])
