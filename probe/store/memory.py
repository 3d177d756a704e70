"""Arrays in memory as a ``TensorSource``: what a Python program computed, without a file in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.numpy_files import ArrayReader


def as_array(value: Any, name: str) -> np.ndarray[Any, Any]:
    """A value under a name as numpy's array of it.

    Raises:
        InputError: it has none, as lists of several lengths.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"no array can be made of {name!r}: {error}", hint="rows of equal length, numbers only"
        ) from None


class Arrays:
    """Named arrays of one input, in the mapping's order. Nothing is copied; every tensor may be an output.

    Values may be anything numpy makes an array of: ``{"y": [1.0, 2.0]}``.

    Raises:
        InputError: a value has a type that no tensor has.
    """

    kind = "arrays"
    roles_known = False

    def __init__(self, arrays: Mapping[str, Any], path: str = "arrays in memory") -> None:
        self.path = path
        self.header = RunHeader()
        self._arrays = {name: as_array(value, name) for name, value in arrays.items()}
        self._rows = [
            TensorInfo(name=name, dtype=dtype_name(array.dtype), shape=array.shape)
            for name, array in self._arrays.items()
        ]

    def rows(self) -> Sequence[TensorInfo]:
        return self._rows

    def open(self, row: TensorInfo) -> ArrayReader:
        return ArrayReader(self._arrays[row.name])

    def close(self) -> None:
        return None
