"""``Product``: a batch of matrix products as kernels see it (kernels/product.cuh)."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.backend import Argument
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.products.ending import Ending
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.layout import Shape, Strides, collapse, contiguous

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

Pair = tuple[int, int]
_BATCH = 2  # batch axes that a kernel walks over
_LONGEST = 1 << 30  # k, from which on kernels take it for what there is none of


class Problem(Struct):
    """The struct of kernels/product.cuh."""

    _fields_ = (
        ("m", ctypes.c_longlong), ("n", ctypes.c_longlong), ("k", ctypes.c_longlong),
        ("a_batch", ctypes.c_longlong * 2), ("b_batch", ctypes.c_longlong * 2), ("c_batch", ctypes.c_longlong * 2),
        ("batch1", ctypes.c_longlong), ("batches", ctypes.c_longlong),
        ("a_row", ctypes.c_longlong), ("a_col", ctypes.c_longlong), ("b_row", ctypes.c_longlong), ("b_col", ctypes.c_longlong),
        ("c_row", ctypes.c_longlong), ("c_col", ctypes.c_longlong),
        ("down", ctypes.c_longlong), ("across", ctypes.c_longlong),
        ("alpha", ctypes.c_float), ("beta", ctypes.c_float),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Matrices:
    """A tensor as a stack of matrices: batch strides, row and column stride, in elements.

    Attributes:
        fixed: a weight: what is made of it may be kept.
    """

    tensor: Tensor
    batch: Strides
    row: int
    col: int
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """``alpha * a @ b + beta * c`` for every matrix of a batch, [..., m, n], and what becomes of it.

    Attributes:
        extents: of the joined batch axes: two.
        a_batch: strides along them, in elements; so b_batch and c_batch.
        beside: strides of what the ending reads: batch axes, row, column.
        tactic: how sums accumulate.
        tf32: a and b are stored in FP32, but hold no more bits than TF32 has.
    """

    a: Matrices
    b: Matrices
    c: Matrices | None
    ending: Ending
    m: int
    n: int
    k: int
    extents: Pair
    a_batch: Pair
    b_batch: Pair
    c_batch: Pair
    beside: tuple[tuple[int, int, int, int], ...]
    alpha: float = 1.0
    beta: float = 1.0
    tactic: str = EXACT
    tf32: bool = False

    @property
    def batches(self) -> int:
        return math.prod(self.extents)

    def source(self, file: str, entry: str, macros: Sequence[tuple[str, str | int]]) -> Source:
        """The kernel; its macros are those given, and the types of c and y."""
        added = self.c.tensor.format if self.c is not None else F32
        assert added
        return self.ending.source(file, entry, (*macros, ("TC", added.name)), self.beside, self.n)

    def arguments(self, queue: Queue) -> list[Argument]:
        """c, and where results go."""
        return [queue.at(self.c.tensor if self.c is not None else None), *self.ending.arguments(queue, self.beside)]

    def problem(self, rows: int, cols: int) -> Problem:
        """The struct for tiles of so many rows and columns."""
        return self.tiled(math.ceil(self.m / rows), math.ceil(self.n / cols), self.a_batch, self.b_batch)

    def tiled(self, down: int, across: int, a_batch: Pair, b_batch: Pair) -> Problem:
        """The struct for so many tiles."""
        pair, a, b, c = ctypes.c_longlong * 2, self.a, self.b, self.c
        return Problem(
            self.m, self.n, self.k, pair(*a_batch), pair(*b_batch), pair(*self.c_batch), self.extents[1], self.batches,
            a.row, a.col, b.row, b.col, c.row if c is not None else 0, c.col if c is not None else 0, down, across, self.alpha, self.beta,
        )  # fmt: skip


def describe(
    a: Matrices,
    b: Matrices,
    c: Matrices | None,
    shape: Shape,
    k: int,
    ending: Ending,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    tactic: str = EXACT,
    tf32: bool = False,
) -> Product:
    """A product with its batch axes joined.

    Args:
        shape: batch axes, m, n: the elements of the ending's shape.

    Raises:
        Unsupported: more than two batch axes are left, k is too large, or what the ending reads lies unevenly.
    """
    *batch, m, n = shape
    none = tuple(0 for _ in batch)
    beside = ending.strides(shape)
    walked = [contiguous(batch), a.batch, b.batch, c.batch if c is not None else none, *(one[:-2] for one in beside)]
    extents, strides = collapse(tuple(batch), walked)
    if k >= _LONGEST:
        raise Unsupported(f"sums of {k:,} products: more than 30 bits count")
    if len(extents) > _BATCH:
        raise Unsupported(f"a product over {len(extents)} batch axes")
    missing = _BATCH - len(extents)
    _, of_a, of_b, of_c, *rest = [_pair((0,) * missing + one) for one in strides]
    of_tail = tuple((*own, one[-2], one[-1]) for own, one in zip(rest, beside, strict=True))
    whole = _pair((1,) * missing + extents)
    return Product(a, b, c, ending, m, n, k, whole, of_a, of_b, of_c, of_tail, alpha, beta, tactic, tf32)


def _pair(numbers: Sequence[int]) -> Pair:
    return numbers[0], numbers[1]


class Splits(Protocol):
    """A tactic of products."""

    @property
    def splits(self) -> int:
        """Ranges that k is cut into, each summed by itself."""
        ...


S = TypeVar("S", bound=Splits)


def least(possible: Iterable[S], usual: S, cost: Callable[[S], float]) -> S:
    """The tactic that costs least of those that split k as often as ``usual``, which is best for the product alone.

    How often k is split depends on neither what follows a product nor how its operands lie: the tile that computes a sum changes none of its
    bits, the ranges of k that are added do.
    """
    return min((one for one in possible if one.splits == usual.splits), key=cost)
