"""What comes near a fusion and is none: it must be refused, and the reason must name what is in the way."""

from __future__ import annotations

import pytest

from probe.engine.fusion import FUSIONS, group
from probe.errors import InputError
from tests.engine.fusion.drawing import grouped, members, network
from tests.engine.fusion.test_patterns import HEADS, IMAGE, LAYER_NORM_STATISTICS, ROWS

CONV = "c = Conv<pads=[1,1,1,1]>(x, %8x8x3x3)"

# drawing, outputs and inputs, what must not be there, the pattern and the reason of the refusal
NEAR = {
    "a mean over other axes than the variance": (
        LAYER_NORM_STATISTICS.replace("s = ReduceMean<axes=[-1]>", "s = ReduceMean<axes=[1]>") + "y = Div(d, r)",
        ROWS, "layer_norm", "one reduction is over axes [2], another over [1]",
    ),
    "an epsilon that is none": (
        LAYER_NORM_STATISTICS.replace("$1e-5", "$-3.0") + "y = Div(d, r)", ROWS, "layer_norm", "-3 is added to the variance",
    ),
    "a variance that is an output": (
        LAYER_NORM_STATISTICS + "y = Div(d, r)", {**ROWS, "outputs": "float[2,8,96] y, float[2,8,1] s"}, "layer_norm", "s is a graph output",
    ),
    "a deviation that is read elsewhere": (
        LAYER_NORM_STATISTICS + "n = Div(d, r) o = Softmax(d) y = Mul(n, o)", ROWS, "layer_norm", "d is also read by o",
    ),
    "a sum over other axes than the maximum": (
        "m = ReduceMax<axes=[1]>(x) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, $i[-1]) l = Log(s) y = Sub(d, l)",
        ROWS, "log_softmax", "one reduction is over axes [1], another over [2]",
    ),
    "weights that are an output": (
        "kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) w = Softmax(s) y = MatMul(w, v)",
        {**HEADS, "outputs": "float[2,4,8,24] y, float[2,4,8,8] w"}, "attention", "w is a graph output",
    ),
    "softmax over the queries": (
        "kt = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, kt) w = Softmax<axis=2>(s) y = MatMul(w, v)",
        HEADS, "attention", "w is over axis 2, not over the keys",
    ),
    "a gate of experts": (
        "s = MatMul(x, %96x4) w = Softmax(s) y = MatMul(w, %4x96)", ROWS, "attention", "a product with weights, not attention",
    ),
    "a convolution read twice": (f"{CONV} r = Relu(c) y = Add(r, c)", IMAGE, "conv + relu", "c is also read by y"),
    "a convolution that is an output": (
        f"{CONV} y = Relu(c)", {**IMAGE, "outputs": "float[1,8,16,16] y, float[1,8,16,16] c"}, "conv + relu", "c is a graph output",
    ),
    "a bias for each column": (
        f"{CONV} b = Add(c, %16) y = Softmax(b)", IMAGE, "conv + bias", "only one number, or one for each channel, fuses",
    ),
    "a residual that is broadcast": (
        f"{CONV} p = GlobalAveragePool(x) y = Add(c, p)", IMAGE, "conv + residual", "p [1, 8, 1, 1] is not of the shape [1, 8, 16, 16] of c",
    ),
    "a product that is broadcast": (
        "m = MatMul(x, %96x1) y = Add(m, x)", ROWS, "matmul + residual", "x [2, 8, 96] is not of the shape [2, 8, 1] of m",
    ),
    "reflections around an image": (
        """p = Pad<mode="reflect">(x, $i[0,0,1,1,0,0,1,1]) c = Conv(p, %8x8x3x3) y = Relu(c)""", IMAGE, "pad + conv + relu", "p pads by reflect",
    ),
    "padding with ones": (
        "p = Pad(x, $i[0,0,1,1,0,0,1,1], $1.0) c = Conv(p, %8x8x3x3) y = Relu(c)", IMAGE, "pad + conv + relu", "p pads with 1, not with zeros",
    ),
    "padding of channels": (
        "p = Pad(x, $i[0,1,0,0,0,1,0,0]) y = Conv(p, %8x10x1x1)", IMAGE, "pad + conv", "p pads batch or channels",
    ),
    "a computed bound": (
        f"{CONV} low = ReduceMin<keepdims=0>(x) y = Clip(c, low)", IMAGE, "conv + clip", "the bound low of Clip is computed",
    ),
    "a clip to another number": (
        f"{CONV} a = Add(c, $3.0) l = Clip(a, $0.0, $5.0) y = Div(l, $6.0)", IMAGE, "conv + hard_sigmoid", "Clip is from 0.0 to 5.0",
    ),
    "a row that becomes a matrix": (
        "m = ReduceMean<axes=[-1]>(x) s = Sqrt(m) y = Div(x, s)", ROWS, "pointwise(sqrt, div)", "s [2, 8, 1] is broadcast to [2, 8, 96] by y",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NEAR)
def test_a_near_miss_is_refused_with_its_reason(case: str) -> None:
    nodes, drawing, wanted, reason = NEAR[case]
    found = grouped(nodes, **drawing)
    assert wanted not in members(found)
    assert any(reason in refusal.reason for refusal in found.refusals), found.refusals


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        ("kernel_shape=[3,3],strides=[2,2]", "overlap or leave gaps"),
        ("kernel_shape=[2,2],strides=[2,2],pads=[0,0,1,1]", "pads"),
        ("kernel_shape=[2,2],strides=[2,2],dilations=[2,2]", "is dilated"),
    ],
)
def test_a_pooling_that_needs_elements_twice_stays_alone(window: str, reason: str) -> None:
    nodes = f"{CONV} r = Relu(c) y = MaxPool<{window}>(r)"
    found = grouped(nodes, "full", inputs=IMAGE["inputs"], outputs="float[1,8,n,n] y")
    assert list(members(found)) == ["conv + relu"]
    assert [(one.pattern, one.nodes) for one in found.refusals] == [("conv + pool", ("r", "y"))]
    assert reason in found.refusals[0].reason


