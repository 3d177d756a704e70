"""Kinds, movement and work of single nodes; concatenations written in place."""

from __future__ import annotations

import pytest

from probe.engine.fusion import group, is_movement, kind_of, launches
from tests.engine.fusion.drawing import network

ONE = {
    # drawing: kind, movement, work
    "y = Relu(x)": ("pointwise", False, True),
    "y = Reshape(x, $i[-1,96])": ("move", True, False),
    "y = Transpose(x)": ("move", True, True),
    "y = Identity(x)": ("move", True, False),
    "y = Pad(x, $i[0,0,0,0,1,0])": ("move", True, True),
    "y = Where(b, x, x)": ("pointwise", False, True),
    "y = MatMul(x, %96x4)": ("matmul", False, True),
    "y = Gemm(m, %96x4)": ("gemm", False, True),
    "y = ReduceMean(x)": ("reduce", False, True),
    "y = Softmax(x)": ("softmax", False, True),
    "y = LayerNormalization(x, %96)": ("norm", False, True),
    "y = Gather(x, i)": ("move", True, True),
    "y = Shape(x)": ("shape", False, False),
    "y = Gather(i, $i0)": ("shape", True, False),
    "y = Add(i, i)": ("shape", False, False),
    "y = Unsqueeze(i, $i[0])": ("shape", True, False),
    "y = And(b, b)": ("shape", False, True),  # a mask is computed where the data is
    "y = Cast<to=1>(i)": ("pointwise", False, True),
    "y = Cast<to=1>(x)": ("pointwise", False, False),  # to the type it has
    "y = ScatterND(x, $i[0], %8x96)": ("move", True, True),
    'y = ScatterElements<reduction="add">(x, t, x)': ("other", False, True),
    'y = Resize<mode="nearest">(x, , $[1,1,2])': ("move", True, True),
    'y = Resize<mode="linear">(x, , $[1,1,2])': ("other", False, True),
    "y, h, c = LSTM<hidden_size=4>(x, %1x16x96, %1x16x4)": ("recurrent", False, True),
    "y = QuantizeLinear(x, $0.1)": ("quantise", False, True),
    "y = GlobalAveragePool(x)": ("pool", False, True),
    "y = MaxPool<kernel_shape=[2]>(x)": ("pool", False, True),
}


@pytest.mark.parametrize("drawing", ONE)
def test_a_node_alone(drawing: str) -> None:
    inputs = "float[2,8,96] x, float[8,96] m, int64[3] i, int64[2,8,96] t, bool[2,8,96] b"
    node = next(iter(network(drawing, inputs=inputs, outputs="y").graph))  # the output's type is inferred
    assert (kind_of(node), is_movement(node), launches(node)) == ONE[drawing]


def _in_place(nodes: str, *, inputs: str = "float[1,8,4,4] x", outputs: str = "float[1,16,4,4] y") -> list[str]:
    drawn = network(nodes, inputs=inputs, outputs=outputs)
    found = group(drawn, "full")
    names = [node.name or "" for node in found.in_place]
    concats = [node for node in drawn.graph if node.op_type == "Concat"]
    assert [node.name for node in concats if not launches(node, found.in_place)] == names
    return names


def test_inputs_of_a_concatenation_are_written_in_place() -> None:
    assert _in_place("a = Relu(x) b = Exp(x) y = Concat<axis=1>(a, b)") == ["y"]
    nested = "a = Relu(x) b = Exp(x) c = Concat<axis=1>(a, b) d = Abs(x) y = Concat<axis=1>(c, d)"
    assert _in_place(nested, outputs="float[1,24,4,4] y") == ["c", "y"]


@pytest.mark.parametrize(
    ("why", "nodes", "drawing"),
    [
        ("a graph input lies elsewhere", "a = Relu(x) y = Concat<axis=1>(a, x)", {}),
        ("a transpose is a copy of its own", "a = Relu(x) b = Transpose<perm=[0,1,3,2]>(x) y = Concat<axis=1>(a, b)", {}),
        ("one tensor cannot lie in two places", "a = Relu(x) y = Concat<axis=1>(a, a)", {}),
        ("pieces of several images lie apart", "a = Relu(x) b = Exp(x) y = Concat<axis=1>(a, b)",
         {"inputs": "float[2,8,4,4] x", "outputs": "float[2,16,4,4] y"}),
        ("an unknown number of images may be several", "a = Relu(x) b = Exp(x) y = Concat<axis=1>(a, b)",
         {"inputs": "float[n,8,4,4] x", "outputs": "float[n,16,4,4] y"}),
        ("a graph output has a place of its own", "a = Relu(x) b = Exp(x) y = Concat<axis=1>(a, b)",
         {"outputs": "float[1,16,4,4] y, float[1,8,4,4] a"}),
    ],
)  # fmt: skip
def test_a_concatenation_that_must_copy(why: str, nodes: str, drawing: dict[str, str]) -> None:
    assert not _in_place(nodes, **drawing), why


def test_of_two_concatenations_the_first_has_the_tensor() -> None:
    nodes = "a = Relu(x) b = Exp(x) c = Concat<axis=1>(a, b) d = Concat<axis=1>(b, a) y = Add(c, d)"
    assert _in_place(nodes) == ["c"]
