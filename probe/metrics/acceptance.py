"""What is good enough: the default acceptance of each precision, ``--accept`` expressions, and the judgement of one output."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from probe.errors import InputError
from probe.metrics.formulas import BY_NAME, cosine, range_rel_item
from probe.metrics.sums import Sums
from probe.precision import kind_of, precision_of
from probe.results.diff import Criterion, Verdict
from probe.results.numbers import beside

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq,
}  # fmt: skip

_NAMES: dict[str, Callable[[Sums], float | None]] = {
    **{name: metric.value for name, metric in BY_NAME.items()},
    # other tools' names for the same, and trtexec's own forms
    "sqnr": BY_NAME["sqnr_db"].value,
    "psnr": BY_NAME["psnr_db"].value,
    "mismatch": BY_NAME["mismatch_fraction"].value,
    "l0": BY_NAME["mismatch_fraction"].value,
    "l1": BY_NAME["mean_abs"].value,
    "l2": lambda s: s.squared_error / s.compared if s.compared else 0.0,
    "linf": BY_NAME["max_abs"].value,
    "cos": lambda s: 1 - cosine(s),
}

_EXPRESSION = re.compile(r"\s*([A-Za-z_0-9]+)\s*(<=|>=|==|<|>)\s*(\S+)\s*")

# metric, operator, fail threshold, warn threshold
_RANGE_AND_COSINE = {"fp16": (0.05, 0.01), "tf32": (0.05, 0.01), "bf16": (0.05, 0.03)}


def parse_criterion(text: str) -> Criterion:
    """``"range_rel<=0.01"`` for every output, ``"range_rel<=0.01 @ OUTPUT"`` for one.

    The first " @ " separates: an expression has none, an output's name may.

    Raises:
        InputError: not of that form, an unknown metric, or a threshold that is no number.
    """
    expression, at, output = text.partition(" @ ")
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise InputError(f"cannot read the acceptance {text!r}", hint="write METRIC<=NUMBER, for example cosine>=0.999")
    name, op, number = match.groups()
    name = name.lower()
    _check_metric(name, text)
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if math.isnan(threshold):
        raise InputError(f"the threshold {number!r} in the acceptance {text!r} is not a number")
    return Criterion(name, cast(Any, op), threshold, output if at else None, "fail", "user")


def check_criterion(one: Criterion) -> Criterion:
    """A criterion that was not parsed but made, as it is.

    Raises:
        InputError: it could not have been parsed.
    """
    fields = (one.metric, one.threshold, one.output) if isinstance(one, Criterion) else (None, None, None)
    if not all(map(isinstance, fields, (str, (int, float), (str, type(None))))):
        raise InputError(
            f"cannot read the acceptance {one!r}", hint='such as Criterion("cosine", ">=", 0.999, "logits")'
        )
    _check_metric(one.metric, str(one))
    if one.op not in OPERATORS or one.level not in ("fail", "warn") or math.isnan(one.threshold):
        raise InputError(
            f"cannot read the acceptance {one!r}",
            hint=f"operators: {' '.join(OPERATORS)}; levels: fail, warn; a number",
        )
    return one


def _check_metric(name: str, text: str) -> None:
    if name != "max_steps" and name not in _NAMES:
        near = difflib.get_close_matches(name, _NAMES, n=3)
        raise InputError(
            f"unknown metric {name!r} in the acceptance {text!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"metrics: {', '.join(BY_NAME)}",
        )


def default_acceptance(precision: str | None, dtype_actual: str, dtype_golden: str) -> tuple[Criterion, ...]:
    """The bounds used when the user gives none; empty when there are none for these types (the output is then not judged).

    Integers, bools and text must be equal. Floats go by the coarser of the run's precision and both stored types: fp32 fails over
    range_rel 1e-3; fp16 and tf32 warn over 0.01 and fail over 0.05 or under cosine 0.995; bf16 warns over 0.03.
    """
    if kind_of(dtype_golden) in ("int", "bool", "string") or kind_of(dtype_actual) in ("int", "bool", "string"):
        return (Criterion("max_abs", "<=", 0.0),)
    known = [precision, precision_of(dtype_actual), precision_of(dtype_golden)]
    if any(p is None for p in known[1:]):
        return ()  # float8, complex: no default says what is good
    coarsest = max((p for p in known if p), key=_coarseness)
    if coarsest in ("fp32", "fp64"):
        return (Criterion("range_rel", "<=", 1e-3),)
    if coarsest not in _RANGE_AND_COSINE:
        return ()
    fail, warn = _RANGE_AND_COSINE[coarsest]
    return (
        Criterion("range_rel", "<=", fail),
        Criterion("cosine", ">=", 0.995),
        Criterion("range_rel", "<=", warn, level="warn"),
    )


def _coarseness(precision: str) -> int:
    order = ("fp64", "fp32", "tf32", "fp16", "bf16")
    return order.index(precision) if precision in order else len(order)


BLANK = "golden is NaN or Inf in every element, which says nothing"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdict of one output with the reasons in words.

    Attributes:
        near: criteria passed or failed by less than a factor of two.
        blank: golden has neither numbers nor masks: not judged for that.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    near: tuple[str, ...] = ()
    blank: bool = False


def judge(
    sums: Sums,
    criteria: Sequence[Criterion],
    *,
    output: str,
    step: float | None = None,
    softmax_like: bool = False,
) -> Judgement:
    """Judge one compared output. Classes come first: a NaN or Inf that golden lacks fails whatever the numbers say.

    A criterion on a metric that is not defined here leaves the output not judged; no criterion at all does so too, unless both
    tensors are identical. So does a golden without a number or a mask, whose NaN say nothing of how good actual is, unless a preset
    says what they are worth.
    """
    failures: list[str] = []
    warnings: list[str] = []
    unjudged: list[str] = []
    near: list[str] = []
    if sums.nonfinite_mismatch:
        failures.append(_nonfinite(sums))
    if sums.sentinel_mismatch:
        failures.append(f"{sums.sentinel_mismatch} of {sums.sentinels} masked elements are no masks in actual")
    mine = [c for c in criteria if c.output in (None, output)]
    blank = sums.compared == 0 and sums.sentinels < sums.count and not any(c.source.startswith("preset") for c in mine)
    if blank and not failures:
        return Judgement("not_judged", (BLANK,), blank=True)
    for criterion in mine:
        value = value_of(criterion.metric, sums, step)
        if value is None:
            unjudged.append(f"{criterion.metric} is not defined for this tensor")
        elif not OPERATORS[criterion.op](value, criterion.threshold):
            (failures if criterion.level == "fail" else warnings).append(_broken(criterion, value))
        if value is not None and criterion.level == "fail" and _within_factor_2(criterion, value):
            left, right = beside(value, criterion.threshold)
            near.append(f"{criterion.metric} {left}, threshold {right}")
    if not failures:
        warnings.extend(_quiet_items(sums, mine))
        if softmax_like and sums.rows and sums.top1 < sums.rows:
            warnings.append(f"top1 {sums.top1 / sums.rows:.4g}: {sums.rows - sums.top1} of {sums.rows} answers change")
    if not mine and not failures:
        identical = sums.max_abs == 0 and sums.mismatched == 0
        return Judgement("passed", ("identical",)) if identical else Judgement("not_judged", ("no acceptance applies",))
    verdict: Verdict = "failed" if failures else "not_judged" if unjudged else "warned" if warnings else "passed"
    return Judgement(verdict, tuple(failures or unjudged + warnings), tuple(near))


def beside_blanks(verdict: Verdict, each: Mapping[str, Judgement]) -> tuple[Verdict, list[str]]:
    """The verdict over several inputs, by name, for some of which golden has no numbers: at best warned; and why."""
    blank = [key for key, one in each.items() if one.blank]
    if not blank or verdict not in ("passed", "warned"):
        return verdict, []
    return "warned", [f"input {blank[0]}: {BLANK}"]


def used_metrics(criteria: Sequence[Criterion]) -> set[str]:
    """Names of the metrics that criteria speak of."""
    return {criterion.metric for criterion in criteria}


def check_outputs(criteria: Sequence[Criterion], outputs: Mapping[str, object] | Sequence[str]) -> None:
    """A criterion for an output that does not exist would never be applied.

    Raises:
        InputError: naming the criterion and the nearest output names.
    """
    for criterion in criteria:
        if criterion.output is not None and criterion.output not in outputs:
            near = difflib.get_close_matches(criterion.output, list(outputs), n=3)
            raise InputError(
                f"the acceptance {str(criterion)!r} names no output",
                hint=f"outputs: {', '.join(near or list(outputs)[:5])}",
            )


def value_of(metric: str, sums: Sums, step: float | None) -> float | None:
    if metric == "max_steps":
        return sums.max_abs / step if step else None
    return _NAMES[metric](sums)


def _broken(criterion: Criterion, value: float) -> str:
    opposite = {"<=": ">", ">=": "<", "<": ">=", ">": "<=", "==": "is not"}[criterion.op]
    left, right = beside(value, criterion.threshold)
    return f"{criterion.metric} {left} {opposite} {right}"


def _quiet_items(sums: Sums, criteria: Sequence[Criterion]) -> list[str]:
    """range_rel may pass because one item of the batch is loud; the worst item's own value must stay under the same threshold."""
    worst = range_rel_item(sums)
    limits = [c.threshold for c in criteria if c.metric == "range_rel" and c.op in ("<=", "<") and c.level == "fail"]
    if worst is None or not limits or worst <= min(limits):
        return []
    left, right = beside(worst, min(limits))
    return [f"range_rel of batch item {sums.item} is {left} > {right} by its own range"]


def _within_factor_2(criterion: Criterion, value: float) -> bool:
    """Whether the margin is less than a factor of two, measured as error: for cosine, 1 - cosine."""
    threshold = criterion.threshold
    if criterion.metric == "cosine":
        value, threshold = 1 - value, 1 - threshold
    return 0 < threshold < math.inf and threshold / 2 < value < threshold * 2


def _nonfinite(sums: Sums) -> str:
    actual = " and ".join(
        f"{count} {word}" for count, word in ((sums.nan_actual, "NaN"), (sums.inf_actual, "Inf")) if count
    )
    golden = " and ".join(
        f"{count} {word}" for count, word in ((sums.nan_golden, "NaN"), (sums.inf_golden, "Inf")) if count
    )
    return f"{sums.nonfinite_mismatch} elements differ in NaN or Inf: actual has {actual or 'none'}, golden {golden or 'none'}"
