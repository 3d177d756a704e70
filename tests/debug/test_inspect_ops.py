"""``probe inspect ops``: the operators the engine knows, and those of a model with the layers that fall back."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from probe.debug.inspect_ops import inspect_ops
from probe.engine.device.cpu.kernels import how_run, newest_opset
from probe.report.terminal import render
from probe.results import json as saved
from probe.results.ops import OpsResult
from tests.cli.program import probe

POOLED = """<ir_version: 8, opset_import: ["" : 22, "my.domain" : 1]>
g (float[1,2,6,6] x, float[n,4] rois, int64[n] item) => (float[n,2,2,2] y)
{ r = RoiAlign <output_height = 2, output_width = 2> (x, rois, item)  e = Exp (r)  f = Exp (e)  y = my.domain.Foo (f) }"""


@pytest.fixture(scope="module")
def standard():
    return inspect_ops()


def test_every_operator_of_the_standard_is_there(standard):
    known = {(one.op, one.domain): one for one in standard.ops}
    assert len(known) == len(standard.ops) > 190
    schemas = {(s.name, s.domain) for s in onnx.defs.get_all_schemas() if s.since_version <= standard.opset or s.domain}
    live = {one for one in schemas if not onnx.defs.get_schema(*one).deprecated}
    assert live <= known.keys()
    assert standard.opset == newest_opset() <= onnx.defs.onnx_opset_version()


SPLITS = ("splitk2", "splitk4", "splitk8")


@pytest.mark.parametrize(
    ("op", "kind", "numerics", "runs", "tactics"),
    [
        ("Conv", "conv", "rounds", "kernel", ("exact", "acc16", *SPLITS, "winograd_f4", "winograd_f2")),
        ("MatMul", "matmul", "rounds", "kernel", ("exact", "acc16", *SPLITS)),
        ("Softmax", "softmax", "rounds", "kernel", ("exact", "sum_sequential", "sum_pairwise", "sum_acc16")),
        ("LSTM", "recurrent", "rounds", "kernel", ("exact",)),
        ("Relu", "pointwise", "exact", "kernel", ("exact",)),
        ("Reshape", "move", "moves", "kernel", ("exact",)),
        ("Equal", "pointwise", "integers", "kernel", ("exact",)),
        ("BitShift", "pointwise", "integers", "kernel", ("exact",)),
        ("DequantizeLinear", "quantise", "rounds", "kernel", ("exact",)),
        ("If", "if", "bodies", "kernel", ("exact",)),
        ("Loop", "loop", "bodies", "kernel", ("exact",)),
        ("Scan", "loop", "bodies", "kernel", ("exact",)),
        ("Mish", "pointwise", "rounds", "function", ("exact",)),
        ("CastLike", "pointwise", "rounds", "function", ("exact",)),
        ("RandomUniform", "other", "rounds", None, ("exact",)),
        ("Constant", "other", "rounds", "weight", ("exact",)),
    ],
)
def test_what_is_said_of_an_operator(standard, op, kind, numerics, runs, tactics):
    (one,) = [one for one in standard.ops if one.op == op]
    assert (one.kind, one.numerics, one.tactics) == (kind, numerics, tactics)
    assert runs is None or one.runs == runs


def test_an_operator_is_asked_at_the_opset(standard):
    """RoiAlign's kernel is that of opset 16; 22 brought further types."""
    assert how_run("RoiAlign", "", 16) == "kernel"
    assert how_run("RoiAlign", "", 22) == "reference"
    assert how_run("Upsample", "", 9) == "kernel" and "Upsample" not in {one.op for one in standard.ops}  # deprecated


