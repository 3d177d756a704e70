"""What becomes of a constant's values in a low precision."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from probe.errors import InputError
from probe.precision import PRECISIONS, round_to

Array = np.ndarray[Any, Any]


class Constant(Protocol):
    """A stored tensor, of whichever graph."""

    def numpy(self) -> Array: ...


def lost_in(tensor: Constant, precision: str, name: str) -> str:
    """What rounding does to a tensor beyond its last digits, in words: finite numbers that become Inf, a scalar that becomes 0; "" for neither."""
    array = numbers(tensor, name)
    with np.errstate(invalid="ignore"):
        magnitude = np.abs(array)
    low = PRECISIONS[precision]
    # Half a step above the largest number rounds up to Inf.
    overflows = np.isfinite(magnitude) & (magnitude >= low.max * (1 + low.roundoff / 2))
    count = int(np.count_nonzero(overflows))
    if count:
        largest = float(array.reshape(-1)[int(np.argmax(np.where(overflows, magnitude, 0)))])
        became = "-Inf" if largest < 0 else "Inf"
        of = "" if array.size == 1 else f"{count} of {array.size} elements, "
        return f"{of}{largest:.6g} becomes {became}"
    if array.size == 1 and np.all(magnitude > 0) and np.all(round_to(array, precision) == 0):
        return f"{float(array.reshape(-1)[0]):.6g} becomes 0"
    return ""


def numbers(tensor: Constant, name: str) -> Array:
    """The values of a constant.

    Raises:
        InputError: its data cannot be read.
    """
    try:
        return tensor.numpy()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read a weight: {error}", where=f"weight {name}") from None
