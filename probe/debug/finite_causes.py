"""Why a tensor is finite and wrong: what about an operation turned the rounding of what it reads into an error. Arrays in, no I/O."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from probe.debug.causes import (
    ADDITIVE,
    Array,
    Cause,
    Event,
    Operand,
    critical_operand,
    is_float,
    largest,
    margin,
    places,
    rounded,
    spacing,
)
from probe.precision import Precision

STEEP = frozenset(
    ("Softmax", "LogSoftmax", "Exp", "Sin", "Cos")
)  # where absolute, not relative, error of the operand counts
DISCRETE = frozenset(
    "Floor Ceil Round Cast ArgMax ArgMin Equal Greater GreaterOrEqual Less LessOrEqual TopK Mod".split()
)
_COARSE = 0.05  # half a spacing of the exponent's argument beyond which a probability moves by as much: exp(d) - 1


def finite_cause(event: Event, threshold: float) -> Cause | None:
    """What about this operation made a finite error of at least ``threshold`` of the range; None when nothing known fits."""
    for cause in _finite_causes(event, threshold):
        return cause
    return None


def _finite_causes(event: Event, threshold: float) -> Iterator[Cause]:
    for operand in event.operands:
        if operand.constant and is_float(operand.golden):
            yield from _vanishing_constant(event, operand)
    yield from _coarse_argument(event)
    yield from _underflow(event, threshold)
    yield from _cancellation(event, threshold)
    yield from _discrete(event)


def vanishes(values: Array, form: Precision) -> bool:
    """Whether most of the non-zero elements of a float constant are zero in a format."""
    if not is_float(values):
        return False
    nonzero = values != 0
    return bool(nonzero.any() and ((rounded(values, form) == 0) & nonzero).sum() * 2 >= nonzero.sum())


def _vanishing_constant(event: Event, operand: Operand) -> Iterator[Cause]:
    form = event.form
    values = np.asarray(operand.golden)
    if not vanishes(values, form):
        return
    vanished = (values != 0) & (rounded(values, form) == 0)
    yield Cause(
        "constant_vanishes",
        f"the constant {operand.name} of {event.node} ({event.op}) is {float(values[vanished].flat[0]):.3g} and becomes 0: the smallest "
        f"number of {form.name} is {form.smallest_subnormal:.3g}",
        operand.name, largest(values), margin(values, form), places(vanished),
        f"replace it by at least {form.smallest_normal:.2g}, or keep it and {event.tensor} in FP32",
    )  # fmt: skip


def _coarse_argument(event: Event) -> Iterator[Cause]:
    """An argument so large that its neighbours in the format are far apart, where differences of 0.1 change the answer."""
    if event.op not in STEEP or not event.operands or not is_float(event.operands[0].golden):
        return
    operand, form = event.operands[0], event.form
    golden = np.asarray(operand.golden, np.float64)
    if event.op in ("Softmax", "LogSoftmax"):
        # Only what is near the largest of a row counts; the rest vanishes whatever its rounding.
        finite = np.where(np.isfinite(golden), golden, -np.inf)
        top = finite.max(axis=-1, initial=-np.inf)
        tops = np.abs(top[np.isfinite(top)])
        magnitude = float(tops.max()) if tops.size else 0.0
    else:
        magnitude = largest(golden)
    step = spacing(magnitude, form)
    if step / 2 < _COARSE:
        return
    spread = _spread(golden)
    yield Cause(
        "coarse_argument",
        f"{operand.name} is about {magnitude:.4g}, where numbers of {form.name} are {step:.3g} apart; {event.node} ({event.op}) turns "
        f"differences of 0.1 into errors of 10 %, and a row varies by no more than {spread:.3g}",
        operand.name, magnitude, form.max / magnitude, "",
        f"keep {operand.name} in FP32, or take the common offset out of it before it is rounded (it does not change a softmax)"
        if "Softmax" in event.op else f"keep {operand.name} in FP32, or reduce it to one period before it is rounded",
    )  # fmt: skip


def _spread(x: Array) -> float:
    """The largest difference within a row, over finite elements that are no masks."""
    if not x.ndim:
        return 0.0
    keep = np.isfinite(x) & (np.abs(x) < 1e30)
    high = np.where(keep, x, -np.inf).max(axis=-1, initial=-np.inf)
    low = np.where(keep, x, np.inf).min(axis=-1, initial=np.inf)
    rows = np.isfinite(high) & np.isfinite(low)
    return float((high - low)[rows].max()) if rows.any() else 0.0


def _underflow(event: Event, threshold: float) -> Iterator[Cause]:
    """An operand below the format's normal numbers, where it has few bits or none, in front of a pole; or the tensor itself."""
    form = event.form
    critical = critical_operand(event)
    suspects = [critical] if critical is not None else []
    suspects.append(Operand(event.tensor, event.golden))
    for one in suspects:
        if not is_float(one.golden):
            continue
        size = np.abs(np.asarray(one.golden, np.float64))
        nonzero = (size > 0) & np.isfinite(size)
        flushed = nonzero & (size <= form.smallest_subnormal / 2)
        coarse = nonzero & ~flushed & (size < form.smallest_normal)
        if one.name == event.tensor and largest(one.golden) >= form.smallest_normal / threshold:
            continue  # what is lost is small beside the rest
        if not (flushed | coarse).any():
            continue
        shares = f"{flushed.sum() / nonzero.sum():.0%} of its non-zero elements become 0, {coarse.sum() / nonzero.sum():.0%} keep few bits"
        yield Cause(
            "underflow",
            f"{one.name} is too small for {form.name}: {shares} (golden goes down to {float(size[nonzero].min()):.3g}, full precision ends at "
            f"{form.smallest_normal:.3g})" + (f", and {event.node} ({event.op}) makes large errors of them" if one is critical else ""),
            one.name, largest(one.golden), margin(one.golden, form), places(flushed | coarse),
            f"keep {one.name} in FP32, scale it up, or raise its smallest value above {form.smallest_normal:.2g}",
        )  # fmt: skip
        return


