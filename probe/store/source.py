"""``TensorSource``: names, types and tensors one at a time. A dump is one, an .npz another, a live tap a third."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from probe.results.tensors import RunHeader, TensorInfo

Array = np.ndarray[Any, Any]


class TensorSource(Protocol):
    """Named tensors of one or more inputs. Reading one never holds the others in memory."""

    path: str
    kind: str  # "dump" | "npz" | "npy folder" | "polygraphy" | "safetensors"
    header: RunHeader
    roles_known: bool  # False: the format has no roles, every tensor may be an output

    def rows(self) -> Sequence[TensorInfo]:
        """All tensors in recorded (execution) order, inputs of the network included."""
        ...

    def open(self, row: TensorInfo) -> TensorReader:
        """A reader of one tensor.

        Raises:
            InputError: the bytes are missing, or the row holds no data (``stats_only``, ``not_run``).
        """
        ...

    def close(self) -> None: ...


class TensorReader(Protocol):
    """One tensor, read in windows. Windows may be views of a mapped file: valid until the next ``window`` or ``close``."""

    dtype: str
    shape: tuple[int, ...]

    def window(self, start: int, stop: int) -> Array:
        """Flat elements [start, stop), 1-D, read-only; object array for strings."""
        ...

    def close(self) -> None:
        """Release, and check what was promised: a dump compares the hash of the bytes when all were read in order.

        Raises:
            InputError: the stored bytes are not those that were recorded.
        """
        ...
