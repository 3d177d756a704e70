"""Outputs as arrays by input id, as recordings that ``diff_sources`` compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from probe.precision import dtype_name
from probe.results.tensors import InputInfo, RunHeader, TensorInfo
from probe.store.tape import Tape

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Mapping[str, Array]]


def tape_of(outputs: Outputs, **header: Any) -> Tape:
    tape = Tape("outputs", header=RunHeader(inputs=tuple(InputInfo(k, f"sha-{k}", "test") for k in outputs), **header))
    with tape:
        for key, named in outputs.items():
            for name, array in named.items():
                tape.add(TensorInfo(name, dtype_name(array.dtype), array.shape, key, role="output"), array)
    return tape
