"""Names of cuBLASLt's algorithms: for products, and for convolutions of single pixels with channels last, which are products."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.library import PREFIXES, cublaslt, installed
from probe.engine.device.cuda.library.product_problem import library_product
from probe.engine.device.cuda.ops.products.ending import Ending, storing, through
from probe.engine.device.cuda.ops.products.family import Convolution
from probe.engine.device.cuda.ops.products.product import Matrices, Product, describe
from probe.engine.device.cuda.tensors import channels_last as order
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, U8
from probe.engine.device.cuda.tensors.tensor import Tensor
from probe.engine.tactics.library import LtAlgorithm, lt_algorithm

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.formats import Format

_OFFERED = 10
_ELSEWHERE = "the library computes on the GPU alone"
_AXES = 4
_BY_NAME = {one.name: one for one in (F16, BF16, F32)}


class CublasLtFamily:
    """As ``Family``."""

    prefixes: tuple[str, ...] = PREFIXES[:1]

    def offered(self, queue: Queue, problem: Product | Convolution) -> Iterable[str]:
        """As ``Family.offered``: those that the library takes for the fastest."""
        try:
            whole = library_product(_untailed(_planned(queue, problem))).problem
        except Unsupported:
            return []
        if not installed.reaches(queue.backend) or not installed.find_cublaslt():
            return []
        modes = ("32f", "tf32") if whole.tf32 else ("32f",)
        return [str(one.algorithm) for mode in modes for one in cublaslt.offers(whole, mode, _OFFERED // len(modes))]

    def refusal(self, queue: Queue, problem: Product | Convolution, name: str) -> str | None:
        """As ``Family.refusal``. It must compute the product alone, even if it takes the tail along: whoever looks at what lies between asks for that."""
        algorithm = lt_algorithm(name)
        if algorithm is None:
            return "it is no name of an algorithm"
        if not installed.reaches(queue.backend):
            return _ELSEWHERE
        found = installed.find_cublaslt()
        if not found:
            return found.reason
        if found.version != algorithm.version:
            return f"cuBLASLt here is {found.version}: other versions number other algorithms"
        try:
            product = _planned(queue, problem)
        except Unsupported as error:
            return str(error)
        return _reason(_untailed(product), algorithm)

    def launch(self, queue: Queue, problem: Product | Convolution, name: str) -> list[Tensor]:
        """As ``Family.launch``."""
        algorithm = lt_algorithm(name)
        assert algorithm is not None
        reason = _reason(_planned(queue, problem), algorithm)
        if reason is not None:  # without its tail it is computed: ``refusal`` was asked
            raise Unsupported(reason)
        product = _as_product(queue, problem) if isinstance(problem, Convolution) else problem
        whole = library_product(product)
        nbytes = cublaslt.workspace_of(whole.problem, algorithm)
        assert isinstance(nbytes, int)
        workspace = queue.empty((max(nbytes, 1),), U8)
        added = None if whole.c is None else queue.convert(whole.c, _BY_NAME[whole.problem.c_format])
        tensors = (whole.a, whole.b, added, whole.y, workspace)
        queue.call(cublaslt.ProductRoutine(whole.problem, algorithm, nbytes), *map(queue.at, tensors))
        if isinstance(problem, Convolution):
            return [order.dense_when_asked(queue, one) for one in product.ending.stored]
        return list(product.ending.stored)


def _reason(product: Product, algorithm: LtAlgorithm) -> str | None:
    """Why an algorithm does not compute a product and its tail, with the roundings that they should have."""
    try:
        problem = library_product(product).problem
    except Unsupported as error:
        return str(error)
    if algorithm.mode == "tf32" and not problem.tf32:
        return "operands that have not been rounded to TF32"
    if algorithm.mode == "16f" and (problem.a.format, problem.stored) != ("f16", "f16"):
        return "operands and results that are not stored in FP16"
    if algorithm.rounds_between and problem.stored != "float":
        return "it rounds the sums of ranges of k before it adds them"
    found = cublaslt.workspace_of(problem, algorithm)
    return found if isinstance(found, str) else None


def _untailed(product: Product) -> Product:
    """The product as it is computed when its tail is not taken along; its result has no memory."""
    if not product.ending.steps:
        return product
    stored = _BY_NAME.get(product.ending.steps[0].rounding, F32)
    ending = Ending(product.ending.shape, (Tensor(product.ending.shape, stored),))
    return replace(product, ending=ending, beside=())


# --- convolutions --------------------------------------------------------------------------------------------------------


def _planned(queue: Queue, problem: Product | Convolution) -> Product:
    """The product that a problem is, to look at.

    Raises:
        Unsupported: it is none.
    """
    return _as_product(queue, problem, planned=True) if isinstance(problem, Convolution) else problem


def _as_product(queue: Queue, whole: Convolution, *, planned: bool = False) -> Product:
    """A convolution of single pixels, channels last.

    Args:
        planned: nothing has memory, and nothing is launched.

    Raises:
        Unsupported: it has a larger window, steps, groups, or a tail that reads unevenly.
    """
    call, window = whole.call, whole.window
    x, w, bias = call.data(0), call.data(1), call.given(2)
    plain = window.kernel == (1, 1) == window.strides and not any((*window.before, *window.after))
    if len(x.shape) != _AXES or not plain or call.int("group", 1) != 1:
        raise Unsupported("a convolution that is no product: a window of more than a pixel, steps or groups")
    images, channels, *image = x.shape
    outputs = w.shape[0]
    shape = (images, *image, outputs)
    if planned:
        left = Tensor((images, *image, channels), x.format)
        beside = [(name, Reading(_planned_last(one.tensor), one.rounding)) for name, one in whole.readings]
        formats: list[Format] = [one.store for one in whole.steps if one.store is not None] or [call.store()]
        ending = Ending(shape, tuple(Tensor(shape, one) for one in formats), tuple(beside), tuple(whole.steps))
    else:
        left = order.channels_last(queue, x)
        beside = [(name, order.reading_last(queue, one)) for name, one in whole.readings]
        ending = through(queue, shape, beside, whole.steps) if whole.steps else storing(queue, shape, call.store())
    right = w if planned else w.view((outputs, channels))
    added = None if bias is None else Matrices(bias, (), 0, 1)
    a, b = Matrices(left, (), channels, 1), Matrices(right, (), 1, channels)
    return describe(a, b, added, (math.prod(shape[:-1]), outputs), channels, ending, tf32=call.tf32)


def _planned_last(x: Tensor) -> Tensor:
    """What lies beside images, with channels last."""
    shape = (1,) * (_AXES - len(x.shape)) + x.shape
    return Tensor((shape[0], *shape[2:], shape[1]), x.format)
