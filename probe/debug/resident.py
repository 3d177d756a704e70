"""``ResidentTape``: a recording whose tensors stay on the device that made them, and are compared there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from probe.debug.device_sums import Reference, asked_of, reference_of, sums_of
from probe.engine.device.protocol import Compares
from probe.precision import dtype_name
from probe.store.opening import read_array
from probe.store.tape import DEFAULT_LIMIT, Tape

if TYPE_CHECKING:
    from probe.engine.device.pairs import Answer
    from probe.engine.device.protocol import Comparison, Resident
    from probe.engine.engine import Engine
    from probe.metrics.measure import Spec
    from probe.metrics.sums import Sums
    from probe.results.tensors import RunHeader, TensorInfo
    from probe.store.source import TensorReader, TensorSource

Array = np.ndarray[Any, Any]
Key = tuple[str, str]  # name, input id
_GOLDEN_SHARE, _ACTUAL_SHARE = 2, 4  # of the device's free memory: a half, a quarter


class ResidentTape:
    """As ``Tape``: written like a dump and read like one. What a device hands out without copying it is held where it is, up to a quarter of the
    device's free memory; the rest goes to the host.

    As a source that compares its own tensors (``probe.compare.pair.Measures``) it is told of all pairs first. Goldens are copied to the device
    once, up to half of its free memory; each further one is copied each time and given up. What the device does not compare (integers,
    shapes of numpy's own) is compared on the host.

    Attributes:
        on_device: pairs that the device compared; ``on_host`` the others.
        golden_bytes: of goldens that are kept on the device.
    """

    kind = "tape"
    roles_known = True

    def __init__(self, path: str, device: Compares, *, worst: int = 5, memory_limit: int = DEFAULT_LIMIT) -> None:
        """
        Args:
            worst: elements with the largest error looked up of each pair.
            memory_limit: bytes of tensors held in memory on the host.
        """
        self._host = Tape(path, memory_limit=memory_limit)
        self.path, self.header = path, self._host.header
        self._device, self._worst = device, worst
        room = device.room()
        self._golden_limit, self._actual_limit = room // _GOLDEN_SHARE, room // _ACTUAL_SHARE
        self._held: dict[Key, Resident] = {}
        self._held_bytes = self.golden_bytes = self.on_device = self.on_host = 0
        self._passing: set[tuple[int, str, str]] = set()
        self._order: list[TensorInfo] = []
        self._goldens: dict[tuple[int, str, str], tuple[Resident | None, Reference | None]] = {}
        self._comparison: Comparison | None = None
        self._tickets: dict[tuple[Any, ...], tuple[int, Reference]] = {}
        self._answers: list[Answer] = []
        self._answered: dict[Key, Answer] = {}

    # --- as a sink

    def __enter__(self) -> Self:
        self._host.__enter__()
        return self

    def add(self, info: TensorInfo, array: Array | None) -> TensorInfo:
        """As ``Tape.add``."""
        row = self._host.add(info, array)
        self._order.append(row)
        return row

    def hold(self, info: TensorInfo, resident: Resident) -> TensorInfo:
        """As ``add``, of a tensor on the device. Its row has no statistics before it was compared."""
        if self._held_bytes + resident.nbytes > self._actual_limit:
            return self.add(info, resident.array())
        row = replace(
            info,
            dtype=dtype_name(resident.dtype),
            shape=tuple(resident.shape),
            bytes=resident.dtype.itemsize * info.count,
        )
        self._held[info.name, info.input_id] = resident
        self._held_bytes += resident.nbytes
        self._order.append(row)
        return row

    def replace_header(self, header: RunHeader) -> None:
        """Change the run header."""
        self.header = header
        self._host.replace_header(header)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.__exit__(kind, error, trace)

    # --- as a source

    def rows(self) -> Sequence[TensorInfo]:
        there = {(row.name, row.input_id): row for row in self._host.rows()}
        return [there.get((row.name, row.input_id)) or self._described(row) for row in self._order]

    def _described(self, row: TensorInfo) -> TensorInfo:
        """With the statistics that comparing gave."""
        answer = self._answered.get((row.name, row.input_id))
        if answer is None:
            return row
        one = answer.sums
        known = one.compared and not one.sentinels and not one.nan_golden and not one.inf_golden
        if not known:
            return replace(row, nan=one.nan_actual, inf=one.inf_actual)
        low, high = one.actual_min, one.actual_max
        return replace(
            row, nan=one.nan_actual, inf=one.inf_actual, min=low, max=high, absmax_finite=max(abs(low), abs(high))
        )

    def open(self, row: TensorInfo) -> TensorReader:
        held = self._held.get((row.name, row.input_id))
        return _Reader(held) if held is not None else self._host.open(row)

    def resident(self, name: str, input_id: str) -> Resident | None:
        """A tensor that is held on the device."""
        return self._held.get((name, input_id))

    def close(self) -> None:
        self._host.close()
        self._held.clear()
        self._goldens.clear()
        self._comparison = None

    # --- as a source that compares

    def expect(self, row: TensorInfo, golden: TensorSource, golden_row: TensorInfo, spec: Spec) -> None:
        """Begin to compare a pair; ``sums`` will ask for it."""
        actual = self._held.get((row.name, row.input_id))
        if actual is None or row.dtype != "float32" or golden_row.dtype != "float32":
            return
        twin, reference = self.golden_of(golden, golden_row)
        asked = asked_of(reference, spec) if reference is not None else None
        if asked is None or twin is None or reference is None:
            return
        if self._comparison is None:
            self._comparison = self._device.comparing(self._worst)
        at = self._comparison.add(actual, twin, asked)
        if at is not None:
            self._tickets[_ticket(row, golden, golden_row, spec)] = len(self._answers) + at, reference

    def sums(self, row: TensorInfo, golden: TensorSource, golden_row: TensorInfo, spec: Spec) -> Sums | None:
        """Of a pair; None where numpy has to make them."""
        ticket = self._tickets.get(_ticket(row, golden, golden_row, spec))
        if self._comparison is not None:
            self._answers += self._comparison.answers()
            self._comparison = None
        found = None
        if ticket is not None:
            answer = self._answers[ticket[0]]
            self._answered[row.name, row.input_id] = answer
            found = sums_of(answer, ticket[1], spec)
        self.on_device += found is not None
        self.on_host += found is None
        return found

    def golden_of(self, golden: TensorSource, row: TensorInfo) -> tuple[Resident | None, Reference | None]:
        """A golden tensor on the device, and what is known of it; None where it is not compared there."""
        key = (id(golden), row.name, row.input_id)
        if key in self._goldens:
            return self._goldens[key]
        array = read_array(golden, row)
        if self._comparison is None:
            self._comparison = self._device.comparing(self._worst)
        found = self._comparison.hold(array), reference_of(array)
        if self.golden_bytes + array.nbytes <= self._golden_limit:
            self.golden_bytes += array.nbytes
            self._goldens[key] = found
        else:
            self._passing.add(key)
        return found

    @property
    def note(self) -> str:
        """What was compared where, in words; "" when nothing was compared on the device."""
        if not self.on_device:
            return ""
        text = f"{self.on_device:,} tensors were compared on the device, {self.on_host:,} on the host"
        if self._passing:
            text += f"; {len(self._passing):,} goldens found no room on the device and were copied each time"
        return text


def tape_for(engine: Engine, *, worst: int = 5, memory_limit: int = DEFAULT_LIMIT) -> Tape | ResidentTape:
    """For all tensors of a run: where the device that makes them compares them, else on the host."""
    if isinstance(engine.device, Compares):
        return ResidentTape("engine", engine.device, worst=worst, memory_limit=memory_limit)
    return Tape("engine", memory_limit=memory_limit)


class _Reader:
    """Of a tensor on the device: what is asked for is copied."""

    def __init__(self, held: Resident) -> None:
        self._held = held
        self.dtype, self.shape = dtype_name(held.dtype), tuple(held.shape)

    def window(self, start: int, stop: int) -> Array:
        return self._held.window(start, stop)

    def close(self) -> None:
        return None


def _ticket(row: TensorInfo, golden: TensorSource, golden_row: TensorInfo, spec: Spec) -> tuple[Any, ...]:
    return row.name, row.input_id, id(golden), golden_row.name, golden_row.input_id, spec
