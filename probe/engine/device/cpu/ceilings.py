"""The roofs of the roofline on a CPU: how fast it multiplies matrices and how fast it moves bytes, by the means that layers have."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from probe.engine.device.cpu.session import build
from probe.ort.values import to_value
from probe.results.bench import Ceilings

if TYPE_CHECKING:
    import onnxruntime

# Of the matrices. Large enough for kernels to reach their speed; the smaller one is done within a time slice, so that on a busy machine some
# of its runs are undisturbed.
SIDES = (512, 1024)
ELEMENTS = 2**24  # 64 MiB a tensor: more than caches hold
_SECONDS = 0.2  # for each measurement, at least; the best run counts, because noise only ever adds
_LEAST = 5  # runs


@cache
def measure_ceilings(threads: int) -> Ceilings:
    """Measured once in a process: a product of two FP32 matrices, and a tensor read once and written once.

    Both run through ONNX Runtime with the network's threads, because a ceiling of another library would be one that no layer can reach, and
    through numpy, in case that is faster.

    Args:
        threads: of one operator; 0: as many as there are cores.
    """
    product = one_node_session("MatMul", 2, threads)
    flops = max(_product_rate(product, side, numpy=threads == 0) for side in SIDES)
    source = np.ones(ELEMENTS, np.float32)
    target = np.zeros_like(source)
    moving = one_node_session("Relu", 1, threads)
    moved = {"x0": to_value(source)}
    copy = min(_best(lambda: moving.run_with_ort_values(None, moved)), _best(lambda: np.copyto(target, source)))
    method = (
        f"the best of several runs: FP32 products of {' and '.join(f'{side} x {side}' for side in SIDES)} matrices; "
        f"{2 * source.nbytes / 1e6:.0f} MB moved, half read and half written"
    )
    return Ceilings(flops, 2 * source.nbytes / copy, method)


def _product_rate(session: onnxruntime.InferenceSession, side: int, *, numpy: bool) -> float:
    """FLOP/s of a product of two square matrices; ``numpy`` may be the one that is faster."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((side, side), dtype=np.float32) for _ in range(2))
    factors = {"x0": to_value(left), "x1": to_value(right)}
    out = np.empty_like(left)
    seconds = _best(lambda: session.run_with_ort_values(None, factors))
    if numpy:
        seconds = min(seconds, _best(lambda: np.matmul(left, right, out=out)))
    return 2 * side**3 / seconds


def one_node_session(op: str, inputs: int, threads: int) -> onnxruntime.InferenceSession:
    """A session of one node: FP32 tensors ``x0``, ``x1``, ... in, ``y`` out, of any shape."""
    names = [f"x{at}" for at in range(inputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"])], op, [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
        [onnx.ValueInfoProto(name="y")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return build(model.SerializeToString(), {}, threads=threads)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    best, spent, runs = float("inf"), 0.0, 0
    while spent < _SECONDS or runs < _LEAST:
        begin = time.perf_counter()
        work()
        taken = time.perf_counter() - begin
        best, spent, runs = min(best, taken), spent + taken, runs + 1
    return best
