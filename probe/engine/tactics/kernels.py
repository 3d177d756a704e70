"""The tactics that are kernels of the CUDA device. There are too many to list: the grammar of a name says what it stands for.

``wgmma_128x256_pair2_splitk4_turns2_nchw``, ``wgmma_144x128_swapped``, ``mma_64x64_acc16``, ``ffma_128x128_splitk4``, ``few_8_splitk4``, ``simt_32x32``, ``conv_direct``, ``conv_depthwise``. A name
is read on every machine, so that files open everywhere; which of them there are is the device's business (``engine.device.cuda.ops``).
"""

from __future__ import annotations

import re

from probe.engine.tactics.tactic import Tactic

_NUMBER = "([1-9][0-9]{0,4})"
_WGMMA = re.compile(
    rf"wgmma_{_NUMBER}x{_NUMBER}(?:_pair{_NUMBER})?(?:_splitk{_NUMBER})?(?:_turns{_NUMBER})?(_swapped|_nchw)?", re.ASCII
)
_MMA = re.compile(rf"mma_{_NUMBER}x{_NUMBER}(_acc16)?", re.ASCII)
_FFMA = re.compile(rf"ffma_{_NUMBER}x{_NUMBER}(?:_splitk{_NUMBER})?", re.ASCII)
_FEW = re.compile(rf"few_{_NUMBER}(?:_splitk{_NUMBER})?", re.ASCII)
_SIMT = re.compile(rf"simt_{_NUMBER}x{_NUMBER}", re.ASCII)
_PRODUCTS = ("MatMul", "Gemm", "Conv")
_LOW = ("fp16", "bf16")
_WIDE = "; where a kept tensor is read, multiplied or made in FP32, products are exact's"
_ALIGNED = "|error| <= 3 {k} u32 S"  # tensor cores align the terms of a step to the largest and cut off what is below


def kernel_tactic(name: str) -> Tactic | None:
    """What a name promises; None when it is none of a kernel. A thing has one name: a count of 1 is not written."""
    if name == "conv_direct":
        return Tactic(
            name, f"convolution with channels first, a thread an output: sums in FP32, channel by channel, tap by tap{_WIDE}",
            "|error| <= k u32 S", "fp32", "sequential", ("Conv",), ("fp32", "tf32", *_LOW), device="cuda", layout="first",
        )  # fmt: skip
    if name == "conv_depthwise":
        return Tactic(
            name, f"depthwise convolution with channels last: sums in FP32, tap by tap{_WIDE}",
            "|error| <= k u32 S", "fp32", "sequential", ("Conv",), ("fp32", "tf32", *_LOW), device="cuda", layout="last",
        )  # fmt: skip
    for pattern, made in ((_WGMMA, _wgmma), (_MMA, _mma), (_FFMA, _ffma), (_FEW, _few), (_SIMT, _simt)):
        if (found := pattern.fullmatch(name)) is not None:
            return made(name, found)
    return None


def _wgmma(name: str, found: re.Match[str]) -> Tactic | None:
    m, n, pair, splits, turns, way = found.groups()
    first, swapped = way == "_nchw", way == "_swapped"
    if "1" in (pair, splits, turns):
        return None
    count = int(splits or 1)
    shared = f", {pair} blocks sharing a tile of the right operand" * (pair is not None)
    taken = f", {turns} groups taking tiles in turn" * (turns is not None)
    cut = (
        f"; the steps of 64 terms are cut into {count} contiguous ranges, range i from i steps // {count} to (i + 1) steps // {count}, whose "
        "sums are added in FP32 in the order of k"
    ) * (count > 1)
    taken += ", columns along the instruction's rows" * swapped
    convolutions = f"; convolutions with channels {'first, a 1x1 one' if first else 'last, k tap by tap'}" * (
        not swapped
    )
    return Tactic(
        name,
        f"products on tensor cores (wgmma), tiles of {m} x {n}{shared}{taken}: sums in FP32 in the order of k, a step of the tensor core at a time{cut}"
        f"{convolutions}{_WIDE}",
        _ALIGNED.format(k=f"ceil(k / {count})" if count > 1 else "k") + (f" + {count} u32 S" if count > 1 else ""),
        "fp32", "splits" if count > 1 else "any", ("Conv",) if first else _PRODUCTS[: 2 if swapped else 3], ("tf32", *_LOW), splits=count,
        device="cuda", layout="first" if first else "last",
    )  # fmt: skip


def _mma(name: str, found: re.Match[str]) -> Tactic:
    m, n, low = found.groups()
    sums = (
        "sums of 16 products rounded and added in FP16"
        if low
        else "sums in FP32 in the order of k, 16 terms (TF32: 8) at a time"
    )
    return Tactic(
        name,
        f"products on tensor cores (mma.sync), tiles of {m} x {n}: {sums}; convolutions with channels first, k channel by channel{_WIDE}",
        "|error| <= ceil(k / 16) u16 max |partial sum|" if low else _ALIGNED.format(k="k"),
        "fp16" if low else "fp32", "blocks" if low else "any", _PRODUCTS, ("fp16",) if low else ("tf32", *_LOW),
        block=16 if low else 0, device="cuda", layout="first",
    )  # fmt: skip


def _ffma(name: str, found: re.Match[str]) -> Tactic | None:
    m, n, splits = found.groups()
    if splits == "1":
        return None
    count = int(splits or 1)
    cut = (
        f"; the steps of 32 terms are cut into {count} contiguous ranges, range i from i steps // {count} to (i + 1) steps // {count}, whose "
        "sums are added in FP32 in the order of k"
    ) * (count > 1)
    return Tactic(
        name,
        f"products and sums in FP32 by fused multiply-adds, tiles of {m} x {n}: one term after the other, in the order of k{cut}; convolutions with "
        f"channels last, k tap by tap{_WIDE}",
        f"|error| <= ceil(k / {count}) u32 S + {count} u32 S" if count > 1 else "|error| <= k u32 S",
        "fp32", "splits" if count > 1 else "sequential", _PRODUCTS, ("fp32",), splits=count, device="cuda", layout="last",
    )  # fmt: skip


def _few(name: str, found: re.Match[str]) -> Tactic | None:
    warps, splits = found.groups()
    if splits == "1":
        return None
    count = int(splits or 1)
    ranges = int(warps) * count
    return Tactic(
        name,
        f"products of up to 16 rows: the steps of 64 bytes of k are cut into {ranges} contiguous ranges, range i from i steps // {ranges} to (i + 1) steps // "
        f"{ranges}, whose sums are added in FP32: {warps} in the order of k" + f", then {count} such sums in the order of k" * (count > 1) +
        "; a range in FP32 by fused multiply-adds, four sums of every fourth 16 bytes, else on tensor cores (mma.sync), half a step at a time in FP32"
        f"{_WIDE}",
        f"{_ALIGNED.format(k=f'ceil(k / {ranges})')} + {ranges} u32 S",
        "fp32", "splits", _PRODUCTS[:2], ("fp32", "tf32", *_LOW), splits=ranges, device="cuda",
    )  # fmt: skip


def _simt(name: str, found: re.Match[str]) -> Tactic:
    m, n = found.groups()
    return Tactic(
        name,
        f"products and sums in FP32 by fused multiply-adds, tiles of {m} x {n}: one term after the other, in the order of k; convolutions with "
        f"channels first, k channel by channel{_WIDE}",
        "|error| <= k u32 S", "fp32", "sequential", _PRODUCTS, ("fp32", "tf32", *_LOW), device="cuda", layout="first",
    )  # fmt: skip
