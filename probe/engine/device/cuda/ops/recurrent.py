"""LSTM, GRU and RNN: one product for the inputs of all steps, one launch for the recurrence."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.products.matmul import Matrices, product
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import F32, I32

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_SHARED = 48 << 10  # bytes of a block
_AXES = 3  # of inputs and weights
_PEEPHOLES = 7  # position of the input
_TURNED = "turned"  # what a weight with its last axes exchanged is kept as


class Shape(Struct):
    """The struct of kernels/recurrent.cu."""

    _fields_ = tuple((name, ctypes.c_int) for name in ("directions", "steps", "batch", "backward"))


def recurrent(queue: Queue, call: Call) -> list[Tensor | None]:
    op = call.node.op_type
    x, w, r = (call.data(at) for at in range(3))
    bias, lengths, first = (call.given(at) for at in (3, 4, 5))
    cell = call.given(6) if op == "LSTM" else None
    relu = _refused(call, w.shape[0])
    if not len(x.shape) == len(w.shape) == len(r.shape) == _AXES:
        raise Unsupported(f"{op} of {x.shape}")
    steps, batch, width = x.shape
    directions, cols, hidden = r.shape
    shape = (steps, directions, batch, hidden)
    shapes = (shape, shape[1:], shape[1:])
    made = [
        queue.empty(own, form or F32) if form is not None else None
        for own, form in zip(shapes, call.formats, strict=False)
    ]
    if not math.prod(shape) or any(one is not None and one.format not in (None, I32) for one in (lengths,)):
        raise Unsupported(f"{op} of nothing")
    known = queue.known(lengths) if lengths is not None else None
    if known is not None and ((known < 0) | (known > steps)).any():
        raise Unsupported("a length that is out of range")
    gates = queue.empty((directions, steps * batch, cols), F32)
    inputs = Matrices(x.view((steps * batch, width)), (0,), width, 1)
    product(queue, inputs, Matrices(w, (cols * width,), 1, width), gates, width, tactic=call.tactic)
    turned = _turned(queue, call, r)
    rows = 8
    while rows > 1 and (
        directions * math.ceil(batch / rows) < queue.backend.multiprocessors or 4 * rows * (2 * hidden + cols) > _SHARED
    ):
        rows //= 2
    if 4 * rows * (2 * hidden + cols) > _SHARED:
        raise Unsupported(f"{op} of {hidden} units")
    threads = min(max(32, -(-cols // 32) * 32), 512)

    def name(tensor: Tensor | None) -> str:
        return tensor.format.name if tensor is not None and tensor.format is not None else "float"

    outputs = [*made, *(None for _ in range(3 - len(made)))]
    macros = (
        ("KIND", op), ("H", hidden), ("BT", rows), ("THREADS", threads), ("RESET_AFTER", call.int("linear_before_reset", 0)),
        ("RELU", int(relu)), ("TR", name(turned)), ("TB", name(bias)), ("TH", name(first)), ("TC", name(cell)),
        *((macro, name(one)) for macro, one in zip(("TY", "TYH", "TYC"), outputs, strict=True)),
    )  # fmt: skip
    queue.launch(
        Source("recurrent.cu", "recurrent", macros), directions * math.ceil(batch / rows), threads,
        *map(queue.at, (gates, turned, bias, first, cell, lengths, *outputs)), queue.fault() if lengths is not None else queue.at(None),
        Shape(directions, steps, batch, int(call.text("direction", "forward") == "reverse")),
    )  # fmt: skip
    return made


def _refused(call: Call, directions: int) -> bool:
    """Whether an RNN's activation is Relu.

    Raises:
        Unsupported: options that the kernel does not know.
    """
    op = call.node.op_type
    attributes = call.node.attributes
    given = attributes.get_strings("activations", None)
    wanted = _ACTIVATIONS[op]
    named = tuple(given) if given else wanted * directions
    relu = op == "RNN" and set(named) == {"Relu"}
    if not relu and named != wanted * directions:
        raise Unsupported(f"{op} with {', '.join(named)}")
    for name, usual in (("clip", None), ("layout", 0), ("input_forget", 0)):
        if name in attributes and (usual is None or call.int(name, 0) != usual):
            raise Unsupported(f"{op} with {name}")
    if call.given(_PEEPHOLES) is not None:
        raise Unsupported(f"{op} with peepholes")
    return relu


def _turned(queue: Queue, call: Call, r: Tensor) -> Tensor:
    """R [D, columns, H] as [D, H, columns]; of a weight once."""
    value = call.node.inputs[2]
    if value is None or not value.is_initializer():
        return transposed(queue, r, (0, 2, 1))
    r.kept = r.kept or {}
    if _TURNED not in r.kept:
        r.kept[_TURNED] = transposed(queue.aside, r, (0, 2, 1))
    return r.kept[_TURNED]


RECURRENT = (Op(("LSTM", "GRU", "RNN"), recurrent),)
