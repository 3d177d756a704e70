"""Attention, the operator of ONNX (opset 23 on): heads, cache and outputs around the kernels of attention.py.

It is one node, so that nothing between its products is rounded, whatever the interior: FP32 inside, as the CPU device computes it. ``softmax_precision``
asks for no less than that. In TF32 it multiplies in FP32, as the contract has it for all but MatMul, Gemm and convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.numbers import LONGEST
from probe.engine.device.cuda.ops.attention.attention import Attention, View, attend, view
from probe.engine.device.cuda.ops.attention.attention_code import Steps
from probe.engine.device.cuda.ops.attention.attention_empty import empty_rows
from probe.engine.device.cuda.ops.attention.attention_few import attend_few
from probe.engine.device.cuda.ops.attention.attention_masks import OF_SOFTMAX, Looking, Place
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.move import joined
from probe.engine.device.cuda.ops.products.matmul import product
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.ops.softmax import softmax_of
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import copy, filled, in_dense_order, lying_of, placed
from probe.engine.device.cuda.tensors.formats import B8, F32, Format
from probe.engine.device.cuda.tensors.layout import Shape, broadcast, collapse, contiguous, spread
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor

_HEADS = 4  # axes: batch, heads, rows, elements
_Q, _K, _V, _MASK, _PAST_K, _PAST_V, _LENGTHS = range(7)
_ROWS_FIRST = (0, 3, 1, 2, 4)
_WALKED = 2  # batch axes that kernels walk over
_MOST = 1 << 30  # keys: products add up fewer
_FUSED = Place("rows.at(i / 2)", "(col + i % 2)")  # in the code that attention_code.py generates
_ONE_QUERY = Place("0", "(col + i % 2)")


@dataclass(frozen=True, slots=True)
class _Heads:
    """Queries, keys and values: [batch, groups, heads of a group, rows, elements]; the heads of a group share one of keys and values.

    Attributes:
        store: of the result; ``scores``: of those that are an output, None where nobody wants them.
        one_query: what lies where queries would are the heads of a group.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    looking: Looking
    store: Format
    scores: Format | None
    one_query: bool = False

    @property
    def lead(self) -> Shape:
        """Batch axes of the scores."""
        return self.q.shape[:-2]

    @property
    def shape(self) -> Shape:
        """Of the scores."""
        return (*self.q.shape[:-1], self.k.shape[-2])

    @property
    def views(self) -> tuple[View, View, View]:
        return view(self.q), view(self.k), view(self.v)


