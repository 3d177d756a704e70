"""Whether two computations of a drawn model agree.

Nobody knows how far a random network carries a rounding that fell the other way, so that outputs of two devices are not compared: every tensor
that the engine under test hands out is judged by itself, against what the CPU device makes of *the same inputs*, which are tensors handed out
before. What one node may be off is then a few units in the last place, or what its inputs' last places make of its output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.engine import Engine
from probe.engine.layers import Layer, tensor_names
from probe.engine.rounding import Plan
from probe.errors import InputError
from probe.model import load
from probe.model.movement import is_movement

Array = np.ndarray[Any, Any]
MANTISSA = {"fp16": (10, -14), "bf16": (7, -126), "fp32": (23, -126), "tf32": (23, -126)}
TRIALS, SHAKEN, ALLOWED = 3, 2.0**-21, 16.0  # inputs moved by so much, at random; times what that does to an output
OF_TOP = 2e-6  # of the largest element: another order of a sum, a function's last bits on either side


@dataclass(frozen=True)
class Mode:
    """How a model is compiled and run."""

    precision: str = "fp16"  # or mixed: every layer its own, some tensors kept
    fusion: str = "safe"
    passes: str = "safe"
    interior: str = "storage"
    hopper: bool = False  # on the host: kernels of sm_90a
    chance: int = 0  # decides what is mixed

    def __str__(self) -> str:
        return f"{self.precision}, fusion {self.fusion}, passes {self.passes}, interior {self.interior}{', sm_90a' if self.hopper else ''}"


class Failed(AssertionError):  # noqa: N818 - a verdict
    """What was found.

    Attributes:
        kind: of check: what a smaller model has to fail in as well.
    """

    def __init__(self, kind: str, tensor: str, text: str) -> None:
        super().__init__(f"{kind}: {tensor}: {text}")
        self.kind, self.tensor = kind, tensor


def draw_of(chance: int, name: str) -> Random:
    """Chance that depends on a name alone, so that it stays when a model becomes smaller."""
    return Random(int.from_bytes(hashlib.sha256(f"{chance} {name}".encode()).digest()[:8]))


def assigned(engine: Engine, mode: Mode) -> Assignment:
    if mode.precision != "mixed":
        return engine.assignment
    layers = {}
    for layer in engine.layers:
        name = next((value.name or "" for value in layer.outputs), layer.name)
        layers[layer.name] = Choice(draw_of(mode.chance, name).choice(("fp32", "fp16", "fp16", "bf16", "tf32")))
    kept = frozenset(
        name for name in tensor_names(engine.layers) if draw_of(mode.chance, f"keep {name}").random() < 0.1
    )
    return Assignment(Choice("fp16"), layers, kept)


# --- one engine -------------------------------------------------------------------------------------------------------------


def same_bits(kind: str, actual: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    if actual.keys() != expected.keys():
        raise Failed(kind, "outputs", f"{sorted(actual)} for {sorted(expected)}")
    for name, array in expected.items():
        if (
            actual[name].shape != array.shape
            or actual[name].dtype != array.dtype
            or actual[name].tobytes() != array.tobytes()
        ):
            different = actual[name] != array if actual[name].shape == array.shape else np.array(True)
            raise Failed(kind, name, f"other bits in {np.count_nonzero(different)} of {array.size} elements")


def check(path: Path, feeds: Mapping[str, Array], mode: Mode, device_of: Callable[[Engine], Any]) -> None:
    """Run a model on a device under test in every way there is.

    Raises:
        Failed: bits differ where they must not, a tensor is further off than allowed, or something breaks.
    """
    start = "fp16" if mode.precision == "mixed" else mode.precision
    levels: Any = {"passes": mode.passes, "fusion": mode.fusion, "interior": mode.interior}
    try:
        engine = compile_model(load(path), precision=start, **levels)
        assignment = assigned(engine, mode)
        device = device_of(engine)
        engine.device = device
        made, taps = _ran(engine, feeds, assignment, device)
        _other_feeds(engine, feeds, assignment, device, device_of(engine))
    except InputError as error:
        raise Failed("refused", str(error).split(":")[0], str(error)) from error
    except Failed:
        raise
    except Exception as error:
        raise Failed(f"broke {type(error).__name__}", "", str(error)) from error
    del made
    _judged(path, engine, {**feeds, **taps}, assignment, levels | {"precision": start})


def _ran(
    engine: Engine, feeds: Mapping[str, Array], assignment: Assignment, device: Any
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs, and every tensor; the same bits launched, recorded, repeated and looked at."""
    made = engine.run(feeds, assignment)
    same_bits("repeated", engine.run(feeds, assignment), made)
    first: dict[str, Array] = {}
    for what in ("tapped", "tapped again", "tapped and repeated"):
        late: list[Any] = []
        same_bits(what, engine.run(feeds, assignment, tap=late.append), made)
        found = {tap.name: np.array(tap.array) for tap in late if tap.array is not None}
        same_bits(f"{what}: tensors", found, first or found)
        first = first or found
    same_bits("repeated behind taps", engine.run(feeds, assignment), made)
    if isinstance(device, CudaDevice):
        device.replays.enabled = False
        same_bits("launched", engine.run(feeds, assignment), made)
        device.replays.enabled = True
    for name, array in made.items():
        if name in first:
            same_bits("an output and its tap", {name: array}, {name: first[name]})
    for layer in engine.top_layers if engine.settings.interior == "storage" else ():
        for value in layer.tensors if layer.kind not in {"if", "loop"} else ():
            if value.name not in first:
                raise Failed("never handed out", value.name or "", layer.name)
    return made, first


