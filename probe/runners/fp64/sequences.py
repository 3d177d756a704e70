"""Sequences are lists of arrays, an optional without a value is None."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.runners.fp64.calls import Call, Kernel, Value, plain
from probe.runners.protocol import Array

Sequence = list[Any]


def _position(index: Array | None, default: int) -> int:
    return default if index is None else int(index.reshape(-1)[0])


def _at(items: Sequence, index: Array) -> Value:
    position = _position(index, 0)
    if not -len(items) <= position < len(items):
        raise IndexError(f"position {position} in a sequence of {len(items)}")
    return items[position]


def _insert(items: Sequence, item: Array, index: Array | None = None) -> Sequence:
    position = _position(index, len(items))
    position = position + len(items) if position < 0 else position
    return [*items[:position], item, *items[position:]]


def _erase(items: Sequence, index: Array | None = None) -> Sequence:
    position = _position(index, len(items) - 1) % len(items)
    return [*items[:position], *items[position + 1 :]]


def _concat(call: Call, items: Sequence) -> Array:
    return np.stack(items, call["axis"]) if call.get("new_axis", 0) else np.concatenate(items, call["axis"])


def _split(call: Call, x: Array, split: Array | None = None) -> Sequence:
    axis = call.get("axis", 0)
    extent = x.shape[axis]
    if split is None:
        parts = np.split(x, extent, axis)
        return parts if call.get("keepdims", 1) else [np.squeeze(part, axis) for part in parts]
    if split.ndim:
        return list(np.split(x, np.cumsum(split)[:-1], axis))
    return list(np.split(x, np.arange(int(split), extent, int(split)), axis))


def _has_element(value: Value = None) -> Array:
    return np.array(value is not None)


def _get_element(value: Value) -> Value:
    if value is None:
        raise ValueError("the optional holds no value")
    return value


KERNELS: dict[str, Kernel] = {
    "ConcatFromSequence": _concat,
    "SplitToSequence": _split,
    **plain(
        {
            "SequenceConstruct": lambda *items: list(items),
            "SequenceEmpty": list,
            "SequenceAt": _at,
            "SequenceInsert": _insert,
            "SequenceErase": _erase,
            "SequenceLength": lambda items: np.array(len(items), np.int64),
            "Optional": lambda value=None: value,
            "OptionalHasElement": _has_element,
            "OptionalGetElement": _get_element,
        }
    ),
}
