"""What ONNX Runtime says when it refuses, in words a user can act on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from probe.errors import InputError

if TYPE_CHECKING:
    from probe.model.model import Model

_CODE = re.compile(r"^\[ONNXRuntimeError\] : (\d+) : (\w+) : ")
_RUNNING = re.compile(r"running (\w+) node\. Name:'(.*?)' Status Message: ", re.DOTALL)
_NO_KERNEL = re.compile(r"Could not find an implementation for (\S+?)\((\d+)\) node with name '(.*?)'")
_NOT_REGISTERED = re.compile(r"(\S+?):(\w+)\(-?\d+\) is not a registered function/op")
_NO_OP = re.compile(r"No Op registered for (\S+) with domain_version of (\d+)")
_SOURCE_LINE = re.compile(r"\S*\.(?:cc|h|hpp|cpp|cu|cuh):\d+ ")
_AFTER_SIGNATURE = re.compile(r"(?: const)?(?: \[[^\]]*\])?\s*")
_CONDITION = re.compile(r"[^.]*? was false\.\s+(?=\S)")
_IR_VERSION = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET = re.compile(r"Opset (\d+) is under development.*?till opset (\d+)", re.DOTALL)
_ALLOCATION = re.compile(r"bad_alloc|Failed to allocate memory for requested buffer of size (\d+)|[Oo]ut of memory")


def is_ort_error(error: BaseException) -> bool:
    """Whether an exception is ONNX Runtime refusing a model or inputs, rather than a mistake of ours."""
    return type(error).__module__.startswith("onnxruntime") or isinstance(
        error, (RuntimeError, ValueError, MemoryError)
    )


def explain(error: BaseException, model: Model, doing: str) -> InputError:
    """An ``InputError`` with the node, where ONNX Runtime names one, and a way out, where there is one.

    Args:
        doing: "load the model" or "run the model", for messages that name no node.
    """
    import onnxruntime

    text = str(error) or type(error).__name__
    own = f"ONNX Runtime {onnxruntime.__version__}"
    where = str(model.path)
    if isinstance(error, MemoryError) or _ALLOCATION.search(text):
        return InputError(
            f"not enough memory to {doing}",
            where=where,
            hint="--memory-limit makes smaller parts; or record less with --select",
        )
    if match := _NO_KERNEL.search(text):
        op, version, name = match.groups()
        return InputError(
            f"{own} has no kernel for {op} (since opset {version}) with these types",
            where=f"{where}, {_nodes(model, op, name)}",
            hint="another --providers, or a custom operator library: --custom-op-lib",
        )
    if (match := _NOT_REGISTERED.search(text)) or (match := _NO_OP.search(text)):
        op = match[2] if match.re is _NOT_REGISTERED else match[1]
        domain = match[1] if match.re is _NOT_REGISTERED else ""
        named = f"{domain}:{op}" if domain and domain != "ai.onnx" else op
        return InputError(
            f"{own} does not know the operator {named}",
            where=f"{where}, {_nodes(model, op, '')}",
            hint="name the library that has it: --custom-op-lib FILE" if domain else "a newer onnxruntime may know it",
        )
    if (match := _IR_VERSION.search(text)) or (match := _OPSET.search(text)):
        what = "IR version" if match.re is _IR_VERSION else "opset"
        return InputError(
            f"the model has {what} {match[1]}; {own} knows them up to {match[2]}",
            where=where,
            hint="install a newer onnxruntime, or export for an older opset",
        )
    running = list(_RUNNING.finditer(text))
    if running:
        op, name = running[-1].groups()
        return InputError(
            f"{op} failed: {tidy(text[running[-1].end() :])}",
            where=f"{where}, {_nodes(model, op, name)}",
            hint=_hint(text),
        )
    return InputError(f"{own} cannot {doing}: {tidy(text)}", where=where, hint=_hint(text))


def _nodes(model: Model, op: str, name: str) -> str:
    """The node by its identity; ONNX Runtime names it by the name in the file, which many models leave empty."""
    if name:
        return f"node {name}"
    same = [node.identity for node in model.nodes if node.op == op]
    same = same if len(same) == 1 else [node.identity for node in model.nodes if node.op == op and not node.name]
    if len(same) == 1:
        return f"node {same[0]}"
    return f"one of {len(same)} unnamed {op} nodes, such as {same[0]}" if same else f"a node of type {op}"


def tidy(text: str) -> str:
    """One line without what is for ONNX Runtime's own developers: "x.h:91 onnxruntime::F::F(const A&, bool) a == b was false. Too long"
    becomes "Too long"."""
    line = " ".join(_CODE.sub("", text).split())
    while match := _SOURCE_LINE.search(line):
        line = line[: match.start()] + _without_signature(line[match.end() :])
    return line if len(line) <= 400 else line[:400] + " ..."


def _without_signature(text: str) -> str:
    opening = text.find("(")
    depth = 0
    for position in range(max(opening, 0), len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if not depth:
            break
    else:
        return text
    end = _AFTER_SIGNATURE.match(text, position + 1)
    rest = text[end.end() :] if end and opening >= 0 else text
    condition = _CONDITION.match(rest)
    return rest[condition.end() :] if condition else rest


def _hint(text: str) -> str:
    if "Invalid dimensions" in text or "invalid dimensions" in text:
        return "other shapes: --input-shapes"
    if any(part in text for part in ("hape", "imension", "axis", "out of bounds", "out of data bounds")):
        return "the inputs may not fit the model: give real ones with --inputs, or other shapes with --input-shapes"
    if "external" in text.lower():
        return "keep the external data files beside the .onnx file"
    return ""
