"""Results laid over the graph of their model: node data for Model Explorer, a copy of the model with metadata for Netron."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.api.signatures import as_annotated
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.model import Model
    from probe.model.metadata import Written


@dataclass(frozen=True, slots=True)
class Overlay:
    """Files of node data. ``nameless``: nodes of the result that the viewer does not find, as they have no name or lie in a body."""

    paths: tuple[Path, ...]
    nameless: tuple[str, ...]


@as_annotated
def overlay(result: Any, out: str | Path, model: str | Path | Model | None = None) -> Overlay:
    """Write a file a measure (``accumulated.json``, ``precision.json``, ...) into the folder ``out``, for Model Explorer.

    Args:
        result: of a run, a find or a bench, or the path of a saved one.
        model: the network of the result. With it, nodes are called exactly as the viewer's ONNX adapter calls them, bodies included; without,
            by their names, and for the graph that is open.

    Raises:
        InputError: another kind of result, another model, or a folder that cannot be written.
    """
    from probe.api.reports import joined
    from probe.report.overlay.measures import measures
    from probe.report.overlay.model_explorer import node_data_files
    from probe.results.json import write_text

    result = joined(result)
    ids = None
    told = dict.fromkeys(node for measure in measures(result) for node in measure.values)
    if model is not None:
        from probe.model.explorer import explorer_ids

        ids = explorer_ids(same_model(result, model))
        nameless = tuple(node for node in told if node not in ids)
    else:
        nameless = tuple(_unnamed(result, told))
    texts = node_data_files(result, ids)
    folder = Path(out)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder: {error.strerror}", where=str(out)) from None
    for name, text in texts.items():
        write_text(text, folder / name)
    return Overlay(tuple(folder / name for name in texts), nameless)


@as_annotated
def annotate(result: Any, out: str | Path, model: str | Path | Model | None = None) -> Written:
    """Write a copy of the model whose nodes carry what the result says of them: ``probe.accumulated``, ``probe.precision``, ...

    Args:
        result: of a run, a find or a bench, or the path of a saved one.
        model: the network of the result; None: where the result says it is.

    Raises:
        InputError: another kind of result, another model, or a file that cannot be written; see ``write_with_metadata``.
    """
    from probe.api.reports import joined
    from probe.model.metadata import PREFIX, write_with_metadata
    from probe.report.overlay.measures import node_metadata

    result = joined(result)
    nodes = node_metadata(result)
    facts = {"schema": result.schema, "precision": result.precision, "device": result.device, "command": result.command,
             "verdict": getattr(result, "verdict", None) or result.status}  # fmt: skip
    properties = {f"{PREFIX}{key}": value for key, value in facts.items() if value}
    if model is None and not Path(result.model).is_file():
        raise InputError(
            f"the model of the result is not at {result.model}",
            where="--model",
            hint="say where it is: --model MODEL.onnx",
        )
    return write_with_metadata(same_model(result, result.model if model is None else model), out, nodes, properties)


@as_annotated
def same_model(result: Any, model: str | Path | Model) -> Model:
    """The model of a result, loaded.

    Raises:
        InputError: it cannot be read, or is not the one that the result is of.
    """
    from probe.api.arguments import loaded_model

    found = loaded_model(model)
    if not result.model_sha256:
        raise InputError("the result does not say which model it is of", hint="make it again from the model's file")
    if found.sha256 != result.model_sha256:
        raise InputError(
            f"this is not the model of the result: its SHA-256 begins with {found.sha256[:12]}, "
            f"that of {result.model} with {result.model_sha256[:12]}",
            where=str(found.path),
            hint="name the file that the result was made from: --model MODEL.onnx",
        )
    return found


def _unnamed(result: Any, nodes: Iterable[str]) -> Iterator[str]:
    """Those without a name, which probe calls ``OpType(first output)``, and those in bodies."""
    inside = {node for layer in getattr(result, "layers", ()) if layer.scope for node in layer.nodes}
    return (node for node in nodes if node in inside or re.fullmatch(r"\w+\(.*\)", node, re.DOTALL))
