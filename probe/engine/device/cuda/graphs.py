"""CUDA graphs, events and pinned memory, through cuda.bindings' driver calls."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from probe.engine.device.cuda.backend import Argument, Batch, Kernel, Shape
from probe.engine.device.cuda.errors import CudaError
from probe.engine.device.cuda.library.routine import Routine

Array = np.ndarray[Any, Any]
Enqueue = Callable[[Kernel, Shape, Sequence[Argument], str, Any, Any], None]  # the last: ``early_launch()`` or None


def call(result: tuple[Any, ...], doing: str, *, where: str = "", hint: str = "") -> Any:
    """What a driver call returned behind its status.

    Raises:
        CudaError: it failed.
    """
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        _, text = driver.cuGetErrorString(status)
        said = text.decode() if isinstance(text, bytes) else str(text)
        raise CudaError(f"{status.name} {doing}: {said}", where=where, hint=hint)
    return values[0] if len(values) == 1 else tuple(values)


class CapturedGraph:
    """Launches as one executable graph.

    Args:
        graph: handle of the graph; destroyed here.
        stream: it runs on.
        marks: a layer and the event recorded before it, in order; the last with no layer.
    """

    def __init__(self, graph: Any, stream: Any, marks: Sequence[tuple[str, Any]] = ()) -> None:
        self._stream, self._marks = stream, tuple(marks)
        try:
            self._ready = call(driver.cuGraphInstantiate(graph, 0), "making a graph executable")
        finally:
            driver.cuGraphDestroy(graph)
        call(driver.cuGraphUpload(self._ready, stream), "uploading a graph")

    def __del__(self) -> None:
        if hasattr(self, "_ready"):
            driver.cuGraphExecDestroy(self._ready)
        for _, event in self._marks:
            driver.cuEventDestroy(event)

    def launch(self) -> None:
        """As ``Graph.launch``."""
        call(driver.cuGraphLaunch(self._ready, self._stream), "launching a graph")

    def seconds(self) -> list[tuple[str, float]]:
        """As ``Graph.seconds``."""
        call(driver.cuStreamSynchronize(self._stream), "running a graph")
        return [
            (layer, call(driver.cuEventElapsedTime(begin, end), "reading events") * 1e-3)
            for (layer, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False)
        ]


def capture(
    batches: Sequence[Batch], enqueue: Enqueue, stream: Any, *, timed: bool, overlapped: bool = False
) -> CapturedGraph:
    """Launches as one graph that will run on ``stream``. They are captured on streams of their own, one a lane: memory that Python gives back
    meanwhile must not become part of the graph.

    Args:
        overlapped: a kernel may begin before the one before it has ended (kernels/overlap.cuh); not where time is noted between them.

    Raises:
        CudaError: a call fails.
    """
    count = 1 if timed else 1 + max(batch.lane for batch in batches)
    quiet = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    streams = [call(driver.cuStreamCreate(quiet), "making a stream") for _ in range(count)]
    capturing = _Capturing(streams, enqueue, early_launch() if overlapped else None)
    try:
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        call(driver.cuStreamBeginCapture(streams[0], mode), "beginning a capture")
        try:
            if timed:
                capturing.one_by_one(batches)
            else:
                capturing.side_by_side(batches)
        except BaseException:
            _, broken = driver.cuStreamEndCapture(streams[0])
            if broken is not None and int(broken):
                driver.cuGraphDestroy(broken)
            raise
        graph = call(driver.cuStreamEndCapture(streams[0]), "ending a capture")
        return CapturedGraph(graph, stream, capturing.marks)
    finally:
        for event in capturing.events:
            driver.cuEventDestroy(event)
        for own in streams:
            driver.cuStreamDestroy(own)


class _Capturing:
    """Launches on streams that are being captured.

    Args:
        early: how a kernel is launched right behind another one; None: as every other.

    Attributes:
        marks: as of ``CapturedGraph``.
        events: that order the streams.
    """

    def __init__(self, streams: Sequence[Any], enqueue: Enqueue, early: Any = None) -> None:
        self._streams, self._enqueue, self._early = streams, enqueue, early
        self.marks: list[tuple[str, Any]] = []
        self.events: list[Any] = []

    def one_by_one(self, batches: Sequence[Batch]) -> None:
        for one in (one for batch in batches for one in batch.launches):
            if not self.marks or self.marks[-1][0] != one.what:
                self._mark(one.what)
            self._enqueue(one.source, one.shape, one.arguments, one.what, self._streams[0], None)
        self._mark("")

    def _mark(self, layer: str) -> None:
        event = call(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DEFAULT), "making an event")
        self.marks.append((layer, event))
        outside = driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL
        call(driver.cuEventRecordWithFlags(event, self._streams[0], int(outside)), "recording an event")

    def side_by_side(self, batches: Sequence[Batch]) -> None:
        begin = self._reached(self._streams[0])
        for own in self._streams[1:]:
            self._wait(own, begin)
        awaited = {other for batch in batches for other in batch.after}
        ends: dict[int, Any] = {}
        behind_kernel: set[int] = set()  # lanes whose last node is a kernel: only there may the next one begin early
        for at, batch in enumerate(batches):
            own = self._streams[batch.lane]
            for other in batch.after:
                self._wait(own, ends[other])
                behind_kernel.discard(batch.lane)
            for one in batch.launches:
                early = self._early if batch.lane in behind_kernel else None
                self._enqueue(one.source, one.shape, one.arguments, one.what, own, early)
                if isinstance(one.source, Routine):
                    behind_kernel.discard(batch.lane)  # what a library puts on a stream last need not be a kernel
                else:
                    behind_kernel.add(batch.lane)
            if at in awaited:
                ends[at] = self._reached(own)
        for own in self._streams[1:]:
            self._wait(self._streams[0], self._reached(own))

    def _reached(self, stream: Any) -> Any:
        event = call(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING), "making an event")
        self.events.append(event)
        call(driver.cuEventRecord(event, stream), "recording an event")
        return event

    @staticmethod
    def _wait(stream: Any, event: Any) -> None:
        call(driver.cuStreamWaitEvent(stream, event, 0), "waiting for an event")


def early_launch() -> Any:
    """The configuration of a launch whose blocks may come before the kernel before it on the same stream has ended: all but its shape."""
    allowed = driver.CUlaunchAttribute()
    allowed.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    allowed.value.programmaticStreamSerializationAllowed = 1
    made = driver.CUlaunchConfig()
    made.blockDimY = made.blockDimZ = 1
    made.attrs, made.numAttrs = [allowed], 1
    return made


def pinned_array(nbytes: int) -> Array:
    """Page-locked host memory as bytes; given back with the last array that looks into it.

    Raises:
        CudaError: there is none.
    """
    if not nbytes:
        return np.empty(0, np.uint8)
    hint = "a smaller batch (--input-shapes), or more memory that may be locked (ulimit -l)"
    address = int(
        call(driver.cuMemHostAlloc(nbytes, 0), f"allocating {nbytes:,} bytes of pinned host memory", hint=hint)
    )
    raw = (ctypes.c_ubyte * nbytes).from_address(address)
    weakref.finalize(raw, driver.cuMemFreeHost, address)
    return np.ctypeslib.as_array(raw)


def seconds_of(work: Callable[[], None], stream: Any) -> float:
    """As ``Backend.seconds``."""
    events = [call(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DEFAULT), "making an event") for _ in range(2)]
    try:
        call(driver.cuEventRecord(events[0], stream), "recording an event")
        work()
        call(driver.cuEventRecord(events[1], stream), "recording an event")
        call(driver.cuStreamSynchronize(stream), "running what was launched")
        return call(driver.cuEventElapsedTime(*events), "reading events") * 1e-3
    finally:
        for event in events:
            driver.cuEventDestroy(event)
