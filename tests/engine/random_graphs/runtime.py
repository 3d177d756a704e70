"""ONNX Runtime beside the CPU device, in FP32: every tensor that both make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from probe.engine.build import compile_model
from probe.errors import InputError
from probe.model import load
from tests.engine.random_graphs.judge import ALLOWED, OF_TOP, SHAKEN, TRIALS, Array, Failed

# Where a last bit decides on a whole step: what is behind them is judged only where both see the same bits.
STEPS = frozenset(
    "Round Floor Ceil Sign Cast QuantizeLinear ArgMax ArgMin TopK Greater Less GreaterOrEqual LessOrEqual Equal".split()
)


def values_of(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every tensor of a model, nothing optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    there = {one.name for one in shown.graph.output}
    names = [name for node in model.graph.node for name in node.output if name and node.op_type != "Constant"]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = [one.name for one in session.get_outputs()]
    return {name: np.asarray(array) for name, array in zip(wanted, session.run(wanted, dict(feeds)), strict=True)}


def check(path: Path, feeds: Mapping[str, Array], passes: Any) -> None:
    """The CPU device in FP32, after passes and fusion, beside ONNX Runtime.

    Raises:
        Failed: a tensor is further off than inputs and weights explain that are moved by their last bits, or something breaks.
    """
    model = onnx.load(path)
    expected = values_of(model, feeds)
    try:
        engine = compile_model(
            load(path), precision="fp32", passes=passes, fusion="none" if passes == "none" else "safe"
        )
        taps: list[Any] = []
        made = engine.run(feeds, tap=taps.append)
    except InputError as error:
        raise Failed("refused", str(error).split(":")[0], str(error)) from error
    except Exception as error:
        raise Failed(f"broke {type(error).__name__}", "", str(error)) from error
    actual = {tap.name: np.asarray(tap.array) for tap in taps if tap.array is not None} | made
    off: dict[str, float] = {}
    for name in _judged(model, expected, actual):
        if (found := _off(actual[name], expected[name], name)) > OF_TOP * abs(
            np.nan_to_num(expected[name], posinf=0, neginf=0)
        ).max(initial=0):
            off[name] = found
    if not off:
        return
    shaken = [values_of(*_shaken(model, feeds, trial)) for trial in range(TRIALS)]
    for name, found in off.items():
        spread = max(_off(one[name], expected[name], name, strict=False) for one in shaken)
        if found > ALLOWED * spread:
            raise Failed(
                "far from ONNX Runtime", name, f"passes {passes}: off by {found:.3g}, where last bits make {spread:.3g}"
            )


def _off(actual: Array, expected: Array, name: str, *, strict: bool = True) -> float:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise Failed("shape", name, f"{actual.dtype}{actual.shape} for {expected.dtype}{expected.shape}")
    if expected.dtype.kind != "f":
        return float(strict and not np.array_equal(actual, expected))
    finite = np.isfinite(expected) & np.isfinite(actual)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return float("inf")
    return float(np.abs(actual[finite].astype(np.float64) - expected[finite]).max(initial=0))


def _judged(model: onnx.ModelProto, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> Iterator[str]:
    """Tensors of the model that are not behind a step which saw other bits, and that a pass did not compute away."""
    unsure: set[str] = set()
    for node in model.graph.node:
        differs = any(
            name in expected and (name not in actual or actual[name].tobytes() != expected[name].tobytes()) for name in node.input
        )  # fmt: skip
        if unsure.intersection(node.input) or (node.op_type in STEPS and differs):
            unsure.update(node.output)
            continue
        yield from (name for name in node.output if name in expected and name in actual)


def _shaken(model: onnx.ModelProto, feeds: Mapping[str, Array], trial: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    random = np.random.default_rng(trial)
    move = lambda array: (
        (array * (1 + SHAKEN * random.choice((-1, 1), array.shape))).astype(array.dtype)
        if array.dtype == np.float32
        else array
    )
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for one in moved.graph.initializer:
        one.CopyFrom(numpy_helper.from_array(np.asarray(move(numpy_helper.to_array(one))), one.name))
    return moved, {name: move(array) for name, array in feeds.items()}
