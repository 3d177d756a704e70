"""Operators that are others put together: CastLike, CenterCropPad, AffineGrid, TensorScatter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.indexed import scatter_nd
from probe.engine.device.cuda.ops.move import cut
from probe.engine.device.cuda.ops.pad import padded
from probe.engine.device.cuda.ops.products.matmul import product
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import I32, I64
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor


def cast_like(queue: Queue, call: Call) -> list[Tensor | None]:
    """Cast: of the second input only the type counts, which the output has."""
    x, store = call.data(0), call.formats[0]
    assert x.format is not None and store is not None
    kind = store.register
    text = "op_to_bool(x)" if kind == "bool" else f"{kind}(x)"
    return [*run_steps(queue, x.shape, [("x", Reading(x))], [Step("y", kind, text, "", store)])]


def center_crop_pad(queue: Queue, call: Call) -> list[Tensor | None]:
    x, wanted = call.stored(queue, 0), call.numbers(1, queue)
    rank = len(x.shape)
    axes = [axis % rank for axis in call.ints("axes") or range(rank)]
    if wanted is None or len(wanted) != len(axes):
        raise Unsupported(f"{call.node.op_type} to {wanted}")
    cuts, before, after = [], [0] * rank, [0] * rank
    for axis, extent in zip(axes, wanted, strict=True):
        more = extent - x.shape[axis]
        if more < 0:
            cuts.append((axis, -more // 2, extent, 1))
        else:
            before[axis], after[axis] = more // 2, more - more // 2
    made = cut(queue, x, cuts) if cuts else x
    return [padded(queue, made, before, after, 0) if any(before) or any(after) else made]


def affine_grid(queue: Queue, call: Call) -> list[Tensor | None]:
    """Each matrix times the places of an image's elements, from -1 to 1 along each axis, and 1."""
    matrices, size = call.data(0), call.numbers(1, queue)
    if size is None or matrices.shape != (size[0], len(size) - 2, len(size) - 1) or not math.prod(size):
        raise Unsupported(f"{call.node.op_type} by {matrices.shape} for {size}")
    extents = size[2:]
    corners = bool(call.int("align_corners", 0))
    lines = [_places(extent, corners=corners) for extent in extents]
    fastest_first = np.meshgrid(*lines, indexing="ij")[::-1]
    grid = host_tensor(
        np.stack([*fastest_first, np.ones(extents)], -1).astype(np.float32).reshape(-1, len(extents) + 1)
    )
    made = queue.empty((size[0], math.prod(extents), len(extents)), call.store())
    each = len(extents) * (len(extents) + 1)
    left = Matrices(grid, (0,), len(extents) + 1, 1)
    product(queue, left, Matrices(matrices, (each,), 1, len(extents) + 1), made, len(extents) + 1)
    return [made.view((size[0], *extents, len(extents)))]


def _places(extent: int, *, corners: bool) -> np.ndarray:
    """Where the elements of an axis lie: from end to end, or in the middle of as many equal parts."""
    if corners:
        return np.linspace(-1, 1, extent) if extent > 1 else np.full(1, -1.0)
    return (2 * np.arange(extent) + 1) / extent - 1


def tensor_scatter(queue: Queue, call: Call) -> list[Tensor | None]:
    """A cache with new rows from where the indices say: ScatterND with a tuple a row."""
    past, update, first = call.data(0), call.data(1), call.given(2)
    axis = call.int("axis", -2) % len(past.shape)
    outer, extent = past.shape[:axis], past.shape[axis]
    if not axis or update.shape != (*outer, update.shape[axis], *past.shape[axis + 1 :]) or update.shape[axis] > extent:
        raise Unsupported(f"rows of {update.shape} into {past.shape}")
    tuples = np.moveaxis(np.indices((*outer, update.shape[axis]), np.int64), 0, -1)  # [.., rows, axes that are named]
    if first is not None:
        if first.format not in (I64, I32) or first.shape != past.shape[:1]:
            raise Unsupported(f"rows that begin at {first.shape}")
        last = host_tensor(np.arange(axis + 1) == axis)
        place = "at + first"
        if call.text("mode", "linear") == "circular":
            place = f"({place}) % {extent}"
        readings = [
            ("at", Reading(host_tensor(tuples))),
            ("first", Reading(first.view((first.shape[0], *(1 for _ in range(axis + 1)))))),
            ("last", Reading(last)),
        ]
        (indices,) = run_steps(queue, tuples.shape, readings, [Step("y", "i64", f"last ? i64({place}) : at", "", I64)])
    else:
        indices = host_tensor(tuples)
    return scatter_nd(queue, replace(call, inputs=[past, indices, update]))


FUNCTIONS = (
    Op(("CastLike",), cast_like),
    Op(("CenterCropPad",), center_crop_pad),
    Op(("AffineGrid",), affine_grid),
    Op(("TensorScatter",), tensor_scatter),
)