def attention(queue: Queue, call: Call) -> list[Tensor | None]:
    q, k, v = (call.data(at) for at in (_Q, _K, _V))
    in_rows = len(q.shape) < _HEADS
    heads, groups = (call.int(name, 0) for name in ("q_num_heads", "kv_num_heads"))
    if not in_rows:
        heads, groups = q.shape[1], k.shape[1]
    past_k, past_v = call.given(_PAST_K), call.given(_PAST_V)
    past = past_k.shape[2] if past_k is not None else 0
    floats = [one for one in (q, k, v, past_k, past_v) if one is not None]
    # What is kept is computed in FP32, of whatever is stored: weights as two numbers of 16 bits have 22
    low = q.format if call.store() is not F32 and all(one.format is q.format for one in floats) else None
    common = low or F32
    q, k, v = (_by_heads(queue, one, n) for one, n in ((q, heads), (k, groups), (v, groups)))
    q, k, v = (queue.convert(one, common) for one in (q, k, v))
    if past_k is not None and past_v is not None:
        k, v = (_behind(queue, before, one, common) for before, one in ((past_k, k), (past_v, v)))
    batch, _, queries, depth = q.shape
    keys, width = k.shape[2], v.shape[3]
    if not groups or heads % groups or (k.shape[1], v.shape[1]) != (groups, groups):
        raise Unsupported(f"attention of {heads} heads over {groups} of keys and {v.shape[1]} of values")
    if not queries * keys * depth * width * batch * heads:
        raise Unsupported(f"attention of {q.shape} over {k.shape}")
    given = _looking(queue, call, (batch, heads, groups, queries, keys, depth), past)
    scores = call.formats[3] if len(call.formats) > 3 else None
    q, k, v = (one.view((batch, groups, n, *one.shape[2:])) for one, n in ((q, heads // groups), (k, 1), (v, 1)))
    what = _Heads(q, k, v, given, call.store(), scores)
    y, seen = _computed(queue, what)
    y = y.view((batch, heads, queries, width))
    if in_rows:
        y = placed(queue, lying_of(queue, y).permuted((0, 2, 1, 3))).view((batch, queries, heads * width))
    outputs: list[Tensor | None] = [y]
    for at, one in ((1, k), (2, v)):
        store = call.formats[at] if len(call.formats) > at else None
        whole = one.view((batch, groups, *one.shape[3:]))
        outputs.append(queue.convert(whole, store, store.name) if store is not None else None)
    outputs.append(seen.view((batch, heads, queries, keys)) if seen is not None else None)
    return outputs


# --- what is read ----------------------------------------------------------------------------------------------------


def _by_heads(queue: Queue, x: Tensor, heads: int) -> Tensor:
    """[batch, heads, rows, elements] of [batch, rows, heads and their elements]."""
    if len(x.shape) == _HEADS:
        return x
    batch, rows, elements = x.shape
    if not heads or elements % heads:
        raise Unsupported(f"rows of {elements} elements for {heads} heads")
    split = x.view((batch, rows, heads, elements // heads))
    if not x.size:
        return split.view((batch, heads, rows, elements // heads))
    return placed(queue, lying_of(queue, split).permuted((0, 2, 1, 3)))


def _behind(queue: Queue, past: Tensor, x: Tensor, store: Format) -> Tensor:
    """Keys or values that follow those of the past."""
    return joined(queue, [queue.convert(past, store), x], 2, store)


def _looking(queue: Queue, call: Call, sizes: tuple[int, int, int, int, int, int], past: int) -> Looking:
    """What becomes of scores.

    Args:
        sizes: batch, heads, groups of them, queries, keys, elements of a key.
    """
    batch, heads, groups, queries, keys, depth = sizes
    mask, lengths, shape = call.given(_MASK), call.given(_LENGTHS), (batch, heads, queries, keys)
    if mask is not None:
        mask = _for_all_keys(queue, call.data(_MASK), keys)
        if len(mask.shape) > _HEADS or broadcast(mask.shape, shape) != shape:
            raise Unsupported(f"a mask of {mask.shape} for scores of {shape}")
        before, own, *last = (*(1 for _ in range(_HEADS - len(mask.shape))), *mask.shape)
        mask = mask.view((before, *((groups, heads // groups) if own > 1 else (1, 1)), *last))
    if lengths is not None:
        lengths = call.data(_LENGTHS).view((batch, 1, 1, 1, 1))
    return Looking(
        scale=call.float("scale", depth**-0.5),
        cap=call.float("softcap", 0.0),
        causal=bool(call.int("is_causal", 0)),
        window=(call.int("left_window_size", -1), call.int("right_window_size", -1)),
        mask=mask,
        lengths=lengths,
        past=past,
        queries=queries,
        kept=call.int("qk_matmul_output_mode", 0),
    )


def _for_all_keys(queue: Queue, mask: Tensor, keys: int) -> Tensor:
    """A mask that hides the keys behind its own."""
    *outer, own = mask.shape
    if own >= keys:
        return mask
    assert mask.format is not None
    whole = queue.empty((*outer, keys), mask.format)
    filled(queue, whole, 0 if mask.format is B8 else -math.inf)
    steps = contiguous(whole.shape)
    copy(queue, mask.shape, (mask, 0, contiguous(mask.shape)), (whole, 0, steps))
    return whole


# --- what is computed ------------------------------------------------------------------------------------------------


def _computed(queue: Queue, what: _Heads) -> tuple[Tensor, Tensor | None]:
    """The result and the scores that are an output, both with the heads and queries of the batches in order."""
    if what.q.shape[2] > 1:
        what = _of_one_query(what) if what.q.shape[3] == 1 else what
        what = what if _axes(what) <= _WALKED else _repeated(queue, what)
    if what.scores is None:
        with suppress(Unsupported):
            return attend_few(queue, what.views, what.looking, what.store, one_query=what.one_query), None
    try:
        return _fused(queue, what)
    except Unsupported as why:
        queue.apart[queue.layer] = str(why)
        return _apart(queue, what)


def _of_one_query(what: _Heads) -> _Heads:
    """One query a head: the heads of a group as the queries of one, so that keys and values are read once."""
    batch, groups, heads, _, depth = what.q.shape
    looking = what.looking
    if looking.mask is not None:
        *outer, of_heads, _, keys = looking.mask.shape
        looking = replace(looking, mask=looking.mask.view((*outer, 1, of_heads, keys)))
    return replace(what, q=what.q.view((batch, groups, 1, heads, depth)), looking=looking, one_query=True)


def _axes(what: _Heads) -> int:
    """Batch axes that would have to be walked over."""
    beside = [spread(one.tensor.shape, what.shape)[:-2] for _, one in what.looking.readings]
    extents, _ = collapse(what.lead, [contiguous(what.lead), *(one.batch(what.lead) for one in what.views), *beside])
    return len(extents)


def _repeated(queue: Queue, what: _Heads) -> _Heads:
    """With keys and values for each head."""
    batch, groups, heads, *_ = what.q.shape
    lead, looking = (batch, groups * heads, 1), what.looking
    if looking.mask is not None:
        before, own, each, *last = looking.mask.shape
        looking = replace(looking, mask=looking.mask.view((before, own * each, 1, *last)))
    k, v = (
        in_dense_order(queue, lying_of(queue, one).repeated((batch, groups, heads, *one.shape[-2:])))
        for one in (what.k, what.v)
    )
    q, k, v = (one.view((*lead, *one.shape[-2:])) for one in (what.q, k, v))
    return replace(what, q=q, k=k, v=v, looking=looking)


def _fused(queue: Queue, what: _Heads) -> tuple[Tensor, Tensor | None]:
    """One kernel.

    Raises:
        Unsupported: it does not take these operands; nothing was launched.
    """
    at = _ONE_QUERY if what.one_query else _FUSED
    readings = what.looking.readings
    names = tuple(name for name, _ in readings)
    between = Steps(names, tuple(what.looking.between(at, what.scores)))
    behind = (Step("w_", "float", "sum"),)
    weighs = what.scores is not None and what.looking.kept == OF_SOFTMAX
    if weighs:  # else rows without a key are put right afterwards, so that keys need be walked over only once
        behind = tuple(what.looking.after(at, what.scores))
    after = Steps(names if len(behind) > 1 else (), behind)
    q, k, v = what.views
    whole = Attention(q, k, v, tuple(readings), Steps(), Steps(), between, after, wide=True, seen=what.looking.seen)
    # A result lies as linear layers leave the queries
    order = _ROWS_FIRST if q.strides[-2] > max(q.strides[1], q.strides[2]) else tuple(range(len(what.shape)))
    y, kept = attend(queue, whole, what.store, order)
    y = placed(queue, lying_of(queue, y).permuted([order.index(at) for at in range(len(order))]))
    if what.looking.leaves_rows_empty and not weighs:
        empty_rows(queue, y, what.looking, what.shape[-1], one_query=what.one_query)
    return y, next(iter(kept), None)


def _apart(queue: Queue, what: _Heads) -> tuple[Tensor, Tensor | None]:
    """Two products and what lies between them, scores in FP32.

    Raises:
        Unsupported: more keys than a product adds up, or rows that positions of 32 bits do not count.
    """
    *_, queries, keys = what.shape
    if keys >= _MOST or (what.looking.asks_where and queries >= LONGEST):
        raise Unsupported(f"attention of {queries:,} queries over {keys:,} keys: more than 30 bits count")
    q, k, v = what.views
    scores = queue.empty(what.shape, F32)
    product(queue, _stack(q, what.lead), _stack(k.swapped, what.lead), scores, q.shape[-1])
    at = Place("0", "key") if what.one_query else Place("query", "key")
    readings = what.looking.readings
    if what.looking.asks_where:
        readings.append(("query", Reading(host_tensor(np.arange(queries, dtype=np.int32).reshape(-1, 1)))))
        readings.append(("key", Reading(host_tensor(np.arange(keys, dtype=np.int32)))))
    (scores, *seen) = _stepped(queue, scores, readings, what.looking.between(at, what.scores))
    weights = softmax_of(queue, scores, F32, (math.prod(what.shape[:-1]), keys, 1))
    after = what.looking.after(at, what.scores)
    if len(after) > 1 or after[-1].store is not None:
        weights, *more = _stepped(queue, weights, readings, after)
        seen += more
    y = queue.empty((*what.shape[:-1], v.shape[-1]), what.store)
    product(queue, _stack(View(weights, what.shape, contiguous(what.shape)), what.lead), _stack(v, what.lead), y, keys)
    return y, next(iter(seen), None)


def _stepped(queue: Queue, x: Tensor, readings: Sequence[tuple[str, Reading]], steps: Sequence[Step]) -> list[Tensor]:
    """What the last of some steps makes, in FP32, and what they store."""
    last = Step("made", "float", steps[-1].name, "", F32)
    *stored, made = run_steps(queue, x.shape, [("sum", Reading(x)), *readings], [*steps, last])
    return [made, *stored]


def _stack(x: View, lead: Shape) -> Matrices:
    return Matrices(x.tensor, x.batch(lead), x.strides[-2], x.strides[-1])


ATTENTION = (Op(("Attention",), attention),)
