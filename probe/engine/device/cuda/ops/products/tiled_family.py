"""Names of the kernels of matmul_simt.cu, matmul_mma.cu, conv.cu, conv_mma.cu and conv_depthwise.cu: tiles of a block."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.convolutions import conv_nhwc
from probe.engine.device.cuda.ops.convolutions.conv import DIRECT, as_product, channels_first, is_as_product, tiles_of
from probe.engine.device.cuda.ops.convolutions.conv_nhwc import is_depthwise
from probe.engine.device.cuda.ops.products.family import Convolution
from probe.engine.device.cuda.ops.products.ffma_family import FfmaFamily
from probe.engine.device.cuda.ops.products.matmul import ACC16, Tile, on_tiles, tiles_for, tiles_refusal
from probe.engine.device.cuda.ops.products.wgmma import ARCH
from probe.engine.device.cuda.tensors.formats import F16, F32

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_DEPTHWISE = "conv_depthwise"
_LOW_SUMS = "_acc16"


class TiledFamily:
    """As ``Family``."""

    prefixes: tuple[str, ...] = ("mma_", "simt_", DIRECT, _DEPTHWISE)

    def offered(self, queue: Queue, problem: Product | Convolution) -> Iterable[str]:
        """As ``Family.offered``: what tensor cores compute; where they do not, and matmul_ffma does not, all other tiles."""
        found = [f"mma_{one.m}x{one.n}" for one in _tiles(problem, "mma")]
        if self.refusal(queue, problem, found[0]) is None:
            # sums in FP16 win nothing where wgmma has sums in FP32
            found += [] if queue.backend.arch == ARCH else [f"{name}{_LOW_SUMS}" for name in found]
            return [*found, _DEPTHWISE] if isinstance(problem, Convolution) and is_depthwise(problem.call) else found
        wide = FfmaFamily()
        found = []
        if all(wide.refusal(queue, problem, name) for name in wide.offered(queue, problem)):
            found = [f"simt_{one.m}x{one.n}" for one in _tiles(problem, "simt")]
        return [*found, DIRECT, _DEPTHWISE] if isinstance(problem, Convolution) else found

    def refusal(self, queue: Queue, problem: Product | Convolution, name: str) -> str | None:
        """As ``Family.refusal``."""
        if isinstance(problem, Convolution):
            return self._refusal_of_convolution(queue, problem, name)
        if name in (DIRECT, _DEPTHWISE):
            return "it is for convolutions"
        kernel, tile, tactic = _read(problem, name)
        if tile is None:
            return "there are no such tiles"
        return tiles_refusal(problem, kernel) or _acc16_refusal(tactic, problem.a.tensor)

    @staticmethod
    def _refusal_of_convolution(queue: Queue, problem: Convolution, name: str) -> str | None:
        call = problem.call
        x, w = call.data(0), call.data(1)
        if name == _DEPTHWISE:
            reason = conv_nhwc.refusal(queue, call, problem.window)
            return reason or (None if is_depthwise(call) else "it is for depthwise convolutions")
        if max(math.prod(x.shape[1:]), w.shape[0] * problem.window.pixels) >= 1 << 31:
            return "more elements an image than 31 bits count"
        if name == DIRECT:
            return None
        kernel, tile, tactic = _read(problem, name)
        if tile is None:
            return "there are no such tiles"
        if is_as_product(problem):
            try:
                product = as_product(queue, call, problem.readings, problem.steps, planned=True)
            except Unsupported as error:
                return str(error)
            return tiles_refusal(product, kernel) or _acc16_refusal(tactic, x)
        if kernel == "mma" and (w.format is not x.format or (x.format is F32 and not call.tf32)):
            return "operands that tensor cores do not multiply"
        return _acc16_refusal(tactic, x)

    def launch(self, queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
        """As ``Family.launch``."""
        if not isinstance(problem, Convolution):
            kernel, tile, tactic = _read(problem, name)
            assert tile is not None
            on_tiles(queue, problem, kernel, tile, tactic)
            return list(problem.ending.stored)
        if name == _DEPTHWISE:
            return conv_nhwc.conv(queue, problem.call, problem.window, problem.readings, problem.steps)
        if name == DIRECT:
            return channels_first(queue, problem, DIRECT)
        return channels_first(queue, problem, *_read(problem, name))


def _tiles(problem: Product | Convolution, kernel: str) -> tuple[Tile, ...]:
    if isinstance(problem, Convolution):
        return tiles_of(problem, kernel)
    return tiles_for(problem, kernel)


def _read(problem: Product | Convolution, name: str) -> tuple[str, Tile | None, str]:
    """The kernel, its tile for a problem (None: there is none of that size), and how sums accumulate."""
    kernel, size = name.removesuffix(_LOW_SUMS).split("_", 1)
    tile = next((one for one in _tiles(problem, kernel) if f"{one.m}x{one.n}" == size), None)
    return kernel, tile, ACC16 if name.endswith(_LOW_SUMS) else EXACT


def _acc16_refusal(tactic: str, operand: Tensor) -> str | None:
    return "operands that are not stored in FP16" if tactic == ACC16 and operand.format is not F16 else None
