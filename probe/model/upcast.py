"""The same network in FP32: the golden of a model that is stored in FP16 or BF16.

Every half-precision number is exactly representable in FP32, so the weights are the same numbers; what disappears is the rounding of
everything computed from them. (Running the FP16 graph itself is no reference: ONNX Runtime's CPU provider computes such a graph partly
in FP32, and differently when tensors are marked as outputs.)
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError
from probe.model.elements import BFLOAT16, FLOAT, FLOAT16
from probe.model.load import read_model
from probe.model.model import Model

if TYPE_CHECKING:
    import onnx_ir

_HALVES = (FLOAT16, BFLOAT16)
# Integer attributes that hold an element type, in any operator: Cast, EyeLike, Random*, SequenceEmpty, QuantizeLinear, windows,
# LayerNormalization, Attention.
_TYPE_ATTRIBUTES = frozenset(
    ("to", "dtype", "output_dtype", "output_datatype", "precision", "stash_type", "softmax_precision")
)
# protobuf ends at 2 GB and serialising holds everything twice: above this, weights go to a temporary folder, one at a time.
_IN_MEMORY_BYTES = 1_000_000_000
_SMALL_BYTES = 1024


def upcast(model: Model) -> Model:
    """The model with float16 and bfloat16 replaced by float32 throughout: weights (exactly), constants, Casts and other attributes
    that name a type, declared types, graph inputs and outputs, in all bodies and local functions.

    Weights that are float32 or integers and lie in external files stay there. Converted ones are kept in memory up to 1 GB in all;
    above that all weights are written, one at a time, into a temporary folder that lives as long as the result. A model without
    half-precision tensors is returned as it is.

    Raises:
        InputError: the graph uses the bits of half-precision numbers (BitCast), so no FP32 graph means the same; or onnx-ir cannot
            represent the model.
    """
    if not model.half:
        return model
    ir = model.build_ir()
    _refuse_bits(ir, model)
    grown = _convert(ir)
    origin = f"upcast from {model.half}"
    if grown <= _IN_MEMORY_BYTES:
        content = _serialise(ir, str(model.path))
        return read_model(
            model.path, memoryview(content), content=content, base_dir=model.base_dir, origin=origin, source=model
        )
    folder = Path(tempfile.mkdtemp(prefix="probe-upcast-"))
    try:
        content = _save(ir, folder)
        wide = read_model(
            model.path, memoryview(content), content=content, base_dir=folder, origin=origin, source=model
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(wide, shutil.rmtree, folder, ignore_errors=True)
    return wide


def _serialise(ir: onnx_ir.Model, path: str) -> bytes:
    import onnx_ir

    try:
        return onnx_ir.to_proto(ir).SerializeToString()
    except onnx_ir.serde.SerdeError as error:
        raise InputError(
            f"onnx-ir cannot write the model: {error}", where=path, hint="export the model again"
        ) from None


def _save(ir: onnx_ir.Model, folder: Path) -> bytes:
    import onnx_ir

    path = folder / "model.onnx"
    try:
        onnx_ir.save(ir, path, external_data="weights.bin", size_threshold_bytes=_SMALL_BYTES)
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"the FP32 copy of the weights cannot be written: {error.strerror}",
            where=str(folder),
            hint="set TMPDIR to a folder with enough room for it",
        ) from None


def _convert(ir: onnx_ir.Model) -> int:
    """Replace half-precision types everywhere. Returns the bytes that converted tensors will take."""
    grown = 0
    type_attributes = _type_attributes_of_functions(ir)
    functions = list(ir.functions.values())
    for graph in ir.graphs():
        grown += _convert_graph(graph)
    for function in functions:
        for graph in (function.graph, *function.subgraphs()):
            grown += _convert_graph(graph)
        _convert_attributes(function.attributes, type_attributes[function.identifier()])
    for holder in (ir.graph, *functions):
        for node in holder.all_nodes():
            names = _TYPE_ATTRIBUTES | type_attributes.get(node.op_identifier(), set())
            grown += _convert_attributes(node.attributes, names)
            for value in node.outputs:
                _convert_type(value.type)
    return grown


def _convert_graph(graph: onnx_ir.Graph) -> int:
    grown = 0
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        _convert_type(value.type)
        if value.const_value is not None and value.const_value.dtype in _HALVES:
            value.const_value = _widened(value.const_value)
            grown += value.const_value.nbytes
    return grown


def _convert_type(kind: onnx_ir.TypeProtocol | None) -> None:
    import onnx_ir

    if kind is not None and kind.dtype in _HALVES:
        kind.dtype = onnx_ir.DataType.FLOAT  # sequences and optionals pass it on to their elements


def _convert_attributes(attributes: MutableMapping[str, onnx_ir.Attr], type_names: Iterable[str]) -> int:
    """Widen tensor attributes and rename types in place."""
    import onnx_ir

    grown = 0
    for name, attribute in list(attributes.items()):
        value: Any = attribute.value
        if attribute.is_ref() or value is None:
            continue
        if attribute.type == onnx_ir.AttributeType.INT:
            if name in type_names and value in _HALVES:
                attributes[name] = onnx_ir.AttrInt64(name, FLOAT)
        elif attribute.type == onnx_ir.AttributeType.TENSOR:
            if value.dtype in _HALVES:
                attributes[name] = onnx_ir.AttrTensor(name, _widened(value))
                grown += value.nbytes * 2
        elif attribute.type == onnx_ir.AttributeType.TENSORS:
            tensors = [_widened(tensor) if tensor.dtype in _HALVES else tensor for tensor in value]
            attributes[name] = onnx_ir.AttrTensors(name, tensors)
            grown += sum(tensor.nbytes for tensor in tensors)
        elif attribute.type == onnx_ir.AttributeType.TYPE_PROTO:
            _convert_type(value.type)
    return grown


def _widened(tensor: onnx_ir.TensorProtocol) -> onnx_ir.TensorProtocol:
    """A float32 tensor with the same values, computed when it is asked for and not kept."""
    import onnx_ir

    return onnx_ir.LazyTensor(
        lambda: onnx_ir.tensor(tensor.numpy().astype(np.float32)),
        dtype=onnx_ir.DataType.FLOAT,
        shape=onnx_ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
    )


def _type_attributes_of_functions(ir: onnx_ir.Model) -> dict[onnx_ir.OperatorIdentifier, set[str]]:
    """Names of the attributes through which callers hand an element type to a local function, directly or through another one."""
    found: defaultdict[onnx_ir.OperatorIdentifier, set[str]] = defaultdict(set)
    before = -1
    while before < (before := sum(map(len, found.values()))):
        for identifier, function in ir.functions.items():
            for node in function.all_nodes():
                names = _TYPE_ATTRIBUTES | found.get(node.op_identifier(), set())
                refs = (a.ref_attr_name for a in node.attributes.values() if a.is_ref() and a.name in names)
                found[identifier].update(name for name in refs if name is not None)
    return found


def _refuse_bits(ir: onnx_ir.Model, model: Model) -> None:
    for holder in (ir.graph, *ir.functions.values()):
        for node in holder.all_nodes():
            if node.op_type != "BitCast":
                continue
            kinds = {
                value.type.dtype
                for value in (*node.inputs, *node.outputs)
                if value is not None and value.type is not None
            }
            to = node.attributes.get("to")
            if kinds & set(_HALVES) or (to is not None and to.value in _HALVES):
                raise InputError(
                    "the model uses the bits of half-precision numbers, so no FP32 model means the same",
                    where=f"{model.path}, node {node.name or node.outputs[0].name}",
                    hint="compare with recorded tensors instead: --golden FILE",
                )
