"""What breaks in FP16, what only looks as if it did, and what must be left alone: each written into a residual stream as a branch of its own.

A branch reads the stream and adds to it a contribution of fixed share, so that a broken branch shows at the outputs whatever the others do.
Its scales are fitted to the values the stream really has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.culprits.planted.bases import Base

SHARE = 0.6  # root mean square of what a branch adds to a stream that started at 1


@dataclass(frozen=True, slots=True)
class Fault:
    """One planted place.

    Attributes:
        kind: how it breaks.
        tensors: that must all be kept; of a trap those that must not be kept singly; of a decoy those that look broken. A constant that
            rounding destroys is none of them: what runs in FP32 for a kept tensor reads it as it is.
    """

    kind: str
    tensors: tuple[str, ...]


Branch = Callable[[Base, str], tuple[str, Fault]]  # stream -> stream after the branch, what was planted


def overflow(base: Base, h: str) -> tuple[str, Fault]:
    """RMSNorm of a massive channel: its square passes 65504, the norm is Inf, what is divided by it 0. Outputs stay finite."""
    y, square, _ = _massive_norm(base, h, 600.0)
    return _add(base, h, y), Fault("overflow", (square,))


def overflow_twice(base: Base, h: str) -> tuple[str, Fault]:
    """As ``overflow``, but the mean of the squares passes 65504 too: both must be kept."""
    y, square, mean = _massive_norm(base, h, 6000.0)
    return _add(base, h, y), Fault("overflow of square and mean", (square, mean))


def overflow_nan(base: Base, h: str) -> tuple[str, Fault]:
    """Inf - x, where the Inf ought to be 110000."""
    b = base.tracer
    large = b.node("Mul", h, b.weight("gain", 1.1e5 / b.peak(h)))
    rest = b.node("Sub", large, b.node("Mul", large, b.weight("half", 0.5)))
    return _add(base, h, b.node("Mul", rest, b.weight("shift", 2.0**-10))), Fault("overflow to NaN", (large,))


def vanishing_epsilon(base: Base, h: str) -> tuple[str, Fault]:
    """log(x + 1e-12) of energies that are 0 in half of the channels: log 0 = -Inf."""
    b = base.tracer
    guarded = b.node("Add", _gated_energy(base, h), b.weight("eps", 1e-12))
    return _add(base, h, b.node("Log", guarded)), Fault("vanishing epsilon", (guarded,))


def vanishing_floor(base: Base, h: str) -> tuple[str, Fault]:
    """Decibels: max(log(max(x, 1e-10)), -100). Without the floor -100 takes the place of -23. Outputs stay finite."""
    b = base.tracer
    guarded = b.node("Max", _gated_energy(base, h), b.weight("floor", 1e-10))
    y = b.node("Max", b.node("Log", guarded), b.weight("lowest", -100.0))
    return _add(base, h, y), Fault("vanishing floor", (guarded,))


def cancellation(base: Base, h: str) -> tuple[str, Fault]:
    """(x + B) - B with B so large that FP16 has no digit left for x."""
    b = base.tracer
    offset = b.weight("offset", _offset(base, h))
    lifted = b.node("Add", h, offset)
    return _add(base, h, b.node("Sub", lifted, offset)), Fault("cancellation", (lifted,))


def cancellation_pair(base: Base, h: str) -> tuple[str, Fault]:
    """(x + B) - (w x + B): either term alone in FP16 spoils the difference, so both must be kept."""
    b = base.tracer
    offset = b.weight("offset", _offset(base, h))
    parts = base.along_channels(base.rng.uniform(0.2, 0.6, base.channels))
    other = b.node("Add", b.node("Mul", h, b.weight("part", parts)), offset)
    lifted = b.node("Add", h, offset)
    return _add(base, h, b.node("Sub", lifted, other)), Fault("cancellation of a pair", (other, lifted))


def saturated_cube(base: Base, h: str) -> tuple[str, Fault]:
    """Decoy: a cube overflows to Inf before a tanh, which says 1 to that as to the true value."""
    b = base.tracer
    energy = b.node("ReduceMean", b.node("Mul", h, h), axes=[base.axis], keepdims=1)
    # Saturated everywhere: where a tanh changes its sign it would be a sensitive place, and no decoy.
    gains = base.rng.uniform(0.1, 1.0, base.channels) * 80.0 / float(b.values[energy].min())
    x = b.node("Mul", energy, b.weight("gain", base.along_channels(gains)))
    cube = b.node("Mul", b.node("Mul", x, x), x)
    return _add(base, h, b.node("Tanh", cube)), Fault("saturated cube", (cube,))


def masked_softmax(base: Base, h: str) -> tuple[str, Fault]:
    """Decoy: -1e9 becomes -Inf in front of a softmax, which says 0 to both."""
    b = base.tracer
    keep = np.arange(base.channels) % 4 != base.rng.integers(4)
    mask = b.weight("mask", base.along_channels(keep))
    masked = b.node("Where", mask, h, b.weight("far", -1e9))
    return _add(base, h, b.node("Softmax", masked, axis=base.axis)), Fault("masked softmax", (masked,))


def compensating_pair(base: Base, h: str) -> tuple[str, Fault]:
    """Trap: 3 x - 3 x, amplified. Both rounded it is 0 as it should be; one kept leaves the other's rounding error."""
    b = base.tracer
    first, second = (b.node("Mul", h, b.weight(name, 3.0)) for name in ("left", "right"))
    error = b.values[first].astype(np.float16).astype(np.float32) - b.values[first]
    gain = SHARE / np.sqrt(np.mean(error**2))
    y = b.node("Mul", b.node("Sub", first, second), b.weight("gain", min(gain, 6e4)))
    return b.node("Add", h, y), Fault("compensating pair", (first, second))


