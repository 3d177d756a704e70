"""How much a thread takes of what shares some of its work: as much as pays, where there are threads enough without."""

from __future__ import annotations

import math

from probe.engine.device.cuda.queue import Queue

BUSY = 8 * 256  # threads of a multiprocessor: with fewer it waits for memory


def together(queue: Queue, most: int, count: int, each: int = 1) -> int:
    """Of ``count`` things those that a thread takes, a power of two up to ``most``.

    Args:
        each: threads that as many things need.
    """
    taken = most
    while taken > 1 and math.ceil(count / taken) * each < BUSY * queue.backend.multiprocessors:
        taken //= 2
    return taken
