"""Many small errors that only together cross the tolerance, each known exactly and none depending on another.

Unit i stores u = z a, where z is a slice of the graph input and z, a have 11 significant bits, so that u has up to 22 and loses u - R(u) > 0
in FP16; then p = u - R(u), exact in either format, and every p is weighed into one channel of the output by one matrix product a group.
Nothing but u is inexact on the way there, all errors have one sign, and what follows is linear: errors add up, and the fewest units
that must be kept are the largest ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.culprits.planted.bases import OUTPUTS, Base

WIDTH = 8  # elements of a unit's tensor
GROUP = 10  # units that one product collects
UNIT_NODES = 2


@dataclass(frozen=True, slots=True)
class Accumulated:
    """What was planted.

    Attributes:
        errors: tensor -> what rounding it takes from the output channel, in the output's own unit.
        collected: tensors to be added to the logits, one a group.
    """

    errors: dict[str, float]
    collected: tuple[str, ...]


class Accumulation:
    """Writes units one by one; ``group`` closes a group of them."""

    def __init__(self, base: Base, sizes: list[float], channel: int) -> None:
        """``sizes`` of the errors, by unit, in the output's unit; what FP16 can weigh comes within 0.1 % of them."""
        self._base, self._sizes, self._channel = base, sizes, channel
        self._errors: dict[str, float] = {}
        self._collected: list[str] = []
        self._open: list[tuple[str, np.ndarray]] = []
        self._slice = ""

    def unit(self, number: int) -> None:
        b = self._base.tracer
        if not self._slice:
            b.scope = "lost"
            flat = b.node("Reshape", "x", b.weight("flat", np.array([1, -1])))
            self._slice = b.node("Slice", flat, b.weight("start", np.array([0])), b.weight("end", np.array([WIDTH])),
                                 b.weight("axis", np.array([1])))  # fmt: skip
        b.scope = f"lost.{number}"
        z = b.values[self._slice][0]
        factor, near, left = zip(*(self._factor(float(one)) for one in z), strict=True)
        u = b.node("Mul", self._slice, b.weight("factor", np.array([factor])))
        p = b.node("Sub", u, b.weight("near", np.array([near])))
        # Every element carries the same part of the error.
        weights = (self._sizes[number] / WIDTH / np.array(left)).astype(np.float16).astype(np.float32)
        assert np.isfinite(weights).all() and (weights > 0).all()
        self._errors[u] = float(weights.astype(np.float64) @ np.array(left))
        self._open.append((p, weights))

    def close_group(self) -> None:
        if not self._open:
            return
        base, b = self._base, self._base.tracer
        b.scope = f"lost.group{len(self._collected)}"
        joined = b.node("Concat", *(name for name, _ in self._open), axis=1)
        weights = np.zeros((WIDTH * len(self._open), OUTPUTS), np.float32)
        weights[:, self._channel] = np.concatenate([w for _, w in self._open])
        made = b.node("MatMul", joined, b.weight("weights", weights))
        if len(base.shape) == 4:
            made = b.node("Reshape", made, b.weight("shape", np.array([1, OUTPUTS, 1, 1])))
        self._collected.append(made)
        self._open = []

    @property
    def done(self) -> Accumulated:
        return Accumulated(dict(self._errors), tuple(self._collected))

    def _factor(self, z: float) -> tuple[float, float, float]:
        """A factor a of 11 bits such that z a lies in [512, 1024) in magnitude and loses between 0.05 and 0.25 upwards of its FP16 neighbour."""
        rng = self._base.rng
        while True:
            a = float(np.float16(rng.uniform(512, 1024) / z))  # at most 20480: inputs are not near 0
            product = a * z  # exact in float64, and in float32
            near = float(np.float16(product))
            left = product - near
            if 512 <= abs(product) < 1024 and 0.05 <= left <= 0.25:
                return a, near, left
