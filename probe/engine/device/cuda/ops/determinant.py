"""Det of small matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_LARGEST = 64  # rows of a matrix that a warp holds
_MATRIX = 2  # axes


def determinant(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    assert x.format is not None
    if not x.format.is_float or len(x.shape) < _MATRIX or x.shape[-1] != x.shape[-2] or not 0 < x.shape[-1] <= _LARGEST:
        raise Unsupported(f"Det of {x.format.name}{list(x.shape)}")
    y = queue.empty(x.shape[:-2], call.store())
    assert y.format is not None
    macros = (("TX", x.format.name), ("TY", y.format.name), ("ROWS", x.shape[-1]))
    queue.launch(Source("det.cu", "determinant", macros), math.prod(x.shape[:-2]), 32, queue.at(x), queue.at(y))
    return [y]


DETERMINANTS = (Op(("Det",), determinant),)
