"""Which operators ONNX Runtime's CPU provider has kernels for: asked with a graph of one node, operator by operator.

Its registry cannot be read from Python, so each operator is tried: on float32 tensors where it takes them, with the attributes it needs.
A kernel for other types may be missing still; a model's own nodes are asked by ``CpuDevice.fallbacks``.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from probe.engine.device.cpu.fallback import lacks_kernel
from probe.ort.errors import is_ort_error
from probe.ort.session import CPU, session_options
from probe.results.ops import OpRuns

_IR_VERSION = 10
_PREFERRED = (
    "tensor(float)",
    "seq(tensor(float))",
    "optional(tensor(float))",
    "tensor(int64)",
    "tensor(uint8)",
    "tensor(bool)",
    "tensor(string)",
)
_DEFAULTS: dict[Any, Any] = {
    onnx.defs.OpSchema.AttrType.INT: 1,
    onnx.defs.OpSchema.AttrType.FLOAT: 1.0,
    onnx.defs.OpSchema.AttrType.STRING: "a",
    onnx.defs.OpSchema.AttrType.INTS: [1],
    onnx.defs.OpSchema.AttrType.FLOATS: [1.0],
    onnx.defs.OpSchema.AttrType.STRINGS: ["a"],
}
# What an operator needs although its definition calls it optional.
_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "BitShift": {"direction": "LEFT"},
    "CategoryMapper": {"cats_int64s": [0], "cats_strings": ["a"]},
    "LabelEncoder": {"keys_int64s": [0], "values_int64s": [0]},
    "OneHotEncoder": {"cats_int64s": [0]},
    "ZipMap": {"classlabels_int64s": [0]},
    "DictVectorizer": {"int64_vocabulary": [0]},
}
# Operators with bodies, whole. x is a constant of the graph around.
_WITH_BODIES = {
    "If": "(bool c) => (float y) <float x = {1.0}> { y = If (c) "
    "<then_branch = t () => (float p) { p = Abs (x) }, else_branch = e () => (float q) { q = Neg (x) }> }",
    "Loop": "(int64 n, bool c) => (float y) <float x = {1.0}> "
    "{ y = Loop (n, c, x) <body = b (int64 i, bool go, float v) => (bool on, float w) { on = Identity (go)  w = Neg (v) }> }",
    "Scan": "(float[2] s) => (float[2] y) "
    "{ y = Scan <num_scan_inputs = 1, body = b (float v) => (float w) { w = Neg (v) }> (s) }",
    "SequenceMap": "(seq(float[2]) s) => (seq(float[2]) y) "
    "{ y = SequenceMap (s) <body = b (float[2] v) => (float[2] w) { w = Neg (v) }> }",
}


def runtime_version() -> str:
    """Version of ONNX Runtime."""
    import onnxruntime

    return onnxruntime.__version__


@cache
def newest_opset() -> int:
    """Newest version of the standard operators that both onnx and ONNX Runtime know."""
    version = onnx.defs.onnx_opset_version()
    while version > 1 and isinstance(_tried(_model("Abs", "", version)), Exception):
        version -= 1
    return version


def how_run(op: str, domain: str, opset: int) -> OpRuns:
    """How the CPU device runs an operator of the standard.

    ``kernel``: one of ONNX Runtime. ``function``: the operator's function body, on kernels of others. ``reference``: onnx's reference
    implementation. ``weight``: not at all, it is a constant. ``none``: nothing runs it.

    Args:
        opset: version of the standard operators; others are asked at their newest.
    """
    if (op, domain) == ("Constant", ""):
        return "weight"
    model = _model(op, domain, opset)
    found = _tried(model)
    if isinstance(found, onnx.ModelProto):
        return "kernel" if any(node.op_type == op for node in found.graph.node) else "function"
    if not lacks_kernel(found) or "Exception during initialization" in str(found):
        return "kernel"  # it is there and wants to know more, such as shapes
    return "reference" if _has_reference(model) else "none"


def _tried(model: onnx.ModelProto) -> onnx.ModelProto | Exception:
    """The graph as ONNX Runtime runs it, function bodies put in; or its refusal."""
    import onnxruntime

    settings = session_options(threads=1)
    with tempfile.TemporaryDirectory(prefix="probe-ops-") as folder:
        path = Path(folder) / "resolved.onnx"
        settings.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=[CPU])
        except Exception as error:
            if not is_ort_error(error):
                raise
            return error
        return onnx.load(path)


def _has_reference(model: onnx.ModelProto) -> bool:
    from onnx.reference import ReferenceEvaluator

    try:
        ReferenceEvaluator(model)
    except Exception:  # noqa: BLE001 - it raises whatever it likes, and only whether it does is asked
        return False
    return True


def _model(op: str, domain: str, opset: int) -> onnx.ModelProto:
    """A graph of one node with the inputs it cannot do without."""
    if op in _WITH_BODIES and not domain:
        return onnx.parser.parse_model(
            f'<ir_version: {_IR_VERSION}, opset_import: ["" : {opset}]> g {_WITH_BODIES[op]}'
        )
    schema = onnx.defs.get_schema(op, domain) if domain else onnx.defs.get_schema(op, opset)
    allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
    inputs = []
    for at in range(max(schema.min_input, min(schema.max_input, 1))):
        declared = schema.inputs[min(at, len(schema.inputs) - 1)].type_str
        kinds = allowed.get(declared, [declared])
        inputs.append((f"x{at}", next((kind for kind in _PREFERRED if kind in kinds), min(kinds))))
    attributes = {
        name: _DEFAULTS[attribute.type]
        for name, attribute in schema.attributes.items()
        if attribute.required and attribute.type in _DEFAULTS
    }
    outputs = [f"y{at}" for at in range(max(schema.min_output, 1))]
    node = helper.make_node(
        op, [name for name, _ in inputs], outputs, domain=domain, **attributes | _ATTRIBUTES.get(op, {})
    )
    graph = onnx.GraphProto(
        name="node", node=[node], output=[onnx.ValueInfoProto(name=name) for name in outputs],
        input=[onnx.ValueInfoProto(name=name, type=_type(kind)) for name, kind in inputs],
    )  # fmt: skip
    versions = {"": opset} | ({domain: schema.since_version} if domain else {})
    opsets = [helper.make_opsetid(name, version) for name, version in versions.items()]
    return onnx.ModelProto(ir_version=_IR_VERSION, opset_import=opsets, graph=graph)


def _type(text: str) -> onnx.TypeProto:
    """``tensor(float)``, ``seq(tensor(float))``, ``map(int64, float)`` and such, as operator definitions spell types."""
    kind, _, inner = text.removesuffix(")").partition("(")
    match kind:
        case "seq":
            return helper.make_sequence_type_proto(_type(inner))
        case "optional":
            return helper.make_optional_type_proto(_type(inner))
        case "map":
            key, value = inner.split(", ")
            held = value if "(" in value else f"tensor({value})"
            return helper.make_map_type_proto(_type(f"tensor({key})").tensor_type.elem_type, _type(held))
    return helper.make_tensor_type_proto(onnx.TensorProto.DataType.Value(inner.upper()), None)
