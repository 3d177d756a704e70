"""Repeated structure is found where it is, whatever the exporter named, and not where it is not; blocks follow names or structure."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from probe.culprits.blocks import blocks, module_of
from probe.culprits.repeats import repeats
from probe.engine.engine import Engine
from probe.model.movement import is_movement
from tests.culprits.spaces import engine_of, members_of, parsed, space_of
from tests.engine import networks


def unnamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network without anything that a name could tell: nodes, tensors and metadata renamed by number."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {}
    for node in graph.node:
        assert not any(attribute.HasField("g") for attribute in node.attribute), "no bodies here"
        node.name = ""
        del node.metadata_props[:]
        for names_of in (node.input, node.output):
            names_of[:] = [name if name in kept else names.setdefault(name, f"t{len(names)}") for name in names_of]
    for tensor in graph.initializer:
        tensor.name = names.setdefault(tensor.name, f"t{len(names)}")
    del graph.value_info[:]
    return onnx.shape_inference.infer_shapes(copy)


EXPORTS = {"bert_mini": 2, "vit_mini": 3, "t5_encoder_mini": 2, "gpt2_mini": 2, "llama_gqa_mini": 2}  # blocks
PRODUCTS = {
    "bert_mini": 8,
    "vit_mini": 8,
    "t5_encoder_mini": 8,
    "gpt2_mini": 6,
    "llama_gqa_mini": 9,
}  # in each; gpt2 has q, k, v in one
NUMBERED = {
    "bert_mini": "m/encoder/layer.{}", "vit_mini": "m/layers.{}", "t5_encoder_mini": "m/encoder/block.{}",
    "gpt2_mini": "m.transformer.h.{}", "llama_gqa_mini": "m.model.layers.{}",
}  # fmt: skip


def inside_blocks(engine: Engine, name: str) -> dict[str, list[str]]:
    """Module path with the number of the block left out, with the operator -> computing layers in it, in order."""
    found: dict[str, list[str]] = {}
    for layer in engine.layers:
        (node,) = layer.nodes
        module = module_of(node)
        for at in range(EXPORTS[name]):
            start = NUMBERED[name].format(at)
            if module == start or module.startswith((f"{start}/", f"{start}.")):
                found.setdefault(f"{module[len(start) :]} {node.op_type}", []).append(layer.name)
    return found


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("name", EXPORTS)
def test_each_place_of_a_transformer_block_is_a_group(exports: Path, tmp_path: Path, name: str, named: bool) -> None:
    path = exports / "models" / f"{name}.onnx"
    engine = engine_of(path if named else unnamed(onnx.load(path)), tmp_path)
    space = space_of(engine)
    groups = Counter(unit.group for unit in space.units if unit.group)
    assert set(groups.values()) == {EXPORTS[name]}
    products = [unit for unit in space.units if any(is_product(engine, member) for member in unit.members)]
    grouped = [unit for unit in products if unit.group]
    assert len(grouped) == EXPORTS[name] * PRODUCTS[name]
    assert len(products) - len(grouped) <= 2  # a patch embedding, a pooler, a head, angles


@pytest.mark.parametrize("name", EXPORTS)
def test_no_place_of_a_block_is_left_out(exports: Path, name: str) -> None:
    engine = engine_of(exports / "models" / f"{name}.onnx")
    inside = {layer for layers in inside_blocks(engine, name).values() for layer in layers}
    alone = [unit.id for unit in space_of(engine).units if not unit.group and makers(engine, unit.members) & inside]
    # The first block of t5 computes the position bias for both, and the first Cast comes before what all depends on.
    assert len(alone) == (6 if name == "t5_encoder_mini" else 0), alone


def makers(engine: Engine, tensors: frozenset[str]) -> set[str]:
    return {layer.name for name in tensors if (layer := engine.layer_of(name)) is not None}


def is_product(engine: Engine, tensor: str) -> bool:
    layer = engine.layer_of(tensor)
    return layer is not None and layer.nodes[0].op_type in ("MatMul", "Gemm", "Conv")


@pytest.mark.parametrize("name", EXPORTS)
def test_members_of_a_group_stand_at_the_same_place_of_different_blocks(exports: Path, name: str) -> None:
    engine = engine_of(exports / "models" / f"{name}.onnx")
    place_of = {layer: place for place, layers in inside_blocks(engine, name).items() for layer in layers}
    block_of = blocks(engine, repeats(engine))
    order = [layer.name for layer in engine.layers]
    groups: dict[str, list[str]] = {}
    for unit in space_of(engine).units:
        if unit.group:
            groups.setdefault(unit.group, []).append(min(makers(engine, unit.members), key=order.index))
    assert groups
    for group, layers in groups.items():
        assert len({place_of[layer] for layer in layers}) == 1, group
        assert len({block_of[layer] for layer in layers}) == len(layers), group


def test_blocks_of_a_residual_network_are_groups(tmp_path: Path) -> None:
    """ResNet-152: stages of 3, 8, 36 and 3 blocks, the first of each with a projection."""
    engine = engine_of(networks.resnet152(width=16), tmp_path)
    sizes = Counter(Counter(unit.group for unit in space_of(engine).units if unit.group).values())
    # A block stores 10 tensors, three convolutions, normalisations and activations, and a sum; an activation shares a unit with what it reads.
    assert sizes == {2: 2 * 7, 7: 7, 35: 7}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("models", "mnist"), ("models", "dtln_1"), ("models", "superres_core"), ("models", "occ_image_classifier32"),
        ("models", "squeezenet_fp16"), ("exports", "lstm_gru_tagger"), ("exports", "nonzero_boxes"), ("exports", "scripted_loop_if"),
    ],
)  # fmt: skip
def test_networks_without_repetition_have_no_groups(request: pytest.FixtureRequest, folder: str, name: str) -> None:
    engine = engine_of(request.getfixturevalue(folder) / "models" / f"{name}.onnx")
    assert [unit.id for unit in space_of(engine).units if unit.group] == []


def stack(blocks: int) -> onnx.ModelProto:
    """Two-layer perceptrons with a residual and a mask that all read; scaled differently before and after."""
    lines, weights, x = ["s = Mul(x, c)"], ["float c = {1.1}"], "s"
    for at in range(blocks):
        lines += [
            f"a{at} = MatMul({x}, w{at})", f"b{at} = Add(a{at}, m)", f"c{at} = Sigmoid(b{at})", f"d{at} = MatMul(c{at}, v{at})",
            f"x{at} = Add(d{at}, {x})",
        ]  # fmt: skip
        x = f"x{at}"
        weights += [f"float[2,2] {name}{at} = {{1.1, 1.2, 1.3, 1.4}}" for name in "wv"]
    lines.append(f"y = Log({x})")
    return parsed(" ".join(lines), "float[2,2] x, float[2] m -> float[2,2] y", ", ".join(weights))


def test_first_and_last_repetition_count(tmp_path: Path) -> None:
    space = space_of(engine_of(stack(5), tmp_path))
    groups: dict[str, list[str]] = {}
    for unit in space.units:
        groups.setdefault(unit.group, []).append(unit.id)
    assert groups.pop("") == ["x", "s", "m", "y"]
    assert list(groups.values()) == [[f"{name}{at}" for at in range(5)] for name in "abcdx"]


def test_places_too_far_from_anything_to_be_told_apart_are_told_by_their_order(tmp_path: Path) -> None:
    lines, weights, x = ["s = Exp(x)"], [], "s"
    for at in range(3):
        lines += [f"a{at}_0 = MatMul({x}, w{at})"]
        lines += [f"a{at}_{step + 1} = Sin(a{at}_{step})" for step in range(9)]
        lines += [f"x{at} = Add(a{at}_9, {x})"]
        x = f"x{at}"
        weights.append(f"float[2,2] w{at} = {{1.1, 1.2, 1.3, 1.4}}")
    lines.append(f"y = Log({x})")
    space = space_of(engine_of(parsed(" ".join(lines), "float[2,2] x -> float[2,2] y", ", ".join(weights)), tmp_path))
    assert Counter(Counter(unit.group for unit in space.units if unit.group).values()) == {3: 11}


def test_another_width_is_another_structure(tmp_path: Path) -> None:
    body = "a = MatMul(x, w) b = Sigmoid(a) c = MatMul(b, v) y = Sigmoid(c)"
    numbers = ", ".join(["1.1"] * 6)
    weights = f"float[2,3] w = {{{numbers}}}, float[3,2] v = {{{numbers}}}"
    space = space_of(engine_of(parsed(body, "float[2,2] x -> float[2,2] y", weights), tmp_path))
    assert not any(unit.group for unit in space.units)


# --- blocks --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPORTS)
def test_blocks_by_the_names_of_modules(exports: Path, name: str) -> None:
    engine = engine_of(exports / "models" / f"{name}.onnx")
    found = {unit.id: unit for unit in space_of(engine, "block").units}
    for at in range(EXPORTS[name]):
        unit = found[NUMBERED[name].format(at)]
        assert len(unit.members) > 20
        assert unit.group, "repeated blocks are tried together"
    assert len(found) < 20
    assert not any(unit.group for unit in found.values() if unit.id not in {NUMBERED[name].format(i) for i in range(9)})


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("stack", [["x", "c", "s"], ["m"], *[[f"{name}{at}" for name in "abcdvwx"] for at in range(3)], ["y"]]),
        ("chain", [["x", "a", "w", "b"], ["c", "d", "v", "y"]]),
    ],
)
def test_blocks_by_structure(tmp_path: Path, model: str, wanted: list[list[str]]) -> None:
    chain = parsed(
        "a = MatMul(x, w) b = Sigmoid(a) c = MatMul(b, v) d = Exp(c) y = Log(d)", "float[2,2] x -> float[2,2] y",
        "float[2,2] w = {1.1, 1.2, 1.3, 1.4}, float[2,2] v = {1.1, 1.2, 1.3, 1.4}",
    )  # fmt: skip
    space = space_of(engine_of(stack(3) if model == "stack" else chain, tmp_path), "block")
    assert sorted(sorted(unit.members) for unit in space.units) == sorted(map(sorted, wanted))
    repeated = [unit for unit in space.units if unit.group]
    assert len(repeated) == (3 if model == "stack" else 0)


def test_what_several_blocks_read_goes_with_the_first(tmp_path: Path) -> None:
    body = "k = Exp(m) a = MatMul(x, w) b = Add(a, k) c = MatMul(b, v) y = Add(c, k)"
    weights = "float[2,2] w = {1.1, 1.2, 1.3, 1.4}, float[2,2] v = {1.1, 1.2, 1.3, 1.4}"
    engine = engine_of(parsed(body, "float[2,2] x, float[2] m -> float[2,2] y", weights), tmp_path)
    units = [set(unit.members) for unit in space_of(engine, "block").units]
    assert units == [{"m", "k", "x", "a", "w", "b"}, {"c", "v", "y"}]


def test_residual_stages_by_structure(tmp_path: Path) -> None:
    engine = engine_of(networks.resnet152(width=16), tmp_path)
    space = space_of(engine, "block")
    groups = Counter(unit.group for unit in space.units if unit.group)
    assert sorted(groups.values()) == [2, 2, 7, 35]
    assert members_of(space) == members_of(space_of(engine))


def test_views_are_not_what_tells_blocks_apart(exports: Path) -> None:
    """Exporters leave out a Transpose in one block that they write in another (the keys of t5_encoder_mini)."""
    engine = engine_of(exports / "models" / "t5_encoder_mini.onnx")
    views = Counter(
        engine.top_layers[at].nodes[0].op_type
        for segment in repeats(engine).segments.layers
        for at in segment
        if is_movement(engine.top_layers[at].nodes[0])
    )
    assert views["Transpose"] % EXPORTS["t5_encoder_mini"] == 1
