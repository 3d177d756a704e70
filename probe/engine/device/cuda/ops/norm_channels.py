"""Group and instance norm of images whose channels are contiguous, where they lie (kernels/norm_channels.cu)."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked, lies_last
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.layout import width

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.call import Call
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = (256, 512, 1024)  # of a block, which holds at least a pixel
_GROUPS = 512
_BLOCKS = 4  # a multiprocessor
_CHUNKS = 128  # of an image at most: every block joins them all
_LEAST = 8  # bytes of an access
_SMALL = 1 << 31


class Images(Struct):
    """The struct of kernels/norm_channels.cu."""

    _fields_ = tuple((name, ctypes.c_int) for name in ("pixels", "channels", "each", "chunks", "span"))


def lanes_of(x: Tensor, groups: int) -> int:
    """Channels an access, if the kernel takes the images; else 0: they are normalised with channels first. Sums are added in another order
    then, so that it must not matter who else has read them.
    """
    assert x.format is not None
    if not x.size or not lies_last(x) or groups > _GROUPS or x.shape[1] % groups:
        return 0
    channels = x.shape[1]
    lanes = width(16 // x.format.bytes, channels // groups)
    return lanes if channels <= _THREADS[-1] * lanes and lanes * x.format.bytes >= _LEAST and x.size < _SMALL else 0


def normalised(queue: Queue, call: Call, x: Tensor, groups: int, *, per_group: bool) -> Tensor:
    """Images [images, channels, rows, columns], of which ``lanes_of`` says that they are taken.

    Args:
        per_group: scale and bias have a number a group and not a channel.
    """
    scale, bias, store = call.data(1), call.data(2), call.store()
    lanes, images = lanes_of(x, groups), channels_last(queue, x)
    if scale.format is not bias.format:
        scale, bias = queue.convert(scale, F32), queue.convert(bias, F32)
    assert x.format is not None and scale.format is not None
    count, channels, pixels = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    threads = next(one for one in _THREADS if channels <= one * lanes)
    rows = threads // (channels // lanes)
    chunks = min(_CHUNKS, -(-_BLOCKS * queue.backend.multiprocessors // count), -(-pixels // rows))
    span = -(-pixels // chunks)
    chunks = -(-pixels // span)
    y = queue.empty(images.shape, store)
    parts = queue.empty((count, chunks, groups, 2), F32)
    problem = Images(pixels, channels, channels // groups, chunks, span)
    common = (("VEC", lanes), ("THREADS", threads), ("GROUPS", _GROUPS), ("PER_GROUP", int(per_group)))
    types = (("TX", x.format.name), ("TY", store.name), ("TS", scale.format.name))
    source = Source("norm_channels.cu", "norm_channel_parts", (*types, *common, ("ENTRY_PARTS", 1)))
    queue.launch(source, count * chunks, threads, queue.at(images), queue.at(parts), problem)
    source = Source("norm_channels.cu", "norm_channel_apply", (*types, *common, ("ENTRY_APPLY", 1)))
    given = (queue.at(one) for one in (images, y, scale, bias, parts))
    epsilon = ctypes.c_float(call.float("epsilon", 1e-5))
    queue.launch(source, count * chunks, threads, *given, problem, epsilon)
    return dense_when_asked(queue, y)
