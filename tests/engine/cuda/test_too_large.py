"""Tensors that no GPU of today may hold, planned without memory: each call is launched on a grid that there is, or refused with its reason; no number
that a kernel has 32 bits for is cut."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from probe import ir
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.library.product_problem import library_product
from probe.engine.device.cuda.numbers import LONGEST, Struct, int32, int32s
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.products.ending import Ending
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import MAX_BLOCKS, Queue
from probe.engine.device.cuda.sums.agreement import Agreements
from probe.engine.device.cuda.sums.comparing import Comparing, Held
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.formats import F16, F32, I64, U8, Format
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor, host_tensor
from probe.engine.device.cuda.tuning.planning import Planning
from probe.engine.device.pairs import Agreement, Asked, Measure, Rows
from tests.engine.cuda.null_backend import NullBackend

BITS = (1 << 31) + 40  # more than 31 bits count
MORE = 3 * (1 << 31) + 8  # and more than 32 do


class H200(NullBackend):
    arch = "sm_90a"


class Noting(Planning):
    """Remembers grids."""

    def __init__(self) -> None:
        super().__init__(H200())
        self.grids: list[tuple[str, int]] = []

    def launch(self, source, shape, arguments, what):
        super().launch(source, shape, arguments, what)
        self.grids.append((getattr(source, "entry", ""), shape.grid[0]))


@dataclass(frozen=True)
class Huge:
    """One node.

    Attributes:
        inputs: a shape of floats, a shape and its format, or an array.
        refused: what the reason says; "": it runs, on ``kernel``.
    """

    op: str
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    kernel: str = ""
    outputs: int = 1
    opset: int = 20
    store: Format = F16

    def __str__(self) -> str:
        shapes = (
            "x".join(map(str, one))
            for one in self.inputs
            if isinstance(one, tuple) and one and isinstance(one[-1], int)
        )
        return f"{self.op}-{'-'.join(shapes)}-{self.kernel or 'refused'}"


def _list(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


ONE, LAST = _list(1), _list(-1)
BYTES = (BITS, U8)
HUGE = (
    # more elements than 32 bits count, and more rows
    Huge("Transpose", ((70_000, 70_000),), {"perm": [1, 0]}, kernel="transpose"),
    Huge("Transpose", ((BITS, 2, 2),), {"perm": [0, 2, 1]}, kernel="copy_strided"),
    Huge("Transpose", ((2, MORE),), {"perm": [1, 0]}, kernel="copy_strided"),
    Huge("Concat", ((2, BITS), (2, BITS)), {"axis": 1}, kernel="copy_strided"),
    Huge("Slice", ((BITS, 5), _list(4), _list(-(1 << 40)), LAST, LAST), kernel="copy_strided"),
    Huge("Gather", ((MORE,), (1 << 32, I64)), kernel="gather"),
    Huge("GatherND", ((MORE, 2), ((5, 1), I64)), kernel="gather_nd"),
    Huge("ScatterND", ((BITS, 2), ((5, 1), I64), (5, 2)), kernel="scatter_nd"),
    Huge("ScatterND", ((MORE, 2), ((5, 1), I64), (5, 2)), {"reduction": "add"}, refused="places"),
    Huge("ScatterElements", ((9,), (BITS, I64), (BITS,)), {"reduction": "add"}, refused="updates"),
    Huge("ScatterElements", ((BITS,), (BITS, I64), (BITS,)), kernel="scatter_elements"),
    Huge("GatherElements", ((MORE,), (BITS, I64)), kernel="gather_elements"),
    Huge("Pad", ((BITS,), _list(1, 1)), kernel="fill"),
    Huge("ReverseSequence", ((5, MORE), (MORE, I64)), kernel="reverse_sequence"),
    Huge("ReduceSum", ((MORE,), _list(0)), kernel="reduce_rows"), Huge("ReduceSum", ((MORE, 5), _list(1)), kernel="reduce_rows"),
    Huge("ReduceSum", ((5, MORE), _list(0)), kernel="reduce_columns"), Huge("ReduceMax", (((MORE, 2), I64), _list(1)), refused="blocks", store=I64),
    Huge("Softmax", ((2, MORE),), kernel="softmax_looped"), Huge("Softmax", ((MORE, 2),), kernel="softmax_held"),
    Huge("Softmax", ((3, MORE),), {"axis": 0}, kernel="softmax_strided"),
    Huge("LayerNormalization", ((1, BITS), (BITS,)), refused="rows of"), Huge("LayerNormalization", ((MORE, 8), (8,)), kernel="norm_held"),
    Huge("InstanceNormalization", ((2, 3, BITS), (3,), (3,)), refused="rows of"),
    Huge("ArgMax", ((2, LONGEST),), {"axis": 1}, refused="31 bits"), Huge("ArgMax", ((2, LONGEST - 8),), {"axis": 1}, kernel="extreme_rows"),
    Huge("ArgMax", ((MORE, 2),), {"axis": 1}, kernel="extreme_rows"), Huge("ArgMax", ((LONGEST, 2),), {"axis": 0}, refused="31 bits"),
    Huge("TopK", ((BITS,), ONE), refused="31 bits", outputs=2), Huge("TopK", ((MORE, 2), ONE), kernel="topk_sort", outputs=2),
    Huge("CumSum", ((MORE,), np.int64(0)), kernel="scan_rows"), Huge("CumSum", ((BITS, 3), np.int64(1)), refused="blocks"),
    Huge("NonZero", ((BITS,),), refused="31 bits"), Huge("OneHot", ((70_000, I64), np.int64(70_000), np.array([0, 1], np.float32)), kernel="chain"),
    Huge("QuantizeLinear", ((MORE,), (), np.uint8(3)), kernel="chain", store=U8), Huge("Det", ((BITS, 2, 2),), refused="blocks"),
    Huge("LpNormalization", ((70_000, 70_000),), kernel="chain"), Huge("LRN", ((BITS, 3),), {"size": 3}, kernel="lrn"),
    # windows
    Huge("MaxPool", ((1, 1, BITS),), {"kernel_shape": [2]}, refused="pixels"), Huge("MaxPool", ((1, 1, MORE),), {"kernel_shape": [2], "strides": [4]}, refused="32 bits"),
    Huge("MaxPool", ((1, 1, 50_000, 50_000),), {"kernel_shape": [2, 2]}, refused="pixels"),
    Huge("AveragePool", ((MORE, 1, 4),), {"kernel_shape": [2]}, kernel="pool_rows"), Huge("AveragePool", ((MORE, 1, 5),), {"kernel_shape": [2]}, kernel="pool_direct"),
    Huge("Conv", ((1, 1, BITS), (8, 1, 3)), refused="Conv of"), Huge("Conv", ((BITS, 1, 3), (1, 1, 3)), refused="32 bits"),
    Huge("Conv", ((1, 1, 3, 9), (1, 1, 3, BITS)), {"pads": [0, BITS, 0, 0]}, refused="Conv of"),
    Huge("Conv", ((1, 1, (1 << 30) + 64), (8, 1, 5)), {"strides": [8]}, refused="30 bits"),
    Huge("ConvTranspose", ((BITS, 1, 3), (1, 1, 3)), refused="32 bits"),
    Huge("ConvInteger", (((1, 1, 1, MORE), U8), ((1, 1, 1, 2), U8)), {"strides": [1, 8]}, refused="32 bits", store=I64),
    Huge("MatMulInteger", (((BITS, 4), U8), ((4, 4), U8)), refused="a product of", store=I64),
    Huge("Resize", ((1, BITS), None, np.array([1, 1.5], np.float32)), {"mode": "linear"}, refused="31 bits"),
    Huge("Resize", ((3 << 30, 4), None, np.array([1, 1.5], np.float32)), {"mode": "linear"}, kernel="resize_lines"),
    Huge("GridSample", ((1, 1, 4, 4), (1, BITS, 1, 2)), kernel="grid_sample"), Huge("GridSample", ((1, 1, 50_000, 50_000), (1, 2, 2, 2)), refused="GridSample of"),
    # products
    Huge("MatMul", ((2, BITS), (BITS, 2)), refused="sums of"), Huge("MatMul", ((MORE, 8), (8, 8)), kernel="matmul_mma"),
    Huge("MatMul", ((20, 8), (8, MORE)), kernel="matmul_mma"), Huge("MatMul", ((2, 8), (8, MORE)), kernel="matmul_mma"), Huge("MatMul", ((BITS, 2, 2), (BITS, 2, 2)), refused="blocks"),
    Huge("MatMul", ((70_000, 70_000), (70_000, 8)), kernel="matmul_wgmma"),
    Huge("Gemm", ((8, BITS), (8, 8)), {"transA": 1}, kernel="matmul_mma"),
    Huge("LSTM", ((BITS, 1, 8), (1, 8, 8), (1, 8, 2)), {"hidden_size": 2}, refused="32 bits"),
    Huge("RotaryEmbedding", ((70_000, 4, 70_000, 8), (70_000, 70_000, 4), (70_000, 70_000, 4)), kernel="rotary", opset=23),
    Huge("Attention", ((1, 1, (1 << 30) + 8, 8), (1, 1, 64, 8), (1, 1, 64, 8)), kernel="softmax_held", opset=23),
    Huge("Attention", ((1, 1, 64, 8), (1, 1, (1 << 30) + 8, 8), (1, 1, (1 << 30) + 8, 8)), refused="30 bits", opset=23),
    Huge("Attention", ((1, 1, 2, 8), (1, 1, BITS, 8), (1, 1, BITS, 8)), refused="30 bits", opset=23),
    Huge("Attention", ((1, 1, BITS, 8), (1, 1, 64, 8), (1, 1, 64, 8)), {"is_causal": 1}, refused="30 bits", opset=23),
    Huge("Attention", ((40_000, 16, 200, 64), (40_000, 16, 200, 64), (40_000, 16, 200, 64)), kernel="attention_held", opset=23),
)  # fmt: skip


def given(backend: Noting | NullBackend, one: Any, usual: Format = F16) -> Tensor | None:
    """An input without memory: of a shape, a shape and its format; or an array."""
    if one is None:
        return None
    if isinstance(one, (np.ndarray, np.generic)):
        return host_tensor(np.asarray(one))
    shape, form = one if one and isinstance(one[-1], Format) else (one, usual)
    shape = (shape,) if isinstance(shape, int) else shape
    made = Tensor(shape, form)
    return Tensor(shape, form, buffer=Buffer(backend, made.nbytes))


@pytest.mark.parametrize("huge", HUGE, ids=str)
def test_it_is_launched_or_refused(huge):
    backend = Noting()
    inputs = [given(backend, one) for one in huge.inputs]
    values = [ir.Value(name=f"x{at}") if one is not None else None for at, one in enumerate(inputs)]
    formats = [huge.store, *(I64 for _ in range(huge.outputs - 1))]
    call = Call(ir.node(huge.op, values, huge.attributes), inputs, formats, huge.opset)
    queue = Queue(backend, huge.opset, recording=True)
    if huge.refused:
        with pytest.raises(Unsupported, match=huge.refused):
            asked_for(queue, call)
        return
    asked_for(queue, call)
    assert huge.kernel in {entry for entry, _ in backend.grids}, backend.grids
    assert all(0 < blocks <= MAX_BLOCKS for _, blocks in backend.grids)


def asked_for(queue: Queue, call: Call) -> None:
    """Computed, and brought into dense order."""
    for made in OPS[call.node.op_type].compute(queue, call):
        if made is not None:
            made.address(queue.backend)


def test_rows_that_are_compared():
    queue = Queue(Noting(), 20)
    x, golden = (given(queue.backend, ((1, LONGEST), form)) for form in (F16, F32))
    for ask in (lambda a: a.rows(x, golden, Agreement(LONGEST)), lambda a: a.columns(x, golden, LONGEST, 1e30)):
        with pytest.raises(Unsupported, match=f"{LONGEST:,}"):
            ask(Agreements(queue))


def test_pairs_of_more_than_32_bits_count_are_the_hosts():
    queue = Queue(Noting(), 20)
    x, golden = (given(queue.backend, ((MORE,), form)) for form in (F16, F32))
    assert x is not None and golden is not None
    held = [Held(one, queue.backend) for one in (x, golden)]
    assert Comparing(queue, 5).add(*held, Asked(Measure(), Rows())) is None


def test_one_row_of_pairs_is_as_long_as_agiven():
    """Rows whose maxima are kept are counted in 30 bits; of one row they are not."""
    size, pairs = 3_000_000_000, Pairs(Queue(H200(), 20))
    x, golden = (given(H200(), ((size,), form)) for form in (F16, F32))
    assert x is not None and golden is not None
    assert pairs.add(x, golden, Measure()) == 0
    with pytest.raises(Unsupported, match="2 rows of 1500000000"):
        pairs.add(x, golden, Measure(), Rows(2))


def test_products_that_a_library_counts():
    a, y = (given(H200(), ((BITS, 4, 4), F16)) for _ in range(2))
    assert a is not None and y is not None
    one = Matrices(a, (16,), 4, 1)
    with pytest.raises(Unsupported, match="31 bits"):
        library_product(describe(one, one, None, (BITS, 4, 4), 4, Ending(y.shape, (y,))))


class Pair(Struct):
    _fields_ = (("wide", ctypes.c_longlong), ("narrow", ctypes.c_int))


def test_no_number_is_cut():
    assert Pair(MORE, -5).narrow == -5
    with pytest.raises(Unsupported, match="2,147,483,688 narrow"):
        Pair(1, BITS)
    assert [*int32s(1, -2)] == [1, -2] and int32(LONGEST).value == LONGEST
    for made in (int32, int32s):
        with pytest.raises(Unsupported, match="2,147,483,688"):
            made(BITS)
