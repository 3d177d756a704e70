"""Shape and Size: answered on the host, from what is known without looking at a single value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor


def shape(queue: Queue, call: Call) -> list[Tensor | None]:  # noqa: ARG001 - a row of the table
    x = call.given(0)
    if x is None or x.opaque is not None:
        raise Unsupported("the shape of what is no array")
    extents = x.shape[slice(call.int("start", 0), call.node.attributes.get_int("end", None))]
    return [host_tensor(np.array(extents, np.int64))]


def size(queue: Queue, call: Call) -> list[Tensor | None]:  # noqa: ARG001 - a row of the table
    x = call.given(0)
    if x is None or x.opaque is not None:
        raise Unsupported("the size of what is no array")
    return [host_tensor(np.array(x.size, np.int64))]


SHAPES = (Op(("Shape",), shape), Op(("Size",), size))