# Nodes that each branch writes.
BRANCHES: dict[Branch, int] = {
    overflow: 9, overflow_twice: 8, overflow_nan: 6, vanishing_epsilon: 7, vanishing_floor: 8, cancellation: 4, cancellation_pair: 6,
    saturated_cube: 8, masked_softmax: 4, compensating_pair: 5,
}  # fmt: skip


def _massive_norm(base: Base, h: str, size: float) -> tuple[str, str, str]:
    """One channel of the stream is offset by ``size``, as massive activations are, then RMSNorm. Also returns square and mean."""
    b = base.tracer
    offsets, weights = np.zeros(base.channels), base.rng.uniform(0.8, 1.2, base.channels)
    channel = base.rng.integers(base.channels)
    offsets[channel] = size * base.rng.choice([-1.0, 1.0])
    # The massive channel is turned down, as in trained networks. What is added back then depends on the data: two constants in one
    # channel could cancel, and losing both of them would do no harm.
    weights[channel] = 1 / size
    x = b.node("Add", h, b.weight("massive", base.along_channels(offsets)))
    square = b.node("Mul", x, x)
    mean = b.node("ReduceMean", square, axes=[base.axis], keepdims=1)
    # The larger overflow leaves no room for an epsilon, which would have to be kept as well.
    above = b.node("Add", mean, b.weight("eps", 1e-5)) if size < 1000 else mean
    y = b.node("Div", x, b.node("Sqrt", above))
    return b.node("Mul", y, b.weight("norm.weight", base.along_channels(weights))), square, mean


def _gated_energy(base: Base, h: str) -> str:
    """Mean square over the channels, handed to half of them; exactly 0 in the others."""
    b = base.tracer
    energy = b.node("ReduceMean", b.node("Mul", h, h), axes=[base.axis], keepdims=1)
    gates = base.rng.uniform(0.5, 2.0, base.channels)
    gates[base.rng.permutation(base.channels)[::2]] = 0.0
    return b.node("Mul", energy, b.weight("gates", base.along_channels(gates)))


def _offset(base: Base, h: str) -> float:
    """A power of two whose FP16 neighbours are about four root mean squares of the stream apart."""
    return float(2.0 ** np.round(np.log2(4096 * base.tracer.rms(h))))


def _add(base: Base, h: str, y: str) -> str:
    """The stream with a branch's share; signs by channel keep a stream that many branches add to from growing in one direction."""
    b = base.tracer
    share = base.along_channels(base.rng.choice([-1.0, 1.0], base.channels) * SHARE / b.rms(y))
    return b.node("Add", h, b.node("Mul", y, b.weight("share", share)))
