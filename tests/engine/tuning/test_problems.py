"""Problems: what tells two layers apart, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.engine.tuning.choose import choose, problems_of
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.timing import Timings
from probe.model import load


def compiled(text: str, folder: Path, *, fusion: str = "safe") -> Engine:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]>\n{text}'), folder / "m.onnx")
    return compile_model(load(folder / "m.onnx"), fusion=fusion)  # type: ignore[arg-type]


def problems(engine: Engine, feeds: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {one.context.outputs[0]: one.context.problem for one in problems_of(engine, feeds)}


X = {"x": np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)}
SUMS = """
g (float[4,8] x) => (float[4,1] a, float[1,8] b, float[1,1] c)
<int64[1] rows = {1}, int64[1] columns = {0}>
{
  a = ReduceSum <keepdims = 1> (x, rows)
  b = ReduceSum (x, columns)
  c = ReduceSum (x)
}
"""


def test_axes_are_part_of_the_problem(tmp_path: Path) -> None:
    assert problems(compiled(SUMS, tmp_path, fusion="none"), X) == {
        "a": "ReduceSum(fp16[4,8], int64[1]=[1]){keepdims=1} -> fp16[4,1]",
        "b": "ReduceSum(fp16[4,8], int64[1]=[0]) -> fp16[1,8]",
        "c": "ReduceSum(fp16[4,8]) -> fp16[1,1]",
    }


# h is read by two layers, at once and later; both are measured.
FORKED = """
g (float[4,8] x) => (float[4,1] y, float[4,8] z)
<float[8,8] w = {0.5, 0.25, 1, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3},
 int64[1] rows = {1}>
{
  h = MatMul (x, w)
  y = ReduceSum (h, rows)
  s = Softmax (h)
  z = MatMul (s, w)
}
"""


def test_a_tensor_stays_until_its_last_reader_is_measured(tmp_path: Path) -> None:
    engine = compiled(FORKED, tmp_path, fusion="none")
    timings = Timings(fingerprint_of(engine))
    choices = choose(engine, X, timings=timings)
    times = {one.context.outputs[0]: [c.median_us for c in one.candidates] for one in choices}
    assert len(times) == 4 and all(None not in measured for measured in times.values()) and not timings.notes


BRANCHES = """
g (float[4,8] x, bool c) => (float[4,4] y)
{
  y = If (c) <
    then_branch = t () => (float[4,4] p) { h = Tanh (x)  u = Transpose <perm = [1, 0]> (h)  p = MatMul (h, u) },
    else_branch = e () => (float[4,4] q) { k = Sin (x)  v = Transpose <perm = [1, 0]> (k)  w = MatMul (v, k)  r = MatMul (k, w)  q = MatMul (r, v) }
  >
}
"""


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_that_was_not_taken_has_candidates_without_times(tmp_path: Path, taken: bool) -> None:
    engine = compiled(BRANCHES, tmp_path)
    choices = choose(engine, {**X, "c": np.array(taken)}, timings=Timings(fingerprint_of(engine)))
    timed = {
        one.context.outputs[0]: one.candidates[0].median_us is not None for one in choices if len(one.candidates) > 1
    }
    assert timed.keys() == {"p", "q", "w", "r"}, "an If is no choice itself"
    assert timed["w"] is timed["r"] is not taken
    assert timed["p"] and timed["q"], "the same problem, measured in the branch that ran"


def test_attributes_that_are_long_or_bodies_are_short_and_tell_them_apart(tmp_path: Path) -> None:
    text = """
    g (float[4,8] x) => (float[4,8] y) {{
      n = Constant <value = int64 {{3}}> ()
      t = Constant <value = bool {{1}}> ()
      y = Loop (n, t, x) <body = b (int64 i, bool go, float[4,8] v) => (bool on, float[4,8] w) {{ on = Identity (go)  w = {op} (v) }}>
    }}"""
    found = {op: problems(compiled(text.format(op=op), tmp_path), X)["y"] for op in ("Tanh", "Sin", "Tanh ")}
    assert found["Tanh"] == found["Tanh "] != found["Sin"]
    assert "{body=graph of 2 nodes " in found["Tanh"] and "\n" not in found["Tanh"]
