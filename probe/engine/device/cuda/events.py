"""Moments on the GPU's clock, through cuda.bindings' driver calls."""

from __future__ import annotations

from typing import Any

from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from probe.engine.device.cuda.graphs import call


class StreamEvent:
    """As ``Event``, on one stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.handle = call(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DEFAULT), "making an event")

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            driver.cuEventDestroy(self.handle)

    def note(self) -> None:
        """As ``Event.note``."""
        call(driver.cuEventRecord(self.handle, self._stream), "recording an event")

    def until(self, later: StreamEvent) -> float:
        """As ``Event.until``."""
        return call(driver.cuEventElapsedTime(self.handle, later.handle), "reading events") * 1e-3

    def wait(self) -> None:
        """As ``Event.wait``."""
        call(driver.cuEventSynchronize(self.handle), "running what was launched")
