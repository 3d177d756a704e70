"""A copy with metadata computes what the model computed, holds its weights, and says what it was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from probe.errors import InputError
from probe.model import load
from probe.model import metadata as module
from probe.model.metadata import write_with_metadata
from tests.model import builders as b
from tests.model import ort

MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": b.mlp, "old ir": b.old_ir, "omitted inputs": b.omitted_inputs, "local function": b.local_function, "qdq": b.qdq,
    "if": b.if_else, "names shared by branches": lambda: b.if_else(share_names=True), "nested if": b.nested_if, "loop": b.loop,
    "if in loop": b.if_in_loop, "loop in if": b.loop_in_if, "scan": b.scan, "half": b.half, "strings": b.strings,
}  # fmt: skip


def said_by(graph: onnx.GraphProto) -> dict[str, dict[str, str]]:
    """Name -> metadata of every node, those of bodies included."""
    found: dict[str, dict[str, str]] = {}
    for node in graph.node:
        found[node.name] = {entry.key: entry.value for entry in node.metadata_props}
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                found |= said_by(body)
    return found


def stripped(proto: onnx.ModelProto) -> bytes:
    """The model without names of nodes and without metadata."""

    def strip(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            node.ClearField("name")
            node.ClearField("metadata_props")
            for attribute in node.attribute:
                for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                    strip(body)

    strip(proto.graph)
    proto.ClearField("metadata_props")
    return proto.SerializeToString()


def valid(path: Path) -> bool:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", MODELS)
def test_every_node_says_what_it_was_given_and_nothing_else_changed(name: str, tmp_path: Path) -> None:
    original = b.save(MODELS[name](), tmp_path / "m.onnx")
    model = load(original)
    given = {node.identity: {"probe.accumulated": str(at)} for at, node in enumerate(model.nodes)}
    written = write_with_metadata(model, tmp_path / "copy.onnx", given, {"probe.precision": "fp16"})
    copy = onnx.load(tmp_path / "copy.onnx")
    assert said_by(copy.graph) == given
    assert (written.nodes, written.unknown) == (len(given), ())
    assert {entry.key: entry.value for entry in copy.metadata_props}["probe.precision"] == "fp16"
    assert stripped(copy) == stripped(onnx.load(original))
    if valid(original):
        onnx.checker.check_model(str(tmp_path / "copy.onnx"))
    assert [node.identity for node in load(tmp_path / "copy.onnx").nodes] == [node.identity for node in model.nodes]


@pytest.mark.parametrize("name", ["qdq", "if", "nested if", "local function"])
def test_what_it_computes_stays_bit_for_bit(name: str, tmp_path: Path) -> None:
    original = b.save(MODELS[name](), tmp_path / "m.onnx")
    model = load(original)
    drawn = np.random.default_rng(0)
    feeds: dict[str, object] = {}
    for port in model.inputs:
        extents = [one if isinstance(one, int) else 2 for one in port.shape or ()]
        feeds[port.name] = (
            np.ones(extents, bool) if port.dtype == "bool" else drawn.normal(size=extents).astype(np.float32)
        )
    write_with_metadata(model, tmp_path / "copy.onnx", {n.identity: {"probe.local": "0.1"} for n in model.nodes})
    one, other = (ort.run(str(path), feeds) for path in (original, tmp_path / "copy.onnx"))
    assert all(ort.same_bits(one[key], other[key]) for key in one) and one.keys() == other.keys()


@pytest.mark.parametrize("name", ["gtcrn_simple", "silero_vad", "squeezenet_fp16", "ultraface_slim_320_qdq"])
def test_real_models_compute_the_same_and_pass_the_checker(name: str, models: Path, tmp_path: Path) -> None:
    original = models / "models" / f"{name}.onnx"
    model = load(original)
    copy = tmp_path / "copy.onnx"
    written = write_with_metadata(model, copy, {n.identity: {"probe.precision": "fp16"} for n in model.nodes})
    assert written.nodes == len(model.nodes) and not written.unknown
    onnx.checker.check_model(str(copy))
    assert stripped(onnx.load(copy)) == stripped(onnx.load(original))
    with np.load(models / "data" / f"{name}__main.npz") as data:
        feeds = {key[3:]: data[key] for key in data.files if key.startswith("in/")}
    one, other = (ort.run(str(path), feeds) for path in (original, copy))
    assert one and all(ort.same_bits(one[key], other[key]) for key in one)


def test_nodes_without_a_name_of_their_own_get_their_identity(tmp_path: Path) -> None:
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    written = write_with_metadata(model, tmp_path / "copy.onnx", {})
    unnamed = [node for node in model.nodes if node.name != node.identity]
    assert written.named == len(unnamed) > 0
    assert [node.name for node in onnx.load(tmp_path / "copy.onnx").graph.node] == [
        node.identity for node in model.nodes
    ]


def test_a_node_that_makes_nothing_stays_as_it_is(tmp_path: Path) -> None:
    proto = b.mlp()
    proto.graph.node.add(op_type="Neg", input=[proto.graph.input[0].name], output=[""], name="silent")
    model = load(b.save(proto, tmp_path / "m.onnx"))
    said = {one.identity: {"probe.local": "1"} for one in model.nodes if any(one.outputs)}
    written = write_with_metadata(model, tmp_path / "copy.onnx", said)
    assert written.nodes == len(said) == len(model.nodes) - 1 and not written.unknown
    assert said_by(onnx.load(tmp_path / "copy.onnx").graph)["silent"] == {}


def test_an_earlier_copy_is_replaced_and_what_others_wrote_stays(tmp_path: Path) -> None:
    proto = b.mlp()
    proto.graph.node[0].metadata_props.add(key="namespace", value="head")
    proto.metadata_props.add(key="author", value="somebody")
    first = b.save(proto, tmp_path / "m.onnx")
    node = load(first).nodes[0].identity
    write_with_metadata(
        load(first), tmp_path / "one.onnx", {node: {"probe.local": "1", "probe.gain": "2"}}, {"probe.a": "1"}
    )
    write_with_metadata(
        load(tmp_path / "one.onnx"), tmp_path / "two.onnx", {node: {"probe.local": "3"}}, {"probe.b": "2"}
    )
    copy = onnx.load(tmp_path / "two.onnx")
    assert said_by(copy.graph)[node] == {"namespace": "head", "probe.local": "3"}
    assert {e.key: e.value for e in copy.metadata_props} == {"author": "somebody", "probe.b": "2"}


def test_external_data_is_referred_to_and_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = b.external(folder)
    before = (folder / "weights.bin").read_bytes()
    model = load(path)
    write_with_metadata(model, folder / "copy.onnx", {node.identity: {"probe.local": "1"} for node in model.nodes})
    assert (folder / "weights.bin").read_bytes() == before and len(list(folder.iterdir())) == 3
    feeds = {model.inputs[0].name: np.ones(4096, np.float32)}
    assert ort.same_bits(*(next(iter(ort.run(str(one), feeds).values())) for one in (path, folder / "copy.onnx")))
    for target, what in (
        (tmp_path / "copy.onnx", "another folder"),
        (folder / "weights.bin", "weights are"),
        (path, "model itself"),
    ):
        with pytest.raises(InputError, match=what):
            write_with_metadata(model, target, {})
    assert (folder / "weights.bin").read_bytes() == before
    (folder / "link.onnx").symlink_to(path)
    with pytest.raises(InputError, match="model itself"):
        write_with_metadata(model, folder / "link.onnx", {})


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    with pytest.raises(InputError, match="No such file or directory"):
        write_with_metadata(model, tmp_path / "gone" / "copy.onnx", {})
    monkeypatch.setattr(module, "_PROTOBUF_LIMIT", 100)
    with pytest.raises(InputError, match="under 2 GB"):
        write_with_metadata(model, tmp_path / "copy.onnx", {})
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


def test_nodes_that_the_file_does_not_have_are_named(tmp_path: Path) -> None:
    model = load(b.save(b.mlp(), tmp_path / "m.onnx"))
    written = write_with_metadata(model, tmp_path / "copy.onnx", {"elsewhere": {"probe.local": "1"}})
    assert written.unknown == ("elsewhere",) and written.nodes == 0
