"""Why NaN or Inf first appear in a tensor, although nothing that its node reads has any: which operand, or which range, made them, and
what becomes of them further on. From golden and actual operands to a cause in words: arrays in, no I/O. ``finite_causes`` has the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probe.precision import Precision, dtype_name, kind_of, round_to

Array = np.ndarray[Any, Any]

POLES = frozenset(("Log", "Reciprocal", "Sqrt", "Rsqrt", "Pow"))  # where an operand near zero matters most
ADDITIVE = frozenset(("Add", "Sub", "Sum"))


@dataclass(frozen=True, slots=True)
class Operand:
    """What a node reads: golden values, values in the run (None: the same, rounded when read), and whether it is part of the model."""

    name: str
    golden: Array
    actual: Array | None = None
    constant: bool = False

    def stored(self, form: Precision) -> Array:
        """The values that the node computes with."""
        return rounded(self.golden if self.actual is None else self.actual, form)


@dataclass(frozen=True, slots=True)
class Event:
    """A tensor, the node that makes it, and what it reads. ``on_golden``: the tensor made from golden operands in the same precision."""

    tensor: str
    node: str
    op: str
    form: Precision
    golden: Array
    actual: Array
    operands: tuple[Operand, ...]
    on_golden: Array | None = None
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause. ``tensor`` is what is to blame, which may be an operand of the node where it shows."""

    kind: str
    message: str
    tensor: str
    range: float | None = None
    margin: float | None = None
    where: str = ""
    cure: str = ""


def largest(x: Array) -> float:
    """max |x| over finite elements; 0 when there are none."""
    x = np.asarray(x)
    if x.dtype.kind not in "fc" and x.dtype.kind in "iub":
        x = x.astype(np.float64)
    finite = np.abs(x[np.isfinite(x)])
    return float(finite.max()) if finite.size else 0.0


def places(mask: Array) -> str:
    """``3 of 40 elements, first [0,17]``; "" where there are none."""
    count = int(mask.sum())
    if not count:
        return ""
    first = np.unravel_index(int(np.argmax(mask)), mask.shape) if mask.ndim else ()
    at = f", first [{','.join(str(int(i)) for i in first)}]" if mask.ndim else ""
    return f"{count:,} of {mask.size:,} elements{at}"


def rounded(x: Array, form: Precision) -> Array:
    """``x`` rounded to a format; scalars are arrays, too."""
    x = np.asarray(x)
    return round_to(np.atleast_1d(x), form.name).reshape(x.shape)


def is_float(x: Array) -> bool:
    """Whether it holds floats; bfloat16 and the 8-bit ones, too, which numpy counts as no kind of its own."""
    return kind_of(dtype_name(np.asarray(x).dtype)) == "float"


# --- NaN and Inf


def nonfinite_cause(event: Event) -> Cause:
    """What made the first NaN or Inf. ``kind`` is ``unexplained_nonfinite`` when none of the known causes fits."""
    for cause in _nonfinite_causes(event):
        return cause
    words = ", ".join(f"{o.name} (largest {largest(o.golden):.4g})" for o in event.operands[:3] if is_float(o.golden))
    bad = ~np.isfinite(event.actual) & np.isfinite(event.golden)
    return Cause(
        "unexplained_nonfinite",
        f"NaN or Inf first appear in {event.tensor}, made by {event.node} ({event.op}) from finite operands"
        + (f": {words}" if words else ""),
        event.tensor, largest(event.golden), margin(event.golden, event.form), places(bad),
        "keep this tensor in FP32 and look at its operands",
    )  # fmt: skip


def _nonfinite_causes(event: Event) -> Iterator[Cause]:
    form = event.form
    for operand in event.operands:
        if is_float(operand.golden) and (operand.constant or operand.actual is not None):
            yield from _overflow_on_reading(event, operand)
    reach = largest(event.golden)
    beyond = np.abs(event.golden) > _rounds_to_inf(form)
    if bool((beyond & np.isfinite(event.golden)).any()):
        cure = f"keep {event.tensor} in FP32, scale down before {event.node}, or use a format with more range" + (
            " (bf16 reaches 3.39e+38)" if form.name == "fp16" else ""
        )
        yield Cause(
            "overflow",
            f"{event.tensor} overflows: golden reaches {reach:.5g}, {form.name} ends at {form.max:.5g} ({reach / form.max:.3g} times too large)",
            event.tensor, reach, form.max / reach, places(beyond & np.isfinite(event.golden)), cure,
        )  # fmt: skip
    yield from _poles(event)
    yield from _negative(event)
    if event.on_golden is not None and bool(np.isfinite(event.on_golden[np.isfinite(event.golden)]).all()):
        reach_actual = largest(event.actual)
        yield Cause(
            "overflow_of_error",
            f"{event.tensor} stays finite on golden inputs (golden reaches {reach:.4g}); the error that arrives at {event.node} "
            f"({event.op}) makes NaN or Inf of it, the largest finite element is {reach_actual:.4g}",
            event.tensor, reach, margin(event.golden, form), places(~np.isfinite(event.actual) & np.isfinite(event.golden)),
            "cure what comes before it",
        )  # fmt: skip


