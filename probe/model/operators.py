"""Do the operators exist at the model's opset, and is each node what its operator asks for?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.model.check import require_text
from probe.model.scopes import Scope, Step

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 7
_PREVIEW_DOMAINS = ("ai.onnx.preview", "ai.onnx.preview.training")
_STANDARD_DOMAINS = frozenset(("", "ai.onnx.ml", *_PREVIEW_DOMAINS))
# Not in the ONNX standard at any (or at an early enough) opset, yet registered by ONNX Runtime in the standard domain, and
# written there by its own tools and by old exporters.
_KNOWN_TO_ORT = frozenset(
    "Affine Crop DynamicSlice GivenTensorFill ImageScaler LayerNormalization ParametricSoftplus Scale ScaledTanh "
    "SimplifiedLayerNormalization ThresholdedRelu".split()
)
_REEXPORT = "export the model again"


def read_opsets(proto: onnx.ModelProto, path: str) -> dict[str, int]:
    """Operator set versions by domain; the standard domain is ''.

    Raises:
        InputError: no version, one below 7, or one newer than the installed onnx.
    """
    import onnx

    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        require_text(domain, "an operator set's domain", path)
        versions[domain] = entry.version
    if not proto.HasField("ir_version") or proto.ir_version < 1:
        raise InputError("the file declares no IR version: it is no ONNX model, or damaged", where=path, hint=_REEXPORT)
    for domain, known in (("ai.onnx.ml", onnx.defs.onnx_ml_opset_version()), *((d, 1) for d in _PREVIEW_DOMAINS)):
        if not 1 <= versions.get(domain, 1) <= known:
            what = f"the model uses version {versions[domain]} of {domain}; the installed onnx {onnx.__version__} knows 1 to {known}"
            raise InputError(what, where=path, hint="upgrade onnx, or export with an older operator set")
    standard = versions.get("")
    if standard is None:
        if any(node.domain in ("", "ai.onnx") for node in proto.graph.node):
            raise InputError(
                "the model declares no version of the standard operators (ai.onnx)", where=path, hint=_REEXPORT
            )
        return versions
    newest = onnx.defs.onnx_opset_version()
    if standard > newest:
        raise InputError(
            f"the model uses opset {standard}; the installed onnx {onnx.__version__} knows opsets up to {newest}",
            where=path,
            hint=f"upgrade onnx, or export with opset_version={newest} or lower",
        )
    if standard < OLDEST_OPSET:
        raise InputError(
            f"the model uses opset {standard}; probe reads opset {OLDEST_OPSET} and later",
            where=path,
            hint="convert it: onnx.save(onnx.version_converter.convert_version(onnx.load(FILE), 13), NEW_FILE)",
        )
    return versions


def check_operators(
    root: Scope, opsets: dict[str, int], functions: Iterable[onnx.FunctionProto], path: str
) -> tuple[str, ...]:
    """Check every node against its operator's definition. Returns the custom domains in use, whose operators nobody can check.

    Raises:
        InputError: an operator that a standard domain does not have, or not at the model's opset; a node with too few or too many
            inputs or outputs, without an attribute it needs, or with one of the wrong type.
    """
    local = {(function.domain, function.name) for function in functions}
    rules: dict[tuple[str, str], _Rules | None] = {}
    custom: set[str] = set()
    for step in root.in_execution_order():
        domain = "" if step.node.domain == "ai.onnx" else step.node.domain
        kind = (domain, step.node.op_type)
        if kind not in rules:
            if (step.node.domain, step.node.op_type) in local:
                rules[kind] = None
            elif domain in _STANDARD_DOMAINS:
                schema = _schema(step, domain, opsets.get(domain), path)
                rules[kind] = _Rules.of(schema) if schema is not None else None
            else:
                custom.add(domain)
                rules[kind] = None
        _check_attributes(step, path)
        if (rule := rules[kind]) is not None:
            _check_node(step, rule, path)
    return tuple(sorted(custom))


def _schema(step: Step, domain: str, version: int | None, path: str) -> onnx.defs.OpSchema | None:
    """The operator's definition at the model's opset; None where only ONNX Runtime has one."""
    import onnx

    op = step.node.op_type
    where = f"{path}, node {step.identity}"
    shown = domain or "ai.onnx"
    only_ort = domain == "" and op in _KNOWN_TO_ORT
    if not onnx.defs.has(op, domain):
        if only_ort:
            return None
        known = [s.name for s in onnx.defs.get_all_schemas() if s.domain == domain]
        near = difflib.get_close_matches(op, known, 1, 0.6)
        hint = f"did the exporter mean {near[0]}? " if near else ""
        raise InputError(
            f"operator {op!r} does not exist in the standard domain {shown}",
            where=where,
            hint=f"{hint}custom operators need a domain of their own, and --custom-op-lib to run",
        )
    if version is None:  # ONNX Runtime takes the newest version where a standard domain is not imported
        return onnx.defs.get_schema(op, domain=domain)
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        if only_ort:
            return None
        first = min(
            s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.name, s.domain) == (op, domain)
        )
        raise InputError(
            f"operator {op!r} exists from opset {first} of {shown}; the model declares opset {version}",
            where=where,
            hint=f"export with opset_version={first} or later",
        ) from None
    if not schema.deprecated:
        return schema
    if only_ort:
        return None
    raise InputError(
        f"operator {op!r} was removed in opset {schema.since_version} of {shown}; the model declares opset {version}",
        where=where,
        hint=f"export with opset_version={schema.since_version - 1} or lower, or with a newer exporter",
    )


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a node must look like, taken from its schema once an operator."""

    inputs: tuple[int, int]  # fewest, most
    outputs: tuple[int, int]
    needed_inputs: tuple[int, ...]  # positions that cannot be left empty
    attribute_types: dict[str, str]  # name -> INT, FLOATS, GRAPH, ...
    needed_attributes: tuple[str, ...]

    @classmethod
    def of(cls, schema: onnx.defs.OpSchema) -> _Rules:
        single = type(schema).FormalParameterOption.Single
        return cls(
            inputs=(schema.min_input, schema.max_input),
            outputs=(schema.min_output, schema.max_output),
            needed_inputs=tuple(i for i, formal in enumerate(schema.inputs) if formal.option == single),
            attribute_types={
                name: str(attribute.type).rpartition(".")[2] for name, attribute in schema.attributes.items()
            },
            needed_attributes=tuple(name for name, attribute in schema.attributes.items() if attribute.required),
        )


