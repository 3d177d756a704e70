"""A copy of a model whose nodes carry metadata: what Netron and other viewers show beside a node. Weights and results stay as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import InputError
from probe.model.model import Model

if TYPE_CHECKING:
    import onnx

    from probe.model.scopes import Scope, Step

PREFIX = "probe."  # of every key; those of an earlier copy are replaced
_PROTOBUF_LIMIT = 2**31 - 1  # bytes


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. ``unknown``: nodes with metadata that the file does not have, as they came out of a pass or a local function."""

    path: Path
    nodes: int
    named: int  # nodes that had no name of their own and got their identity as one
    unknown: tuple[str, ...]


def write_with_metadata(
    model: Model, path: str | Path, nodes: Mapping[str, Mapping[str, str]], properties: Mapping[str, str] | None = None
) -> Written:
    """Write ``model`` to ``path`` with metadata at its nodes. The file appears whole or not at all.

    A node without a name of its own is named by its identity, so that a viewer shows what reports call it; names compute nothing. External data
    is referred to and not copied.

    Args:
        nodes: identity -> key -> value; keys begin with ``probe.``.
        properties: the same for the model as a whole.

    Raises:
        InputError: ``path`` is the model itself, lies in another folder than external data, or cannot be written; the copy would exceed
            2 GB; the file was changed since it was loaded.
    """
    path = Path(path)
    _check_target(model, path)
    import onnx

    proto = onnx.ModelProto.FromString(model.proto_bytes())
    left, named, count = dict(nodes), 0, 0
    for node, step in _nodes(proto.graph, model.root):
        if node.name != step.identity:
            node.name, named = step.identity, named + 1
        said = left.pop(step.identity, None)
        if said is not None:
            _set(node.metadata_props, said)
            count += 1
    _set(proto.metadata_props, properties or {})
    if proto.ByteSize() > _PROTOBUF_LIMIT:
        hint = "save the model with external data: onnx.save(..., save_as_external_data=True)"
        raise InputError("the model has no room for metadata under 2 GB", where=str(model.path), hint=hint)
    _write(path, proto.SerializeToString())
    return Written(path, count, named, tuple(left))


def _check_target(model: Model, path: Path) -> None:
    where = str(path)
    target = Path(os.path.realpath(path))
    if target == Path(os.path.realpath(model.path)):
        raise InputError("this is the model itself", where=where, hint="write the copy to another file")
    if target in [Path(os.path.realpath(one)) for one in model.external_files]:
        raise InputError("this is where the model's weights are", where=where, hint="write the copy to another file")
    if model.external_files and target.parent != Path(os.path.realpath(model.base_dir)):
        raise InputError(
            "the copy refers to the weights beside the model, and lies in another folder",
            where=where,
            hint=f"write it to {model.base_dir}",
        )


def _nodes(graph: onnx.GraphProto, scope: Scope) -> Iterator[tuple[onnx.NodeProto, Step]]:
    """The nodes of the file with what loading knows of them, by their first outputs: loading may have sorted them."""
    steps = {step.outputs[0]: step for step in scope.steps if step.outputs}
    for node in graph.node:
        step = steps.get(next((name for name in node.output if name), ""))
        if step is None:
            continue  # makes nothing that anyone could read
        yield node, step
        for body, inner in zip(_bodies(node), step.bodies, strict=True):
            yield from _nodes(body, inner)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _set(entries: Any, said: Mapping[str, str]) -> None:
    """Replace what begins with ``probe.``, leave the rest."""
    kept = [(entry.key, entry.value) for entry in entries if not entry.key.startswith(PREFIX)]
    del entries[:]
    for key, value in (*kept, *said.items()):
        entries.add(key=key, value=value)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", where="-o") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
