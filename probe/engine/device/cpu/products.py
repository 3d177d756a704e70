"""Matrix products and convolutions with a stated accumulator and order, in numpy: the arithmetic of tactics other than exact.

Model of FP16 accumulation (tensor cores, HMMA with an FP16 accumulator): the reduction is cut into blocks of k; products and sums inside a
block are FP32, the running sum is rounded to FP16 after every block, ``acc = fp16(acc + sum of block)``. Split-K: the reduction is cut into
contiguous ranges, each summed in FP32, the sums added in FP32 along a balanced binary tree. Everything outside the reduction (bias, alpha,
beta) is FP32, on the accumulator's value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from probe import ir
from probe.engine.device.cpu.winograd import winograd
from probe.engine.tactics import Tactic
from probe.errors import InputError

Array = np.ndarray[Any, Any]
_PATCH_ELEMENTS = 1 << 24  # of an unrolled input held at once: 64 MB


def product(node: ir.Node, inputs: Sequence[Array | None], tactic: Tactic) -> Array:
    """Output of a MatMul, Gemm, Conv or ConvTranspose on inputs as given (already rounded to what they are stored in).

    Raises:
        InputError: the tactic cannot compute this node; says why.
    """
    shapes = {
        v.name: a.shape for v, a in zip(node.inputs, inputs, strict=True) if v is not None and v.name and a is not None
    }
    if (reason := tactic.refuses(node, shapes)) is not None:
        raise InputError(reason)
    a, b = inputs[0], inputs[1]
    assert a is not None and b is not None
    bias = inputs[2] if len(inputs) > 2 else None
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # Inf and NaN are results here, as they are in the session's kernels
        match node.op_type:
            case "MatMul":
                return matmul(a, b, tactic)
            case "Gemm":
                return _gemm(node, a, b, bias, tactic)
            case "Conv":
                return _conv(node, a, b, bias, tactic)
            case _:  # ConvTranspose: what else is no product was refused
                return _conv_transpose(node, a, b, bias, tactic)


def matmul(a: Array, b: Array, tactic: Tactic) -> Array:
    """``a @ b`` as ONNX MatMul, [..., m, k] x [..., k, n], 1-D operands included; the sum over k accumulates as the tactic says."""
    if tactic.order == "any":
        return np.matmul(a, b)
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    with np.errstate(over="ignore", invalid="ignore"):  # overflow to Inf is what is being modelled
        if tactic.order == "blocks":
            total = _in_blocks(left, right, tactic.block)
        else:
            total = _in_ranges(left, right, 0, tactic.splits, tactic)
    if a.ndim == 1:
        total = total[..., 0, :]
    return total[..., 0] if b.ndim == 1 else total


def _in_blocks(left: Array, right: Array, block: int) -> Array:
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    total = np.zeros((*batch, left.shape[-2], right.shape[-1]), np.float32)
    for start in range(0, left.shape[-1], block):
        part = np.matmul(left[..., start : start + block], right[..., start : start + block, :])
        total = (total + part).astype(np.float16).astype(np.float32)
    return total


def _in_ranges(left: Array, right: Array, first: int, last: int, tactic: Tactic) -> Array:
    """The sum of the ranges from ``first`` to before ``last``: of one, or of its halves."""
    if last - first > 1:
        middle = (first + last) // 2
        total = _in_ranges(left, right, first, middle, tactic)
        total += _in_ranges(left, right, middle, last, tactic)
        return total
    k = left.shape[-1]
    begin, end = first * k // tactic.splits, last * k // tactic.splits
    return np.matmul(left[..., begin:end], right[..., begin:end, :])


def _gemm(node: ir.Node, a: Array, b: Array, c: Array | None, tactic: Tactic) -> Array:
    a = a.T if _int(node, "transA", 0) else a
    b = b.T if _int(node, "transB", 0) else b
    total = matmul(a, b, tactic) * np.float32(_float(node, "alpha", 1.0))
    return total if c is None else total + c * np.float32(_float(node, "beta", 1.0))


def _conv(node: ir.Node, x: Array, w: Array, bias: Array | None, tactic: Tactic) -> Array:
    """Convolution by unrolling: x [n, c, *space], w [m, c / groups, *kernel] -> [n, m, *space]. The reduction runs over
    channels, then kernel positions, in the order of ``w``."""
    kernel = w.shape[2:]
    strides, dilations, pads = _window(node, x.shape[2:], kernel)
    groups = _int(node, "group", 1)
    if tactic.algorithm == "winograd":
        result = winograd(x, w, pads, tactic.tile)
        return result if bias is None else result + bias.reshape(1, -1, 1, 1)
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    spans = tuple((size - 1) * d + 1 for size, d in zip(kernel, dilations, strict=True))
    axes = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=axes)
    view = view[
        (slice(None), slice(None), *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))
    ]
    space = view.shape[2 : x.ndim]
    channels, outputs = x.shape[1] // groups, w.shape[0] // groups
    result = np.empty((x.shape[0], w.shape[0], *space), np.float32)
    rows = math.prod(space)
    for item in range(x.shape[0]):
        for group in range(groups):
            patches = view[item, group * channels : (group + 1) * channels]  # [c, *space, *kernel]
            weights = w[group * outputs : (group + 1) * outputs].reshape(outputs, -1).T
            patches = np.moveaxis(patches, 0, len(space)).reshape(rows, -1)
            step = max(1, _PATCH_ELEMENTS // max(patches.shape[1], 1))
            for start in range(0, rows, step):
                block = matmul(patches[start : start + step], weights, tactic)
                target = result[item, group * outputs : (group + 1) * outputs].reshape(outputs, rows)
                target[:, start : start + step] = block.T
    return result if bias is None else result + bias.reshape(1, -1, *(1,) * len(space))


def _conv_transpose(node: ir.Node, x: Array, w: Array, bias: Array | None, tactic: Tactic) -> Array:
    """Transposed convolution as the convolution it is: x spread out by the strides, w [c, m / groups, *kernel] turned round."""
    kernel, space = w.shape[2:], x.shape[2:]
    groups = _int(node, "group", 1)
    strides = _ints(node, "strides", [1] * len(kernel))
    dilations = _ints(node, "dilations", [1] * len(kernel))
    extra = _ints(node, "output_padding", [0] * len(kernel))
    spans = [(size - 1) * d + 1 for size, d in zip(kernel, dilations, strict=True)]
    full = [(n - 1) * s + span + e for n, s, span, e in zip(space, strides, spans, extra, strict=True)]
    begins, ends = _transposed_pads(node, space, strides, full)
    spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(space, strides, strict=True))), np.float32)
    spread[(slice(None), slice(None), *(slice(None, None, s) for s in strides))] = x
    channels = x.shape[1] // groups
    turned = np.flip(w.reshape(groups, channels, *w.shape[1:]), axis=tuple(range(3, 3 + len(kernel))))
    turned = np.swapaxes(turned, 1, 2).reshape(-1, channels, *kernel)
    margins = [
        (span - 1 - low, span - 1 - high + e) for span, low, high, e in zip(spans, begins, ends, extra, strict=True)
    ]
    crop = tuple(slice(max(-low, 0), None if high >= 0 else high) for low, high in margins)
    spread = spread[(slice(None), slice(None), *crop)]
    plain = ir.node(
        "Conv", [],
        attributes={"group": groups, "dilations": dilations,
                    "pads": [max(low, 0) for low, _ in margins] + [max(high, 0) for _, high in margins]},
    )  # fmt: skip
    return _conv(plain, spread, np.ascontiguousarray(turned), bias, tactic)


def _transposed_pads(
    node: ir.Node, space: Sequence[int], strides: Sequence[int], full: Sequence[int]
) -> tuple[list[int], list[int]]:
    rank = len(space)
    wanted = _ints(node, "output_shape", [])
    auto = _text(node, "auto_pad", "NOTSET")
    if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = wanted[-rank:] if wanted else [n * s for n, s in zip(space, strides, strict=True)]
        total = [have - want for have, want in zip(full, wanted, strict=True)]
        half = [max(t, 0) // 2 for t in total]
        rest = [max(t, 0) - h for t, h in zip(total, half, strict=True)]
        begins, ends = (half, rest) if auto == "SAME_UPPER" else (rest, half)
        # A larger output than the input reaches has its rest at the end, as in ONNX Runtime.
        return begins, [end + min(t, 0) for end, t in zip(ends, total, strict=True)]
    pads = _ints(node, "pads", [0] * (2 * rank)) if auto == "NOTSET" else [0] * (2 * rank)
    return pads[:rank], pads[rank:]


def _window(
    node: ir.Node, space: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Strides, dilations and (begin, end) padding of each axis."""
    rank = len(kernel)
    strides = _ints(node, "strides", [1] * rank)
    dilations = _ints(node, "dilations", [1] * rank)
    auto = _text(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for n, size, stride, dilation in zip(space, kernel, strides, dilations, strict=True):
            total = max((-(-n // stride) - 1) * stride + (size - 1) * dilation + 1 - n, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
        return strides, dilations, pads
    flat = _ints(node, "pads", [0] * (2 * rank)) if auto == "NOTSET" else [0] * (2 * rank)
    return strides, dilations, list(zip(flat[:rank], flat[rank:], strict=True))


def _int(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _float(node: ir.Node, name: str, default: float) -> float:
    return node.attributes[name].as_float() if name in node.attributes else default


def _ints(node: ir.Node, name: str, default: list[int]) -> list[int]:
    return list(node.attributes[name].as_ints()) if name in node.attributes else default


def _text(node: ir.Node, name: str, default: str) -> str:
    return node.attributes[name].as_string() if name in node.attributes else default
