"""RotaryEmbedding (kernels/rotary.cu): heads are read as they lie, and written so."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import in_dense_order, lying_of, placed
from probe.engine.device.cuda.tensors.formats import I32, I64
from probe.engine.device.cuda.tensors.layout import Strides, width
from probe.engine.device.cuda.tensors.lying import dense

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.lying import Lying
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_ACCESS = 16  # bytes
_SMALL = 1 << 31
_HEADS = 4  # axes: batch, heads, rows, elements


class Turning(Struct):
    """The struct of kernels/rotary.cu."""

    _fields_ = (
        *((name, ctypes.c_longlong * 3) for name in "exc"),
        *((name, ctypes.c_longlong) for name in ("half", "size", "rows", "units", "pairs", "total")),
    )


def rotary(queue: Queue, call: Call) -> list[Tensor | None]:
    x, cosines, sines, places = call.data(0), call.data(1), call.data(2), call.given(3)
    in_rows = len(x.shape) < _HEADS
    heads = call.int("num_heads", 0) if in_rows else x.shape[1]
    if not x.size or not heads or x.shape[-1] % (heads if in_rows else 1):
        raise Unsupported(f"{heads} heads of {x.shape}")
    batch, rows, size = x.shape[0], x.shape[-2], x.shape[-1] // (heads if in_rows else 1)
    found = lying_of(queue, x.view((batch, rows, heads, size)) if in_rows else x)
    found = found if in_rows else found.permuted((0, 2, 1, 3))
    half = (call.int("rotary_embedding_dim", 0) or size) // 2
    wanted = (cosines.shape[0], half) if places is not None else (batch, rows, half)
    if cosines.shape != wanted or sines.shape != wanted or 2 * half > size or cosines.format is not sines.format:
        raise Unsupported(f"heads of {size} elements turned by {cosines.shape} and {sines.shape}")
    if places is not None:
        numbers = queue.known(places)
        if places.format not in (I64, I32) or places.shape != (batch, rows):
            raise Unsupported(f"positions {places.shape} of {(batch, rows)}")
        if numbers is not None and not (int(numbers.min()) >= 0 and int(numbers.max()) < cosines.shape[0]):
            raise Unsupported("a position that is out of range")
    made = _turned(queue, call, found, (cosines, sines, places), half)
    return [made.view(x.shape) if in_rows else placed(queue, lying_of(queue, made).permuted((0, 2, 1, 3)))]


def _turned(queue: Queue, call: Call, x: Lying, beside: tuple[Tensor, Tensor, Tensor | None], half: int) -> Tensor:
    """Heads, [batch, rows, heads, elements], turned.

    Args:
        beside: cosines, sines, and which of their rows; where that is left out, they are [batch, rows, half].
    """
    cosines, sines, places = beside
    steps = x.strides
    if steps is None or (steps[-1] != 1 and x.shape[-1] > 1):
        x = dense(in_dense_order(queue, x))
        steps = x.strides
    assert steps is not None and x.base.format is not None and cosines.format is not None
    size = x.shape[-1]
    order = sorted(range(3), key=lambda at: -steps[at])
    y = queue.empty((*(x.shape[at] for at in order), size), call.store())
    assert y.format is not None
    interleaved = call.int("interleaved", 0)
    widest = max(one.bytes for one in (x.base.format, y.format, cosines.format))
    lanes = width(_ACCESS // widest // (1 + interleaved), half, size - 2 * half)
    whole = lanes * (1 + interleaved)  # elements side by side
    if any(one % whole for one in (size, *steps[:3], x.first)):
        lanes, whole = 1, 0
    by_row: Strides = (x.shape[1], 1, 0)  # rows of the tables along batch, rows, heads
    triple = ctypes.c_longlong * 3
    units = (size - half) // lanes
    total = math.prod(y.shape[:3]) * units
    problem = Turning(
        triple(*y.shape[:3]), triple(*(steps[at] for at in order)), triple(*(by_row[at] for at in order)), half, size, cosines.shape[0],
        units, half // lanes, total,
    )  # fmt: skip
    macros = (
        ("TX", x.base.format.name), ("TY", y.format.name), ("TC", cosines.format.name), ("TI", places.format.name if places is not None and places.format else "i64"),
        ("INDEXED", int(places is not None)), ("INTERLEAVED", interleaved), ("VEC", lanes), ("WHOLE", int(whole > 0)),
        ("INDEX", "unsigned" if total < _SMALL else "i64"),
    )  # fmt: skip
    source = Source("rotary.cu", "rotary", macros, contract=False)
    first = ctypes.c_void_p(x.base.address(queue.backend) + x.shifted_bytes)
    queue.launch(
        source, math.ceil(total / _THREADS), _THREADS, first, queue.at(cosines), queue.at(sines), queue.at(places), queue.at(y), queue.fault() if places is not None else queue.at(None),
        problem,
    )  # fmt: skip
    return placed(queue, lying_of(queue, y).permuted([*(order.index(at) for at in range(3)), 3]))


ROTARY = (Op(("RotaryEmbedding",), rotary),)
