"""What a device may add to a saved engine: compiled kernels, plans, anything that it would make again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

PREFIX = "device/"  # of the names of its sections


@runtime_checkable
class KeepsParts(Protocol):
    """A device that hands out what it would else make again, and takes it back. One that does not makes all of it when it first runs."""

    def saved_parts(self) -> Mapping[str, bytes]:
        """Its parts by name, for an engine that is saved. The device checks them itself when it gets them back: other drivers are told by
        the file, other parts of its own are not."""
        ...

    def take_parts(self, parts: Mapping[str, memoryview]) -> None:
        """Take parts that ``saved_parts`` handed out, before the first run. The views live as long as somebody holds them.

        Raises:
            InputError: they do not fit this device.
        """
        ...