def _cancellation(event: Event, threshold: float) -> Iterator[Cause]:
    """A result much smaller than what it is the difference of: the operands' rounding becomes its error."""
    if event.op not in ADDITIVE or len(event.operands) < 2:
        return
    sizes = [largest(o.golden) for o in event.operands if is_float(o.golden)]
    reach, result = max(sizes, default=0.0), largest(event.golden)
    if result == 0 or reach / result < 8 or reach / result * event.form.roundoff < threshold / 10:
        return
    names = " and ".join(o.name for o in event.operands[:2])
    yield Cause(
        "cancellation",
        f"{event.tensor} is a small difference of large numbers: operands ({names}) reach {reach:.4g}, the result {result:.4g}, "
        f"{reach / result:.3g} times less, so that their rounding to {event.form.name} is up to {reach / result * event.form.roundoff:.2g} of it",
        event.tensor, reach, event.form.max / reach, "",
        f"keep {names} and {event.tensor} in FP32, or compute the difference another way (a variance from centred values)",
    )  # fmt: skip


def _discrete(event: Event) -> Iterator[Cause]:
    if event.op not in DISCRETE or not event.operands or not is_float(event.operands[0].golden):
        return
    operand = event.operands[0]
    changed = np.asarray(event.actual != event.golden)
    reach = largest(operand.golden)
    exact = 2.0 ** (event.form.mantissa_bits + 1)
    whole = bool((np.asarray(operand.golden) == np.rint(operand.golden)).all())
    detail = (
        f": {operand.name} holds whole numbers up to {reach:.4g}, {event.form.name} has all of them only up to {exact:.4g}"
        if whole and reach > exact
        else f": a rounding of {operand.name} crosses one of its steps"
    )
    yield Cause(
        "discrete_step",
        f"{event.node} ({event.op}) jumps{detail}", operand.name, reach, margin(operand.golden, event.form), places(changed),
        f"keep {operand.name} in FP32",
    )  # fmt: skip


# --- headroom


def inner_overflow(op: str, operand: Array, form: Precision) -> float | None:
    """The largest value inside an operation that is FP32 inside here, where it would not fit ``form``; None where it fits.

    For normalisations and sums of squares: the sum of squares along the last axis, which is what overflows first in a runtime that computes
    them in the storage format.
    """
    if op not in INNER_SQUARES or not is_float(operand) or not operand.ndim:
        return None
    x = np.asarray(operand, np.float64)
    if op in ("GroupNormalization", "InstanceNormalization") and x.ndim > 2:
        x = x.reshape(*x.shape[:2], -1)
    finite = np.where(np.isfinite(x) & (np.abs(x) < 1e30), x, 0.0)
    reach = float((finite * finite).sum(axis=-1).max(initial=0.0))
    return reach if reach > form.max else None


INNER_SQUARES = frozenset(
    "LayerNormalization RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization GroupNormalization InstanceNormalization "
    "LpNormalization ReduceSumSquare ReduceL2 MeanVarianceNormalization".split()
)
