"""Pad folded into the convolution or pool that reads it."""

from __future__ import annotations

import numpy as np

from probe import ir
from probe.engine.passes.edit import Edit
from probe.engine.passes.reading import alive, all_nodes, dims, given, integer, integers, is_op, real, text
from probe.engine.passes.weights import stored

_NOT_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Abs", "Exp", "Sqrt", "HardSigmoid")


def fold_pads(edit: Edit) -> None:
    """Level safe: the same elements enter every sum.

    Pads of zero that are not negative and lie on spatial axes: into Conv; into AveragePool that counts padding; into MaxPool, whose own
    padding is -Inf, where what is padded is never negative. Pads of -Inf: into MaxPool.
    """
    for node in all_nodes(edit.network):
        if not alive(node) or not is_op(node, "Conv", "MaxPool", "AveragePool"):
            continue
        value = node.inputs[0]
        pad = value.producer() if value is not None else None
        if value is None or pad is None or not is_op(pad, "Pad") or pad.graph is not node.graph:
            continue
        added = _spatial_pads(pad)
        if added is None or not _suits(node, pad, added):
            continue
        if not edit.take(f"folds {pad.name} into {node.name}", [pad, node]):
            continue
        own = integers(node, 9, "pads") or (0,) * len(added)
        node.attributes["pads"] = ir.AttrInt64s("pads", [mine + more for mine, more in zip(own, added, strict=True)])
        node.attributes.pop("auto_pad", None)
        if is_op(node, "AveragePool"):
            node.attributes["count_include_pad"] = ir.attribute("count_include_pad", 1)
        source = pad.inputs[0]
        assert source is not None
        edit.skip(node, 0, source)


def _spatial_pads(pad: ir.Node) -> tuple[int, ...] | None:
    """Begins and ends over the spatial axes, as convolutions have them; None unless constant, not negative, and nothing else is padded."""
    known, pads = dims(pad.inputs[0]), integers(pad, 1, "pads")
    if known is None or pads is None or text(pad, "mode", "constant") != "constant" or min(pads, default=0) < 0:
        return None
    rank = len(known)
    axes = integers(pad, 3) if given(pad, 3) else tuple(range(rank))
    if axes is None or len(pads) != 2 * len(axes) or rank < 3:
        return None
    begins, ends = [0] * rank, [0] * rank
    for at, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[at], pads[at + len(axes)]
    if any(begins[:2] + ends[:2]):
        return None
    return (*begins[2:], *ends[2:])


def _suits(node: ir.Node, pad: ir.Node, added: tuple[int, ...]) -> bool:
    if text(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):  # SAME counts from the padded size
        return False
    value = _value(pad)
    own = integers(node, 9, "pads") or (0,) * len(added)
    if value is None or len(own) != len(added):
        return False
    if is_op(node, "Conv"):
        return value == 0
    kernel = node.attributes["kernel_shape"].as_ints()
    total = [mine + more for mine, more in zip(own, added, strict=True)]
    # A window must not lie in the padding alone, and with ceil_mode the last one would be cut elsewhere.
    if integer(node, "ceil_mode", 0) or any(size >= kernel[at % len(kernel)] for at, size in enumerate(total)):
        return False
    if is_op(node, "AveragePool"):
        return value == 0 and (integer(node, "count_include_pad", 0) == 1 or not any(own))
    if len(node.outputs) > 1:  # indices count in the padded tensor
        return False
    source = pad.inputs[0]
    maker = source.producer() if source is not None else None
    return value == -np.inf or (value == 0 and maker is not None and is_op(maker, *_NOT_NEGATIVE))


def _value(pad: ir.Node) -> float | None:
    if not given(pad, 2):
        return real(pad, "value", 0.0)
    values = stored(pad.inputs[2])
    return float(values.reshape(-1)[0]) if values is not None and values.size == 1 else None
