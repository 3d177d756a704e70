"""Convolutions channels last on kernels of sm_90a: problems, the exact result, and one kernel wherever it is possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

from probe import ir
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions import conv_few, conv_image, conv_point, depthwise_mma
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, Format
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """A convolution.

    Attributes:
        x: shape; ``w`` too, [outputs, channels of a group, rows, columns].
        pads: rows and columns before, then behind.
        spoilt: x and w hold values that are not finite.
    """

    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    strides: Pair = (1, 1)
    dilations: Pair = (1, 1)
    spoilt: bool = False

    @property
    def groups(self) -> int:
        return self.x[1] // self.w[1]


IMAGES = {
    "rows": Problem((2, 64, 12, 14), (64, 64, 3, 3), (1, 1, 1, 1)),
    "whole images": Problem((5, 128, 7, 7), (72, 128, 3, 3), (1, 1, 1, 1)),
    "small images": Problem((7, 192, 4, 4), (64, 192, 3, 3), (1, 1, 1, 1)),
    "few channels": Problem((2, 40, 20, 9), (16, 40, 3, 2), (1, 1, 0, 0)),
    "no padding": Problem((3, 72, 9, 11), (24, 72, 2, 3)),
    "wide windows": Problem((2, 64, 10, 13), (8, 64, 5, 5), (2, 2, 2, 2)),
    "one row of taps": Problem((2, 64, 6, 17), (64, 64, 1, 7), (0, 3, 0, 3)),
    "a stem": Problem((2, 3, 30, 40), (64, 3, 7, 7), (3, 3, 3, 3), (2, 2)),
}
POINTS = {
    "even": Problem((2, 64, 8, 8), (64, 64, 1, 1)),
    "few channels": Problem((3, 16, 9, 7), (96, 16, 1, 1)),
    "odd blocks": Problem((2, 24, 11, 5), (72, 24, 1, 1)),
    "few outputs": Problem((1, 144, 5, 7), (24, 144, 1, 1)),
    "many channels": Problem((1, 256, 7, 9), (64, 256, 1, 1)),
    "one pixel": Problem((1, 40, 1, 1), (8, 40, 1, 1)),
}
FEW = {
    "two ranges": Problem((1, 64, 9, 7), (64, 64, 1, 1)),
    "eight ranges": Problem((1, 520, 5, 5), (40, 520, 1, 1)),
    "long": Problem((1, 2048, 4, 4), (24, 2048, 1, 1)),
    "one block of channels": Problem((3, 24, 3, 7), (72, 24, 1, 1)),
}
DEPTHWISE = {
    "three by three": Problem((2, 24, 9, 11), (24, 1, 3, 3), (1, 1, 1, 1)),
    "by two": Problem((2, 96, 13, 12), (96, 1, 3, 3), (1, 1, 1, 1), (2, 2)),
    "five by five": Problem((1, 72, 10, 9), (72, 1, 5, 5), (2, 2, 2, 2)),
    "gaps": Problem((2, 16, 12, 11), (16, 1, 3, 2), (2, 0, 1, 1), (1, 2), (2, 3)),
    "two taps": Problem((3, 8, 5, 6), (8, 1, 1, 2), (0, 1, 0, 0)),
    "not finite": Problem((2, 24, 9, 11), (24, 1, 3, 3), (1, 1, 1, 1), spoilt=True),
}


@contextmanager
def wherever_possible(tile: conv_image.Tile | None = None, *, few: bool = False) -> Iterator[None]:
    """The kernels compute what they can, be it fast or not.

    Args:
        tile: of conv_image; that which should be fastest when left out.
        few: conv_few takes what conv_point would.
    """

    def tile_for(queue: Queue, gathered: Any, outputs: int) -> conv_image.Tile | None:
        if conv_image.refusal(gathered) is not None:
            return None
        return tile or conv_image.choose(conv_image.sizes_of(gathered, outputs), queue.backend.multiprocessors)

    with (
        patch.object(conv_image, "tile_for", tile_for),
        patch.object(conv_point, "is_chosen", lambda product: not few and conv_point.refusal(product) is None),
        patch.object(conv_few, "is_chosen", lambda product, arch, _: few and conv_few.refusal(product, arch) is None),
        patch.object(depthwise_mma, "is_chosen", lambda *given: depthwise_mma.refusal(*given) is None),
    ):
        yield


def operands(queue: Queue, problem: Problem, stored: Format) -> list[Tensor]:
    """x, w and a bias, rounded."""
    random = np.random.default_rng(1)
    x, w, bias = (random.standard_normal(one, dtype=np.float32) for one in (problem.x, problem.w, problem.w[:1]))
    if problem.spoilt:
        x[0, 1, 2, 3], x[0, 4, 4, 4], x[-1, 7, -1, -1], w[6, 0, 0, 0] = np.inf, np.nan, -np.inf, np.inf
    return [queue.convert(host_tensor(one), stored, "tf32" if stored is F32 else "") for one in (x, w, bias)]


def run(queue: Queue, problem: Problem, given: list[Tensor], beside: Tensor | None = None) -> Tensor:
    """The convolution, in FP32; with a tensor beside it that is added, and a ReLU behind."""
    values = [ir.Value(name=name) for name in "xwb"]
    values[1].const_value = ir.tensor(np.zeros(1, np.float32))
    graph = ir.Graph([values[0]], [], nodes=[], initializers=[values[1]])
    assert values[1].is_initializer(), graph
    attributes = {
        "pads": problem.pads,
        "strides": problem.strides,
        "dilations": problem.dilations,
        "group": problem.groups,
    }
    call = Call(ir.node("Conv", values, attributes), given, [F32], 18, tf32=given[0].format is F32)
    if beside is None:
        (y,) = OPS["Conv"].compute(queue, call)
        assert y is not None
        return y
    steps = [Step("v", "float", "float(op_add(sum, x0))", ""), Step("y", "float", "op_relu(v)", "", F32)]
    tail = OPS["Conv"].tailed
    assert tail is not None
    (y,) = tail(queue, call, [("x0", Reading(beside))], steps)
    return y


def exact(x: np.ndarray, w: np.ndarray, bias: np.ndarray, problem: Problem) -> np.ndarray:
    """In float64."""
    pads, steps, gaps = problem.pads, problem.strides, problem.dilations
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    sizes = zip(x.shape[2:], w.shape[2:], steps, gaps, strict=True)
    rows, cols = ((extent - (size - 1) * gap - 1) // step + 1 for extent, size, step, gap in sizes)
    y = np.zeros((x.shape[0], w.shape[0], rows, cols)) + bias.astype(np.float64)[:, None, None]
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            down, right = i * gaps[0], j * gaps[1]
            tap = x[
                ...,
                down : down + (rows - 1) * steps[0] + 1 : steps[0],
                right : right + (cols - 1) * steps[1] + 1 : steps[1],
            ]
            weights = w[:, :, i, j].astype(np.float64)
            if problem.groups > 1:
                y += tap * weights[:, :, None]
            else:
                y += np.moveaxis(np.tensordot(tap, weights, ((1,), (1,))), -1, 1)
    return y


def computed(
    backend: Any,
    problem: Problem,
    stored: Format,
    *,
    tailed: bool = False,
    tile: conv_image.Tile | None = None,
    few: bool = False,
) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """The result, the exact one of the same operands, and which of the kernels ran."""
    queue = Queue(backend, 18)
    given, beside = operands(queue, problem, stored), None
    with np.errstate(invalid="ignore"):
        x, w, bias = (one.array(backend).astype(np.float32) for one in given)
        expected = exact(x, w, bias, problem)
    if tailed:
        added = np.random.default_rng(2).standard_normal(expected.shape, dtype=np.float32)
        beside = queue.convert(host_tensor(added), stored, "tf32" if stored is F32 else "")
        expected = np.maximum(expected + beside.array(backend).astype(np.float32), 0.0)
    with wherever_possible(tile, few=few):
        actual = run(queue, problem, given, beside).array(backend)
    return actual, expected, {"conv_image", "conv_point", "conv_few", "conv_depthwise_mma"} & set(queue.launches)


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    finite = np.isfinite(expected)
    assert np.array_equal(actual[~finite], expected[~finite], equal_nan=True)
    assert np.abs(actual[finite] - expected[finite]).max() <= 1e-5 * np.abs(expected[finite]).max()
