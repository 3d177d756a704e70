"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss: of each class score that a target names, weighed; nothing rounded between."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from probe import ir
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.indexed import gather_elements
from probe.engine.device.cuda.ops.reduce import reduced
from probe.engine.device.cuda.ops.softmax import softmax_of
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import gathered
from probe.engine.device.cuda.tensors.formats import F32, I32, I64

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor


def likelihood_loss(queue: Queue, call: Call) -> list[Tensor | None]:
    return [_loss(queue, call, call.data(0))]


def cross_entropy(queue: Queue, call: Call) -> list[Tensor | None]:
    """That of the logarithm of a softmax over the classes, which is the second output."""
    x = call.data(0)
    batch, classes, *image = x.shape
    logs = softmax_of(queue, x, F32, (batch, classes, math.prod(image)), log=1)
    store = call.formats[1] if len(call.formats) > 1 else None
    return [_loss(queue, call, logs), queue.convert(logs, store, store.name) if store is not None else None]


def _loss(queue: Queue, call: Call, logs: Tensor) -> Tensor:
    """Of logarithms of probabilities, [batch, classes, ..]."""
    targets, weights = call.data(1), call.given(2)
    batch, classes, *image = logs.shape
    shape = (batch, *image)
    if targets.format not in (I64, I32) or targets.shape != shape or not math.prod(shape):
        raise Unsupported(f"targets {targets.shape} of {logs.shape}")
    ignored = call.node.attributes.get_int("ignore_index", None)
    counts = f"t != {ignored}" if ignored is not None else "true"
    named = [("t", Reading(targets))]
    places = targets
    if ignored is not None:  # whose index may be out of range
        (places,) = run_steps(queue, shape, named, [Step("y", "i64", f"({counts}) ? i64(t) : 0", "", I64)])
    node = ir.node("GatherElements", [ir.Value(name="x"), ir.Value(name="i")], {"axis": 1})
    inputs = [logs.view((batch, classes, math.prod(image))), places.view((batch, 1, math.prod(image)))]
    (picked, *_) = gather_elements(queue, replace(call, node=node, inputs=inputs, formats=[logs.format]))
    assert picked is not None
    own = "1.f"
    if weights is not None:
        found = queue.empty(shape, call.data(2).format or F32)
        gathered(queue, call.data(2), places, (1, classes, places.size, 1), found)
        named.append(("w", Reading(found)))
        own = "w"
    how = call.text("reduction", "mean")
    steps = [
        Step("weight", "float", f"({counts}) ? {own} : 0.f", "", F32 if how == "mean" else None),
        Step("loss", "float", f"({counts}) ? -x * weight : 0.f", "", call.store() if how == "none" else F32),
    ]
    *more, losses = run_steps(queue, shape, [("x", Reading(picked.view(shape))), *named], steps)
    if how == "none":
        return losses
    axes = range(len(shape))
    if how == "sum":
        return reduced(queue, losses, axes, "SUM", call.store())
    parts = [("a", losses), ("b", more[0])]
    sums = [(name, Reading(reduced(queue, one, axes, "SUM", F32))) for name, one in parts]
    (mean,) = run_steps(queue, (), sums, [Step("y", "float", "op_div(a, b)", "", call.store())])
    return mean


LOSSES = (Op(("NegativeLogLikelihoodLoss",), likelihood_loss), Op(("SoftmaxCrossEntropyLoss",), cross_entropy))
