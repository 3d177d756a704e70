"""Branches of an If may give their tensors the same names: their layers are told apart, in files, selectors, rules, suspects and pins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from probe.blame.run_files import read_run
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.engine.tuning.choose import choose
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.rules import Rule
from probe.engine.tuning.selector import Deny
from probe.engine.tuning.tactic_file import Lines, base_of, read_tactic_file, tactic_file_of, text_of, with_tactics
from probe.errors import InputError
from probe.model.load import load

IF = """<ir_version: 8, opset_import: ["" : 17]>
g (float[4,16] x, bool c) => (float[4,16] y) {
  y = If (c) <
    then_branch = t () => (float[4,16] b) { h = MatMul (x, w)  b = Relu (h) },
    else_branch = e () => (float[4,16] b) { h = MatMul (x, w)  b = Sigmoid (h) }
  >
}"""
THEN, ELSE = "If(y)/then_branch/MatMul(h) + Relu(b)", "If(y)/else_branch/MatMul(h) + Sigmoid(b)"
Feeds = Mapping[str, Any]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(IF)
    model.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal((16, 16)).astype(np.float32), "w"))
    made = tmp_path_factory.mktemp("branches") / "if.onnx"
    onnx.save(model, made)
    return made


@pytest.fixture(scope="module")
def engine(path: Path) -> Engine:
    return compile_model(load(path))


@pytest.fixture(scope="module")
def feeds() -> Feeds:
    return {"x": np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32), "c": np.array(True)}


def test_a_recorded_file_is_read_and_replayed(path: Path, engine: Engine, feeds: Feeds, tmp_path: Path) -> None:
    choices = choose(engine, feeds, [Deny("exact @ then_branch", "exact|splitk2 @ else_branch")])
    assert choices.tactics == {THEN: "acc16", ELSE: "acc16"}
    file = with_tactics(tactic_file_of(engine, choices), {(("b",), ELSE): "splitk2"})
    (tmp_path / "f").write_text(text_of(file))
    assert read_tactic_file(tmp_path / "f") == (file, True)
    other = compile_model(load(path))
    assert choose(other, feeds, [Replay(file, engine=other)]).tactics == {THEN: "acc16", ELSE: "splitk2"}
    assert len(read_run(tmp_path / "f").choices) == 2


def test_a_line_that_is_gone_is_missed(engine: Engine, feeds: Feeds) -> None:
    """The branch that is left does not answer for the other one."""
    file = tactic_file_of(engine, choose(engine, feeds))
    half = replace(file, layers=file.layers[:1])
    with pytest.raises(InputError, match="says nothing of the layer that makes b"):
        choose(engine, feeds, [Replay(half)])
    lenient = Replay(half, strict=False)
    choose(engine, feeds, [lenient])
    assert [(miss.kind, miss.layer) for miss in lenient.misses] == [("new_layer", ELSE)]


def test_a_line_too_many_is_missed(engine: Engine, feeds: Feeds) -> None:
    file = tactic_file_of(engine, choose(engine, feeds))
    third = replace(file, layers=(*file.layers, replace(file.layers[0], layer="another")))
    with pytest.raises(InputError, match="no layer makes b"):
        choose(engine, feeds, [Replay(third)])


def test_a_layer_alone_is_found_whatever_it_is_called(engine: Engine, feeds: Feeds) -> None:
    file = tactic_file_of(engine, choose(engine, feeds))
    (line, _) = file.layers
    alone = Lines(replace(file, layers=(line,)))
    assert alone.of(line.outputs, "renamed") == line
    assert alone.of(line.outputs, "renamed", alone=False) is None
    assert alone.of(("other",), line.layer) is None


def test_precisions_come_back_to_their_branch(path: Path, feeds: Feeds) -> None:
    one = compile_model(load(path), keep=[THEN])
    file = tactic_file_of(one, choose(one, feeds))
    base = base_of(file, compile_model(load(path)))
    assert {name: choice.precision for name, choice in base.layers.items()} == {THEN: "fp32"}


def test_a_rule_of_one_branch_leaves_the_other_alone(engine: Engine, feeds: Feeds) -> None:
    contexts = [one.context for one in choose(engine, feeds)]
    rule = Rule.of(contexts[0], "exact", contexts)
    assert [rule.concerns(one) for one in contexts] == [True, False]
    assert "exact" not in choose(engine, feeds, [Deny(rule)]).tactics[THEN]


def test_a_line_end_in_a_name_is_no_line_of_an_error(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[4,16] x, float[16,16] w) => (float[4,16] y) { h = MatMul (x, w)  y = MatMul (h, w) }""")
    for node, name in zip(model.graph.node, ("first\nerror: another", "second"), strict=True):
        node.name = name
    onnx.save(model, tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"))
    feeds = {"x": np.ones((4, 16), np.float32), "w": np.eye(16, dtype=np.float32)}
    with pytest.raises(InputError) as refused:
        choose(engine, feeds, [Deny(".*")])
    assert len(refused.value.what.splitlines()) == 3 and "first\\nerror" in refused.value.what
    other = compile_model(load(tmp_path / "m.onnx"), keep=["first\nerror: another", "second"])
    with pytest.raises(InputError) as refused:
        choose(other, feeds, [Replay(tactic_file_of(engine, choose(engine, feeds)), engine=other)])
    assert len(refused.value.what.splitlines()) == 3
