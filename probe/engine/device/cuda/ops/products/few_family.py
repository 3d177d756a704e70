"""Names of the kernels of matmul_few.cu: for products of few rows."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from probe.engine.device.cuda.ops.products import few
from probe.engine.device.cuda.ops.products.family import Convolution
from probe.engine.device.cuda.ops.products.few import TACTICS, Few

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_OFFERED = 4  # of those that should be fastest


def name_of(tactic: Few) -> str:
    """The name of a variant."""
    return f"few_{tactic.warps}" + f"_splitk{tactic.splits}" * (tactic.splits > 1)


@cache
def _variants() -> dict[str, Few]:
    return {name_of(one): one for one in TACTICS}


class FewFamily:
    """As ``Family``."""

    prefixes: tuple[str, ...] = ("few_",)

    def offered(self, queue: Queue, problem: Product | Convolution) -> Iterable[str]:
        """As ``Family.offered``: those that should be fastest."""
        if isinstance(problem, Convolution) or few.refusal(problem) is not None:
            return ()
        arch, cost = queue.backend.arch, few.costs(problem, queue.backend.multiprocessors)
        possible = [one for one in TACTICS if few.refusal_of(one, arch) is None]
        return [name_of(one) for one in sorted(possible, key=cost.__getitem__)[:_OFFERED]]

    def refusal(self, queue: Queue, problem: Product | Convolution, name: str) -> str | None:
        """As ``Family.refusal``."""
        tactic = _variants().get(name)
        if tactic is None:
            return "there are no such ranges"
        if isinstance(problem, Convolution):
            return "it is for products"
        return few.refusal(problem) or few.refusal_of(tactic, queue.backend.arch)

    def launch(self, queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
        """As ``Family.launch``."""
        assert not isinstance(problem, Convolution)
        few.launch(queue, problem, _variants()[name])
        return list(problem.ending.stored)
