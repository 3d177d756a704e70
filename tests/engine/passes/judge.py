"""Judges a network after passes against the same network before them: outputs, every tensor that kept its name, fates, origins, types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from probe import ir
from probe.engine.network import Network, check, origin, read_network, values_of
from probe.engine.passes.edit import Fuel
from probe.engine.passes.pipeline import PIPELINE, Pass
from probe.engine.passes.weights import forget_exact
from probe.model.load import load
from probe.model.model import Model
from tests.model.builders import save

BY_NAME: dict[str, Pass] = {one.name: one for one in PIPELINE}


def network_of(proto: onnx.ModelProto, folder: Path) -> Network:
    return read_network(load(save(proto, folder / "model.onnx")))


def apply(name: str, network: Network, limit: int | None = None) -> Fuel:
    """One pass until it finds nothing more, verified each time."""
    fuel = Fuel(limit)
    while BY_NAME[name].run(network, fuel):
        check(network, name)
    forget_exact(network)
    return fuel


def ops(network: Network) -> list[str]:
    """Operators of every graph, sorted."""
    return sorted(node.op_type for graph in network.graphs() for node in graph)


def run(network: Network, feeds: dict[str, np.ndarray], *, every: bool = False) -> dict[str, np.ndarray]:
    """Outputs by ONNX Runtime without optimisation; with ``every``, all tensors that top-level nodes make."""
    proto = ir.model_proto(network.ir)
    if every:
        known = {value.name for value in proto.graph.output}
        for node in proto.graph.node:
            proto.graph.output.extend(
                onnx.ValueInfoProto(name=name) for name in node.output if name and name not in known
            )
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def feeds_for(model: Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs; every dimension that is not a number is 2. Floats hold a NaN, an Inf or a -0.0 nowhere: tests that want one put it."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for port in model.inputs:
        shape = [size if isinstance(size, int) else 2 for size in port.shape or ()]
        if port.dtype == "bool":
            feeds[port.name] = rng.random(shape) < 0.5
        elif port.dtype.startswith(("int", "uint")):
            feeds[port.name] = rng.integers(0, 3, shape).astype(port.dtype)
        else:
            feeds[port.name] = rng.standard_normal(shape).astype(port.dtype)
    return feeds


@dataclass(slots=True)
class Before:
    """A network as it was read, run once."""

    tensors: dict[str, np.ndarray]  # of the top-level graph
    names: list[str]  # of every tensor that a node makes, bodies included
    nodes: set[str]  # identities
    feeds: dict[str, np.ndarray]

    @classmethod
    def of(cls, network: Network, feeds: dict[str, np.ndarray] | None = None) -> Before:
        feeds = feeds_for(network.model) if feeds is None else feeds
        names = [value.name for graph in network.graphs() for node in graph for value in node.outputs if value.name]
        nodes = {identity for graph in network.graphs() for node in graph for identity in origin(node)}
        return cls(run(network, feeds, every=True), names, nodes, feeds)


def judge(network: Network, before: Before, *, exact: bool = False, tolerance: float = 1e-5) -> None:
    """Everything a pass must keep. ``exact``: every bit of every tensor, NaN and the sign of zero included."""
    check(network, "the test")
    every = run(network, before.feeds, every=True)
    made = {value.name for graph in network.graphs() for value in values_of(graph)}
    for name in before.names:
        assert name in made or network.fate(name) is not None, f"{name} is gone and nobody says why"
    for name, golden in before.tensors.items():
        fate = network.fate(name) if name not in every else None
        stands = fate.to if fate is not None and fate.status == "equivalent" else name
        if stands in every:
            _equal(every[stands], golden, f"{name} (as {stands})", exact=exact, tolerance=tolerance)
        elif fate is not None and fate.status == "equivalent":
            assert stands in made, f"{name} is equivalent to {stands}, which is not made"
    assert {port.name for port in network.model.outputs} <= set(every)
    for graph in network.graphs():
        for node in graph:
            assert set(origin(node)) <= before.nodes, f"{node.name} comes from nodes that the file does not have"
    _declared(network, every)


def _declared(network: Network, every: dict[str, np.ndarray]) -> None:
    """Types and shapes that the network states are those of its tensors."""
    for node in network.graph:
        for value in node.outputs:
            if value.name in every and isinstance(every[value.name], np.ndarray) and value.shape is not None:
                array = every[value.name]
                stated = [size if isinstance(size, int) else None for size in value.shape]
                assert len(stated) == array.ndim, f"{value.name}: stated {stated}, is {array.shape}"
                fits = all(want is None or want == have for want, have in zip(stated, array.shape, strict=True))
                assert fits, f"{value.name}: stated {stated}, is {array.shape}"
                assert value.dtype is not None and value.dtype.numpy() == array.dtype, f"{value.name}: {value.dtype}"


def _equal(actual: np.ndarray, golden: np.ndarray, what: str, *, exact: bool, tolerance: float) -> None:
    actual, golden = np.asarray(actual), np.asarray(golden)
    assert actual.shape == golden.shape and actual.dtype == golden.dtype, f"{what}: {actual.dtype}{actual.shape}"
    if exact or golden.dtype.kind != "f":
        bits = f"u{golden.dtype.itemsize}" if golden.dtype.kind == "f" else golden.dtype
        same = (actual.view(bits) == golden.view(bits)) | (_nan(actual) & _nan(golden))
        assert same.all(), f"{what} moved"
        return
    usual = np.isfinite(golden)
    assert np.array_equal(actual[~usual], golden[~usual], equal_nan=True), f"{what}: NaN or Inf moved"
    scale = max(float(np.abs(golden[usual]).max(initial=0)), 1e-30)
    error = float(np.abs(actual[usual].astype(np.float64) - golden[usual]).max(initial=0)) / scale
    assert error <= tolerance, f"{what}: off by {error:.2g} of its range"


def _nan(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
