"""Whether a network computes the same bits every time, and if not, which tensor is the first that does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.debug.observe import difference
from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.run import RepeatCheck, RepeatDifference, RunFinding
from probe.results.tensors import TensorInfo
from probe.store.opening import read_array
from probe.store.tape import DEFAULT_LIMIT, Tape

if TYPE_CHECKING:
    from probe.engine.assignment import Assignment
    from probe.engine.device.protocol import Tapped
    from probe.engine.engine import Engine
    from probe.store.feeds import InputSet

Array = np.ndarray[Any, Any]
_Found = tuple[int, RepeatDifference]  # with its place in execution order


def check_repeats(
    engine: Engine,
    assignment: Assignment,
    sets: Sequence[InputSet],
    runs: int,
    *,
    memory_limit: int = DEFAULT_LIMIT,
    progress: Callable[[str], None] | None = None,
) -> RepeatCheck:
    """Run every input ``runs`` times with all tensors handed out, and as often without; compare bits with the first run.

    Runs without taps are what is served (on a GPU they are recorded, planned and repeated as a graph): their outputs are compared, too.

    Args:
        runs: at least 2.
        memory_limit: bytes of tensors of the first run held in memory; above, they go to a temporary folder.

    Raises:
        InputError: the network does not run.
    """
    tensors, found = 0, list[_Found]()
    for one in sets:
        with closing(Tape("the first run", memory_limit=memory_limit)) as tape:
            first = _FirstRun(tape, one.id, progress)
            with tape:
                first.outputs = engine.run(one.feeds, assignment, first.record)
            for run in range(2, runs + 1):
                if progress is not None:
                    progress(f"run {run} of {runs}")
                seen: dict[str, None] = {}
                tapped = engine.run(one.feeds, assignment, partial(first.compare_tapped, run, seen))
                first.compare_outputs(
                    run, {name: array for name, array in tapped.items() if name not in seen}, tapped=True
                )
                first.compare_outputs(run, engine.run(one.feeds, assignment), tapped=False)
            tensors += first.count
            found += first.found
    earliest = min(found, key=lambda one: one[0], default=None)
    differing = {(one.input_id, one.tensor) for _, one in found}
    return RepeatCheck(not found, runs, tensors, len(differing), earliest[1] if earliest is not None else None)


class _FirstRun:
    """Tensors of the first run on one input, and what later ones differ in.

    Attributes:
        found: with the place in execution order.
    """

    def __init__(self, tape: Tape, input_id: str, progress: Callable[[str], None] | None) -> None:
        self._tape, self._input, self._progress = tape, input_id, progress
        self._layers: dict[str, str] = {}
        self.outputs: dict[str, Array] = {}
        self.found: list[_Found] = []

    @cached_property
    def _rows(self) -> dict[str, tuple[int, TensorInfo]]:
        return {row.name: (place, row) for place, row in enumerate(self._tape.rows())}

    @property
    def count(self) -> int:
        """Tensors that are compared."""
        return len(self._rows.keys() | self.outputs.keys())

    def record(self, tapped: Tapped) -> None:
        array = tapped.array
        if array is None or tapped.name in self._layers:
            return
        if self._progress is not None:
            self._progress(tapped.name)
        self._layers[tapped.name] = tapped.layer.name
        info = TensorInfo(tapped.name, dtype_name(array.dtype), array.shape, self._input, layer=tapped.layer.name)
        self._tape.add(info, array)

    def compare_tapped(self, run: int, seen: dict[str, None], tapped: Tapped) -> None:
        array = tapped.array
        if array is None or tapped.name in seen or tapped.name not in self._rows:
            return
        seen[tapped.name] = None
        self._compare(tapped.name, array, read_array(self._tape, self._rows[tapped.name][1]), run, tapped=True)

    def compare_outputs(self, run: int, outputs: Mapping[str, Array], *, tapped: bool) -> None:
        for name, array in outputs.items():
            self._compare(name, array, self.outputs[name], run, tapped=tapped)

    def _compare(self, name: str, array: Array, before: Array, run: int, *, tapped: bool) -> None:
        off = difference(name, self._input, array, before)
        if off is not None:
            place = self._rows[name][0] if name in self._rows else len(self._rows)
            layer = self._layers.get(name)
            one = RepeatDifference(name, layer, self._input, run, off.elements, off.count, off.max_abs, tapped)
            self.found.append((place, one))


def of_repeats(check: RepeatCheck) -> tuple[RunFinding, ...]:
    """What differs from run to run is a finding of its own: every other number is of one of those runs."""
    first = check.first
    if first is None:
        return ()
    where = f"of layer {first.layer}" if first.layer else "an output"
    how = "" if first.tapped else ", without taps"
    return (
        RunFinding(
            "not_repeatable",
            f"the same inputs do not give the same bits: {check.differing} of {check.tensors} tensors differ from run to run; the first in execution "
            f"order is {first.tensor}, {where}, in run {first.run}{how}: {first.elements:,} of {first.count:,} elements, by up to {first.max_abs:.3g}",
            tensor=first.tensor, layer=first.layer, range=first.max_abs,
            cure="a kernel whose order of sums is not fixed, or memory that is read before it is written: keep that layer away from its tactic, or "
            "report it with the model", fatal=True,
        ),
    )  # fmt: skip


def check_runs(repeat: int | None, bitwise: bool) -> int:
    """How often ``--repeat`` and ``--bitwise`` ask for; 0: not at all.

    Raises:
        InputError: fewer than two runs, which compare with nothing.
    """
    if repeat is None:
        return 3 if bitwise else 0
    if not bitwise:
        raise InputError("--repeat says how often, --bitwise what for", where="--repeat", hint="--repeat N --bitwise")
    if repeat < 2:
        raise InputError(f"{repeat} runs compare with nothing", where="--repeat", hint="2 or more")
    return repeat
