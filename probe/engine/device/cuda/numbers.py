"""Numbers of 32 bits among a kernel's arguments: what they do not hold is refused before anything is launched, never cut."""

from __future__ import annotations

import ctypes
from typing import Any

from probe.engine.device.cuda.errors import Unsupported

# What a kernel walks over by numbers of 32 bits ends below: a step behind the end is still one.
LONGEST = (1 << 31) - (1 << 20)


class Struct(ctypes.Structure):
    """A struct of a kernel, made of all its fields in their order.

    Raises:
        Unsupported: a field does not hold its number.
    """

    def __init__(self, *values: Any) -> None:
        super().__init__(*values)
        for (name, *_), value in zip(self._fields_, values, strict=False):
            if isinstance(value, int) and getattr(self, name) != value:
                raise Unsupported(f"{value:,} {name}: more than 32 bits hold")


def int32(value: int) -> ctypes.c_int:
    """An argument of 32 bits.

    Raises:
        Unsupported: they do not hold it.
    """
    made = ctypes.c_int(value)
    if made.value != value:
        raise Unsupported(f"{value:,}: more than 32 bits hold")
    return made


def int32s(*values: int) -> ctypes.Array[ctypes.c_int]:
    """Several of them, as fields of a struct.

    Raises:
        Unsupported: 32 bits do not hold one.
    """
    return (ctypes.c_int * len(values))(*(int32(one) for one in values))
