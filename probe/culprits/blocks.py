"""Blocks: what people mean by a layer of a transformer or a stage of a network, by the names of modules or else by structure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from probe.culprits.repeats import Repeats
from probe.engine.network import origin
from probe.engine.rounding import is_float

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer

_TORCH_SCOPES = (
    "pkg.torch.onnx.name_scopes"  # metadata of a node: list of module paths, outermost first, the node's own name last
)
# Up to a component that is a number or ends in one: encoder/layer.0, model.layers.3, h.1, LayerNorm_1; failing any such, fire6.
_NUMBERED = (re.compile(r"^((?:.*?[._/])?)\d+(?=[./]|$)"), re.compile(r"^(.*?[^\W\d_])\d+(?=[./]|$)"))
_ENOUGH = 0.5  # share of the layers that names must place


def blocks(engine: Engine, repeats: Repeats) -> dict[str, str]:
    """Layer -> block. Layers of branches belong where the layer stands that holds them."""
    top = _by_name(engine) or _by_structure(engine, repeats)
    found: dict[str, str] = {}
    for layer, block in zip(engine.top_layers, top, strict=True):
        found.update((one.name, block) for one in _held(layer))
    return found


def _held(layer: Layer) -> Iterator[Layer]:
    yield layer
    for branch in layer.branches.values():
        for one in branch:
            yield from _held(one)


# --- by name -------------------------------------------------------------------------------------------------------------------------


def module_of(node: ir.Node) -> str:
    """Path of the module that a node comes from, as its exporter wrote it; "" where it did not."""
    scopes = node.metadata_props.get(_TORCH_SCOPES)
    if scopes:
        try:
            path = ast.literal_eval(scopes)
        except (ValueError, SyntaxError):
            path = ()
        if isinstance(path, list) and len(path) > 1:
            return str(path[-2])
    name = next(iter(origin(node)), "")
    first = next((value.name for value in node.outputs if value.name), "")
    if name == f"{node.op_type}({first})":
        name = first or ""
    return name.strip("/").rpartition("/")[0]


def _by_name(engine: Engine) -> list[str] | None:
    """None if names say too little: fewer than two blocks, or most layers outside them."""
    modules = [module_of(layer.nodes[0]) for layer in engine.top_layers]
    works = [not layer.moves and any(map(is_float, layer.tensors)) for layer in engine.top_layers]
    for pattern in _NUMBERED:
        matches = [pattern.match(module) for module in modules]
        inside = [match for match, counts in zip(matches, works, strict=True) if match and counts]
        if len({match.group() for match in inside}) < 2 or len(inside) < _ENOUGH * sum(works):
            continue
        depth = min(len(_parts(match.group(1))) for match in inside)
        return [
            match.group() if match else "/".join(_parts(module)[:depth]) or "outside all modules"
            for match, module in zip(matches, modules, strict=True)
        ]
    return None


def _parts(module: str) -> list[str]:
    return [part for part in re.split(r"[./]", module) if part]


# --- by structure --------------------------------------------------------------------------------------------------------------------


def _by_structure(engine: Engine, repeats: Repeats) -> list[str]:
    """A block is one repetition of what repeats; elsewhere, what lies between two cuts, from one with weights to the next.

    Layers that several segments read go with the first of them.
    """
    layers, cut = engine.top_layers, repeats.segments
    repetition = {
        number: (run.start, (number - run.start) // run.period)
        for run in repeats.runs
        for number in range(run.start, run.stop)
    }
    number_of: list[int] = []  # segment -> block
    for number, segment in enumerate(cut.layers):
        if number in repetition:
            begins = repetition[number] != repetition.get(number - 1)
        else:
            begins = number - 1 in repetition or any(_has_weights(layers[at]) for at in segment)
        number_of.append(number_of[-1] + begins if number_of else 0)
    of: list[int | None] = [None if segment is None else number_of[segment] for segment in cut.of]
    maker = {id(value): at for at, layer in enumerate(layers) for value in layer.tensors}
    for at in range(len(layers) - 1, -1, -1):
        for one in {maker[id(value)] for value in layers[at].reads if id(value) in maker}:
            here = of[at]
            if cut.of[one] is None and here is not None:
                known = of[one]
                of[one] = here if known is None else min(known, here)
    members: dict[int | None, list[str]] = {}
    for layer, block in zip(layers, of, strict=True):
        members.setdefault(block, []).append(layer.name)
    return [_span(members[block]) for block in of]


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"


def _has_weights(layer: Layer) -> bool:
    """Whether a layer multiplies by trained matrices: of rank 2 and more."""
    return any(is_float(value) and value.shape is not None and value.shape.rank() > 1 for value in layer.weights)
