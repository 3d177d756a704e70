"""ONNX Runtime sessions for the CPU device, and the weights they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from probe import ir
from probe.engine.device.cpu.casts import rounding_nodes
from probe.engine.device.cpu.emit import weight_name
from probe.engine.device.cpu.unsigned import SHIFTED, shifted
from probe.errors import InputError
from probe.ort.session import CPU, session_options

if TYPE_CHECKING:
    import onnxruntime

    from probe.engine.network import Network

_SHARED = 1024  # bytes: smaller weights are written into every graph that reads them, so that shapes can be inferred from them


class Weights:
    """The initialisers of a network as ONNX Runtime values, each once, as they are and rounded; made on first use."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._values: dict[str, onnxruntime.OrtValue] = {}
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}  # what the values' memory belongs to
        self._rounders: dict[tuple[str, int], onnxruntime.InferenceSession] = {}

    def array(self, value: ir.Value, precision: str = "") -> np.ndarray[Any, Any]:
        """A weight's numbers; rounded to ``precision`` and held in its own type, unless ""; ``SHIFTED``: int8 as uint8.

        Raises:
            InputError: its external data is gone.
        """
        name = weight_name(value, precision)
        if name not in self._arrays:
            if precision == SHIFTED:
                self._arrays[name] = shifted(self.array(value))
            elif precision:
                self._arrays[name] = self._rounded(value, precision)
            else:
                assert value.const_value is not None
                try:
                    data = value.const_value.numpy()
                except (OSError, ValueError) as error:
                    where = f"{self._network.model.path}, weight {value.name}"
                    raise InputError(f"cannot read a weight: {error}", where=where) from None
                self._arrays[name] = np.require(data, requirements=["C", "A"])
        return self._arrays[name]

    def value(self, value: ir.Value, precision: str = "") -> onnxruntime.OrtValue:
        """``array`` for ONNX Runtime, memory shared."""
        import onnxruntime

        name = weight_name(value, precision)
        if name not in self._values:
            array = self.array(value, precision)
            element = ir.DataType.UINT8 if precision == SHIFTED else value.dtype
            self._values[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, int(element or 1))
        return self._values[name]

    @property
    def bytes(self) -> int:
        """Memory held by all of them."""
        return sum(array.nbytes for array in self._arrays.values())

    def _rounded(self, value: ir.Value, precision: str) -> np.ndarray[Any, Any]:
        # ONNX Runtime's Cast is four times as fast as numpy's and is what rounds everything else.
        element = int(value.dtype or ir.DataType.FLOAT)
        key = (precision, element)
        if key not in self._rounders:
            counter = iter(range(1 << 30))
            nodes = rounding_nodes("x", "y", element, precision, 18, lambda: f"t{next(counter)}")
            graph = onnx.helper.make_graph(
                nodes, "round", [onnx.helper.make_tensor_value_info("x", element, None)],
                [onnx.helper.make_tensor_value_info("y", element, None)],
            )  # fmt: skip
            model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
            self._rounders[key] = build(model.SerializeToString(), {}, threads=0)
        return np.asarray(self._rounders[key].run(None, {"x": self.array(value)})[0])

    def protos(
        self, used: Mapping[str, tuple[ir.Value, str]]
    ) -> tuple[list[onnx.TensorProto], dict[str, onnxruntime.OrtValue]]:
        """Initialisers for a graph: small ones whole, others as placeholders with the values to put in their place."""
        protos: list[onnx.TensorProto] = []
        values: dict[str, onnxruntime.OrtValue] = {}
        for name, (value, precision) in used.items():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes <= _SHARED or tensor.dtype not in _SHAREABLE:
                proto = _inline(self.array(value, precision) if precision else None, tensor)
                proto.name = name
            else:
                element = ir.DataType.UINT8 if precision == SHIFTED else tensor.dtype
                proto = onnx.TensorProto(name=name, data_type=int(element), dims=tensor.shape.numpy())
                proto.data_location = onnx.TensorProto.EXTERNAL
                # Nothing is read from there, but ONNX Runtime wants the path to exist below the working directory.
                for key, text in (("location", "."), ("offset", "0"), ("length", str(tensor.nbytes))):
                    proto.external_data.add(key=key, value=text)
                values[name] = self.value(value, precision)
            protos.append(proto)
        return protos, values


_SHAREABLE = frozenset(
    (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.BOOL)
)  # fmt: skip


def _inline(rounded: np.ndarray[Any, Any] | None, tensor: ir.Tensor) -> onnx.TensorProto:

    if rounded is None:
        return ir.tensor_proto(ir.tensor(tensor.numpy()) if isinstance(tensor, ir.ExternalTensor) else tensor)
    return onnx.numpy_helper.from_array(rounded)


def build(
    content: bytes,
    weights: Mapping[str, onnxruntime.OrtValue],
    *,
    threads: int,
    libraries: Iterable[Path] = (),
) -> onnxruntime.InferenceSession:
    """A session that computes the graph as it stands: optimisation off, nothing packed, threads asleep between calls.

    Args:
        weights: values for the graph's placeholders; memory is shared, not copied.
        threads: of one operator; 0: as many as there are cores.
        libraries: of custom operators.
    """
    import onnxruntime

    settings = session_options(threads, libraries)
    # Packing would copy every weight once a session, and weights are shared by many.
    settings.add_session_config_entry("session.disable_prepacking", "1")
    for name, value in weights.items():
        settings.add_initializer(name, value)
    session = onnxruntime.InferenceSession(content, settings, providers=[CPU])
    if hasattr(session, "_model_bytes"):
        session._model_bytes = b""  # noqa: SLF001 - a copy of the graph kept for switching providers, which nobody does here
    return session
