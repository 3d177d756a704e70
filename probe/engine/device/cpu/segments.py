"""A network cut into runs of consecutive layers, a gated session each, so that a run can begin where an assignment begins to differ.

Where to cut is decided by the seconds and bytes of each layer, measured on one input: segments are to be so long that calling a session is
little beside them, and what crosses the cuts must fit into memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from probe.engine.device.cpu.gated import GatedExecutor, Part
from probe.engine.device.cpu.program import Program
from probe.engine.layers import Layer, all_layers

if TYPE_CHECKING:
    import onnxruntime

    from probe.engine.device.cpu.layered import LayeredExecutor
    from probe.engine.rounding import Plan

SHORTEST = 2e-3  # seconds of a segment: calling one and looking at what it made costs a tenth of that
MOST = 48  # segments: finer ones skip little more, and each session has threads of its own
_WANTED_RESULTS = (4, 2, 1)  # of one segment
_WINDOW = 1.5  # times the length asked for: where a cut may wait for a place that fewer bytes cross


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What one layer of the top-level graph takes on one input.

    Attributes:
        seconds: of its session.
        sizes: value it makes (by ``id``) -> bytes.
    """

    seconds: float
    sizes: Mapping[int, int]


def worth_cutting(seconds: float) -> bool:
    """Whether a network that takes so long can have two segments."""
    return seconds >= 2 * SHORTEST


def measure_layers(
    layered: LayeredExecutor,
    layers: Sequence[Layer],
    feeds: Mapping[str, onnxruntime.OrtValue],
    plans: Mapping[str, Plan],
) -> list[LayerCost]:
    """The cost of each layer of the top-level graph, the less of two runs of a session a layer; a run before them builds sessions.

    Raises:
        InputError: a layer fails.
    """
    built, costs = layered.sessions, _measured(layered, layers, feeds, plans)
    if layered.sessions != built:
        costs = _measured(layered, layers, feeds, plans)
    again = _measured(layered, layers, feeds, plans)  # one that was interrupted does not count
    return [min(pair, key=lambda cost: cost.seconds) for pair in zip(costs, again, strict=True)]


def _measured(
    layered: LayeredExecutor, layers: Sequence[Layer], feeds: Mapping[str, Any], plans: Mapping[str, Plan]
) -> list[LayerCost]:
    top = {one.name: at for at, layer in enumerate(layers) for one in all_layers([layer])}
    seconds = [0.0] * len(layers)
    sizes: list[dict[str, int]] = [{} for _ in layers]
    begin = time.perf_counter()
    for tapped in layered.stream(feeds, plans, interior=False):
        now = time.perf_counter()
        at = top[tapped.layer.name]
        seconds[at] += now - begin
        begin = now
        if tapped.array is not None:
            sizes[at][tapped.name] = tapped.array.nbytes
    floor = min((one for one in seconds if one), default=0.0)  # of calling a session and handing its tensors out
    return [
        LayerCost(max(spent - floor, 0.0), {id(v): _size(v.name or "", made) for v in layer.outputs})
        for layer, spent, made in zip(layers, seconds, sizes, strict=True)
    ]


def _size(name: str, made: Mapping[str, int]) -> int:
    """Bytes of a tensor, or of a sequence's elements, which are ``NAME[i]``."""
    if name in made:
        return made[name]
    return sum(size for element, size in made.items() if element.startswith(f"{name}["))


def choose_cuts(program: Program, costs: Sequence[LayerCost], seconds: float, limit: int) -> tuple[int, ...]:
    """Positions in the top-level layers before which a segment begins, 0 left out; () where no cut is worth it or fits.

    Args:
        seconds: that the whole network takes in one session.
        limit: bytes that what segments return may take together. Several times that is left free where it can be: a search moves on, and
            wants what it ran last held beside what it began with.
    """
    total = sum(cost.seconds for cost in costs)
    if not total:
        return ()
    crossing = _crossing(program, costs)
    for results in _WANTED_RESULTS:
        shortest = max(SHORTEST, seconds / MOST)
        while 2 * shortest <= seconds:
            cuts = tuple(_cuts([cost.seconds * seconds / total for cost in costs], crossing, shortest))
            if _held(program, costs, cuts) * results <= limit:
                return cuts
            shortest *= 2
    return ()


def _cuts(seconds: Sequence[float], crossing: Sequence[int], shortest: float) -> Iterator[int]:
    passed, window = 0.0, range(0)
    for position in range(1, len(seconds)):
        passed += seconds[position - 1]
        if passed < shortest:
            continue
        window = range(window.start or position, position + 1)
        if passed >= _WINDOW * shortest or position == len(seconds) - 1:
            begin = min(window, key=lambda at: (crossing[at], at))
            yield begin
            passed, window = sum(seconds[begin:position]), range(0)


def _crossing(program: Program, costs: Sequence[LayerCost]) -> list[int]:
    """Position -> bytes made before it and read behind it."""
    sizes = {key: size for cost in costs for key, size in cost.sizes.items()}
    change = [0] * (len(program.layers) + 1)
    made = {id(value): at for at, layer in enumerate(program.layers) for value in layer.outputs}
    last = {id(value): at for at, layer in enumerate(program.layers) for value in layer.reads}
    for key, at in made.items():
        if last.get(key, at) > at:
            change[at + 1] += sizes.get(key, 0)
            change[last[key] + 1] -= sizes.get(key, 0)
    crossing, held = [], 0
    for delta in change:
        held += delta
        crossing.append(held)
    return crossing


def _held(program: Program, costs: Sequence[LayerCost], cuts: Sequence[int]) -> int:
    """Bytes that all segments return."""
    sizes = {key: size for cost in costs for key, size in cost.sizes.items()}
    return sum(sizes.get(id(value), 0) for part in parts_of(program, cuts) for value in part.returns)


def parts_of(program: Program, cuts: Sequence[int]) -> list[Part]:
    """The network cut before the given positions: what each part reads of the others and of the graph's inputs, and what others and the
    graph's outputs take from it."""
    layers = tuple(program.layers)
    bounds = [0, *cuts, len(layers)]
    runs = [layers[a:b] for a, b in pairwise(bounds)]
    returned = {id(value) for value in program.network.graph.outputs}
    parts: list[Part] = []
    wanted = set(returned)  # by what follows
    for run in reversed(runs):
        made = {id(value): value for layer in run for value in layer.outputs}
        read = {id(value): value for layer in run for value in layer.reads}
        returns = tuple(value for key, value in made.items() if key in wanted)
        reads = tuple(value for key, value in read.items() if key not in made)
        wanted |= read.keys()
        parts.append(Part(run, reads, returns))
    return parts[::-1]


def build_segments(program: Program, precision: str, cuts: Sequence[int]) -> list[GatedExecutor]:
    """A session a part.

    Raises:
        InputError: ONNX Runtime refuses one.
    """
    return [GatedExecutor(program, precision, part) for part in parts_of(program, cuts)]
