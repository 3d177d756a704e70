"""Runs that begin where an assignment begins to differ from earlier ones: what segments of the network made is held and handed out again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime

    from probe.engine.device.cpu.gated import GatedExecutor
    from probe.engine.rounding import Plan

Array = np.ndarray[Any, Any]
MOST_HELD = 16  # results of one segment
_GLANCE = 128  # elements that are compared before whole tensors are: most changes show there
# Types of tensors whose bits numpy can see.
_COMPARED = frozenset(
    f"tensor({name})" for name in "float double float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool".split()
)


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor with its identity.

    Attributes:
        token: two with one token have the same bits.
        glance: some of its bits; None where bits cannot be compared.
    """

    value: onnxruntime.OrtValue
    token: int
    glance: bytes | None = None


_Key = tuple[bytes, tuple[int, ...]]  # switches of a segment, tokens of what it reads


@dataclass(slots=True)
class _Results:
    """What one segment made so far, the most recently used last; what it made first is held for good.

    Attributes:
        reads, returns: names of what it reads and makes.
    """

    reads: tuple[str, ...]
    returns: tuple[str, ...]
    by_key: OrderedDict[_Key, tuple[Held, ...]] = field(default_factory=OrderedDict)
    first: _Key | None = None
    seconds: float = float("inf")  # of its session: the least so far

    def find(self, key: _Key) -> tuple[Held, ...] | None:
        made = self.by_key.get(key)
        if made is not None:
            self.by_key.move_to_end(key)
        return made

    def hold(self, key: _Key, made: tuple[Held, ...], most: int) -> None:
        """Take one more; what was not used for longest goes where there are more than ``most``."""
        self.first = self.first or key
        self.by_key[key] = made
        if len(self.by_key) > most:
            del self.by_key[next(one for one in self.by_key if one != self.first)]

    def same(self, position: int, value: onnxruntime.OrtValue, glance: bytes | None) -> Held | None:
        """What came out at a position before, if it has the same bits."""
        if glance is None:
            return None
        alike = {made[position].token: made[position] for made in self.by_key.values()}
        return next((one for one in alike.values() if one.glance == glance and _same_bits(value, one.value)), None)


class CpuTrace:
    """What the segments made of one set of inputs, under the assignments tried so far.

    Attributes:
        arrays: the inputs; nobody writes to them.
        bytes: that the first run's results take; with those of later runs at most ``most_held`` times that.
        most_held: results of one segment that are held.
    """

    def __init__(
        self,
        segments: Sequence[GatedExecutor],
        feeds: Mapping[str, onnxruntime.OrtValue],
        arrays: Mapping[str, Array],
    ) -> None:
        """
        Args:
            feeds: the inputs as ONNX Runtime takes them, which may share memory with ``arrays``.
        """
        self.most_held = 1
        self.bytes = 0
        self.arrays = arrays
        self._segments = segments
        self._tokens = count()
        self._results = [
            _Results(tuple(v.name or "" for v in one.part.reads), tuple(v.name or "" for v in one.part.returns))
            for one in segments
        ]
        self._inputs = {name: Held(value, next(self._tokens)) for name, value in feeds.items()}

    @property
    def seconds(self) -> float:
        """That all segments together take."""
        return sum(results.seconds for results in self._results)

    def run(self, plans: Mapping[str, Plan]) -> dict[str, onnxruntime.OrtValue]:
        """Everything that segments return, by name; bit for bit what one session for all makes.

        Raises:
            InputError: ONNX Runtime fails.
        """
        state = dict(self._inputs)
        for segment, results in zip(self._segments, self._results, strict=True):
            flags = segment.flags(plans)
            read = [state[name] for name in results.reads]
            key = (flags.tobytes(), tuple([one.token for one in read]))
            made = results.find(key)
            if made is None:
                feeds = {name: one.value for name, one in zip(results.reads, read, strict=True)}
                made = self._run(segment, results, feeds, flags)
                results.hold(key, made, self.most_held)
            state.update(zip(results.returns, made, strict=True))
        return {name: held.value for name, held in state.items()}

    def _run(
        self,
        segment: GatedExecutor,
        results: _Results,
        feeds: Mapping[str, onnxruntime.OrtValue],
        flags: np.ndarray,
    ) -> tuple[Held, ...]:
        begin = time.perf_counter()
        values = list(segment.run(feeds, flags).values())
        results.seconds = min(results.seconds, time.perf_counter() - begin)
        made = []
        for position, value in enumerate(values):
            # What came out as it did before counts as unchanged: what lies behind it need not run again.
            glance = _glance(value)
            made.append(results.same(position, value, glance) or Held(value, next(self._tokens), glance))
        return tuple(made)

    def estimate(self, plans: Mapping[str, Plan]) -> float:
        """Seconds that ``run`` takes at most, as far as measured: as if whatever runs changed everything it makes."""
        tokens: dict[str, int | None] = {name: held.token for name, held in self._inputs.items()}
        total = 0.0
        for segment, results in zip(self._segments, self._results, strict=True):
            read = tuple(token for name in results.reads if (token := tokens[name]) is not None)
            made = None
            if len(read) == len(results.reads):
                made = results.by_key.get((segment.flags(plans).tobytes(), read))
            total += 0.0 if made is not None else results.seconds
            new = (one.token for one in made) if made is not None else (None for _ in results.returns)
            tokens.update(zip(results.returns, new, strict=True))
        return total

    def hold(self, limit: int) -> None:
        """After the first run: take as many results of each segment as fit into ``limit`` bytes."""
        held = [one.value for results in self._results for made in results.by_key.values() for one in made]
        self.bytes = sum(value.tensor_size_in_bytes() for value in held if value.has_value() and value.is_tensor())
        self.most_held = max(1, min(MOST_HELD, limit // max(self.bytes, 1)))


def _bits(value: onnxruntime.OrtValue) -> Array:
    array = value.numpy().reshape(-1)
    return array.view(f"u{array.dtype.itemsize}")


def _glance(value: onnxruntime.OrtValue) -> bytes | None:
    """Some bits of a tensor, from all over it; None for what is no tensor of a type that numpy knows."""
    if not value.has_value() or not value.is_tensor() or value.data_type() not in _COMPARED:
        return None
    bits = _bits(value)
    return bits[:: max(1, bits.size // _GLANCE)].tobytes()


def _same_bits(one: onnxruntime.OrtValue, other: onnxruntime.OrtValue) -> bool:
    """Whether two tensors, of types that numpy knows, are the same."""
    return (
        one.data_type() == other.data_type()
        and one.shape() == other.shape()
        and np.array_equal(_bits(one), _bits(other))
    )
