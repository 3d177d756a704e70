"""Layers that no kernel computes: out to the host, through the CPU device's executor, and back when someone asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.engine.device.cpu.layered import LayeredExecutor
from probe.engine.device.cpu.program import Program
from probe.engine.device.cpu.session import Weights
from probe.engine.device.cuda.backend import Backend
from probe.engine.device.cuda.layers.layer_run import moved_format
from probe.engine.device.cuda.tensors.formats import F32, Format, storage_of
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.layers import Layer
from probe.engine.network import Network
from probe.engine.rounding import Plan, Rounding, Sites
from probe.ort.values import from_ort, to_value


class FallbackExecutor(LayeredExecutor):
    """The CPU device's session a layer, on tensors of a run."""

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        rounding: Rounding,
        weights: Weights,
        *,
        threads: int = 0,
        libraries: tuple[Path, ...] = (),
    ) -> None:
        super().__init__(Program(network, layers, rounding, weights, threads, libraries))

    def run(
        self,
        layer: Layer,
        reads: Mapping[int, Tensor],
        plan: Plan,
        sites: Sites,
        backend: Backend,
        *,
        wants_interior: bool,
    ) -> dict[int, Tensor]:
        """Tensors the layer makes, by ``id``, on the host.

        Raises:
            InputError: ONNX Runtime refuses the layer or fails in it; names it.
        """
        values = {key: as_ort(tensor, backend) for key, tensor in reads.items()}
        made = self.run_layer(layer, values, plan, wants_interior=wants_interior)
        low = storage_of(plan.choice.precision)
        stored = {
            id(value) for (kind, value), gate in zip(sites.gates, plan.gates, strict=True) if kind == "store" and gate
        } if plan.gates else set()  # fmt: skip
        wide = moved_format(list(reads.values())) if layer.moves else F32
        return {key: from_value(value, low if key in stored else wide) for key, value in made.items()}


def as_ort(tensor: Tensor, backend: Backend) -> Any:
    """A tensor as ONNX Runtime takes it."""
    return tensor.opaque if tensor.opaque is not None else to_value(tensor.array(backend))


def from_value(value: Any, low: Format) -> Tensor:
    """An ONNX Runtime value as a tensor of a run; floats will lie on the device in ``low``."""
    if value.has_value() and value.is_tensor():
        ((_, array, _),) = from_ort(value)
        if array is not None:
            return host_tensor(array, low)
    return Tensor((), None, opaque=value)
