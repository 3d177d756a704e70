"""Tactics by name: who computes a product or convolution under a name, and which names there are for it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda import library
from probe.engine.device.cuda.errors import Refused, Unsupported
from probe.engine.device.cuda.ops.products.family import Convolution, Family
from probe.engine.device.cuda.ops.products.few_family import FewFamily
from probe.engine.device.cuda.ops.products.ffma_family import FfmaFamily
from probe.engine.device.cuda.ops.products.tiled_family import TiledFamily
from probe.engine.device.cuda.ops.products.wgmma_family import WgmmaFamily

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

Problem = "Product | Convolution"


@cache
def families() -> tuple[Family, ...]:
    """Everybody who computes products and convolutions under names."""
    return (WgmmaFamily(), FewFamily(), FfmaFamily(), TiledFamily(), *library.families())


def owner(name: str) -> Family | None:
    """The family that a name belongs to; None when there is none here."""
    return next((one for one in families() if name.startswith(one.prefixes)), None)


def launch(queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
    """Compute a problem as a name says.

    Raises:
        Refused: it does not compute this problem; nothing was launched.
        Unsupported: not together with its tail: as ``Family.launch``.
    """
    family, plain = owner(name), _plain(problem)
    reason = refusal(queue, problem, name)
    if reason is not None and (problem.steps if isinstance(problem, Convolution) else problem.ending.steps):
        raise Unsupported(reason)  # it may be the tail, whose formats follow what neighbours hand over
    if family is None or reason is not None:
        raise Refused(f"{name} does not compute it: {reason}")
    return family.launch(queue, plain, name)


def refusal(queue: Queue, problem: Product | Convolution, name: str) -> str | None:
    """As ``Family.refusal``."""
    family = owner(name)
    if family is None:
        return library.absence(name) or "no kernels of that name are here"
    return family.refusal(queue, _plain(problem), name)


def offer(queue: Queue, problem: Product | Convolution) -> None:
    """Tell whoever plans (``Queue.offers``) which names there are for a problem."""
    if queue.offers is None:
        return
    plain = _plain(problem)
    queue.offers.append(
        [
            name
            for family in families()
            for name in family.offered(queue, plain)
            if family.refusal(queue, plain, name) is None
        ]
    )


def _plain(problem: Product | Convolution) -> Product | Convolution:
    if isinstance(problem, Convolution):
        return replace(problem, call=replace(problem.call, tactic=EXACT))
    return replace(problem, tactic=EXACT)
