"""``Family``: kernels, ours or a library's, that compute products or convolutions under names of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.chain import Step
    from probe.engine.device.cuda.layers.pointwise import Reading
    from probe.engine.device.cuda.ops.call import Call
    from probe.engine.device.cuda.ops.convolutions.window import Window
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Convolution:
    """A Conv, and the pointwise nodes behind it that its kernel is to take along.

    Attributes:
        readings: what those read, by the name that ``steps`` call it.
    """

    call: Call
    window: Window
    readings: Sequence[tuple[str, Reading]] = ()
    steps: Sequence[Step] = ()


class Family(Protocol):
    """Says for a problem which of its tactics are worth a try, why one is not, and launches one.

    The problem's own ``tactic`` is ``exact`` when a family gets it: the name is given beside.

    Attributes:
        prefixes: of the names it owns.
    """

    prefixes: tuple[str, ...]

    def offered(self, queue: Queue, problem: Product | Convolution) -> Iterable[str]:
        """Names worth timing, the most promising first. Looks at shapes, formats and strides; launches and allocates nothing."""
        ...

    def refusal(self, queue: Queue, problem: Product | Convolution, name: str) -> str | None:
        """Why a name does not compute a problem here; None when it does. Looks at shapes, formats and strides; launches and allocates nothing."""
        ...

    def launch(self, queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
        """Compute a problem that ``refusal`` has nothing against. A Product's ending is filled.

        Returns:
            what is stored.

        Raises:
            Unsupported: it cannot take the tail along, before anything is launched: the caller computes the tail by itself then.
        """
        ...
