"""Rows of Attention whose queries look at no key (kernels/attention_empty.cu): they become 0."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.attention.attention_masks import Place
from probe.engine.device.cuda.tensors.copies import lying_of
from probe.engine.device.cuda.tensors.formats import F32, I64
from probe.engine.device.cuda.tensors.layout import broadcast, spread

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.attention.attention_masks import Looking
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS, _ROWS = 256, 8  # of a block


class Empty(Struct):
    """The struct of kernels/attention_empty.cu."""

    _fields_ = (
        *((name, ctypes.c_longlong * 4) for name in ("e", "times", "m", "y")),
        *((name, ctypes.c_longlong) for name in ("column", "batch", "keys", "width", "past", "rows")),
    )


def empty_rows(queue: Queue, y: Tensor, looking: Looking, keys: int, *, one_query: bool) -> None:
    """Rows of ``y`` set to 0, before anybody has seen it.

    Args:
        y: three batch axes, queries, elements.
        one_query: what lies where queries would are heads of one.
    """
    lies = lying_of(queue, y)
    steps = lies.strides
    assert steps is not None and y.format is not None and steps[-1] == 1
    shape, mask, lengths = y.shape[:-1], looking.mask, looking.lengths
    differs = [one.shape[:4] for one in (mask, lengths) if one is not None]
    own = broadcast((1, 1, 1, shape[3] if looking.walks and not one_query else 1), *differs)
    along: Sequence[int] = spread(mask.shape, (*own, keys)) if mask is not None else (0,) * 5
    four = ctypes.c_longlong * 4
    rows = math.prod(own)
    problem = Empty(
        four(*own), four(*(n // one for n, one in zip(shape, own, strict=True))), four(*along[:4]), four(*steps[:4]), along[4],
        int(lengths is not None and lengths.shape[0] > 1), keys, y.shape[-1], looking.past, rows,
    )  # fmt: skip
    macros = (
        ("TM", mask.format.name if mask is not None and mask.format else F32.name), ("HAS_MASK", int(mask is not None)),
        ("TL", lengths.format.name if lengths is not None and lengths.format else I64.name), ("HAS_LENGTHS", int(lengths is not None)),
        ("TY", y.format.name), ("LOOKS", looking.looks(Place("query", "key"))), ("ONE_QUERY", int(one_query)),
    )  # fmt: skip
    first = ctypes.c_void_p(lies.base.address(queue.backend) + lies.shifted_bytes)
    queue.launch(
        Source("attention_empty.cu", "attention_empty", macros), math.ceil(rows / _ROWS), _THREADS, queue.at(mask), queue.at(lengths), first, problem,
    )  # fmt: skip
