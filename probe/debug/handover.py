"""A list of nodes that stay FP32, as other tools want it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probe.model.model import Model

_QUOTED = re.compile(r"[,:']")


def named_and_unnamed(model: Model, identities: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that go by a name of their own in the file, and those that no other tool can be told."""
    named = {node.identity for node in model.nodes if node.name == node.identity}
    listed = list(identities)
    return tuple(n for n in listed if n in named), tuple(n for n in listed if n not in named)


def autocast_patterns(nodes: Sequence[str]) -> tuple[str, ...]:
    """Regular expressions for ``--nodes_to_exclude`` of ModelOpt AutoCast, which matches from the start of a name: anchored, so that each names one
    node and no other."""
    return tuple(f"^{re.escape(node)}$" for node in nodes)


def layer_precisions(nodes: Sequence[str]) -> tuple[str, ...]:
    """Options of trtexec up to TensorRT 10, whose layers go by the names of their ONNX nodes. Empty when a name cannot be said: trtexec reads ``*``
    as a wildcard and has no way to escape a quote."""
    if not nodes or any("*" in node or "'" in node for node in nodes):
        return ()
    named = [f"'{node}'" if _QUOTED.search(node) else node for node in nodes]
    kinds = ",".join(f"{node}:fp32" for node in named)
    return ("--precisionConstraints=obey", f"--layerPrecisions={kinds}", f"--layerOutputTypes={kinds}")
