"""Layer, RMS, instance and group normalisation."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, Any

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.expressions import literal
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.numbers import int32
from probe.engine.device.cuda.ops import norm_channels
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.rows import rows_for
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256  # of a block that takes a part of a row
_HELD = 32  # elements of a part that a thread holds
_PARTS = 256  # of a row at most: every block joins them all
_BLOCKS = 16  # a multiprocessor, of a launch over parts
_ROWS = (1, 2, 4, 8, 16, 24)  # short ones that a block may hold
_LARGE, _MORE = (
    200 << 10,
    4 << 10,
)  # bytes of shared memory: where blocks may come early; more than half a multiprocessor
_PER_CHANNEL = 21  # opset from which GroupNormalization has a scale a channel; before, one a group


def layer_norm(queue: Queue, call: Call) -> list[Tensor | None]:
    """LayerNormalization and RMSNormalization, over ``axis`` and all behind it."""
    x, scale, bias = call.data(0), call.data(1), call.given(2)
    axis = call.int("axis", -1) % max(len(x.shape), 1)
    if call.int("stash_type", 1) != 1:
        raise Unsupported("stash_type other than float")
    cols = math.prod(x.shape[axis:])
    if scale.size != cols or (bias is not None and bias.size != cols):
        raise Unsupported("a scale that is repeated along a normalised axis")
    kept = (*x.shape[:axis], *(1 for _ in x.shape[axis:]))
    rms = call.node.op_type == "RMSNormalization"
    extra = [
        queue.empty(kept, call.store(at)) if at < len(call.formats) and call.formats[at] else None for at in (1, 2)
    ]
    wide = [queue.empty(kept, F32) if one is not None else None for one in extra]
    y = _normalised(queue, call, x, (scale, bias), cols, (1, 0, 1), wide, rms=rms)
    made = [
        y,
        *(
            w and e and (w if e.format is F32 else queue.convert(w, e.format or F32))
            for w, e in zip(wide, extra, strict=True)
        ),
    ]
    return made[: len(call.formats)]


def instance_norm(queue: Queue, call: Call) -> list[Tensor | None]:
    x, scale, bias = call.data(0), call.data(1), call.data(2)
    channels, cols = x.shape[1], math.prod(x.shape[2:])
    if norm_channels.lanes_of(x, channels):
        return [norm_channels.normalised(queue, call, x, channels, per_group=False)]
    return [_normalised(queue, call, x, (scale, bias), cols, (channels, 1, max(cols, 1)))]


def group_norm(queue: Queue, call: Call) -> list[Tensor | None]:
    x, scale, bias = call.data(0), call.data(1), call.data(2)
    groups, channels, image = call.int("num_groups", 1), x.shape[1], math.prod(x.shape[2:])
    each = channels // groups
    if norm_channels.lanes_of(x, groups):
        return [norm_channels.normalised(queue, call, x, groups, per_group=call.opset < _PER_CHANNEL)]
    layout = (groups, each, max(image, 1)) if call.opset >= _PER_CHANNEL else (groups, 1, max(image * each, 1))
    return [_normalised(queue, call, x, (scale, bias), each * image, layout)]


def batch_norm(queue: Queue, call: Call) -> list[Tensor | None]:
    """With stored statistics: one factor and one shift a channel."""
    x = call.data(0)
    if call.int("training_mode", 0) or any(call.formats[1:]) or not call.int("spatial", 1):
        raise Unsupported("BatchNormalization in training")
    channels = (x.shape[1], *(1 for _ in x.shape[2:])) if len(x.shape) > 1 else x.shape
    names = ("x", "scale", "bias", "mean", "variance")
    readings = [(names[0], Reading(x))]
    readings += [(name, Reading(call.data(at).view(channels))) for at, name in enumerate(names[1:], 1)]
    value = f"op_batch_norm({', '.join(names)}, {literal(call.float('epsilon', 1e-5))})"
    return [*run_steps(queue, x.shape, readings, [Step("y", "float", value, "", call.store())])]


def _normalised(
    queue: Queue,
    call: Call,
    x: Tensor,
    affine: tuple[Tensor, Tensor | None],
    cols: int,
    layout: tuple[int, int, int],
    statistics: list[Tensor | None] | None = None,
    *,
    rms: bool = False,
) -> Tensor:
    """Rows of ``cols`` normalised.

    Args:
        layout: period, channels, span of kernels/norm.cu; (1, 0, 1) for a scale an element.
    """
    y = queue.empty(x.shape, call.store())
    scale, bias = affine
    assert x.format is not None and y.format is not None and scale.format is not None
    if not y.size:
        return y
    if bias is not None and bias.format is not scale.format:
        scale = queue.convert(scale, F32)
        bias = queue.convert(bias, F32)
    assert scale.format is not None
    if cols >= 1 << 31:
        raise Unsupported(f"rows of {cols} elements")
    kind = 0 if layout == (1, 0, 1) else 2 if layout[1] == 1 else 1
    rows = x.size // cols
    macros: list[tuple[str, str | int]] = [
        ("TX", x.format.name), ("TY", y.format.name), ("TS", scale.format.name), ("AFFINE", kind), ("RMS", int(rms)),
        ("BIAS", int(bias is not None)),
    ]  # fmt: skip
    mean, rstd = statistics or [None, None]
    widest = max(x.format.bytes, y.format.bytes)
    plan = rows_for(cols, widest, held=True, step=layout[2] if kind == 1 else 0, deep=True)
    pointers = [queue.at(one) for one in (x, y, scale, bias, mean, rstd)]
    epsilon = ctypes.c_float(call.float("epsilon", 1e-5))
    places = [ctypes.c_longlong(n) for n in layout]
    few = 2 * rows <= queue.backend.multiprocessors and cols >= 2 * _THREADS * _HELD
    if not plan.items or few:
        _in_parts(queue, x, (rows, cols, plan.lanes), macros, (pointers, places, epsilon))
        return y
    many, limit = queue.backend.multiprocessors, queue.backend.shared_limit
    of_block, alone = plan.rows, 0
    if plan.rows > 1:  # a warp a row
        of_block = next((one for one in _ROWS if rows <= one * many), plan.rows)
        # A block a multiprocessor, and room for no second one: then blocks may come before the kernel before them has ended without crowding
        # on few multiprocessors (driver.py).
        alone = limit // 2 + _MORE if rows <= of_block * many and limit >= _LARGE else 0
    macros += [
        ("THREADS", plan.threads), ("ITEMS", plan.items), ("VEC", plan.lanes), ("ROWS", of_block),
        ("FULL", int(cols == plan.threads * plan.items * plan.lanes)), ("ENTRY_HELD", 1),
    ]  # fmt: skip
    arguments = [*pointers, ctypes.c_longlong(rows), ctypes.c_longlong(cols), *places, epsilon]
    source = Source("norm.cu", "norm_held", tuple(macros))
    queue.launch(source, math.ceil(rows / of_block), plan.threads * of_block, *arguments, shared_bytes=alone)
    return y


def _in_parts(
    queue: Queue,
    x: Tensor,
    sizes: tuple[int, int, int],
    macros: list[tuple[str, str | int]],
    arguments: tuple[list[Any], list[Any], Any],
) -> None:
    """Many blocks a row: statistics of parts, then every part normalised.

    Args:
        sizes: rows, columns, elements an access.
        arguments: pointers of the tensors, layout, epsilon.
    """
    rows, cols, lanes = sizes
    held = _HELD // lanes * lanes * _THREADS
    blocks = _BLOCKS * queue.backend.multiprocessors
    chunks = max(math.ceil(cols / held / _PARTS), math.ceil(rows * cols / held / blocks))
    span = held * chunks
    per_row = math.ceil(cols / span)
    parts = queue.empty((rows, per_row, 2), F32)
    common = (*macros, ("THREADS", _THREADS), ("VEC", lanes))
    queue.launch(
        Source("norm.cu", "norm_parts", (*common, ("ITEMS", _HELD // lanes), ("ENTRY_PARTS", 1))), rows * per_row, _THREADS, queue.at(x),
        queue.at(parts), ctypes.c_longlong(cols), int32(per_row), int32(chunks),
    )  # fmt: skip
    pointers, places, epsilon = arguments
    queue.launch(
        Source("norm.cu", "norm_apply", (*common, ("ENTRY_APPLY", 1))), rows * per_row, _THREADS, *pointers, queue.at(parts),
        ctypes.c_longlong(cols), int32(per_row), ctypes.c_longlong(span), *places, epsilon,
    )  # fmt: skip


NORMS = (
    Op(("LayerNormalization", "RMSNormalization"), layer_norm),
    Op(("InstanceNormalization",), instance_norm),
    Op(("GroupNormalization",), group_norm),
    Op(("BatchNormalization",), batch_norm),
)
