"""What layers read in a run in FP32, layer by layer: the real activations on which candidates are timed and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.assignment import FP32, Assignment

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

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
