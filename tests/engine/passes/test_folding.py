"""Scales and batch normalisation into the weights before and after them, zero weights: what is folded, what stays, and that outputs stay."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.network import origin
from tests.engine.passes.judge import Before, apply, judge, network_of, ops
from tests.model.builders import model, node, value, weight

RNG = np.random.default_rng(7)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return (0.5 + RNG.random(shape)).astype(np.float32)


# name -> op, shape of x, weights, bias or None, attributes, channels of what it makes, rank
LINEAR = {
    "Conv": ("Conv", (2, 3, 5, 5), rand(4, 3, 3, 3), rand(4), {"pads": [1, 1, 1, 1]}, 4, 4),
    "Conv without bias": ("Conv", (2, 3, 5, 5), rand(4, 3, 3, 3), None, {}, 4, 4),
    "grouped Conv": ("Conv", (2, 6, 5), rand(4, 3, 3), rand(4), {"group": 2}, 4, 3),
    "depthwise Conv": ("Conv", (2, 4, 5, 5), rand(4, 1, 3, 3), None, {"group": 4, "strides": [2, 2]}, 4, 4),
    "ConvTranspose": ("ConvTranspose", (2, 3, 5, 5), rand(3, 4, 3, 3), rand(4), {"pads": [1, 1, 1, 1], "strides": [2, 2]}, 4, 4),
    "grouped ConvTranspose": ("ConvTranspose", (2, 6, 5, 5), rand(6, 2, 3, 3), None, {"group": 2}, 4, 4),
    "Gemm": ("Gemm", (2, 5), rand(5, 4), rand(4), {}, 4, 2),
    "Gemm, transposed and scaled": ("Gemm", (2, 5), rand(4, 5), rand(1, 4), {"transB": 1, "alpha": 0.5, "beta": 2.0}, 4, 2),
    "Gemm with a scalar bias": ("Gemm", (2, 5), rand(5, 4), rand(), {"beta": 0.0}, 4, 2),
    "Gemm without bias": ("Gemm", (2, 5), rand(5, 4), None, {}, 4, 2),
    "MatMul": ("MatMul", (2, 3, 5), rand(5, 4), None, {}, 4, 3),
}  # fmt: skip


def batch_norm(channels, *, epsilon=1e-5):
    parameters = [positive(channels), rand(channels), rand(channels), positive(channels)]
    return ("BatchNormalization", parameters, {"epsilon": epsilon})


def per_channel(numbers, axis, rank):
    return numbers.reshape([-1 if at == axis else 1 for at in range(rank)])


def followers(axis, channels, rank):
    """What may follow: op, constants, attributes, whether the constant stands first."""
    wide = per_channel(rand(channels), axis, rank)
    return {
        "BatchNormalization": (*batch_norm(channels), False),
        "Mul a channel": ("Mul", [wide], {}, False),
        "Mul uniform": ("Mul", [rand()], {}, True),
        "Div a channel": ("Div", [per_channel(positive(channels), axis, rank)], {}, False),
        "Add a channel": ("Add", [wide], {}, True),
        "Add uniform": ("Add", [rand(*[1] * rank)], {}, False),
        "Sub": ("Sub", [wide], {}, False),
        "Sub from": ("Sub", [wide], {}, True),
    }


def chain(linear, follower, *, relu=True, extra=()):
    op, shape, weights, bias, attributes, _, _ = linear
    then, constants, then_attributes, first = follower
    names = [f"c{i}" for i in range(len(constants))]
    return model(
        [
            node(op, ["x", "w", *(["b"] if bias is not None else [])], ["raw"], name="linear", **attributes),
            node(then, [*names, "raw"] if first else ["raw", *names], ["scaled"], name="follower", **then_attributes),
            *([node("Relu", ["scaled"], ["y"], name="relu")] if relu else [node("Identity", ["scaled"], ["y"])]),
            *extra,
        ],
        [value("x", shape)],
        [value("y", None)],
        [weight("w", weights), *([weight("b", bias)] if bias is not None else []),
         *(weight(name, array) for name, array in zip(names, constants, strict=True))],
    )  # fmt: skip


FOLLOWERS = list(followers(1, 4, 4))


@pytest.mark.parametrize("which", FOLLOWERS)
@pytest.mark.parametrize("name", LINEAR)
def test_folds_into_what_is_before(tmp_path, name, which):
    linear = LINEAR[name]
    axis = 1 if linear[0] != "MatMul" else 2
    follower = followers(axis, linear[5], linear[6])[which]
    if (name, which) == (
        "MatMul",
        "BatchNormalization",
    ):  # normalises over axis 1, which is not where a MatMul has its channels
        follower = (*batch_norm(3), False)
    network = network_of(chain(linear, follower), tmp_path)
    before = Before.of(network)
    by = "batch_norm" if which == "BatchNormalization" else "scales"
    fuel = apply(by, network)
    judge(network, before)
    if linear[0] == "MatMul" and follower[0] not in ("Mul", "Div"):
        assert not fuel.changes  # nowhere to put an offset
        return
    assert ops(network) == sorted([linear[0], "Relu"])
    assert [change.nodes for change in fuel.changes] == [("linear", "follower")]
    first = next(iter(network.graph))
    assert first.outputs[0].name == "scaled" and origin(first) == ("linear", "follower")
    assert network.fate("raw").status == "folded" and network.fate("raw").by == by
    # Weights nobody reads any more are gone, and what became of them is known.
    left = set(network.graph.initializers)
    assert "w" not in left or follower[0] in ("Add", "Sub"), left
    for gone in {"w", "c0"} - left:
        assert network.fate(gone).by == by


def test_a_chain_rounds_once(tmp_path):
    """Conv, Mul, BatchNormalization, Add, Div: weights are those of float64, rounded once, whatever pass folds which link."""
    w, b = rand(4, 3, 3, 3), rand(4)
    scale, mean, offset, divisor = rand(4, 1, 1), rand(4), rand(4, 1, 1), positive(4, 1, 1)
    gamma, beta, variance = positive(4), rand(4), positive(4)
    proto = model(
        [
            node("Conv", ["x", "w", "b"], ["t0"], name="conv"),
            node("Mul", ["t0", "scale"], ["t1"], name="mul"),
            node("BatchNormalization", ["t1", "gamma", "beta", "mean", "variance"], ["t2"], name="bn", epsilon=1e-3),
            node("Add", ["t2", "offset"], ["t3"], name="add"),
            node("Div", ["t3", "divisor"], ["y"], name="div"),
        ],
        [value("x", (1, 3, 5, 5))], [value("y", None)],
        [weight(k, v) for k, v in {"w": w, "b": b, "scale": scale, "gamma": gamma, "beta": beta, "mean": mean, "variance": variance,
                                   "offset": offset, "divisor": divisor}.items()],
    )  # fmt: skip
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    from probe.engine.passes import run_passes

    report = run_passes(network)
    assert [change.by for change in report.changes] == ["scales", "batch_norm", "scales", "scales"]
    judge(network, before)
    (conv,) = network.graph
    wide = [array.astype(np.float64).reshape(-1, 1, 1, 1) for array in (scale, gamma, variance, divisor)]
    epsilon = float(np.float32(1e-3))
    factor = wide[0] * (wide[1] / np.sqrt(wide[2] + epsilon)) / wide[3]
    assert np.array_equal(conv.inputs[1].const_value.numpy(), (w * factor).astype(np.float32))
    assert origin(conv) == ("conv", "mul", "bn", "add", "div")
    assert conv.outputs[0].name == "y"
    assert all(network.fate(f"t{i}").status == "folded" for i in range(4))


def batch_norm_follower():
    return (*batch_norm(4), False)


def by_itself():
    proto = chain(LINEAR["Conv"], ("Mul", [rand()], {}, False))
    proto.graph.node[1].input[1] = "raw"
    return proto


REFUSED = {
    "read twice": lambda: chain(LINEAR["Conv"], batch_norm_follower(), extra=[node("Neg", ["raw"], ["dead"], name="neg")]),
    "variance not positive": lambda: chain(LINEAR["Conv"], ("BatchNormalization", [positive(4), rand(4), rand(4), -positive(4)], {}, False)),
    "overflow": lambda: chain(LINEAR["Conv"], ("Mul", [np.full((4, 1, 1), 3e38, np.float32)], {}, False)),
    "division by zero": lambda: chain(LINEAR["Conv"], ("Div", [np.zeros((), np.float32)], {}, False)),
    "division of a constant": lambda: chain(LINEAR["Conv"], ("Div", [rand()], {}, True)),
    "along another axis": lambda: chain(LINEAR["Conv"], ("Mul", [rand(4, 1, 5)], {}, False)),
    "adds an axis": lambda: chain(LINEAR["Conv"], ("Mul", [rand(1, 1, 1, 1, 1)], {}, False)),
    "by itself": by_itself,
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_refuses(tmp_path, why):
    network = network_of(REFUSED[why](), tmp_path)
    before = len(ops(network))
    for name in ("scales", "batch_norm"):
        assert not apply(name, network).changes
    assert len(ops(network)) == before


def test_shared_weights_stay_for_the_others(tmp_path):
    shared = rand(4, 3, 1, 1)
    nodes = [node("Conv", ["x", "w"], [f"raw{i}"], name=f"conv{i}") for i in range(2)]
    nodes += [node("Mul", ["raw0", "c"], ["y0"], name="mul"), node("Add", ["raw1", "raw1"], ["y1"], name="add")]
    proto = model(
        nodes,
        [value("x", (1, 3, 4, 4))],
        [value("y0", None), value("y1", None)],
        [weight("w", shared), weight("c", rand(4, 1, 1))],
    )
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("scales", network)
    assert ops(network) == ["Add", "Conv", "Conv"]
    assert np.array_equal(network.graph.initializers["w"].const_value.numpy(), shared)
    judge(network, before)


def test_an_output_between_is_not_folded_and_one_after_keeps_its_name(tmp_path):
    proto = chain(LINEAR["Conv"], batch_norm_follower(), relu=False)
    proto.graph.node.pop()
    proto.graph.output[0].name = "scaled"
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("batch_norm", network)
    assert ops(network) == ["Conv"]
    judge(network, before)
    proto.graph.output.append(value("raw", None))
    network = network_of(proto, tmp_path)
    assert not apply("batch_norm", network).changes


# what is before, in front of what; whether it is folded
BEFORE = {
    "Mul, Conv with padding": ("Mul", [rand(3, 1, 1)], "Conv", True),
    "BatchNormalization, Conv without padding": (*batch_norm(3)[:2], "Conv without bias", True),
    "BatchNormalization, Conv with padding": (*batch_norm(3)[:2], "Conv", False),
    "Sub, grouped Conv": ("Sub", [rand(6, 1)], "grouped Conv", True),
    "Div, depthwise Conv": ("Div", [positive(4, 1, 1)], "depthwise Conv", True),
    "Add, Gemm": ("Add", [rand(5)], "Gemm, transposed and scaled", True),
    "BatchNormalization, Gemm": (*batch_norm(5)[:2], "Gemm without bias", True),
    "Mul, MatMul": ("Mul", [rand(5)], "MatMul", True),
    "Add, MatMul": ("Add", [rand(5)], "MatMul", False),
    "Mul over rows, MatMul": ("Mul", [rand(3, 1)], "MatMul", False),
    "Mul, ConvTranspose": ("Mul", [rand()], "ConvTranspose", False),
}


@pytest.mark.parametrize("what", BEFORE)
def test_folds_into_what_is_after(tmp_path, what):
    then, constants, name, folds = BEFORE[what]
    op, shape, weights, bias, attributes, _, _ = LINEAR[name]
    names = [f"c{i}" for i in range(len(constants))]
    proto = model(
        [
            node("Neg", ["x"], ["a"], name="neg"),
            node(then, ["a", *names], ["scaled"], name="before"),
            node(op, ["scaled", "w", *(["b"] if bias is not None else [])], ["y"], name="linear", **attributes),
        ],
        [value("x", shape)], [value("y", None)],
        [weight("w", weights), *([weight("b", bias)] if bias is not None else []),
         *(weight(n, array) for n, array in zip(names, constants, strict=True))],
    )  # fmt: skip
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("input_scales", network)
    judge(network, before)
    assert ops(network) == sorted(["Neg", op] if folds else ["Neg", then, op])
    if folds:
        assert network.fate("scaled").by == "input_scales"
        assert origin(list(network.graph)[-1]) == ("before", "linear")


@pytest.mark.parametrize("name", [*LINEAR, "Mul"])
def test_zero_weights_leave_the_bias(tmp_path, name):
    op, shape, weights, bias, attributes = (
        ("Mul", (2, 3), np.zeros((1, 3), np.float32), None, {}) if name == "Mul" else LINEAR[name][:5]
    )
    proto = model(
        [node(op, ["x", "w", *(["b"] if bias is not None else [])], ["a"], name="linear", **attributes), node("Neg", ["a"], ["y"], name="neg")],
        [value("x", shape)], [value("y", None)],
        [weight("w", np.zeros_like(weights)), *([weight("b", bias)] if bias is not None else [])],
    )  # fmt: skip
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("zero_weights", network)
    assert ops(network) == ["Expand", "Neg"]
    assert origin(next(iter(network.graph))) == ("linear",)
    judge(network, before)


def test_weights_of_which_some_are_zero_stay(tmp_path):
    w = np.zeros((4, 3, 1, 1), np.float32)
    w[3] = 1
    proto = model([node("Conv", ["x", "w"], ["y"])], [value("x", (1, 3, 4, 4))], [value("y", None)], [weight("w", w)])
    assert not apply("zero_weights", network_of(proto, tmp_path)).changes
