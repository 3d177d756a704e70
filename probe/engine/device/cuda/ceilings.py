"""The roofs of the roofline on a GPU: how fast matrices are multiplied in each precision, and how fast memory is read and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda import library
from probe.engine.device.cuda.errors import Refused, Unsupported
from probe.engine.device.cuda.ops.products import named
from probe.engine.device.cuda.ops.products.ending import Ending
from probe.engine.device.cuda.ops.products.matmul import run
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.results.bench import Ceilings

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend

SIDE = 4096  # of the matrices
COPIED = 1 << 28  # elements of FP32: 1 GiB, many times what caches hold
_RUNS = 8  # the best counts, because noise only ever adds
_EACH = 4  # products or copies of a run
_FORMATS = {"fp16": F16, "bf16": BF16, "tf32": F32, "fp32": F32}
_TRIED = 2  # names of each library
Roof = tuple[float, str]  # what was reached, and by what
_known: dict[tuple[str, str, str], Roof] = {}  # of this process: GPU, architecture, what was measured


def measure_ceilings(
    backend: Backend, precisions: Iterable[str], *, side: int = SIDE, copied: int = COPIED
) -> Ceilings:
    """Measured once in a process, on the device's clock: products of two matrices of random values, by our kernel and by those of a library
    where one is installed, the fastest named; a tensor read once and written once.

    Args:
        precisions: to multiply in; the first one's is the roof where none is said.
        side: of the matrices.
        copied: elements that are moved.

    Raises:
        CudaError: there is no memory left.
    """
    queue = Queue(backend, 18, layer="ceilings")
    asked = tuple(dict.fromkeys(precisions)) or ("fp32",)
    found = {one: _once(backend, one, lambda one=one: _product_rate(queue, one, side)) for one in asked}
    bandwidth, _ = _once(backend, "copy", lambda: (_copy_rate(queue, copied), ""))
    products = ", ".join(f"{name.upper()} {rate / 1e12:.3g} by {by}" for name, (rate, by) in found.items())
    method = (
        f"{backend.name}, the best of {_RUNS} runs: products of {side} x {side} matrices, TFLOP/s: {products}; "
        f"{8 * copied / 1e6:.0f} MB moved, half read and half written"
    )
    roofs = {name: rate for name, (rate, _) in found.items()}
    return Ceilings(roofs[asked[0]], bandwidth, method, roofs)


def _once(backend: Backend, what: str, measured: Callable[[], Roof]) -> Roof:
    key = (backend.name, backend.arch, what)
    if key not in _known:
        _known[key] = measured()
    return _known[key]


def _product_rate(queue: Queue, precision: str, side: int) -> Roof:
    """FLOP/s, and whose kernel it was."""
    random = np.random.default_rng(0)
    stored = _FORMATS[precision]
    rounding = "tf32" if precision == "tf32" else ""
    left, right = (
        queue.convert(host_tensor(random.standard_normal((side, side), dtype=np.float32)), stored, rounding)
        for _ in range(2)
    )
    made = queue.empty((side, side), stored)
    whole = describe(
        Matrices(left, (), side, 1), Matrices(right, (), side, 1), None, made.shape, side, Ending(made.shape, (made,)),
        tf32=precision == "tf32",
    )  # fmt: skip
    best = _best(queue.backend, lambda: run(queue, whole)), "probe's own kernel"
    for family in library.families():
        for name in islice(family.offered(queue, whole), _TRIED):
            with suppress(Unsupported, Refused):
                best = min(best, (_best(queue.backend, lambda name=name: named.launch(queue, whole, name)), name))
    return 2 * side**3 / best[0], best[1]


def _copy_rate(queue: Queue, elements: int) -> float:
    """Bytes a second, read and written, of the kernel that rounds a tensor; whatever the memory holds."""
    source = queue.empty((elements,), F32)
    return 8 * elements / _best(queue.backend, lambda: queue.convert(source, F32, "tf32"))


def _best(backend: Backend, work: Callable[[], object]) -> float:
    """Seconds of one time that ``work`` is done."""

    def several() -> None:
        for _ in range(_EACH):
            work()

    work()
    backend.synchronize()
    return min(backend.seconds(several) for _ in range(_RUNS)) / _EACH
