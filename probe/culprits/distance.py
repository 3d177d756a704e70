"""``Distance``: how far arrays are from reference arrays over several inputs; ``local_changes``: what one choice changes against another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.activations import activations
from probe.errors import InputError
from probe.metrics.formulas import nmse, range_rel
from probe.metrics.measure import InMemory, Spec, Workspace, measure

if TYPE_CHECKING:
    from probe.engine.assignment import Choice
    from probe.engine.engine import Engine
    from probe.metrics.sums import Sums
    from probe.store.feeds import InputSet

Array = np.ndarray[Any, Any]


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


def local_changes(
    engine: Engine,
    choices: Mapping[str, tuple[Choice, Choice]],
    sets: Sequence[InputSet],
    *,
    kept: frozenset[str] = frozenset(),
    progress: Callable[[str], None] | None = None,
) -> dict[str, float | None]:
    """How much the first choice changes what a layer makes against the second, by itself, on the activations of a run in FP32: RMS over RMS,
    by layer name; Inf for NaN or Inf on one side, None where it did not run. Costs about two runs an input.

    Args:
        kept: tensors that are not rounded.
    """
    layers = [layer for layer in engine.layers if layer.name in choices]
    totals = {name: Distance() for name in choices}
    for one in sets:
        for layer, reads in activations(engine, one.feeds, layers):
            if progress is not None:
                progress(layer.name)
            names = {value.name for value in layer.outputs}
            with suppress(InputError):
                made = [engine.evaluate(layer, reads, choice, kept=kept) for choice in choices[layer.name]]
                first, second = ({name: array for name, array in arrays.items() if name in names} for arrays in made)
                totals[layer.name].add(first, second)
    return {name: total.rms for name, total in totals.items()}
