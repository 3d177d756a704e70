"""The ONNX model inside a saved engine: its structure in one section, its large weights as external data in the same file.

It is what goldens are made of, and the network's inputs and outputs. The file it came from is no longer needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx.external_data_helper import load_external_data_for_tensor

from probe.errors import InputError
from probe.model.external import is_external
from probe.model.load import read_model
from probe.model.model import Model, Port
from probe.model.outline import tensors_of
from probe.model.wire import payload_of, read_outline, refill

if TYPE_CHECKING:
    from probe.engine.saved.container import Writer
    from probe.results.build import Section

_RAW_DATA = 9  # field of TensorProto


def write_model(model: Model, writer: Writer) -> None:
    """Write a model: its large initialisers as weights, all else as the section ``model``.

    Raises:
        InputError: the model's file was changed or removed since it was loaded; or the engine cannot be written.
    """
    proto = onnx.ModelProto()
    with model.data() as view:
        proto.ParseFromString(read_outline(view))
        for tensor in proto.graph.initializer:
            if payload_of(tensor) is not None or is_external(tensor):
                name = writer.weight(_bytes_of(tensor, model, view))
                refer(tensor, name)
        for tensor in islice(tensors_of(proto), len(proto.graph.initializer), None):
            if payload_of(tensor) is not None or is_external(tensor):
                whole = refill(tensor, view) if payload_of(tensor) is not None else _read_in(tensor, model)
                tensor.CopyFrom(whole)
    writer.section("model", proto.SerializeToString(deterministic=True))


def read_original(path: Path, content: memoryview, sections: Mapping[str, Section], *, sha256: str) -> Model:
    """The model that ``write_model`` wrote. Its large weights are read by the file's name when somebody asks for them, as any external
    data is: the file must not be replaced while a golden is made of it.

    Args:
        path: of the engine's file.
        sections: of the whole file, by name.
        sha256: of the file that the model came from.

    Raises:
        InputError: it is no sound model, or the file's name is none that ONNX can refer to.
    """
    proto = onnx.ModelProto()
    proto.ParseFromString(bytes(content))
    real = path.resolve()
    for tensor in proto.graph.initializer:
        name = referred(tensor)
        if name is None:
            continue
        section = sections[name]
        try:
            place(tensor, real.name, section.offset, section.bytes)
        except UnicodeEncodeError:
            raise InputError("the name of the engine's file is not UTF-8", where=str(path), hint="rename it") from None
    outline = proto.SerializeToString()
    return read_model(path, memoryview(outline), content=outline, base_dir=real.parent, digest=sha256)


def widened(model: Model) -> Model:
    """A half-precision model as its upcast looks from outside: float32 inputs and outputs. The graph is as it was."""
    if not model.half:
        return model
    return Model(
        model.path, model.proto, model.root, inputs=tuple(map(_widened, model.inputs)), outputs=tuple(map(_widened, model.outputs)),
        nodes=model.nodes, opset=model.opset, numerics=model.numerics, half=model.half, custom_domains=model.custom_domains,
        external_files=model.external_files, notes=model.notes, origin=f"upcast from {model.half}", base_dir=model.base_dir, source=model,
    )  # fmt: skip


def _widened(port: Port) -> Port:
    return Port(port.name, port.dtype.replace("bfloat16", "float32").replace("float16", "float32"), port.shape)


def refer(tensor: onnx.TensorProto, section: str) -> None:
    """Let a tensor, emptied, refer to a section of the file."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=section)


def referred(tensor: onnx.TensorProto) -> str | None:
    """The section that a tensor refers to; None where it holds its data itself."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def place(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> None:
    """Let a tensor refer to bytes of a file beside the model.

    Raises:
        UnicodeEncodeError: the file's name is no text.
    """
    tensor.ClearField("external_data")
    for key, value in (("location", file), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _bytes_of(tensor: onnx.TensorProto, model: Model, view: memoryview) -> bytes | memoryview:
    """A tensor's data as raw bytes, little-endian."""
    payload = payload_of(tensor)
    if payload is not None and payload.field == _RAW_DATA:
        return view[payload.offset : payload.offset + payload.length]
    if is_external(tensor):
        known = {entry.key: entry.value for entry in tensor.external_data}
        file, offset = model.base_dir / known["location"], int(known.get("offset", "0"))
        try:
            mapped = np.memmap(file, np.uint8, "r", offset)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read a weight: {error}", where=f"{model.path}, weight {tensor.name}") from error
        return mapped[: int(known.get("length", len(mapped)))].data
    return _read_in(tensor, model).raw_data


def _read_in(tensor: onnx.TensorProto, model: Model) -> onnx.TensorProto:
    """A tensor with its data in it, read from wherever it lies."""
    if is_external(tensor):
        whole = onnx.TensorProto()
        whole.CopyFrom(tensor)
        load_external_data_for_tensor(whole, str(model.base_dir))
        whole.ClearField("external_data")
        whole.data_location = onnx.TensorProto.DEFAULT
        return whole
    return onnx.numpy_helper.from_array(model.tensor(tensor), tensor.name)
