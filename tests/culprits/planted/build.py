"""``build``: a network with planted faults and the least that must be kept in FP32, known from how it was made.

    planted = build("overflow", nodes=200, faults=3, seed=0)
    planted.model, planted.inputs, planted.accept, planted.minimum

How the minimum is known. Each fault is a branch of its own, and its tensors break the outputs when they alone are rounded, everything else
FP32; so a passing set contains all of them (keeping more elsewhere does not mend them), and together they pass: the minimum is unique.
Of accumulated errors the sizes are known exactly and add up (accumulated.py): the minimum is as many as must be taken off, largest first.
tests/culprits/test_planted.py checks both on the engine for every kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.culprits.planted import faults as f
from tests.culprits.planted.accumulated import GROUP, UNIT_NODES, Accumulation
from tests.culprits.planted.bases import BASES, OUTPUTS, Base
from tests.culprits.planted.faults import BRANCHES, Branch, Fault
from tests.culprits.planted.tracer import Array
from tests.engine.emulator import Emulator

LIMIT = 0.02  # of range_rel, for faults that break the outputs each by itself
ACCUMULATED_LIMIT = 0.1
_MOST_NOISE = 0.5  # of what is no fault, in parts of the limit
_ATTEMPTS = 20
_QUIET = (
    0.1  # loudness of the channel that accumulated errors reach: the rounding noise of the network stays small there
)

# What each kind plants, by turns; and what it adds that is no fault.
KINDS: dict[str, tuple[Branch, ...]] = {
    "overflow": (f.overflow,),
    "overflow to NaN": (f.overflow_nan,),
    "vanishing": (f.vanishing_epsilon, f.vanishing_floor),
    "cancellation": (f.cancellation,),
    "mixed": (f.overflow, f.vanishing_floor, f.cancellation, f.overflow_nan, f.vanishing_epsilon),
    "coupled": (f.overflow_twice, f.cancellation_pair),
    "decoys": (f.overflow, f.cancellation),
    "compensating": (f.overflow, f.cancellation),
    "accumulated": (),
}
OR_KINDS = ("overflow", "overflow to NaN", "vanishing", "cancellation", "mixed")
_EXTRA: dict[str, tuple[Branch, ...]] = {
    "decoys": (f.saturated_cube, f.masked_softmax, f.saturated_cube, f.masked_softmax),
    "compensating": (f.compensating_pair, f.compensating_pair),
}


@dataclass(frozen=True)
class Planted:
    """A network and what is known of it.

    Attributes:
        inputs: one feed.
        golden: outputs of the FP32 network, computed node by node.
        faults: what must be kept, place by place.
        others: decoys and traps.
        minimum: the smallest passing set; of accumulated errors one of them.
        accept: criteria, as ``--accept`` takes them.
        errors: of accumulated kinds: tensor -> its part of the limit.
    """

    kind: str
    base: str
    seed: int
    model: onnx.ModelProto
    inputs: dict[str, Array]
    golden: dict[str, Array]
    faults: tuple[Fault, ...]
    others: tuple[Fault, ...]
    minimum: frozenset[str]
    accept: tuple[str, ...]
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        return len(self.model.graph.node)


def build(kind: str, nodes: int, faults: int, seed: int, base: str | None = None) -> Planted:
    """A network of about ``nodes`` nodes with ``faults`` faults of a kind.

    Args:
        kind: of ``KINDS``.
        faults: of "accumulated": how many tensors the minimum keeps.
        base: of ``BASES``; by the seed when left out.

    Raises:
        ValueError: the faults do not fit into so few nodes.
    """
    base = base or sorted(BASES)[seed % len(BASES)]
    write = _accumulated if kind == "accumulated" else _separate
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt, nodes, faults, *kind.encode()])
        made = write(kind, BASES[base](rng), base, nodes, faults, seed)
        if _noise(made) < (_MOST_NOISE if write is _separate else 1):
            return made
    raise ValueError(f"{_ATTEMPTS} networks drown the faults in rounding noise")


def _noise(made: Planted) -> float:
    """Error with the minimum kept, in parts of the limit. Some random networks have a place as sensitive as a fault would be."""
    found = Emulator(made.model).run(made.inputs, "fp16", kept=made.minimum)
    limit = float(made.accept[0].partition("<=")[2])
    return max(float(np.max(np.abs(found[name] - x)) / np.max(np.abs(x))) for name, x in made.golden.items()) / limit


def _separate(kind: str, network: Base, base: str, nodes: int, faults: int, seed: int) -> Planted:
    """Faults that break the outputs each by itself, and what only looks like one."""
    rng, cycle = network.rng, KINDS[kind]
    # Where kinds take turns, the seed says which begins.
    branches = [cycle[(seed + number) % len(cycle)] for number in range(faults)]
    extra = _EXTRA.get(kind, ())
    planted: dict[bool, list[Fault]] = {True: [], False: []}

    def plant(h: str, branch: Branch, number: int, *, counts: bool) -> str:
        network.tracer.scope = f"branch.{number}"
        h, fault = branch(network, h)
        planted[counts].append(fault)
        return h

    jobs: list[Callable[[str], str]] = []
    for number, branch in enumerate((*branches, *extra)):
        counts = number < faults
        jobs.append(lambda h, branch=branch, number=number, counts=counts: plant(h, branch, number, counts=counts))
    used = sum(BRANCHES[branch] for branch in (*branches, *extra))
    h = _woven(network, nodes - used, jobs, rng)
    logits = network.head(h, np.ones(OUTPUTS, np.float32))
    golden = {logits: network.tracer.values[logits]}
    model = network.tracer.model(f"{kind} {base}", [logits])
    found = tuple(planted[True])
    minimum = frozenset(tensor for fault in found for tensor in fault.tensors)
    accept = (f"range_rel<={LIMIT}",)
    return Planted(
        kind, base, seed, model, network.tracer.inputs, golden, found, tuple(planted[False]), minimum, accept
    )


def _accumulated(kind: str, network: Base, base: str, nodes: int, keep: int, seed: int) -> Planted:
    """Units for two fifths of the nodes; the limit lies halfway between what ``keep`` and ``keep - 1`` of them leave."""
    rng, b = network.rng, network.tracer
    units = max(4, int(0.4 * nodes / (UNIT_NODES + 2 / GROUP)))
    if keep >= units:
        raise ValueError(f"{keep} of {units} units leave nothing to accumulate: more nodes")
    sizes = np.sort(np.exp(rng.standard_normal(units)))[::-1]
    # With nothing to keep, all together reach four fifths of the limit.
    reached = sizes[keep:].sum() + 0.5 * sizes[keep - 1] if keep else sizes.sum() / 0.8
    shuffled = rng.permutation(units)
    channel = int(rng.integers(OUTPUTS))
    loudness = np.ones(OUTPUTS, np.float32)
    loudness[channel] = _QUIET
    # The range of the logits is known only when they are there, and then the limit is fitted to what was planted: sizes are for a range of 4.
    writer = Accumulation(network, [float(one) for one in sizes[shuffled] * (ACCUMULATED_LIMIT * 4 / reached)], channel)
    jobs: list[Callable[[str], str]] = []
    for number in range(units):

        def job(h: str, number: int = number) -> str:
            writer.unit(number)
            if number % GROUP == GROUP - 1:
                writer.close_group()
            return h

        jobs.append(job)
    h = _woven(network, nodes - UNIT_NODES * units - 2 * math.ceil(units / GROUP) - 3, jobs, rng)
    writer.close_group()
    done = writer.done
    logits = network.head(h, loudness)
    b.scope = "head"
    total = b.node("Sum", logits, *done.collected)
    largest = float(np.max(np.abs(b.values[total])))
    order = sorted(done.errors, key=done.errors.__getitem__, reverse=True)
    errors = [done.errors[name] for name in order]
    limit = (sum(errors[keep:]) + 0.5 * errors[keep - 1] if keep else sum(errors) / 0.8) / largest
    faults = tuple(Fault("accumulated", (name,)) for name in order[:keep])
    return Planted(
        kind, base, seed, b.model(f"{kind} {base}", [total]), b.inputs, {total: b.values[total]},
        faults, (), frozenset(order[:keep]), (f"range_rel<={limit:.6g}",),
        {name: error / largest / limit for name, error in done.errors.items()},
    )  # fmt: skip


def _woven(network: Base, nodes: int, jobs: list[Callable[[str], str]], rng: np.random.Generator) -> str:
    """Stem and blocks for about ``nodes`` nodes, the head's included, with the jobs spread over the places between them."""
    blocks, left = 0, nodes - network.stem_nodes - network.head_nodes
    while left >= 0.5 * (following := network.block_nodes[blocks % len(network.block_nodes)]):
        left -= following
        blocks += 1
    if not blocks and left < -0.25 * len(jobs):
        raise ValueError(f"{len(jobs)} branches leave {left} nodes for blocks: more nodes")
    places = np.sort(rng.integers(0, blocks + 1, len(jobs)))
    h, at = network.stem(), 0
    for number in range(blocks + 1):
        if number:
            h = network.block(h, number - 1)
        while at < len(jobs) and places[at] == number:
            h = jobs[at](h)
            at += 1
    return h
