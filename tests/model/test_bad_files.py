"""Every bad file ends in an ``InputError`` that says what, where and what to try; never in anything else."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from probe.errors import InputError
from probe.model import load
from tests.model import builders as b


def refused(path: Path | str) -> InputError:
    with pytest.raises(InputError) as caught:
        load(path)
    assert str(path) in caught.value.where
    assert not caught.value.what.endswith(".")
    return caught.value


# ---- files that hold no ONNX model ----

NOT_ONNX = {
    "empty": (b"", "empty", "repeat"),
    "text": (b"hello, this is a note\n", "the file is text", ".onnx"),
    "json": (b'{"layers": []}', "JSON", ".onnx"),
    "web page": (b"<!DOCTYPE html><html><head></head></html>", "web page", "download"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer", "git lfs pull"),
    "engine by magic": (b"ftrt" + bytes(range(256)), "TensorRT engine", "the engine was built from"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip archive", "export"),
    "pickle": (b"\x80\x02}q\x00.", "pickle", "export"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5", "export"),
    "ort": (b"\x20\0\0\0ORTM" + bytes(50), ".ort model", "converted from"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(50), "TensorFlow Lite", "tf2onnx"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "gzip", "gunzip"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(50), "numpy array", "--inputs"),
    "textproto": (b'ir_version: 8\nproducer_name: "x"\n', "text form", "onnx.save"),
    "onnx text": (b'<ir_version: 8, opset_import: ["" : 17]>\nagraph (float[N] x) => (float[N] y) { y = Relu(x) }', "text form", "onnx.save"),
    "zeros": (bytes(1000), "not an ONNX model", ".onnx"),
    "noise": (np.random.default_rng(0).bytes(4096), "not an ONNX model", ".onnx"),
    "a tensor": (b.weight("w", np.ones(3)).SerializeToString(), "not an ONNX model", ".onnx"),
    "no graph": (b"\x08\x08\x42\x04\x0a\x00\x10\x11", "no graph", "export"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_ONNX)
def test_files_that_are_no_onnx_model(tmp_path, name):
    content, what, hint = NOT_ONNX[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    error = refused(path)
    assert what in error.what
    assert hint in error.hint


@pytest.mark.parametrize(
    ("suffix", "what"), [(".engine", "TensorRT engine"), (".plan", "TensorRT engine"), (".pth", "PyTorch")]
)
def test_files_known_by_their_suffix(tmp_path, suffix, what):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(bytes(range(200)))
    assert what in refused(path).what


def test_a_sound_model_may_have_any_suffix(tmp_path):
    assert load(b.save(b.mlp(), tmp_path / "model.engine")).nodes


def test_paths_that_are_no_file(tmp_path):
    b.save(b.mlp(), tmp_path / "right.onnx")
    assert "right.onnx" in refused(tmp_path / "wrong.onnx").hint
    assert "right.onnx" in refused(tmp_path).hint
    assert "no such file" in refused(tmp_path / "no" / "folder.onnx").what
    assert refused("null\0byte").what
    fifo = tmp_path / "fifo.onnx"
    os.mkfifo(fifo)
    assert "regular file" in refused(fifo).what


def test_a_file_nobody_may_read(tmp_path):
    path = b.save(b.mlp(), tmp_path / "model.onnx")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot" in refused(path).what


def test_more_than_protobuf_can_hold(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(3_000_000_000)
    assert "external data" in refused(path).hint


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_say_so(tmp_path, keep):
    data = b.mlp(hidden=4096).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data[: int(len(data) * keep)])
    error = refused(path)
    assert "truncated" in error.what
    assert "again" in error.hint


# ---- ONNX models that cannot run ----


def nodes(*items, inputs=None, outputs=None, weights=(), **options):
    return b.model(list(items), inputs or [b.value("x")], outputs or [b.value("y")], weights, **options)


def edited(proto, edit):
    edit(proto)
    return proto


def in_body(*items, outputs=("then_y",)):
    """A model whose If has these nodes in its then_branch."""
    proto = b.if_else()
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    del body.node[:]
    body.node.extend(items)
    del body.output[:]
    body.output.extend(b.untyped(name) for name in outputs)
    return proto


def functions(*bodies):
    """A model that calls F0, whose functions F0, F1, ... call what ``bodies`` list."""
    made = [
        helper.make_function(
            "here", f"F{i}", ["a"], ["b"],
            [b.node(f"F{callee}", ["a"], ["b" if j == 0 else f"b{j}"], domain="here") for j, callee in enumerate(body)]
            or [b.node("Relu", ["a"], ["b"])],
            [helper.make_opsetid("", 17), helper.make_opsetid("here", 1)],
        )
        for i, body in enumerate(bodies)
    ]  # fmt: skip
    return nodes(b.node("F0", ["x"], ["y"], domain="here"), domains=("here",), functions=made)


def clear(proto, path):
    """Clear a field named by a dotted path; numbers index."""
    *way, last = path.split(".")
    for part in way:
        proto = proto[int(part)] if part.isdigit() else getattr(proto, part)
    proto.ClearField(last)


relu = b.node("Relu", ["x"], ["y"], name="relu")
tensor = onnx.TensorProto

BAD_MODELS = {
    "unknown op": (lambda: nodes(b.node("Rellu", ["x"], ["y"], name="act")), ["'Rellu'", "standard domain"], ["act"], ["Relu"]),
    "unknown op in ml": (lambda: nodes(b.node("TreeEnsembl", ["x"], ["y"], domain="ai.onnx.ml")), ["TreeEnsembl", "ai.onnx.ml"], [], ["TreeEnsemble"]),
    "op newer than opset": (lambda: nodes(b.node("Gelu", ["x"], ["y"], name="g")), ["'Gelu'", "opset 20", "17"], ["node g"], ["opset_version=20"]),
    "removed op": (lambda: nodes(b.node("Upsample", ["x", "s"], ["y"]), weights=[b.weight("s", np.ones(2, np.float32))]), ["removed in opset 10"], [], ["opset_version=9"]),
    "opset too old": (lambda: nodes(relu, opset=6), ["opset 6", "opset 7"], [], ["convert_version"]),
    "opset from the future": (lambda: nodes(relu, opset=999), ["opset 999", onnx.__version__], [], ["upgrade onnx"]),
    "ml opset from the future": (lambda: edited(nodes(relu), lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2**40))), ["ai.onnx.ml"], [], ["upgrade"]),
    "no opset": (lambda: edited(nodes(relu), lambda m: clear(m, "opset_import")), ["no version of the standard operators"], [], ["export"]),
    "no ir version": (lambda: edited(nodes(relu), lambda m: clear(m, "ir_version")), ["IR version"], [], ["export"]),
    "cycle": (lambda: nodes(b.node("Add", ["x", "c"], ["a"], name="one"), b.node("Neg", ["a"], ["b"], name="two"), b.node("Relu", ["b"], ["c"], name="three"), b.node("Abs", ["c"], ["y"], name="innocent")), ["cycle of 3 nodes", "one -> two -> three -> one"], [], []),
    "cycle of one": (lambda: nodes(b.node("Add", ["x", "y"], ["y"], name="self")), ["cycle of 1 nodes: self -> self"], [], []),
    "cycle in a body": (lambda: in_body(b.node("Add", ["x", "q"], ["p"], name="p"), b.node("Neg", ["p"], ["q"], name="q"), outputs=("q",)), ["cycle of 2"], ["choose/then_branch"], []),
    "cycle through a body": (lambda: edited(b.if_else(), lambda m: m.graph.node[0].attribute[0].g.node.append(b.node("Neg", ["y"], ["unused"]))), ["cycle of 1 nodes: choose"], [], []),
    "dangling input": (lambda: nodes(b.node("Relu", ["hiden"], ["y"], name="r"), b.node("Neg", ["x"], ["hidden"])), ["node r reads tensor 'hiden'"], ["node r"], ["hidden"]),
    "dangling output": (lambda: nodes(relu, outputs=[b.value("z_logits")]), ["the graph returns tensor 'z_logits'"], [], ["export"]),
    "dangling in a body": (lambda: in_body(b.node("Relu", ["nowhere"], ["then_y"], name="r")), ["node r reads tensor 'nowhere'"], ["node r"], []),
    "read from another body": (lambda: edited(b.if_else(), lambda m: m.graph.node.append(b.node("Abs", ["negated"], ["z"], name="abs"))), ["node abs reads tensor 'negated'"], [], ["only inside body choose/then_branch"]),
    "made twice": (lambda: nodes(b.node("Relu", ["x"], ["y"], name="one"), b.node("Neg", ["x"], ["y"], name="two")), ["'y' is made twice", "node one", "node two"], [], ["unique"]),
    "output is an input": (lambda: nodes(b.node("Relu", ["x"], ["x"], name="r"), outputs=[b.value("x")]), ["'x' is made twice", "a graph input"], [], []),
    "output is a weight": (lambda: nodes(b.node("Relu", ["x"], ["w"], name="r"), outputs=[b.value("w")], weights=[b.weight("w", np.ones(3))]), ["'w' is made twice", "an initialiser"], [], []),
    "two weights of one name": (lambda: nodes(relu, weights=[b.weight("w", np.ones(3)), b.weight("w", np.zeros(3))]), ["two initialisers", "'w'"], [], []),
    "two inputs of one name": (lambda: nodes(relu, inputs=[b.value("x"), b.value("x")]), ["'x' is made twice"], [], []),
    "body hides an outer name": (lambda: edited(in_body(b.node("Neg", ["x"], ["h"], name="inner"), outputs=("h",)), lambda m: (m.graph.node.insert(0, b.node("Abs", ["x"], ["h"])))), ["'h'", "node inner", "around it"], ["choose/then_branch"], ["unique"]),
    "shapes": (lambda: nodes(b.node("MatMul", ["x", "w"], ["y"], name="mm"), weights=[b.weight("w", np.ones((4, 5), np.float32))]), ["shapes do not fit at node mm (MatMul)", "Incompatible dimensions"], [], ["inputs"]),
    "shapes at an unnamed node": (lambda: nodes(b.node("Add", ["x", "w"], ["y"]), weights=[b.weight("w", np.ones((4, 5), np.float32))]), ["shapes do not fit at node Add(y)"], [], []),
    "shapes in a body": (lambda: in_body(b.node("MatMul", ["x", "x"], ["then_y"], name="mm")), ["shapes do not fit at node mm"], [], []),
    "types": (lambda: nodes(b.node("Add", ["x", "w"], ["y"], name="add"), weights=[b.weight("w", np.array([4, 5, 6]))]), ["node add", "int64"], [], []),
    "declared type": (lambda: edited(nodes(relu), lambda m: m.graph.output[0].CopyFrom(b.value("y", (2, 3), b.INT64))), ["types do not fit at node relu"], [], []),
    "too few inputs": (lambda: nodes(b.node("Add", ["x"], ["y"], name="add")), ["node add (Add) has 1 inputs, Add takes 2"], [], []),
    "too many inputs": (lambda: nodes(b.node("Relu", ["x", "x"], ["y"])), ["has 2 inputs, Relu takes 1"], [], []),
    "empty needed input": (lambda: nodes(b.node("Gather", ["", "x"], ["y"], name="g")), ["leaves an input empty"], [], []),
    "too many outputs": (lambda: nodes(b.node("Relu", ["x"], ["y", "z"])), ["has 2 outputs, Relu makes 1"], [], []),
    "missing attribute": (lambda: nodes(b.node("Concat", ["x", "x"], ["y"], name="cat")), ["node cat (Concat) has no attribute 'axis'"], [], []),
    "attribute of another type": (lambda: nodes(b.node("Concat", ["x", "x"], ["y"], axis=1.5)), ["'axis' that is no INT"], [], []),
    "If without a branch": (lambda: edited(b.if_else(), lambda m: m.graph.node[0].attribute.pop()), ["choose (If) has no attribute"], [], []),
    "Split that disagrees": (lambda: nodes(b.node("Split", ["x"], ["y", "z"], num_outputs=1), opset=18), ["has 2 outputs and says it has 1"], [], []),
    "Loop that leaves outputs away": (lambda: edited(b.loop(), lambda m: (m.graph.node[0].output.pop(), m.graph.output.pop())), ["types do not fit at node loop"], [], []),
    "input without type": (lambda: edited(nodes(relu), lambda m: clear(m, "graph.input.0.type")), ["input 'x' has no type"], [], []),
    "input of unknown type": (lambda: edited(nodes(relu), lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 77)), ["unknown type 77"], [], []),
    "weight of unknown type": (lambda: nodes(relu, weights=[tensor(name="w", data_type=77, dims=[1])]), ["'w' has the element type 77"], [], []),
    "weight of no type": (lambda: nodes(relu, weights=[tensor(name="w", dims=[1])]), ["element type 0"], [], []),
    "weight too short": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[4], raw_data=bytes(12))]), ["'w' holds 12 bytes", "needs 16"], [], []),
    "weight too long": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[4], raw_data=bytes(20))]), ["holds 20 bytes"], [], []),
    "large weight too short": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[10_000], raw_data=bytes(39_996))]), ["holds 39996 bytes"], [], []),
    "large varint weight too short": (lambda: nodes(relu, weights=[tensor(name="w", data_type=7, dims=[10_001], int64_data=[300] * 10_000)]), ["holds 10000 values", "10001"], [], []),
    "large float weight too short": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[10_001], float_data=[0.5] * 10_000)]), ["holds 10000 values"], [], []),
    "float_data too short": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[4], float_data=[1, 2])]), ["holds 2 values"], [], []),
    "data in another field": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[2], int64_data=[1, 2])]), ["holds 0 values"], [], []),
    "strings missing": (lambda: nodes(relu, weights=[tensor(name="w", data_type=8, dims=[2], string_data=[b"a"])]), ["holds 1 strings"], [], []),
    "no data": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[4])]), ["holds 0 values"], [], []),
    "negative dims": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[-4])]), ["negative extent"], [], []),
    "absurd dims": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[2**60, 2**60])]), ["elements"], [], []),
    "absurd dims, no data": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[2**60])]), ["holds 0 values"], [], []),
    "segments": (lambda: nodes(relu, weights=[tensor(name="w", data_type=1, dims=[1], float_data=[1], segment=tensor.Segment(begin=0, end=1))]), ["segments"], [], []),
    "bad constant": (lambda: nodes(b.node("Constant", [], ["k"], name="k", value=tensor(data_type=1, dims=[4], raw_data=bytes(3))), relu), ["holds 3 bytes"], ["node k"], []),
    "function calls itself": (lambda: functions([0]), ["in a circle: F0 -> F0"], [], []),
    "functions call each other": (lambda: functions([1], [0]), ["in a circle: F0 -> F1 -> F0"], [], []),
    "functions explode": (lambda: functions(*([i + 1, i + 1] for i in range(60)), []), ["expand to 1.15e+18 nodes"], [], []),
    "functions too deep": (lambda: functions(*([i + 1] for i in range(300)), []), ["more than 100 deep"], [], []),
    "two functions of one name": (lambda: edited(functions([]), lambda m: m.functions.append(m.functions[0])), ["same name"], [], []),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
def test_models_that_cannot_run(tmp_path, name):
    build, what, where, hint = BAD_MODELS[name]
    path = b.save(build(), tmp_path / "model.onnx")
    began = time.perf_counter()
    error = refused(path)
    assert time.perf_counter() - began < 3
    for text, parts in ((error.what, what), (error.where, where), (error.hint, hint)):
        for part in parts:
            assert part in text, str(error)


def test_names_that_are_no_text(tmp_path):
    data = b.nested_if().SerializeToString()
    for name in (b"deep_then", b"outer_if", b"ReduceSum", b"then_branch", b"zero"):
        path = tmp_path / "model.onnx"
        path.write_bytes(data.replace(name, b"\xff\xfe" + name[2:]))
        assert "UTF-8" in refused(path).what


@pytest.mark.parametrize("levels", [100, 2000])  # refused by protobuf; by the outline, which sees only large messages
def test_graphs_nested_too_deep(tmp_path, levels):
    def field(number: int, content: bytes) -> bytes:  # protobuf itself would refuse to write this
        length = len(content)
        varint = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14])
        return bytes([number << 3 | 2]) + varint + content

    body = b.graph([b.node("Relu", ["x"], ["y"])], [], [b.value("y")]).SerializeToString()
    for _ in range(levels):
        attribute = field(1, b"then_branch") + field(6, body) + b"\xa0\x01\x05"
        body = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08" + field(8, b"\x10\x11") + field(7, body))
    assert "damaged" in refused(path).what


def test_json_of_a_model_is_recognised(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text(json.dumps({"irVersion": "8", "graph": {}}))
    assert "JSON" in refused(path).what
