"""Layers that ONNX Runtime has no kernel for, on onnx's reference implementation.

The whole layer runs there, the casts that round it included, so that a layer means the same wherever it runs. It is slow: numpy, in
float32, one thread.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from probe.engine.layers import Layer
from probe.engine.rounding import inner_nodes
from probe.errors import InputError
from probe.model.carriers import sequence_model
from probe.ort.session import small_session
from probe.ort.values import from_ort, owned_value, to_value

if TYPE_CHECKING:
    import onnxruntime

Array = np.ndarray[Any, Any]

# What ONNX Runtime says when an operator, or this form of it, is not there: not the operator at all; not for these types; a kernel that
# does not take these attributes; an operator set whose operator it knows in an older version only.
_LACKING = re.compile(
    r"is not a registered function/op|No Op registered for|Could not find an implementation for|Failed to find kernel for"
    r"|Exception during initialization|Unrecognized attribute"
)

_LOOPS = ("Loop", "Scan")


def lacks_kernel(error: BaseException) -> bool:
    """Whether an exception of ONNX Runtime says that it cannot compute an operator at all."""
    return _LACKING.search(str(error)) is not None


def op_refused(layer: Layer, error: BaseException) -> str:
    """The operator of a layer that ONNX Runtime names in its refusal; the layer's first where it names none."""
    ops = [node.op_type for node in inner_nodes(layer.nodes)]
    words = set(re.findall(r"\w+", str(error)))
    return next((op for op in ops if op in words), ops[0])


class ReferenceSession:
    """A graph on onnx's reference implementation, called as an ONNX Runtime session is."""

    def __init__(self, model: onnx.ModelProto, weights: Mapping[str, Array], layer: Layer, refusal: InputError) -> None:
        """
        Args:
            model: its initialisers are not looked at: ``weights`` has them all.
            layer: whose graph it is.
            refusal: why ONNX Runtime does not run it.

        Raises:
            InputError: the reference does not have an operator either; gives both reasons.
        """
        from onnx.reference import ReferenceEvaluator

        neither = f"{refusal.what}; onnx's reference implementation does not either"
        if any(node.op_type in _LOOPS for node in layer.nodes):
            # Loop: a condition that is left out ends it before it begins, and what a round returns is joined, not stacked.
            what = f"{neither}: it does not run loops as the standard says"
            raise InputError(what, where=refusal.where, hint=refusal.hint)
        self._weights, self._layer = weights, layer.name
        self._types = {output.name: output.type for output in model.graph.output}
        graph = onnx.GraphProto()
        graph.CopyFrom(model.graph)
        del graph.initializer[:]
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in weights)
        alone = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
        try:
            self._evaluator = ReferenceEvaluator(alone)
        except Exception as error:
            raise InputError(f"{neither}: {_said(error)}", where=refusal.where, hint=refusal.hint) from error

    def run_with_ort_values(
        self, names: Sequence[str] | None, feeds: Mapping[str, onnxruntime.OrtValue]
    ) -> list[onnxruntime.OrtValue]:
        """Results by name, all where ``names`` is None.

        Raises:
            InputError: the reference fails; names the layer.
        """
        given = {name: _plain(value) for name, value in feeds.items()} | dict(self._weights)
        wanted = list(self._types) if names is None else list(names)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():  # Inf and NaN are results here, not accidents
                warnings.simplefilter("ignore")
                results = self._evaluator.run(wanted, given)
        except Exception as error:
            what = f"onnx's reference implementation cannot run layer {self._layer}: {_said(error)}"
            raise InputError(what, where=f"layer {self._layer}") from error
        return [_value(result, self._types[name]) for name, result in zip(wanted, results, strict=True)]


def _plain(value: onnxruntime.OrtValue) -> Array | list[Array] | None:
    taken = from_ort(value)
    if value.has_value() and value.is_tensor_sequence():
        return [array for suffix, array, _ in taken if suffix and array is not None]
    return taken[0][1]


def _value(result: Any, declared: onnx.TypeProto) -> onnxruntime.OrtValue:
    """A result in the type it is declared as: some reference operators compute in float64 and say so."""
    if isinstance(result, list):
        element = declared.sequence_type.elem_type.tensor_type.elem_type or onnx.TensorProto.FLOAT
        elements = {f"x{i}": to_value(np.asarray(array)) for i, array in enumerate(result)}
        return small_session(sequence_model(element, len(elements))).run_with_ort_values(None, elements)[0]
    array = np.asarray(result)
    element = declared.tensor_type.elem_type
    if array.dtype.kind == "f" and element in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        array = array.astype(onnx.helper.tensor_dtype_to_np_dtype(element), copy=False)
    return owned_value(array) if array.dtype.kind in "fiub" and array.dtype.isbuiltin else to_value(array)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
