"""The menu of an engine: everything that assignments over its tactics need, planned and compiled before one of them is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any

from probe.engine.assignment import FP32, Assignment
from probe.engine.device.protocol import Learns
from probe.engine.tuning.context import chosen_layers
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.engine import Engine

LIFTED, KEEPING = 64, 24  # mixtures that are planned at most, of layers and of tensors
_PATIENCE = 8  # of them, one behind the other, that bring nothing new
_KEPT = 1 / 8  # of the tensors


@dataclass(frozen=True, slots=True)
class Menu:
    """What was made ready.

    Attributes:
        mixtures: that were planned.
        layers: in how many ways layers run: forms, and what their neighbours hand them.
        kernels: compiled.
        refused: why mixtures were refused: a tactic does not compute what its neighbours hand over. Each reason once.
        seconds: for all of it.
    """

    mixtures: int
    layers: int
    kernels: int
    seconds: float
    refused: tuple[str, ...] = ()


def prepare_menu(
    engine: Engine,
    inputs: Mapping[str, Any],
    base: Assignment | None = None,
    *,
    max_seconds: float = 10.0,
    tell: Callable[[str], None] | None = None,
) -> Menu | None:
    """Plan mixtures of ``base`` and FP32 until they bring nothing new: layers lifted, then tensors kept. Then compile what they launch.

    How a layer runs depends on its own form and those of its neighbours alone, so that a few dozen mixtures of layers meet every way of nearly
    every layer. Kept tensors have more ways, of which most are met. What was not met is planned, and its kernels compiled, when it comes up.

    Args:
        inputs: of one inference: their shapes are the menu's.
        base: the engine's own assignment when left out.
        tell: told how many kernels of how many are compiled.

    Returns:
        None on a device that does not plan ahead.

    Raises:
        InputError: inputs that do not fit.
        CompileError: a kernel is refused.
    """
    device = engine.device
    if not isinstance(device, Learns):
        return None
    begin, feeds = time.monotonic(), engine.feeds(inputs)
    count = layers = 0
    refused: dict[str, int] = {}
    start = base or engine.assignment
    for kind in (islice(lifted(engine, start), LIFTED), islice(keeping(engine, start), KEEPING)):
        idle = 0
        for mixture in kind:
            try:
                new = device.learn(feeds, engine.plans(mixture))
            except InputError as error:
                refused[error.what] = new = 0
            count, layers, idle = count + 1, layers + new, 0 if new else idle + 1
            if idle >= _PATIENCE or time.monotonic() - begin > max_seconds:
                break
    kernels = device.compile_learnt(None if tell is None else lambda done, of: tell(f"kernel {done} of {of}"))
    return Menu(count, layers, kernels, time.monotonic() - begin, tuple(refused))


def lifted(engine: Engine, base: Assignment, seed: int = 0) -> Iterator[Assignment]:
    """``base``, all of FP32, layers in turn, then half of the layers drawn, without end."""
    names = [layer.name for layer in chosen_layers(engine)]
    yield base
    yield Assignment(FP32)
    yield base.keeping(layers=names[::2])
    yield base.keeping(layers=names[1::2])
    random = Random(seed)  # noqa: S311 - no secret
    while True:
        yield base.keeping(layers=[name for name in names if random.random() < 1 / 2])


def keeping(engine: Engine, base: Assignment, seed: int = 0) -> Iterator[Assignment]:
    """``base`` with tensors kept, some of all drawn, without end."""
    tensors = [value.name or "" for layer in engine.layers for value in (*layer.weights, *layer.tensors)]
    random = Random(seed)  # noqa: S311 - no secret
    while True:
        yield base.keeping(tensors=[name for name in tensors if random.random() < _KEPT])
