"""VGG19, Inception v3 and ResNet-152: how many layers launch work, against what TensorRT's documentation reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.engine.fusion import group, launches
from probe.engine.layers import form_layers
from probe.engine.network import read_network
from probe.engine.passes import run_passes
from probe.model.load import load
from tests.engine import networks

# before fusion; at most after it
COUNTS = {"vgg19": (43, 27), "inception_v3": (322, 113), "resnet152": (514, 159)}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("passes", ["none", "safe"])
def test_layers_that_launch_work(tmp_path: Path, name: str, passes: str) -> None:
    """With a sixteenth of the channels: the nodes are the same."""
    path = networks.save(getattr(networks, name)(width=16), tmp_path / f"{name}.onnx")
    network = read_network(load(path))
    before, most = COUNTS[name]
    if passes == "none":
        assert sum(launches(node) for node in network.graph) == before
    run_passes(network, passes)  # pyright: ignore[reportArgumentType]
    found = group(network, "full")
    working = [layer.name for layer in form_layers(network, found) if launches(layer.nodes, found.in_place)]
    assert len(working) <= most, "\n".join(working)
    concats = [node for node in network.graph if node.op_type == "Concat"]
    assert len(found.in_place) == len(concats)


def test_the_networks_have_the_convolutions_of_the_real_ones() -> None:
    """Their multiplications are compared with torchvision's in test_costs.py."""
    count = {
        name: sum(node.op_type == "Conv" for node in getattr(networks, name)(width=16).graph.node) for name in COUNTS
    }
    assert count == {"vgg19": 16, "inception_v3": 94, "resnet152": 155}
