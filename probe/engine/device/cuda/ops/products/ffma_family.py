"""Names of the kernels of matmul_ffma.cu: for products, and for convolutions with channels last."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from probe.engine.device.cuda.ops.convolutions import conv_nhwc
from probe.engine.device.cuda.ops.convolutions.conv import is_product
from probe.engine.device.cuda.ops.products import ffma
from probe.engine.device.cuda.ops.products.family import Convolution
from probe.engine.device.cuda.ops.products.ffma import TACTICS, Ffma

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_OFFERED = 8  # of those that should be fastest


def name_of(tactic: Ffma) -> str:
    """The name of a variant."""
    return f"ffma_{tactic.m}x{tactic.n}" + f"_splitk{tactic.splits}" * (tactic.splits > 1)


@cache
def _variants() -> dict[str, Ffma]:
    return {name_of(one): one for one in TACTICS}


class FfmaFamily:
    """As ``Family``."""

    prefixes: tuple[str, ...] = ("ffma_",)

    def offered(self, queue: Queue, problem: Product | Convolution) -> Iterable[str]:
        """As ``Family.offered``: those that should be fastest."""
        sizes, many = _sizes(problem), queue.backend.multiprocessors
        windows = isinstance(problem, Convolution) and not is_product(problem.window)
        cost = {name: ffma.microseconds(one, *sizes, many, windows=windows) for name, one in _variants().items()}
        return sorted((name for name in cost if math.isfinite(cost[name])), key=cost.__getitem__)[:_OFFERED]

    def refusal(self, queue: Queue, problem: Product | Convolution, name: str) -> str | None:
        """As ``Family.refusal``."""
        tactic = _variants().get(name)
        if tactic is None:
            return "there are no such tiles"
        if isinstance(problem, Convolution):
            call = problem.call
            if not conv_nhwc.is_wide(call):
                return "operands that are not both FP32"
            reason = conv_nhwc.refusal(queue, call, problem.window)
            if reason is None and call.int("group", 1) != 1:
                reason = "groups"
        else:
            reason = "operands that were rounded to TF32" if problem.tf32 else ffma.refusal(problem)
        if reason is not None or tactic.splits == 1:
            return reason
        if not ffma.clusters(queue.backend.arch):
            return f"blocks of {queue.backend.arch} do not read each other's shared memory"
        units = math.ceil(_sizes(problem)[2] / ffma.UNIT)
        return (
            f"{units} steps of {ffma.UNIT} cannot be cut into {tactic.splits} ranges" if tactic.splits > units else None
        )

    def launch(self, queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
        """As ``Family.launch``."""
        tactic = _variants()[name]
        if isinstance(problem, Convolution):
            return conv_nhwc.conv(queue, problem.call, problem.window, problem.readings, problem.steps, tactic)
        ffma.launch(queue, problem, tactic)
        return list(problem.ending.stored)


def _sizes(problem: Product | Convolution) -> tuple[int, int, int, int]:
    """m, n, k and how many of them."""
    if not isinstance(problem, Convolution):
        return problem.m, problem.n, problem.k, problem.batches
    x, w = problem.call.data(0), problem.call.data(1)
    return x.shape[0] * problem.window.pixels, w.shape[0], math.prod(w.shape[1:]), 1
