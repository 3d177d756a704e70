"""``ProductProblem``: a batch of products as cuBLASLt sees it, and which part of what comes behind it the library may take along.

Only that is taken along which gives the bits of the product followed by our own kernels: everything is FP32 until it is stored, and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Matrices, Pair, Product
    from probe.engine.device.cuda.tensors.tensor import Tensor

_MULTIPLIED = (F16, BF16, F32)


@dataclass(frozen=True, slots=True)
class Side:
    """A stack of matrices in memory.

    Attributes:
        format: name of it.
        turned: columns are contiguous, not rows.
        line: elements from one row (column, where turned) to the next.
        batch: elements from one matrix to the next.
    """

    format: str
    turned: bool
    line: int
    batch: int


@dataclass(frozen=True, slots=True)
class ProductProblem:
    """``alpha * a @ b + beta * c`` [batch, m, n], row by row.

    Attributes:
        stored: format of the result.
        c: what is added: ``row`` the same to every row, ``matrix`` to every element, as the result lies; "" nothing.
        c_format: of it.
        relu: negative results become zero.
        gelu: the library's GELU, which approximates by tanh: nothing that a network asks for is computed by it.
        tf32: a and b hold no more bits than TF32 has.
    """

    m: int
    n: int
    k: int
    batch: int
    a: Side
    b: Side
    stored: str
    c: str = ""
    c_format: str = ""
    relu: bool = False
    gelu: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    tf32: bool = False


@dataclass(frozen=True, slots=True)
class LibraryProduct:
    """A problem and its tensors; ``c`` as it lies, which may be narrower than the problem's: widening it changes nothing."""

    problem: ProductProblem
    a: Tensor
    b: Tensor
    c: Tensor | None
    y: Tensor


def library_product(product: Product) -> LibraryProduct:
    """A product as the library computes it.

    Raises:
        Unsupported: it does not; says why. For a product with a tail: not together with it.
    """
    a, b = product.a, product.b
    if a.tensor.format not in _MULTIPLIED or a.tensor.format is not b.tensor.format:
        raise Unsupported("operands of two types, or of a type that the library does not multiply")
    if not product.k or not product.m or not product.n:
        raise Unsupported("an empty product")
    if product.batches >= LONGEST:
        raise Unsupported(f"{product.batches:,} products: more than 31 bits count")
    left, right = _side(product, a, product.a_batch, product.k), _side(product, b, product.b_batch, product.n)
    problem = ProductProblem(
        product.m, product.n, product.k, product.batches, left, right, "", alpha=product.alpha, tf32=product.tf32
    )
    found = _plain(product, problem) if not product.ending.steps else _tailed(product, problem)
    stored, taken = found.y.format, found.problem.c_format
    if stored is None or stored not in (F32, a.tensor.format):
        raise Unsupported("a result stored in another 16-bit type")
    if taken and taken != stored.name and (taken == "float" or found.problem.c == "matrix"):
        raise Unsupported("something added that is stored in another type than the result")
    return replace(found, problem=replace(found.problem, c_format=stored.name)) if taken else found


def _side(product: Product, x: Matrices, steps: Pair, width: int) -> Side:
    """Args:
    width: elements of a row.
    """
    assert x.tensor.format
    batch = _step(product, steps)
    height = product.m if x is product.a else product.k
    if x.col == 1 or width == 1:
        return Side(x.tensor.format.name, turned=False, line=max(x.row, width) if height > 1 else width, batch=batch)
    if x.row == 1 or height == 1:
        return Side(x.tensor.format.name, turned=True, line=max(x.col, height), batch=batch)
    raise Unsupported("an operand neither whose rows nor whose columns are contiguous")


def _step(product: Product, steps: Pair) -> int:
    """From one matrix of the batch to the next, both axes taken as one."""
    outer, inner = product.extents
    if outer == 1:
        return steps[1]
    if inner == 1:
        return steps[0]
    if steps[0] != inner * steps[1]:
        raise Unsupported("a batch that does not lie evenly")
    return steps[1]


def _plain(product: Product, problem: ProductProblem) -> LibraryProduct:
    (y,) = product.ending.stored
    made = LibraryProduct(_into(problem, y), product.a.tensor, product.b.tensor, None, y)
    if product.c is None:
        return made
    return _added(product, made, product.c, product.c_batch, product.beta)


def _into(problem: ProductProblem, y: Tensor) -> ProductProblem:
    assert y.format
    return replace(problem, stored=y.format.name)


def _added(product: Product, made: LibraryProduct, c: Matrices, steps: Pair, beta: float) -> LibraryProduct:
    """With ``beta * c``: as the library's bias, which it adds as it is, or as its matrix C."""
    assert c.tensor.format
    name = c.tensor.format.name
    if c.row == 0 and c.col == 1 and not any(steps) and beta == 1:
        return replace(made, problem=replace(made.problem, c="row", c_format=name, beta=0.0), c=c.tensor)
    dense = (c.row, c.col) == (product.n, 1) and (
        product.batches == 1 or _step(product, steps) == product.m * product.n
    )
    if dense:
        return replace(made, problem=replace(made.problem, c="matrix", c_format=name, beta=beta), c=c.tensor)
    raise Unsupported("something added that is neither one row for all nor a matrix like the result")


def _tailed(product: Product, problem: ProductProblem) -> LibraryProduct:
    """With pointwise nodes behind it: one addition, one Relu. Whatever lies between must not be rounded, or the library would compute something else."""
    first, *rest = product.ending.steps
    last = product.ending.steps[-1]
    if len(product.ending.stored) != 1 or last.store is None:
        raise Unsupported("a tail that stores more than its end")
    if any(step.rounding for step in product.ending.steps[:-1]):
        raise Unsupported("a tail in which a tensor is rounded, which the library keeps in FP32")
    if last.rounding != ("" if last.store is F32 else last.store.name):
        raise Unsupported("a tail whose end is rounded otherwise than stored")
    (y,) = product.ending.stored
    made = LibraryProduct(_into(problem, y), product.a.tensor, product.b.tensor, None, y)
    if product.c is not None:
        made = _added(product, made, product.c, product.c_batch, product.beta)
    value, names = first.name, [name for name, _ in product.ending.readings]
    for step in rest:
        added = summand(step.expression, value)
        if step.expression == value:  # the same under another shape
            pass
        elif step.expression == f"op_relu({value})" and step is last:
            made = replace(made, problem=replace(made.problem, relu=True))
        elif added in names and not made.problem.c and product.alpha == 1:
            reading, own = product.ending.readings[names.index(added)][1], product.beside[names.index(added)]
            if reading.rounding:
                raise Unsupported("a tail that rounds what it reads")
            made = _added(product, made, _as_matrices(reading.tensor, own), (own[0], own[1]), 1.0)
        else:
            raise Unsupported(f"a tail that the library does not take along: {step.expression}")
        value = step.name
    return made


def _as_matrices(tensor: Tensor, own: tuple[int, int, int, int]) -> Matrices:
    from probe.engine.device.cuda.ops.products.product import Matrices

    return Matrices(tensor, (own[0], own[1]), own[2], own[3])


def summand(expression: str, value: str) -> str:
    """What an expression adds to ``value``; "" when it does something else."""
    for left, right in ((f"float(op_add({value}, ", "))"), ("float(op_add(", f", {value}))")):
        if expression.startswith(left) and expression.endswith(right):
            found = expression[len(left) : len(expression) - len(right)]
            return found if found.isidentifier() else ""
    return ""
