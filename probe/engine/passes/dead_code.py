"""Dead code: nodes whose results nothing reads, and constants that no node reads.

onnx-ir's RemoveUnusedNodesPass removes all of them in one go: it cannot stop after N, and it does not say what became of which tensor.
"""

from __future__ import annotations

from probe.engine.passes.edit import Edit, unread
from probe.engine.passes.reading import alive, all_nodes


def remove_dead_code(edit: Edit) -> None:
    """Level safe: what nothing reads changes nothing."""
    for node in reversed(all_nodes(edit.network)):
        if alive(node) and unread(node) and edit.take(f"removes {node.name}, whose result nothing reads", [node]):
            for value in node.outputs:
                edit.network.fold(value, edit.by)
            edit.remove(node)
    unused = [
        value for value in edit.network.graph.initializers.values() if not value.uses() and not value.is_graph_output()
    ]
    if unused:
        shown = ", ".join(value.name or "" for value in unused[:3]) + (", ..." if len(unused) > 3 else "")
        if edit.take(f"removes {len(unused)} constants that nothing reads ({shown})", []):
            for value in unused:
                edit.discard(value)