@pytest.mark.parametrize(
    ("why", "nodes", "joined"),
    [
        ("alike", "a = Conv(x, %8x8x1x1) b = Conv(x, %8x8x1x1) y = Concat<axis=1>(a, b)", True),
        (
            "as many channels as they like",
            "a = Conv(x, %12x8x1x1) b = Conv(x, %4x8x1x1) y = Concat<axis=1>(a, b)",
            True,
        ),
        ("not of one input", "z = Exp(x) a = Conv(x, %8x8x1x1) b = Conv(z, %8x8x1x1) y = Concat<axis=1>(a, b)", False),
        (
            "3 x 3",
            "a = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) b = Conv<pads=[1,1,1,1]>(x, %8x8x3x3) y = Concat<axis=1>(a, b)",
            False,
        ),
        (
            "one has an activation",
            "a = Conv(x, %8x8x1x1) r = Relu(a) b = Conv(x, %8x8x1x1) y = Concat<axis=1>(r, b)",
            False,
        ),
        (
            "one has a residual",
            "a = Conv(x, %8x8x1x1) b = Conv(x, %8x8x1x1) s = Add(a, x) y = Concat<axis=1>(s, b)",
            False,
        ),
        (
            "one needs what the other makes",
            "a = Conv(x, %8x8x1x1) b = Conv(x, %8x8x1x1) s = Add(b, a) y = Concat<axis=1>(s, a)",
            False,
        ),
        ("groups", "a = Conv<group=8>(x, %8x1x1x1) b = Conv<group=8>(x, %8x1x1x1) y = Concat<axis=1>(a, b)", False),
        ("computed weights", "w = Exp(%8x8x1x1) a = Conv(x, w) b = Conv(x, %8x8x1x1) y = Concat<axis=1>(a, b)", False),
    ],
)
def test_siblings_are_alike(why: str, nodes: str, joined: bool) -> None:
    found = members(grouped(nodes, "full", inputs=IMAGE["inputs"], outputs="float[1,16,16,16] y"))
    assert any("horizontal" in name for name in found) == joined, why


def test_what_was_fused_in_another_way_is_not_listed() -> None:
    # both convolutions could take the sum: the second one does, because the first is read twice
    found = grouped(f"{CONV} e = Softmax(c) d = Conv<pads=[1,1,1,1]>(e, %8x8x3x3) y = Add(c, d)", **IMAGE)
    assert members(found) == {"conv + residual": ["d", "y"]} and not found.refusals


def test_nodes_are_named_by_their_identities() -> None:
    found = grouped(f"{CONV} r = Relu(c) y = Add(r, c)", **IMAGE)
    assert [one.nodes for one in found.refusals if one.pattern == "conv + relu"] == [("c", "r")]


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(InputError, match="no fusion level 'most'"):
        group(network("y = Relu(x)"), "most")  # pyright: ignore[reportArgumentType]


def test_every_fusion_can_begin_somewhere() -> None:
    assert all(
        fusion.pattern.roots() for fusion in FUSIONS
    )  # a pattern that could end in anything would never be tried
    for fusion in FUSIONS:
        assert all(step.pattern.roots() and step.pattern.depth() for place in fusion.then for step in place)