def _check_node(step: Step, rules: _Rules, path: str) -> None:
    import onnx

    node = step.node
    problem = ""
    inputs = len(node.input)
    while inputs and not node.input[inputs - 1]:  # omitted at the end
        inputs -= 1
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if not rules.inputs[0] <= inputs <= rules.inputs[1]:
        problem = f"has {inputs} inputs, {node.op_type} takes {_span(*rules.inputs)}"
    elif any(i < inputs and not node.input[i] for i in rules.needed_inputs):
        problem = "leaves an input empty that it needs"
    elif not rules.outputs[0] <= len(node.output) <= rules.outputs[1]:
        problem = f"has {len(node.output)} outputs, {node.op_type} makes {_span(*rules.outputs)}"
    else:
        for name in rules.needed_attributes:
            if name not in attributes:
                problem = f"has no attribute {name!r}, which {node.op_type} needs"
        for name, attribute in attributes.items():
            expected = rules.attribute_types.get(name)
            if expected is None or attribute.ref_attr_name:  # not in the standard: ONNX Runtime decides
                continue
            if onnx.AttributeProto.AttributeType.Name(attribute.type) != expected or not _is_filled(
                attribute, expected
            ):
                problem = f"has an attribute {name!r} that is no {expected}"
        if not problem and node.op_type == "Split" and "num_outputs" in attributes:
            parts = attributes["num_outputs"].i
            if parts != len(node.output):
                problem = f"has {len(node.output)} outputs and says it has {parts}"
    if problem:
        raise InputError(f"node {step.identity} ({node.op_type}) {problem}", where=path, hint=_REEXPORT)


def _check_attributes(step: Step, path: str) -> None:
    attributes = step.node.attribute
    if any(not attribute.type for attribute in attributes):
        problem = "has an attribute without a type"
    elif len({attribute.name for attribute in attributes}) < len(attributes):
        problem = "has an attribute twice"
    else:
        return
    raise InputError(f"node {step.identity} ({step.node.op_type}) {problem}", where=path, hint=_REEXPORT)


def _is_filled(attribute: onnx.AttributeProto, expected: str) -> bool:
    return attribute.HasField("t" if expected == "TENSOR" else "g") if expected in ("TENSOR", "GRAPH") else True


def _span(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low} or more" if high > 1_000_000 else f"{low} to {high}"