def _overflow_on_reading(event: Event, operand: Operand) -> Iterator[Cause]:
    """An operand that nothing rounded before: a constant, or an input of the network."""
    form, values = event.form, operand.golden if operand.constant or operand.actual is None else operand.actual
    lost = np.isfinite(values) & ~np.isfinite(rounded(values, form))
    if not lost.any():
        return
    reach = largest(values)
    what = "the constant" if operand.constant else "the tensor"
    value = f"{float(np.asarray(values)[lost].flat[0]):.5g}"
    kind = "constant_overflow" if operand.constant else "operand_overflow"
    yield Cause(
        kind,
        f"{what} {operand.name} holds {value}, which {form.name} (ends at {form.max:.5g}) turns into "
        f"{'-' if float(np.asarray(values)[lost].flat[0]) < 0 else ''}Inf; {event.node} ({event.op}) passes it on to {event.tensor}",
        operand.name, reach, form.max / reach, places(lost),
        f"replace it by a value within {form.name}, such as {math.copysign(form.max, float(np.asarray(values)[lost].flat[0])):.5g} or smaller, "
        f"or keep it and what it flows into in FP32" if operand.constant else f"scale {operand.name} down, or keep it in FP32",
    )  # fmt: skip


def _poles(event: Event) -> Iterator[Cause]:
    """Division by, logarithm or root of what was flushed to zero."""
    operand = critical_operand(event)
    if operand is None or not is_float(operand.golden):
        return
    stored = operand.stored(event.form)
    vanished = (operand.golden != 0) & (stored == 0)
    if not vanished.any():
        return
    form = event.form
    small = np.abs(np.asarray(operand.golden)[vanished])
    what = {"Div": "division by zero", "Log": "log(0) = -Inf", "Pow": "a negative power of zero"}.get(
        event.op, "1/0 = Inf"
    )
    if event.op == "Div" and len(event.operands) == 2 and is_float(event.operands[0].golden):
        numerator = np.broadcast_to(event.operands[0].stored(form), event.actual.shape)
        if bool((np.isnan(event.actual) & (numerator == 0)).any()):
            what = "0/0 = NaN"
    yield Cause(
        "flushed_to_zero",
        f"{operand.name} is flushed to zero: golden is as small as {float(small.min()):.3g}, the smallest number of {form.name} is "
        f"{form.smallest_subnormal:.3g}; {event.node} ({event.op}) makes {what} of it",
        operand.name, largest(operand.golden), margin(operand.golden, form), places(vanished),
        f"keep {operand.name} in FP32, or raise its smallest value (an epsilon above {form.smallest_normal:.2g})",
    )  # fmt: skip


def _negative(event: Event) -> Iterator[Cause]:
    operand = critical_operand(event)
    if operand is None or event.op == "Div" or not is_float(operand.golden):
        return
    stored = operand.stored(event.form)
    crossed = (stored < 0) & (np.asarray(operand.golden) >= 0)
    if crossed.any():
        least = float(stored[crossed].min())
        yield Cause(
            "rounded_below_zero",
            f"{operand.name} falls below zero by rounding ({least:.3g}; golden is at least {float(np.asarray(operand.golden)[crossed].min()):.3g}), "
            f"and {event.node} ({event.op}) makes NaN of it: the difference of two nearly equal numbers",
            operand.name, largest(operand.golden), margin(operand.golden, event.form), places(crossed),
            f"keep {operand.name} and what it is the difference of in FP32, or clamp it at zero",
        )  # fmt: skip


def critical_operand(event: Event) -> Operand | None:
    """The operand whose zeros matter."""
    if event.op == "Div" and len(event.operands) > 1:
        return event.operands[1]
    return event.operands[0] if event.op in POLES and event.operands else None


def describe_effect(op: str, operands: Sequence[Array], actual: Array, golden: Array) -> str:
    """What an operation makes of NaN or Inf that it reads: ``x / Inf = 0``, ``Inf - Inf``... "" when it merely hands them on."""
    floats = [np.asarray(x) for x in operands if is_float(x)]
    infinite = [x for x in floats if np.isinf(x).any()]
    finite_out = bool(np.isfinite(actual).all())
    if finite_out:
        if op == "Div" and len(floats) > 1 and np.isinf(floats[1]).any():
            return "x / Inf = 0: finite but wrong"
        if op in ("Reciprocal", "Rsqrt", "Pow"):
            return "1 / Inf = 0: finite but wrong"
        return "finite from here on"
    new_nan = np.isnan(actual) & ~np.isnan(golden)
    if not new_nan.any() or any(np.isnan(x).any() for x in floats):
        return ""
    if op in ("Softmax", "LogSoftmax"):
        return "a row of -Inf alone has no largest element: NaN" if _row_of(floats, -np.inf) else "Inf / Inf = NaN"
    if op in ADDITIVE or op.startswith("Reduce") or "Norm" in op:
        return "Inf - Inf = NaN"
    if op == "Mul":
        return "0 * Inf = NaN"
    if op == "Div":
        return "Inf / Inf = NaN"
    if op in ("MatMul", "Gemm", "Conv"):
        return "0 * Inf or Inf - Inf in a sum: NaN"
    return "NaN" if infinite else ""


def _row_of(arrays: Sequence[Array], value: float) -> bool:
    return any(x.ndim and bool((x == value).all(axis=-1).any()) for x in arrays)


def spacing(magnitude: float, form: Precision) -> float:
    """Distance of neighbouring numbers of a format at ``magnitude`` (0 gives the smallest subnormal)."""
    if magnitude < form.smallest_normal:
        return form.smallest_subnormal
    return 2.0 ** (math.floor(math.log2(magnitude)) - form.mantissa_bits)


def margin(golden: Array, form: Precision) -> float | None:
    reach = largest(golden)
    return form.max / reach if reach else None


def _rounds_to_inf(form: Precision) -> float:
    """The least magnitude that rounds to Inf is half a spacing above the maximum; what is above this rounds beyond it."""
    return form.max + spacing(form.max, form) / 2 * (1 - 2.0**-20)