def _other_feeds(engine: Engine, feeds: Mapping[str, Array], assignment: Assignment, device: Any, fresh: Any) -> None:
    """What was recorded with some inputs is right for others."""
    others = {name: np.ascontiguousarray(array[..., ::-1]) if array.ndim else array for name, array in feeds.items()}
    repeated = engine.run(others, assignment)
    engine.device = fresh
    if isinstance(fresh, CudaDevice):
        fresh.replays.enabled = False
    same_bits("repeated with other inputs", repeated, engine.run(others, assignment))
    engine.device = device


# --- every node -----------------------------------------------------------------------------------------------------------


def _judged(
    path: Path, engine: Engine, known: Mapping[str, Array], assignment: Assignment, levels: dict[str, Any]
) -> None:
    if engine.settings.interior == "storage":
        levels = levels | {"fusion": "none"}  # node by node
    reference = compile_model(load(path), **levels)
    owner = {value.name: layer for layer in engine.layers for value in layer.tensors}
    choices = {
        one.name: assignment.of(owner[one.tensors[0].name].name)
        for one in reference.layers
        if one.tensors and one.tensors[0].name in owner
    }
    plans = reference.plans(Assignment(assignment.default, choices, assignment.kept))
    for layer in reference.layers:
        if layer.kind in {"if", "loop"} or any(value.name not in known for value in layer.reads):
            continue
        reads = {value.name or "": known[value.name or ""] for value in layer.reads}
        expected = reference.device.evaluate(layer, reads, plans[layer.name])
        for name, array in expected.items():
            if name in known:
                _compared(reference, layer, plans[layer.name], reads, name, known[name], array)


def _compared(
    reference: Engine, layer: Layer, plan: Plan, reads: Mapping[str, Array], name: str, actual: Array, expected: Array
) -> None:
    what = f"{layer.name} in {plan.choice.precision}, {'x'.join(map(str, expected.shape))}"
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        raise Failed("shape", name, f"{what}: {actual.dtype}{actual.shape} for {expected.dtype}{expected.shape}")
    if expected.dtype.kind != "f" or np.array_equal(actual, expected, equal_nan=True):
        if not np.array_equal(actual, expected, equal_nan=expected.dtype.kind == "f"):
            raise Failed("integers", name, f"{what}: {np.count_nonzero(actual != expected)} of {actual.size} differ")
        return
    if all(is_movement(node) for node in layer.nodes) and any(
        np.array_equal(actual, _rounded(expected, one), equal_nan=True) for one in MANTISSA
    ):
        return  # moved what was rounded, where the node by itself rounds what it moved
    finite = np.isfinite(expected) & np.isfinite(actual)
    with np.errstate(invalid="ignore"):
        off = np.where(finite, np.abs(actual.astype(np.float64) - expected), 0.0)
    size = np.where(finite, np.abs(expected), 0).astype(np.float64)
    stored = plan.choice.precision
    allowed = 4 * _ulp(size, "fp32") + _ulp(size, stored) + OF_TOP * size.max(initial=0)
    if np.all(off <= allowed) and np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return
    spread, shaky = _spread(reference, layer, reads, name, expected)
    allowed += ALLOWED * spread
    bad = (off > allowed) | ~(finite | shaky | ((actual == expected) | (np.isnan(actual) & np.isnan(expected))))
    if bad.any():
        at = tuple(int(one) for one in np.argwhere(bad)[0])
        raise Failed(
            "far", name,
            f"{what}: {bad.sum()} of {bad.size} too far off, first at {at}: {actual[at]!r} for {expected[at]!r}, up to {(off / allowed)[bad].max():.3g} times what is allowed",
        )  # fmt: skip


def _spread(
    reference: Engine, layer: Layer, reads: Mapping[str, Array], name: str, expected: Array
) -> tuple[Array, Array]:
    """How far an output moves when inputs move by their last bits, over all of a tensor; and where it is finite or not by chance."""
    wide = (
        Plan(Choice("fp32"), "wide") if reference.rounding.sites(layer, "fp32").any else Plan(Choice("fp32"), "plain")
    )
    middle = reference.device.evaluate(layer, reads, wide)[name].astype(np.float64)
    spread, shaky = 0.0, np.zeros(expected.shape, bool)
    for trial in range(TRIALS):
        random = np.random.default_rng(trial)
        shaken = {
            key: (array * (1 + SHAKEN * random.choice((-1, 1), array.shape))).astype(array.dtype)
            if array.dtype.kind == "f"
            else array
            for key, array in reads.items()
        }
        moved = reference.device.evaluate(layer, shaken, wide)[name].astype(np.float64)
        both = np.isfinite(moved) & np.isfinite(middle)
        shaky |= np.isfinite(moved) != np.isfinite(middle)
        spread = max(spread, float(np.abs(moved - middle)[both].max(initial=0)))
    return np.full(expected.shape, spread), shaky


def _rounded(array: Array, precision: str) -> Array:
    import ml_dtypes

    kinds: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
    with np.errstate(over="ignore"):
        return array.astype(kinds.get(precision, array.dtype)).astype(array.dtype)


def _ulp(size: Array, precision: str) -> Array:
    mantissa, smallest = MANTISSA[precision]
    return 2.0 ** (np.floor(np.log2(np.maximum(size, 2.0**smallest))) - mantissa)
