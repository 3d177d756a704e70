"""Every rule on a graph that has its fault, and on one that merely looks so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from probe.debug.check.rules import RULES
from tests.debug.check import graphs as g
from tests.debug.check.graphs import UNIT, Feeds, checked, filled, scalar
from tests.model.builders import model, node, value, weight


def with_outlier(number: float) -> np.ndarray:
    x = UNIT.copy()
    x[1, 17] = number
    return x


KEEP = np.ones((4, 64), np.float32)
EMPTY_ROW = KEEP.copy()
EMPTY_ROW[2] = 0
PADDED = KEEP.copy()
PADDED[:, 50:] = 0
QUIET_ROW = UNIT * 0.1 + 30
QUIET_ROW[0] = UNIT[0] * 30 + 30
HALF_EMPTY = np.array(UNIT.reshape(64, 4).repeat(8, axis=1))
HALF_EMPTY.reshape(-1, 4, 32)[::2, 3:] = 0  # three of four, one of four...
HALF_EMPTY.reshape(-1, 4, 32)[1::2, 1:] = 0
SPARSE = np.array(UNIT.reshape(64, 4).repeat(8, axis=1))
SPARSE.reshape(-1, 4, 32)[:, 2:] = 0


@dataclass
class Case:
    """A graph, its input, and what is to be found: rule, level, tensor, and words of the finding."""

    name: str
    proto: onnx.ModelProto
    feeds: Feeds
    rule: str
    level: str
    tensor: str | None
    words: tuple[str, ...] = ()
    keep: tuple[str, ...] | None = None
    precision: str = "fp16"
    errors: int = 1  # findings of that level, where this is one


FOUND = [
    Case("square", g.rms_norm(), {"x": with_outlier(400.0)}, "overflow", "error", "square",
         ("golden reaches 1.6e+05", "2.44 times too large", "x / Inf = 0: finite but wrong", "reaches the output y", "before the square"), ("square",)),
    Case("sum", g.single("ReduceSum", (4, 4096), keepdims=0), {"x": filled(20.0, (4, 4096))}, "overflow", "error", "y", ("golden reaches 3.2768e+05",)),
    Case("input", g.single("Relu"), {"x": with_outlier(1e6)}, "overflow", "error", "x", ("scale the input x down",), ("x", "y")),
    Case("chain", g.chain([node("Mul", ["x", "x"], ["loud"], name="up"), node("Mul", ["loud", "d"], ["y"], name="on")], scalar("d", 2.0)),
         {"x": UNIT * 300}, "overflow", "error", "loud", ("1 more after it",), ("loud", "y")),
    Case("saturated", g.saturated(), {"x": with_outlier(100.0)}, "overflow", "warning", "cube", ("scale down before cube", "it ends in tanh (Tanh): the results there are right",)),
    Case("nearly", g.single("Exp"), {"x": with_outlier(10.9)}, "near_overflow", "warning", "y", ("one 1.2 times as large",)),
    Case("tiny", g.chain([node("Mul", ["x", "c"], ["small"], name="down"), node("Mul", ["small", "d"], ["y"], name="up")],
                         scalar("c", 1e-5), scalar("d", 1e4)), {"x": UNIT * 1e-3}, "underflow", "error", "small",
         ("99% of its non-zero elements become 0",)),
    Case("epsilon", g.rms_norm(1e-12), {"x": UNIT}, "constant_vanishes", "warning", "eps", ("is 1e-12 and becomes 0", "it ends in add (Add)")),
    Case("vanished", g.single("Mul", weights=[scalar("c", 1e-9)]), {"x": UNIT * 1e4}, "constant_vanishes", "error", "c", ("raise it to 6.1e-05",)),
    Case("silent", g.rms_norm(1e-12), {"x": UNIT * 0}, "pole", "error", "shifted", ("takes the root of", "the constant eps", "in div (Div): division by zero: NaN"),
         ("shifted", "eps")),
    Case("floor", g.floored(), {"x": np.maximum(UNIT, 0)}, "pole", "error", "floored",
         ("as small as 1e-12", "takes the logarithm", "the constant floor that should keep it above zero"), ("floored", "floor")),
    Case("division", g.single("Div", weights=[weight("w", UNIT[0])]), {"x": UNIT}, "", "", None),
    Case("mask, row hidden", g.masked(), {"x": UNIT, "keep": EMPTY_ROW}, "mask", "error", "never",
         ("-3.4028e+38", "added in add, read by Softmax", "a row of -Inf alone has no largest element: NaN"), ("never", "mask", "scores")),
    Case("mask, large logits", g.masked(), {"x": UNIT * 20, "keep": EMPTY_ROW}, "mask", "error", "never"),
    Case("mask, bf16", g.masked(), {"x": UNIT, "keep": EMPTY_ROW}, "mask", "error", "never", precision="bf16"),
    Case("mask, padding", g.masked(-1e9), {"x": UNIT, "keep": PADDED}, "mask", "warning", "never", ("it ends in softmax",)),
    Case("mask, multiplied", g.masked(multiplied=True), {"x": UNIT, "keep": PADDED}, "mask", "error", "never", ("in times (Mul): 0 * Inf = NaN",)),
    Case("weight", g.single("Mul", weights=[scalar("c", 1e5)]), {"x": UNIT * 1e-4}, "constant_overflow", "error", "c", ("holds 1e+05",)),
    Case("logits", g.logits(), {"x": UNIT * 4 + 8000}, "coarse_argument", "error", "scaled",
         ("numbers of fp16 are 2 apart", "though within a row they differ by no more than", "common offset"), ("scaled",)),
    Case("angle", g.single("Sin"), {"x": UNIT + 3000}, "coarse_argument", "error", "x", ("reduce it to one period",)),
    Case("variance", g.variance(), {"x": UNIT * 0.1 + 30}, "cancellation", "error", "variance",
         ("off by more than 20 %", "mean((x - mean(x))^2)"), ("mean_of_squares", "square_of_mean", "variance"), errors=2),
    Case("variance of one row", g.variance(), {"x": QUIET_ROW}, "cancellation", "error", "variance", ("off by more than 20 %",)),
    Case("difference", g.single("Sub", weights=[scalar("c", 3000.0)]), {"x": UNIT + 3000}, "cancellation", "error", "y", ("small difference of large numbers",)),
    Case("product", g.single("MatMul", weights=[weight("w", np.tile([[1.0], [-1.0]], (32, 8)).astype(np.float32))]), {"x": UNIT * 1e-2 + 300},
         "cancellation", "warning", "y", ("small beside the terms",)),
    Case("position", g.counted(), {"x": np.array([1, 2049, 3001, 4999], np.float32)}, "discrete_step", "error", "x",
         ("whole numbers up to 4999", "only up to 2048", "jumps", "gather (Gather) (which fails on these values)")),
    Case("position, bf16", g.counted(), {"x": np.array([1, 2, 3, 301], np.float32)}, "discrete_step", "error", "x", ("only up to 256",), precision="bf16"),
    Case("mean", g.single("ReduceMean", (4, 4096), axes=[-1]), {"x": filled(100.0, (4, 4096))}, "sum_inside", "warning", "y", ("adds up 4,096 elements whose magnitudes sum to 4.096e+05",)),
    Case("signs", g.single("ReduceSum", (4, 4096)), {"x": np.tile([100.0, -100.0], (4, 2048)).astype(np.float32)}, "sum_inside", "warning", "y"),
    Case("norm", g.single("LayerNormalization", weights=[weight("s", np.ones(64, np.float32))], axis=-1), {"x": with_outlier(300.0)},
         "inner_range", "warning", "y", ("its sum of squares reaches",)),
    Case("exponential", g.single("Softmax"), {"x": UNIT + 12}, "inner_range", "lint", "y", ("subtracts the maximum",)),
    Case("long", g.linear(2048, 8), {"x": UNIT[:, :1].repeat(2048, axis=1)}, "long_sum", "lint", "y", ("2,048 products", "accumulate in FP32")),
    Case("channels", g.linear(64, 10), {"x": UNIT}, "channels", "lint", "y", ("10 columns", "pad to 16")),
    Case("channels, int8", g.linear(24, 16), {}, "channels", "lint", "y", ("24 terms: tensor cores take multiples of 16",), precision="int8"),
    Case("convolution, int8", g.single("Conv", (1, 32, 8, 8), weights=[weight("w", np.ones((48, 32, 1, 1), np.float32))]), {}, "channels", "lint",
         "y", ("48 output channels: tensor cores take multiples of 32",), precision="int8"),
    Case("sparse", g.linear(64, 32, SPARSE), {"x": UNIT}, "sparse", "lint", "w", ("2:4 sparse",)),
    Case("nan", g.single("Sqrt"), {"x": UNIT}, "golden_nonfinite", "error", "y", ("NaN in y", "an output has NaN")),
    Case("hidden inf", g.chain([node("Log", ["x"], ["log"], name="log"), node("Exp", ["log"], ["y"], name="exp")]), {"x": np.maximum(UNIT, 0)},
         "golden_nonfinite", "lint", "log", ("Inf in log",)),
]  # fmt: skip


@pytest.mark.parametrize("case", FOUND, ids=lambda case: case.name)
def test_a_fault_is_found(case: Case, tmp_path: Path) -> None:
    result = checked(case.proto, case.feeds, tmp_path, case.precision)
    if not case.rule:
        assert not result.findings
        return
    found = {(f.rule, f.tensor): f for f in result.findings}
    assert (case.rule, case.tensor) in found, (
        f"found instead: {[(f.rule, f.level, f.tensor, f.message) for f in result.findings]}"
    )
    finding = found[case.rule, case.tensor]
    assert finding.level == case.level, finding.downstream
    assert case.level != "error" or len(result.of("error")) == case.errors, [
        (f.rule, f.tensor) for f in result.of("error")
    ]
    said = f"{finding.message} | {finding.downstream} | {finding.cure}"
    for words in case.words:
        assert words in said, said
    assert (finding.cure and finding.op and finding.node) or case.tensor == "x"
    if case.keep is not None:
        assert finding.keep == case.keep
    levels = {f.level for f in result.findings}
    assert result.verdict == ("errors" if "error" in levels else "warnings" if "warning" in levels else "clean")
    assert bool(result) is (result.verdict != "errors")


NOT_FOUND = [
    ("ordinary", g.rms_norm(), {"x": UNIT}, "fp16"),
    ("the square in bf16", g.rms_norm(), {"x": with_outlier(400.0)}, "bf16"),
    ("epsilon in bf16", g.rms_norm(1e-12), {"x": UNIT}, "bf16"),
    ("floor that fp16 has", g.floored(1e-4), {"x": np.maximum(UNIT, 0)}, "fp16"),
    ("mask that fp16 has", g.masked(-1e4), {"x": UNIT, "keep": PADDED}, "fp16"),
    ("mask in tf32", g.masked(), {"x": UNIT, "keep": EMPTY_ROW}, "tf32"),
    ("small logits", g.logits(), {"x": UNIT}, "fp16"),
    ("logits with one clear winner", g.logits(), {"x": with_outlier(100.0)}, "fp16"),
    ("angle", g.single("Sin"), {"x": UNIT}, "fp16"),
    ("variance of centred values", g.variance(), {"x": UNIT}, "fp16"),
    ("a variance that hardly counts", g.variance(1e-3), {"x": UNIT * 0.1 + 30}, "fp16"),
    ("small positions", g.counted(), {"x": np.array([1, 100, 1000, 2047], np.float32)}, "fp16"),
    ("probabilities that vanish", g.single("Softmax"), {"x": with_outlier(11.0) * 1.0}, "fp16"),
    ("small multiple", g.linear(64, 16), {"x": UNIT}, "fp16"),
    ("depthwise", g.single("Conv", (1, 6, 8, 8), weights=[weight("w", np.ones((6, 1, 3, 3), np.float32))], group=6), {"x": np.ones((1, 6, 8, 8), np.float32)}, "fp16"),
    ("constant mask of -Inf", g.masked(-np.inf), {"x": UNIT, "keep": PADDED}, "fp16"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("proto", "feeds", "precision"), [case[1:] for case in NOT_FOUND], ids=[case[0] for case in NOT_FOUND]
)
def test_what_is_no_fault_is_not_found(proto: onnx.ModelProto, feeds: Feeds, precision: str, tmp_path: Path) -> None:
    result = checked(proto, feeds, tmp_path, precision)
    serious = [f for f in result.findings if f.level != "lint" and f.rule != "inner_range"]
    assert not serious, [(f.rule, f.level, f.message, f.downstream) for f in serious]


def test_half_empty_is_not_2_to_4_sparse(tmp_path: Path) -> None:
    assert np.count_nonzero(HALF_EMPTY) * 2 == HALF_EMPTY.size
    assert not [f for f in checked(g.linear(64, 32, HALF_EMPTY), {}, tmp_path, "int8").findings if f.rule == "sparse"]


def test_unknown_operators_are_advice(tmp_path: Path) -> None:
    proto = model(
        [node("Deskew", ["x"], ["y"], name="deskew", domain="com.example")],
        [value("x", (4, 64))],
        [value("y", (4, 64))],
        domains=["com.example"],
    )
    (finding,) = checked(proto, {}, tmp_path, "int8").findings
    assert (finding.rule, finding.level, finding.op) == ("unknown_operator", "lint", "com.example:Deskew")


def test_every_rule_has_a_case() -> None:
    named = {"constant_overflow": {"constant_overflow", "mask"}, "product_cancellation": {"cancellation"}}
    found = {case.rule for case in FOUND} | {"unknown_operator"}
    assert not [rule.name for rule in RULES if not named.get(rule.name, {rule.name}) & found]
