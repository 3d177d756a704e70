"""Networks and search spaces for the tests of this room."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx

from probe.culprits.costs import Costs, Objective
from probe.culprits.space import Granularity, Space, search_space
from probe.culprits.suspicion import Suspicion
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.model import load

Feeds = Mapping[str, np.ndarray]


def engine_of(model: Path | onnx.ModelProto, folder: Path | None = None, precision: str = "fp16") -> Engine:
    """Compiled as the search compiles: the file's own nodes. A model in memory is written into ``folder``."""
    if isinstance(model, onnx.ModelProto):
        assert folder is not None
        onnx.save(model, folder / "model.onnx")
        model = folder / "model.onnx"
    return compile_model(load(model), precision=precision, passes="none", fusion="none")


def parsed(body: str, signature: str, weights: str = "") -> onnx.ModelProto:
    """``signature`` such as "float[2] x -> float[2] y"; ``weights`` such as "float w = {1.5}"."""
    inputs, outputs = signature.split(" -> ")
    listed = f"<{weights}>" if weights else ""
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {listed} {{ {body} }}'
    )


def space_of(
    engine: Engine,
    granularity: Granularity = "tensor",
    suspicion: Suspicion | None = None,
    objective: Objective = "count",
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    **how: object,
) -> Space:
    costs = Costs(engine, shapes or {}, engine.settings.precision)
    return search_space(engine, granularity, suspicion or Suspicion(), costs, objective, **how)  # pyright: ignore[reportArgumentType]


def members_of(space: Space) -> frozenset[str]:
    """Of all units; each once."""
    every = [member for unit in space.units for member in unit.members]
    assert len(every) == len(set(every)), "a member of two units"
    return frozenset(every)


def runs_of(engine: Engine, feeds: Feeds, space: Space, kept: Collection[str]) -> dict[str, np.ndarray]:
    """Graph outputs with these members kept."""
    return engine.run(feeds, space.assignment(engine.assignment, kept))


def same(actual: Mapping[str, np.ndarray], golden: Mapping[str, np.ndarray]) -> bool:
    """Bit for bit, but for the sign of a zero and the kind of a NaN."""
    return actual.keys() == golden.keys() and all(
        np.array_equal(actual[name], golden[name], equal_nan=actual[name].dtype.kind == "f") for name in golden
    )


def recorded(folder: Path, name: str, tag: str = "") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and expected outputs of a real model."""
    with np.load(min((folder / "data").glob(f"{name}__{tag or '*'}.npz"))) as stored:
        arrays = {key: stored[key] for key in stored}
    return tuple({key[len(part) :]: x for key, x in arrays.items() if key.startswith(part)} for part in ("in/", "out/"))  # pyright: ignore[reportReturnType]
