"""Names of the kernels of matmul_wgmma.cu: for products, for convolutions with channels last, and for 1x1 ones with channels first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.convolutions import conv_nhwc
from probe.engine.device.cuda.ops.convolutions.conv import as_product, is_product
from probe.engine.device.cuda.ops.products import wgmma
from probe.engine.device.cuda.ops.products.family import Convolution
from probe.engine.device.cuda.ops.products.wgmma_tactics import ANY_SWAPPED, DEPTH, TACTICS, Tactic, cycles

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_FIRST = "_nchw"
_OFFERED = 10  # of half of all problems the model of their times is off by more than 11 %: so many are worth a look
_OFFERED_FIRST = 3  # with channels first: rarely faster


def name_of(tactic: Tactic) -> str:
    """The name of a variant."""
    parts = (("pair", tactic.pair), ("splitk", tactic.splits), ("turns", tactic.turns))
    more = "".join(f"_{word}{count}" for word, count in parts if count > 1)
    return f"wgmma_{tactic.m}x{tactic.n}{more}" + "_swapped" * tactic.swapped


@cache
def _variants() -> dict[str, Tactic]:
    return {name_of(one): one for one in TACTICS}


class WgmmaFamily:
    """As ``Family``."""

    prefixes: tuple[str, ...] = ("wgmma_",)

    def offered(self, queue: Queue, problem: Product | Convolution) -> Iterable[str]:
        """As ``Family.offered``: those that should be fastest."""
        many = queue.backend.multiprocessors
        if not isinstance(problem, Convolution):
            swaps = wgmma.refusal_of(problem, ANY_SWAPPED) is None
            return _fastest((problem.m, problem.n, problem.k, problem.batches), many, swaps=swaps)
        x, w = problem.call.data(0), problem.call.data(1)
        pixels, outputs, depth = problem.window.pixels, w.shape[0], math.prod(w.shape[1:])
        found = _fastest((x.shape[0] * pixels, outputs, depth, 1), many)
        if is_product(problem.window):
            found += [
                f"{name}{_FIRST}" for name in _fastest((outputs, pixels, depth, x.shape[0]), many)[:_OFFERED_FIRST]
            ]
        return found

    def refusal(self, queue: Queue, problem: Product | Convolution, name: str) -> str | None:
        """As ``Family.refusal``."""
        first = name.endswith(_FIRST)
        tactic = _variants().get(name.removesuffix(_FIRST))
        if tactic is None or (tactic.swapped and isinstance(problem, Convolution)):
            return "there are no such tiles"
        if not isinstance(problem, Convolution):
            reason = "it is for convolutions" if first else wgmma.refusal(problem, queue.backend.arch)
            return reason or wgmma.refusal_of(problem, tactic) or _too_many_ranges(tactic, problem.k)
        if first:
            return self._refusal_first(queue, problem, tactic)
        call = problem.call
        reason = conv_nhwc.refusal(queue, call, problem.window)
        if reason is None and call.int("group", 1) != 1:
            reason = "groups"
        return reason or _too_many_ranges(tactic, math.prod(call.data(1).shape[1:]))

    @staticmethod
    def _refusal_first(queue: Queue, problem: Convolution, tactic: Tactic) -> str | None:
        if not is_product(problem.window):
            return "a window of more than a pixel, or with steps"
        try:
            product = as_product(queue, problem.call, problem.readings, problem.steps, planned=True)
        except Unsupported as error:
            return str(error)
        return wgmma.refusal(product, queue.backend.arch) or _too_many_ranges(tactic, product.k)

    def launch(self, queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
        """As ``Family.launch``."""
        tactic = _variants()[name.removesuffix(_FIRST)]
        if isinstance(problem, Convolution) and not name.endswith(_FIRST):
            return conv_nhwc.conv(queue, problem.call, problem.window, problem.readings, problem.steps, tactic)
        if isinstance(problem, Convolution):
            problem = as_product(queue, problem.call, problem.readings, problem.steps)
        wgmma.launch(queue, problem, tactic)
        return list(problem.ending.stored)


def _fastest(sizes: tuple[int, int, int, int], multiprocessors: int, *, swaps: bool = False) -> list[str]:
    cost = {one: cycles(one, *sizes, multiprocessors) for one in TACTICS if swaps or not one.swapped}
    possible = [one for one in sorted(cost, key=cost.__getitem__) if math.isfinite(cost[one])]
    return [name_of(one) for one in possible[:_OFFERED]]


def _too_many_ranges(tactic: Tactic, k: int) -> str | None:
    steps = math.ceil(k / DEPTH)
    return f"{steps} steps of {DEPTH} cannot be cut into {tactic.splits} ranges" if tactic.splits > steps else None
