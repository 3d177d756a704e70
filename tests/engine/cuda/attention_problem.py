"""An attention layer as networks have it, without a network: scaled, perhaps masked scores between operands as linear layers leave them."""

from __future__ import annotations

import numpy as np

from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.attention.attention import AnyVariant, Attention, attend, view
from probe.engine.device.cuda.ops.attention.attention_code import Steps, pair_expression
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor

# batch, heads, queries, keys, elements, mask
Problem = tuple[int, int, int, int, int, int]


def run(
    queue: Queue,
    x: list[Tensor],
    problem: Problem,
    variant: AnyVariant | None = None,
    *,
    rounds: bool = True,
    tf32: bool = False,
) -> Tensor:
    """Attention of x.

    Args:
        rounds: every tensor where it is produced; else the result alone, and in FP32 nothing.
        tf32: FP32 is multiplied as TF32.
    """
    stored = x[0].format
    assert stored
    rounding = stored.name if rounds and stored is not F32 else ""
    root = host_tensor(np.array(problem[4] ** -0.5, np.float32), stored)
    q, k, v = (view(one).transposed((0, 2, 1, 3)) for one in x[:3])
    steps = [Step("s_", "float", "sum", rounding), Step("s0", "float", "op_mul(s_, x0)", rounding)]
    readings = [("x0", Reading(root))]
    if problem[5]:
        steps.append(Step("s1", "float", "op_add(s0, x1)", rounding))
        readings.append(("x1", Reading(x[3])))
    pairs = (
        "sum_2",
        pair_expression("Mul", ("s_", "x0"), stored.name),
        pair_expression("Add", ("s0", "x1"), stored.name),
    )
    between = Steps(tuple(name for name, _ in readings), tuple(steps), pairs[: len(steps)])
    after = Steps((), (Step("w_", "float", "sum", rounding),))
    first = Steps((), (Step("r", "float", "sum", "tf32"),)) if tf32 else Steps()
    what = Attention(q, k, v, tuple(readings), first, first, between, after, not rounds and not tf32, first, tf32)
    return attend(queue, what, stored, (0, 2, 1, 3), variant)[0]


def shapes(problem: Problem) -> tuple[tuple[int, ...], ...]:
    batch, heads, queries, keys, size, mask = problem
    return (
        (batch, queries, heads, size), (batch, keys, heads, size), (batch, keys, heads, size),
        *([(batch, 1, 1, keys)] if mask else []),
    )  # fmt: skip
