"""``Worst``: the largest errors of pairs, looked up where the sums say that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, U8
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.engine.device.pairs import PairWorst

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_KINDS = {F32: 0, F16: 1, BF16: 2}
# The structs of kernels/pair_worst.cu
_JOB = np.dtype(
    [("actual", "u8"), ("golden", "u8"), ("errors", "u8"), ("n", "i8"), ("span", "i4"), ("blocks", "i4"), ("threshold", "f4"), ("kind", "i4"), ("pixels", "i4"), ("channels", "i4")]
)  # fmt: skip
_FOUND = np.dtype([("error", "f4"), ("actual", "f4"), ("golden", "f4"), ("there", "i4"), ("place", "i8")])


@dataclass(frozen=True, slots=True)
class Walk:
    """How the sums of a pair were made: ``blocks`` stretches of ``span`` elements, golden compared below ``threshold``.

    Attributes:
        images: pixels of each, and channels, where these are contiguous; else zeros.
    """

    actual: Tensor
    golden: Tensor
    span: int
    blocks: int
    threshold: float
    images: tuple[int, int] = (0, 0)


class Worst:
    """Launched at once, fetched later.

    Args:
        walks: of pairs; None for those nobody asks about.
        errors: address of the largest error of each block of the first pair; those of the next are ``stride`` bytes further.
        most: elements of a pair.
    """

    def __init__(self, queue: Queue, walks: Sequence[Walk | None], errors: int, stride: int, *, most: int) -> None:
        self._queue, self._most, self._count = queue, most, len(walks)
        self._asked = [at for at, walk in enumerate(walks) if walk is not None]
        jobs = np.zeros(len(self._asked), _JOB)
        for job, at in zip(jobs, self._asked, strict=True):
            walk = walks[at]
            assert walk is not None and walk.actual.format is not None
            job["actual"], job["golden"] = (one.address(queue.backend) for one in (walk.actual, walk.golden))
            job["errors"], job["n"] = errors + at * stride, walk.actual.size
            job["span"], job["blocks"], job["threshold"] = walk.span, walk.blocks, walk.threshold
            job["kind"] = _KINDS[walk.actual.format]
            job["pixels"], job["channels"] = walk.images
        self._found = queue.empty((len(jobs) * most * most * _FOUND.itemsize,), U8)
        source = Source("pair_worst.cu", "pair_worst", (("MOST", most),))
        self._jobs = host_tensor(jobs.view(np.uint8))
        queue.launch(source, len(jobs) * most, 256, queue.at(self._jobs), queue.at(self._found))

    def fetch(self) -> list[tuple[PairWorst, ...]]:
        """Of every walk, the largest errors first, of equal ones the later place first; of more equal ones than are asked for the
        first in order. Waits for them."""
        raw = np.empty(self._found.nbytes, np.uint8)
        self._queue.backend.download(raw, self._found.address(self._queue.backend))
        found: list[tuple[PairWorst, ...]] = [()] * self._count
        for at, of_pair in zip(self._asked, raw.view(_FOUND).reshape(len(self._asked), -1), strict=True):
            there = of_pair[of_pair["there"] > 0]
            first = there[np.lexsort((there["place"], -there["error"]))[: self._most]]
            found[at] = tuple(
                PairWorst(float(one["error"]), int(one["place"]), float(one["actual"]), float(one["golden"]))
                for one in np.sort(first, order=("error", "place"))[::-1]
            )
        return found
