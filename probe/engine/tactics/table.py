"""The tactics there are, one row each: the numerics they promise and the model of their error. Error symbols: see ``Tactic.error``."""

from __future__ import annotations

from probe.engine.assignment import EXACT
from probe.engine.tactics.tactic import Tactic

PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
SUMS = (
    "ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "GlobalAveragePool",
    "Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization",
    "MeanVarianceNormalization", "LpNormalization",
)  # fmt: skip
_EVERY = ("fp32", "tf32", "fp16", "bf16")
_STORED = ("fp32", "fp16", "bf16")  # TF32 concerns products only: a layer of sums runs in FP32 there


def _splitk(splits: int, tree: str) -> Tactic:
    return Tactic(
        f"splitk{splits}",
        f"the sum is cut into {splits} contiguous ranges, range i from i k // {splits} to (i + 1) k // {splits}; each is summed in FP32, then "
        f"{tree} in FP32",
        f"|error| <= (ceil(k / {splits}) + {splits.bit_length() - 1}) u32 S",
        "fp32", "splits", PRODUCTS, _EVERY, splits=splits,
    )  # fmt: skip


def _winograd(tile: int, growth: str, typical: str) -> Tactic:
    size = tile + 2
    return Tactic(
        f"winograd_f{tile}",
        f"convolution by Winograd's F({tile}x{tile}, 3x3): transformed kernels G w G' and transformed inputs B' x B are rounded once to FP16 "
        "(kernels from FP64, so correctly; inputs from FP32); their products, sums over channels and output transforms are FP32",
        f"|error| <= 2 u16 |A'| (sum over channels of |G w G'| |B' x B|) |A|; {typical} on independent normal data; Inf where an input's "
        f"transform, up to {growth} times the largest of {size}x{size} inputs, passes 65504",
        "fp32", "any", ("Conv",), ("fp16",), algorithm="winograd", tile=tile,
    )  # fmt: skip


TACTICS = (
    Tactic(
        EXACT, "products and sums in FP32", "|error| <= k u32 S", "fp32", "any", (*PRODUCTS, *SUMS), _EVERY,
    ),
    Tactic(
        "acc16",
        "sums of 16 products in FP32, rounded and added in FP16, as tensor cores that accumulate in FP16 do",
        "|error| <= ceil(k / 16) u16 max |partial sum|",
        "fp16", "blocks", PRODUCTS, ("fp16",), block=16,
    ),
    _splitk(2, "p0 + p1"),
    _splitk(4, "(p0 + p1) + (p2 + p3)"),
    _splitk(8, "((p0 + p1) + (p2 + p3)) + ((p4 + p5) + (p6 + p7))"),
    _winograd(4, "100", "an RMS error of about 6 u16 of the RMS result"),
    _winograd(2, "4", "an RMS error of about 0.95 u16 of the RMS result"),
    Tactic(
        "sum_sequential",
        "sums are added in FP32 one term after the other, in the order of the tensor",
        "|error| <= (k - 1) u32 S",
        "fp32", "sequential", SUMS, _STORED,
    ),
    Tactic(
        "sum_pairwise",
        "sums are added in FP32 as a tree: neighbouring terms, then neighbouring sums, a last odd one passed on",
        "|error| <= ceil(log2 k) u32 S",
        "fp32", "pairwise", SUMS, _STORED,
    ),
    Tactic(
        "sum_acc16",
        "terms are rounded to FP16 and added one after the other, the running sum rounded to FP16 after each; means and roots in FP32",
        "|error| <= k u16 S",
        "fp16", "sequential", SUMS, ("fp16",),
    ),
)  # fmt: skip
