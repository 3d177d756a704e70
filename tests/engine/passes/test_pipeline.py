"""The pipeline: levels, fuel, verification, rounds; on a network with work for every pass, and on random ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.engine.passes import PIPELINE, Pass, pipeline, run_passes
from probe.model.load import load
from tests.engine.passes.judge import Before, judge, network_of, ops
from tests.model.builders import BOOL, graph, model, node, save, value, weight

RNG = np.random.default_rng(11)


def f32(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*numbers):
    return np.array(numbers, np.int64)


def everything():
    """Work for every pass, at the top and in both branches of an If."""
    then = graph([node("Identity", ["h"], ["b0"], name="b identity"), node("Mul", ["b0", "two_thirds"], ["b1"], name="b mul"),
                  node("Relu", ["b1"], ["b2"], name="b relu")], [], [value("b2", None)])  # fmt: skip
    other = graph([node("Neg", ["h"], ["e0"], name="e neg"), node("Neg", ["h"], ["e1"], name="e neg again"),
                   node("Add", ["e0", "e1"], ["e2"], name="e add")], [], [value("e2", None)])  # fmt: skip
    nodes = [
        node("Div", ["two", "three"], ["two_thirds"], name="constant"),
        node("Identity", ["x"], ["a"], name="identity"),
        node("Sub", ["a", "mean"], ["centred"], name="normalise"),
        node("Conv", ["centred", "w0"], ["c0"], name="conv0"),
        node("Mul", ["c0", "two_thirds"], ["c1"], name="scale"),
        node("BatchNormalization", ["c1", "gamma", "beta", "mu", "var"], ["c2"], name="bn"),
        node("Relu", ["c2"], ["r0"], name="relu"),
        node("Relu", ["r0"], ["r1"], name="relu again"),
        node("Add", ["r1", "zero"], ["r2"], name="plus zero"),
        node("Pad", ["r2", "pads"], ["p"], name="pad"),
        node("Conv", ["p", "w1"], ["d"], name="conv1"),
        node("Transpose", ["d"], ["t0"], name="nhwc", perm=[0, 2, 3, 1]),
        node("Transpose", ["t0"], ["t1"], name="nchw", perm=[0, 3, 1, 2]),
        node("Sigmoid", ["t1"], ["s0"], name="gate"),
        node("Sigmoid", ["t1"], ["s1"], name="gate again"),
        node("Add", ["s0", "s1"], ["g"], name="gates"),
        node("Conv", ["r2", "none"], ["n"], name="conv of zeros"),
        node("Add", ["g", "n"], ["h"], name="join"),
        node("If", ["which"], ["y"], name="if", then_branch=then, else_branch=other),
        node("Exp", ["h"], ["unread"], name="dead"),
    ]  # fmt: skip
    weights = {
        "two": np.float32(2), "three": np.float32(3), "mean": f32(3, 1, 1), "w0": f32(4, 3, 3, 3), "gamma": f32(4), "beta": f32(4),
        "mu": f32(4), "var": np.abs(f32(4)) + 0.5, "zero": np.float32(0), "pads": i64(0, 0, 1, 1, 0, 0, 1, 1), "w1": f32(5, 4, 3, 3),
        "none": np.zeros((5, 4, 1, 1), np.float32),
    }  # fmt: skip
    return model(
        nodes,
        [value("x", (2, 3, 6, 6)), value("which", (), BOOL)],
        [value("y", None)],
        [weight(k, v) for k, v in weights.items()],
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load(save(everything(), tmp_path_factory.mktemp("everything") / "model.onnx"))


def read(loaded):
    from probe.engine.network import read_network

    return read_network(loaded)


def feeds(which):
    rng = np.random.default_rng(1)
    return {"x": rng.standard_normal((2, 3, 6, 6)).astype(np.float32), "which": np.array(which)}


@pytest.mark.parametrize("which", [True, False])
@pytest.mark.parametrize("level", ["safe", "all"])
def test_every_pass_finds_its_work(loaded, level, which):
    network = read(loaded)
    before = Before.of(network, feeds(which))
    report = run_passes(network, level)
    judge(network, before)
    assert {change.by for change in report.changes} == {
        one.name for one in PIPELINE if one.level == "safe" or level == "all"
    }
    assert not report.stopped and report.level == level
    left = ["Add", "Add", "Conv", "Conv", "If", "Mul", "Neg", "Relu", "Relu", "Sigmoid"]
    safe = ["Add", "Add", "Conv", "Sub"]  # the additions of zero, the convolution of zeros, the normalisation in front
    assert ops(network) == sorted([*left, *safe] if level == "safe" else left)
    assert not any(value.meta for value in network.graph.initializers.values()), "float64 copies are left"


def test_level_none_does_nothing(loaded):
    network = read(loaded)
    before = ops(network)
    report = run_passes(network, "none")
    assert not report.changes and ops(network) == before and not network.fates


def test_a_second_run_finds_nothing(loaded):
    network = read(loaded)
    run_passes(network, "all")
    assert not run_passes(network, "all").changes


@pytest.mark.parametrize("level", ["safe", "all"])
def test_a_limit_of_n_makes_the_first_n_changes(loaded, level):
    """For every N: the first N changes of the unlimited run, a valid network, outputs as before."""
    full = run_passes(read(loaded), level).changes
    assert len(full) > 10
    golden = Before.of(read(loaded), feeds(which=True))
    for limit in range(len(full) + 2):
        network = read(loaded)
        report = run_passes(network, level, limit)
        assert report.changes == full[:limit]
        assert report.stopped == (limit < len(full))
        judge(network, golden)


def test_a_change_says_what_was_done_to_which_nodes(loaded):
    change = next(change for change in run_passes(read(loaded)).changes if change.by == "batch_norm")
    assert change.what == "folds bn into the weights of conv0"
    assert change.nodes == ("conv0", "scale", "bn")


def test_each_pass_says_its_level_and_why():
    names = [one.name for one in PIPELINE]
    assert len(set(names)) == len(names)
    for one in PIPELINE:
        doc = one.transform.__doc__ or ""
        assert doc.startswith(f"Level {one.level}: "), f"{one.name}: the docstring does not say its level and why"


@pytest.mark.parametrize("fault", ["raises", "breaks"])
def test_an_error_names_the_pass_and_those_before(loaded, monkeypatch, fault):
    def transform(edit):
        if not edit.take("does something wrong", []):
            return
        if fault == "raises":
            raise ValueError("no such axis")
        next(iter(edit.network.graph)).meta.clear()

    broken = Pass("broken", "", "safe", transform)
    monkeypatch.setattr(pipeline, "PIPELINE", (PIPELINE[0], PIPELINE[1], broken, PIPELINE[2]))
    with pytest.raises(RuntimeError) as caught:
        run_passes(read(loaded))
    text = str(caught.value)
    assert "pass broken failed" in text and "does something wrong" in text and "--passes-limit" in text
    assert "constant_folding (" in text and "identities (" in text
    assert ("no such axis" if fault == "raises" else "lost its origin") in text


def test_passes_that_undo_each_other_come_to_an_end(loaded, monkeypatch):
    restless = Pass("restless", "", "safe", lambda edit: edit.take("turns round", []))
    monkeypatch.setattr(pipeline, "PIPELINE", (restless,))
    with pytest.raises(RuntimeError, match="do not come to an end"):
        run_passes(read(loaded))


# Steps on a tensor of 2 x 4 x 3 x 3: op, constants, attributes. Each keeps the shape, so that any sequence is a network.
STEPS = [
    ("Identity", [], {}), ("Relu", [], {}), ("Neg", [], {}), ("Sigmoid", [], {}),
    ("Conv", [f32(4, 4, 1, 1), f32(4)], {}), ("Conv", [f32(4, 1, 3, 3)], {"group": 4, "pads": [1, 1, 1, 1]}),
    ("Conv", [np.zeros((4, 4, 1, 1), np.float32), f32(4)], {}), ("ConvTranspose", [f32(4, 4, 1, 1)], {}),
    ("MatMul", [f32(3, 3)], {}),
    ("BatchNormalization", [f32(4), f32(4), f32(4), np.abs(f32(4)) + 0.5], {}),
    ("Mul", [f32(4, 1, 1)], {}), ("Mul", [np.float32(1)], {}), ("Add", [f32(1, 4, 1, 1)], {}), ("Add", [np.float32(0)], {}),
    ("Sub", [f32()], {}), ("Div", [np.float32(3)], {}), ("Mul", [f32(3, 3)], {}),
    ("Transpose", [], {"perm": [0, 1, 3, 2]}), ("Transpose", [], {"perm": [0, 1, 2, 3]}),
    ("Reshape", [i64(2, 4, 3, 3)], {}), ("Clip", [np.float32(-1), np.float32(1)], {}), ("MaxPool", [], {"kernel_shape": [1, 1]}),
]  # fmt: skip


@st.composite
def networks(draw):
    """Steps that each read one of the last tensors; now and then two are added, or one becomes an output too."""
    nodes, weights, made, outputs = [], [], ["x"], []
    for at in range(draw(st.integers(1, 9))):
        read, name = draw(st.sampled_from(made[-3:])), f"t{at}"
        if draw(st.integers(0, 5)) == 0:
            nodes.append(node("Add", [read, draw(st.sampled_from(made))], [name], name=f"add {at}"))
        else:
            op, constants, attributes = draw(st.sampled_from(STEPS))
            names = [f"c{at}_{i}" for i in range(len(constants))]
            weights += [weight(n, c) for n, c in zip(names, constants, strict=True)]
            nodes.append(node(op, [read, *names], [name], name=f"{op} {at}", **attributes))
        made.append(name)
        if draw(st.integers(0, 4)) == 0:
            outputs.append(name)
    outputs = list(dict.fromkeys([*outputs, made[-1]]))
    return model(nodes, [value("x", (2, 4, 3, 3))], [value(name, None) for name in outputs], weights)


@settings(max_examples=150)
@given(proto=networks(), level=st.sampled_from(["safe", "all"]), limit=st.one_of(st.none(), st.integers(0, 12)))
def test_random_networks_compute_what_they_did(tmp_path_factory, proto, level, limit):
    folder = tmp_path_factory.mktemp("random")
    network = network_of(proto, folder)
    before = Before.of(network)
    full = run_passes(network_of(proto, folder), level).changes
    report = run_passes(network, level, limit)
    assert report.changes == full[:limit]
    judge(network, before, tolerance=2e-5)
