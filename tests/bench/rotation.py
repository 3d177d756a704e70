"""Work of kernels over copies of its inputs that together exceed the L2 cache, replayed as a CUDA graph: several ways to do it, on the same copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from cuda.bindings import driver

from probe.engine.device.cuda.driver import Driver, call
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import dense_when_asked
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor
from tests.bench.cuda_kernels import COLD_BYTES, Recorder
from tests.bench.torch_graph import graph_seconds

DTYPES = {F16.name: torch.float16, BF16.name: torch.bfloat16, F32.name: torch.float32}
_MOST = 64  # copies
Work = Callable[[Queue, list[Tensor]], Any]


class Rotation:
    """Copies of the same inputs.

    Args:
        given: on the GPU; four axes in torch's order of channels last stay so.
        written: bytes of a result.
        ready: done with each copy before, and not timed.
    """

    def __init__(self, backend: Recorder, given: Sequence[Any], written: int, ready: Work | None = None) -> None:
        self._backend, self._queue = backend, Queue(backend, 18)
        self.moved = sum(one.numel() * one.element_size() for one in given) + written
        self._sets = [
            [device_tensor(self._queue, one) for one in given]
            for _ in range(max(1, min(_MOST, math.ceil(COLD_BYTES / self.moved))))
        ]
        for one in self._sets if ready is not None else ():
            ready(self._queue, one)  # pyright: ignore[reportOptionalCall] - none of them where there is nothing to do
        self._written = written
        self._given = given

    @property
    def first(self) -> list[Tensor]:
        """One copy, to look at."""
        return self._sets[0]

    def seconds(self, work: Work) -> float:
        """Of ``work`` on one copy; median of replays."""
        backend, kept, lists = self._backend, [], []
        for one in self._sets:
            backend.record = []
            kept.append(work(self._queue, one))
            lists.append(backend.record)
        backend.synchronize()
        backend.last = [source for source, _, _ in lists[0]]
        again = [one for record in lists for one in record]

        def replay() -> None:
            for source, shape, arguments in again:
                Driver.launch(backend, source, shape, arguments, "timed")

        found = backend.replayed(replay, len(self._sets))
        backend.settle()
        return found

    def torch_seconds(self, work: Callable[..., Any]) -> float:
        """Of torch's own, on copies of the same inputs."""
        return graph_seconds(work, self._given, self._written)

    def result(self, work: Work) -> Any:
        """Of one of ours, as torch has it."""
        made = work(self._queue, self._sets[0])
        return torch.from_numpy(made.array(self._backend).copy()).cuda()


def device_tensor(queue: Queue, values: Any) -> Tensor:
    """A copy of torch's values; channels last where torch has them so."""
    by_dtype = {dtype: one for one in (F16, BF16, F32) for dtype in (DTYPES[one.name],)}
    stored: Format = by_dtype[values.dtype]
    last = values.dim() == 4 and not values.is_contiguous()
    dense = values.permute(0, 2, 3, 1) if last else values
    assert dense.is_contiguous()
    made = queue.empty(tuple(dense.shape), stored)
    torch.cuda.synchronize()
    call(driver.cuMemcpyDtoD(made.address(queue.backend), dense.data_ptr(), made.nbytes), "copying a tensor of torch")
    return dense_when_asked(queue, made) if last else made
