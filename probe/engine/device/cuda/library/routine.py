"""``Routine``: a call into a vendor's library where otherwise a kernel is launched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

Enqueue = Callable[[Sequence[Any], int], None]  # arguments as of a launch, the stream's handle


class Routine(ABC):
    """Takes the place of a ``Source`` in ``Backend.launch``, in tapes, recordings and graphs: it is hashable, says all that is computed but for
    the addresses, which are the arguments of the launch, and allocates nothing while it runs: workspace is an argument, too.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def entry(self) -> str:
        """What launches are counted under."""

    @abstractmethod
    def ready(self) -> Enqueue:
        """Everything that is done once, before the first call and never while a stream is captured.

        Returns:
            puts the call on a stream. Raises CudaError where the library refuses.

        Raises:
            InputError: the library is not there, or another version than the routine names.
            CudaError: the library refuses.
        """
