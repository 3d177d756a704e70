"""What is found in the graphs that exporters really wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.fusion import Grouping, group
from probe.engine.layers import form_layers
from probe.engine.network import Network, read_network
from probe.engine.passes import run_passes
from probe.model.load import load

# model: pattern part -> how often, counted in the sources of these networks; native operators are counted as nodes
EXPORTED = {
    "bert_mini": {"attention": 2, "gelu_erf": 2, "LayerNormalization": 5},
    "gpt2_mini": {"attention": 2, "gelu_tanh": 2, "LayerNormalization": 5},
    "llama_gqa_mini": {"attention": 2, "rms_norm": 5, "silu": 2},
    "t5_encoder_mini": {"attention": 2, "rms_norm": 5, "relu": 2},
    "vit_mini": {"attention": 3, "gelu_erf": 3, "LayerNormalization": 7},
    "unet_attn_mini": {"attention": 1, "silu": 11, "GroupNormalization": 10},
    "convtasnet_cln": {"cumulative_layer_norm": 1, "group_norm": 5, "prelu": 10},
}
PUBLIC = {
    "magika_standard_v3_3": {"layer_norm": 2, "gelu_tanh": 2, "softmax": 1},
    "magika_fast_v2_1": {"layer_norm": 2, "gelu_erf": 2, "Softmax": 1},
    "osf_landmarks": {"hard_swish": 18, "hard_sigmoid": 9},
    "gtcrn_simple": {"layer_norm": 4},
    "ultraface_slim_320_qdq": {"dq": 88, "q": 88},
}


def parts(found: Grouping) -> Counter[str]:
    """How often each part occurs in the names of the groups: ``pointwise(add, gelu)`` and ``conv + gelu`` hold a gelu each."""
    count: Counter[str] = Counter()
    for one in found.groups:
        inner = (
            one.pattern.removeprefix("pointwise(").removesuffix(")")
            if one.pattern.startswith("pointwise")
            else one.pattern
        )
        count.update(part.strip() for part in inner.replace(",", "+").split("+"))
    return count


def _network(path: Path, passes: str) -> Network:
    network = read_network(load(path))
    run_passes(network, passes)  # pyright: ignore[reportArgumentType]
    return network


def _check(network: Network, wanted: dict[str, int]) -> None:
    found = parts(group(network, "safe"))
    operators = Counter(node.op_type for graph in network.graphs() for node in graph)
    assert {part: found[part] or operators[part] for part in wanted} == wanted


@pytest.mark.parametrize("passes", ["none", "safe"])
@pytest.mark.parametrize("name", EXPORTED)
def test_every_norm_activation_and_attention_of_an_export(exports: Path, name: str, passes: str) -> None:
    _check(_network(exports / "models" / f"{name}.onnx", passes), EXPORTED[name])


@pytest.mark.parametrize("passes", ["none", "safe"])
@pytest.mark.parametrize("name", PUBLIC)
def test_every_norm_and_activation_of_a_public_model(models: Path, name: str, passes: str) -> None:
    _check(_network(models / "models" / f"{name}.onnx", passes), PUBLIC[name])


@pytest.mark.parametrize("level", ["none", "safe", "full"])
def test_layers_cover_every_node_once(exports: Path, models: Path, level: str) -> None:
    for path in sorted((*(exports / "models").glob("*.onnx"), *(models / "models").glob("*.onnx"))):
        network = _network(path, "safe")
        found = group(network, level)  # pyright: ignore[reportArgumentType]
        in_groups = [id(node) for one in found.groups for node in one.nodes]
        assert len(in_groups) == len(set(in_groups)), path.name
        layers = form_layers(network, found)  # asserts that an order exists
        assert Counter(id(node) for layer in layers for node in layer.nodes) == Counter(
            id(node) for node in network.graph
        ), path.name
        assert all(node.graph is one.graph for one in found.groups for node in one.nodes), path.name


def test_a_safe_group_has_one_output(exports: Path, models: Path) -> None:
    for path in sorted((*(exports / "models").glob("*.onnx"), *(models / "models").glob("*.onnx"))):
        network = _network(path, "safe")
        for layer in form_layers(network, group(network, "safe")):
            assert len(layer.nodes) == 1 or len(layer.outputs) == 1, (path.name, layer.name)


def test_bodies_are_grouped_on_their_own(models: Path) -> None:
    network = _network(models / "models" / "silero_vad.onnx", "safe")
    inside = [one for one in group(network).groups if one.graph is not network.graph]
    assert sum(one.pattern == "conv + relu" for one in inside) >= 8


@pytest.mark.parametrize("name", ["bert_mini", "unet_attn_mini", "llama_gqa_mini"])
def test_fusion_changes_no_bit_while_every_tensor_is_stored(exports: Path, name: str) -> None:
    """Groups only say what is computed together: with ``interior="storage"`` each tensor inside is rounded as if it were alone."""
    recorded = np.load(exports / "data" / f"{name}__main.npz")
    feeds = {key[3:]: recorded[key] for key in recorded if key.startswith("in/")}
    model = load(exports / "models" / f"{name}.onnx")
    alone, safe, full = (
        compile_model(model, precision="fp16", fusion=level, threads=1)(feeds) for level in ("none", "safe", "full")
    )
    for output, wanted in alone.items():
        np.testing.assert_array_equal(safe[output], wanted)
        np.testing.assert_array_equal(full[output], wanted)
