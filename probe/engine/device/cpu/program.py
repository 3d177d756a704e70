"""``Program``: what both executors of the CPU device are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probe.engine.device.cpu.session import Weights
    from probe.engine.layers import Layer
    from probe.engine.network import Network
    from probe.engine.rounding import Rounding


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled network, and how its sessions are set up.

    Attributes:
        layers: of the top-level graph.
        weights: shared by all sessions.
        threads: of one operator; 0: as many as there are cores.
        libraries: of custom operators.
    """

    network: Network
    layers: Sequence[Layer]
    rounding: Rounding
    weights: Weights
    threads: int = 0
    libraries: tuple[Path, ...] = ()