def test_kernels_compute_what_the_table_says_they_do(standard):
    """Tried with numbers: those of one float32 input and no attributes that are said to have a kernel."""
    from probe.ort.session import small_session

    tried = 0
    for one in standard.ops:
        if one.domain or one.kind != "pointwise" or one.runs not in ("kernel", "function"):
            continue
        schema = onnx.defs.get_schema(one.op, standard.opset)
        if schema.min_input != 1 or schema.max_input != 1 or any(a.required for a in schema.attributes.values()):
            continue
        if "tensor(float)" not in schema.inputs[0].types:
            continue
        graph = helper.make_graph(
            [helper.make_node(one.op, ["x"], ["y"])], "g", [helper.make_tensor_value_info("x", 1, [2])],
            [onnx.ValueInfoProto(name="y")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", standard.opset)], ir_version=10)
        assert len(small_session(model.SerializeToString()).run(None, {"x": np.array([0.5, 1.0], np.float32)})) == 1
        tried += 1
    assert tried > 30


@pytest.fixture
def model(tmp_path):
    onnx.save(onnx.parser.parse_model(POOLED), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_operators_of_a_model_and_what_falls_back(model):
    result = inspect_ops(model)
    rows = {one.op: one for one in result.ops}
    assert [one.op for one in result.ops] == ["Exp", "Foo", "RoiAlign"]  # most frequent first
    assert (rows["Exp"].nodes, rows["Exp"].falls_back, rows["Exp"].runs) == (2, 0, "kernel")
    assert (rows["RoiAlign"].nodes, rows["RoiAlign"].falls_back, rows["RoiAlign"].runs) == (1, 1, "reference")
    assert (rows["Foo"].domain, rows["Foo"].since, rows["Foo"].runs) == ("my.domain", 0, "none")
    assert [(one.layer, one.op, one.by) for one in result.fallbacks] == [
        ("RoiAlign(r)", "RoiAlign", "reference"),
        ("Foo(y)", "Foo", "nothing"),
    ]
    assert all(one.reason for one in result.fallbacks) and result.opset == 22


def test_a_kernel_for_these_types_counts(tmp_path):
    """Max has none for int16, and one for float32: the model's own types decide."""
    for dtype, runs in (("int16", "reference"), ("float", "kernel")):
        text = f'<ir_version: 8, opset_import: ["" : 17]> g ({dtype}[2] x) => ({dtype}[2] y) {{ y = Max (x, x) }}'
        onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
        (one,) = inspect_ops(tmp_path / "m.onnx").ops
        assert (one.op, one.runs, one.falls_back) == ("Max", runs, int(runs == "reference"))


def test_real_models_need_no_fallback(models):
    for name in ("mnist", "silero_vad"):
        result = inspect_ops(models / "models" / f"{name}.onnx")
        assert result.fallbacks == () and {one.runs for one in result.ops} <= {"kernel", "function", "weight"}


def test_pages(standard, model):
    page = render(standard)
    assert all(f" {op} " in page for op in ("Abs", "Xor", "RoiAlign")), "the table asked for is there whole"
    assert all(len(line) <= 80 for line in page.splitlines())
    page = render(inspect_ops(model))
    assert "2 layers without a kernel" in page and "RoiAlign(r): runs on onnx's reference implementation" in page
    assert "Foo(y): cannot run" in page and "my.domain.Foo" in page
    assert render(standard, quiet=True).count("\n") <= 4


def test_the_command(model, tmp_path):
    done = probe("inspect", "ops", model, "--json", "ops.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3 operators of ")
    result = saved.load(tmp_path / "ops.json")
    assert isinstance(result, OpsResult) and result.command == f"probe inspect ops {model} --json ops.json"
    again = probe("inspect", "ops.json", cwd=tmp_path)
    assert again.stdout == done.stdout
    tree = json.loads(probe("inspect", "ops", "--json", "-", cwd=tmp_path).stdout)
    assert tree["schema"] == "probe.ops/1" and tree["model"] == "" and len(tree["ops"]) > 190


@pytest.mark.parametrize("words", [("ops", "nothing.onnx"), ("m.onnx", "m.onnx"), ("golden", "ops")])
def test_what_the_user_got_wrong(model, words):
    done = probe("inspect", *words, cwd=model.parent)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and not done.stdout
