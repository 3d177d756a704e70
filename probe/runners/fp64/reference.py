"""Operators taken from onnx.reference: those whose source was read and found to compute in the type of its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probe.runners.fp64.calls import Call, Kernel, Value, widened_element

if TYPE_CHECKING:
    from onnx.reference.op_run import OpRun

# Not among them, because they compute in float32 inside: Erf, GridSample, DeformConv, AffineGrid, LinearAttention,
# CausalConvWithState; or because they are wrong: LRN, which counts items instead of channels.
STANDARD = frozenset(
    "RoiAlign Unique Col2Im TensorScatter StringConcat StringSplit StringNormalizer RegexFullMatch "
    "MelWeightMatrix NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss".split()
)
MACHINE_LEARNING = frozenset("LabelEncoder ArrayFeatureExtractor Binarizer".split())
_TYPES = ("to", "dtype", "output_datatype")


def reference_kernel(call: Call) -> Kernel:
    """The operator of one node. Float attributes are float64 numbers there too, instead of numpy's float32.

    Raises:
        NotImplementedError, RuntimeError, TypeError: onnx has no implementation of this version.
    """
    operator = _instance(call)

    def kernel(_call: Call, *inputs: Value) -> Value:
        # Some of them write into their inputs, which others still read.
        return operator.run(*(value.copy() if isinstance(value, np.ndarray) else value for value in inputs))

    return kernel


def _instance(call: Call) -> OpRun:
    import onnx

    node = onnx.NodeProto()
    node.CopyFrom(call.node)
    for attribute in node.attribute:
        if attribute.name in _TYPES:
            attribute.i = widened_element(attribute.i)
    if call.op == "MelWeightMatrix" and not any(attribute.name == "output_datatype" for attribute in node.attribute):
        node.attribute.append(onnx.helper.make_attribute("output_datatype", call["output_datatype"]))
    domain = "" if node.domain in ("", "ai.onnx") else node.domain
    if domain:
        from onnx.reference.ops.aionnxml import load_op as load_ml

        made: Any = load_ml(domain, call.op, call.version)
    else:
        from onnx.reference.ops import load_op

        made = load_op(domain, call.op, call.version)
    parameters = {
        "opsets": {domain: call.version}, "log": lambda _pattern, *_values: None, "verbose": 0, "new_ops": None,
        "existing_functions": {}, "evaluator_cls": None,
    }  # fmt: skip
    operator = made(node, parameters)
    for name in operator.attributes_names_:
        value = getattr(operator, name)
        if isinstance(value, np.floating):
            setattr(operator, name, float(value))
        elif isinstance(value, list) and value and isinstance(value[0], np.floating):
            setattr(operator, name, [float(one) for one in value])
    return operator
