"""What layers read in a run in FP32, layer by layer: the real activations on which candidates are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.assignment import FP32, Assignment
from probe.metrics.formulas import nmse, range_rel
from probe.metrics.measure import InMemory, Spec, Workspace, measure

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer
    from probe.metrics.sums import Sums

Array = np.ndarray[Any, Any]


def activations(
    engine: Engine, inputs: Mapping[str, Any], layers: Sequence[Layer]
) -> Iterator[tuple[Layer, dict[str, Array]]]:
    """Layers with what they read in one run in FP32, by name, each as soon as it has all; tensors are dropped after their last reader.
    Layers that read what was not made (in a branch that was not taken), or sequences, do not come up.

    Raises:
        InputError: inputs that do not fit, or the network does not run in FP32.
    """
    waiting = {layer.name: (layer, {value.name or "" for value in layer.reads}) for layer in layers}
    readers = Counter(name for _, names in waiting.values() for name in names)
    live = {name: np.asarray(value) for name, value in inputs.items() if name in readers}

    def ready() -> Iterator[tuple[Layer, dict[str, Array]]]:
        for key in [key for key, (_, names) in waiting.items() if names <= live.keys()]:
            layer, names = waiting.pop(key)
            yield layer, {name: live[name] for name in names}
            readers.subtract(names)
            for name in names:
                if not readers[name]:
                    del live[name]

    yield from ready()
    for tapped in engine.stream(inputs, Assignment(FP32)):
        if tapped.array is not None and readers[tapped.name] > 0:
            live[tapped.name] = tapped.array
            yield from ready()


class Distance:
    """How far arrays are from reference arrays of the same names, over several inputs."""

    def __init__(self) -> None:
        self._sums: dict[str, Sums] = {}
        self._space = Workspace()

    def add(self, actual: Mapping[str, Array], reference: Mapping[str, Array]) -> None:
        """Compare what both have; arrays of other shapes, and those of no numbers, are left out."""
        for name, golden in reference.items():
            array = actual.get(name)
            if array is None or array.shape != golden.shape or array.dtype.kind in "OSUT":
                continue
            sums = measure(InMemory(array), InMemory(golden), Spec(worst=1), self._space)
            self._sums[name] = self._sums[name].merge(sums) if name in self._sums else sums

    @property
    def range_rel(self) -> float | None:
        """Of the worst array; Inf where NaN or Inf differ; None: nothing was compared."""
        return max((float("inf") if s.nonfinite_mismatch else range_rel(s) for s in self._sums.values()), default=None)

    @property
    def rms(self) -> float | None:
        """RMS error over RMS of the reference, of the worst array; Inf and None as above."""
        found = (float("inf") if s.nonfinite_mismatch else float(nmse(s)) ** 0.5 for s in self._sums.values())
        return max(found, default=None)
