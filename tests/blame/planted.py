"""Networks with guilty tactics that are known: chains of products in which acc16 loses a constant, and faults planted in real networks.

Each layer of a chain multiplies by an orthogonal matrix, so that errors keep their size. A planted layer adds ``c + d - c`` to its product, in
this order of blocks: FP32 gives d, an FP16 accumulator at c = 2048 loses it. The d of each is rotated so that at the output they all point
one way: faults add up exactly, and whether one fails alone, or only with another, is a matter of the size that is planted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from probe.blame.switching import Switching
from probe.culprits.judge import Judge
from probe.culprits.oracle import EngineOracle
from probe.debug.record import record
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.model.load import load
from probe.results.blame import TacticDifference
from probe.runners.protocol import RunnerOptions, open_runner
from probe.store.feeds import InputSet
from probe.store.tape import Tape

WIDTH = 32
BLOCK = 16
BIG = 2048.0  # ulp 1 below, 2 above: a number under one half is lost beside it in FP16
RANGE = 2.0  # of the output


@dataclass(frozen=True)
class Chain:
    """A saved chain.

    Attributes:
        layers: names of its products, in order.
        planted: those that lose something, with how much of the output's range.
    """

    path: Path
    layers: tuple[str, ...]
    planted: Mapping[str, float]
    sets: tuple[InputSet, ...]


def chain(path: Path, length: int, planted: Mapping[int, float], seed: int = 0) -> Chain:
    """Save a chain of ``length`` products.

    Args:
        planted: place -> share of the output's range that acc16 loses there; below 0.25.
    """
    rng = np.random.default_rng(seed)
    rotations = [np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0] for _ in range(length)]
    y_wanted = rng.standard_normal((1, WIDTH))
    y_wanted *= RANGE / np.abs(y_wanted).max()
    after = np.eye(WIDTH)  # from behind a layer to the output
    lost: dict[int, Any] = {}
    for at in reversed(range(length)):
        if at in planted:
            lost[at] = planted[at] * RANGE * after.T[0]  # at the output: all of it in element 0
        after = rotations[at] @ after
    y_wanted[0, 0] -= RANGE * sum(planted.values())  # what is lost is part of the right output
    x = y_wanted @ after.T
    ones = numpy_helper.from_array(np.ones((1, 3 * BLOCK), np.float32), "ones")
    nodes, weights = [], [ones]
    for at, rotation in enumerate(rotations):
        w = np.zeros((3 * BLOCK + WIDTH, WIDTH), np.float32)
        w[3 * BLOCK :] = rotation
        if at in planted:
            w[0], w[BLOCK], w[2 * BLOCK] = BIG, lost[at], -BIG
        weights.append(numpy_helper.from_array(w, f"w{at}"))
        y = "y" if at == length - 1 else f"t{at + 1}"
        nodes += [
            helper.make_node("Concat", ["ones", f"t{at}" if at else "x"], [f"c{at}"], f"concat {at}", axis=1),
            helper.make_node("MatMul", [f"c{at}", f"w{at}"], [y], f"product {at}"),
        ]
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDTH])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    names = tuple(f"product {at}" for at in range(length))
    feeds = InputSet("x", {"x": x.astype(np.float32)}, "test")
    return Chain(path, names, {names[at]: share for at, share in planted.items()}, (feeds,))


def oracle_of(
    engine: Engine, sets: Sequence[InputSet], found: Sequence[TacticDifference], **judging: Any
) -> EngineOracle:
    """Judges ``found`` switched, from everything as in the bad build; layers that do not differ are exact."""
    golden = Tape()
    with golden:
        record(open_runner("ort", engine.model, RunnerOptions()), sets, golden)
    judge = Judge(golden, [port.name for port in engine.model.outputs], sets, precision="fp16", **judging)
    base = engine.assignment.with_tactics({one.layer: one.bad for one in found})
    return EngineOracle(engine, Switching({one.layer: one.good for one in found}), base, sets, judge)


def engine_of(path: Path, **changed: Any) -> Engine:
    return compile_model(load(path), precision="fp16", **changed)


def switched(engine: Engine, bad: Mapping[str, str], good: Mapping[str, str] | None = None) -> list[TacticDifference]:
    """Differences in execution order: layers that are bad, and what good has there (exact)."""
    return [
        TacticDifference(
            layer.name, tuple(v.name or "" for v in layer.outputs), layer.kind, "fp16", (good or {}).get(layer.name, "exact"),
            bad[layer.name],
        )
        for layer in engine.layers
        if layer.name in bad
    ]  # fmt: skip


def faulty(engine: Engine, faults: Mapping[tuple[str, str], float]) -> None:
    """Plant faults in the kernels of an engine: (layer, tactic) -> by how much of each output's largest value every third element is off.

    What a broken kernel does on a real network: everything but this layer, computed so, is as it was.
    """
    device: Any = engine.device
    executor: Any = device.layered
    run = executor.run_tactic

    def run_tactic(layer: Any, reads: Any, plan: Any) -> Any:
        made = run(layer, reads, plan)
        share = faults.get((layer.name, plan.choice.tactic), 0.0)
        if share:
            for value in layer.outputs:
                array = made[id(value)].copy()
                flat = array.reshape(-1)
                flat[::3] += np.float32(share * np.abs(flat).max())  # no constant that a normalisation would take out
                made[id(value)] = array
        return made

    executor.run_tactic = run_tactic
