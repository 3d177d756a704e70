"""Compare one named tensor over all inputs: status, sums merged over the inputs, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Protocol, runtime_checkable

from probe.metrics.acceptance import Judgement, beside_blanks, default_acceptance, judge
from probe.metrics.formulas import cosine, metrics_of, range_rel, worst_elements
from probe.metrics.measure import Spec, Workspace, measure, storage_of
from probe.metrics.presets import Rule, default_rule, rule_of
from probe.metrics.sums import Sums
from probe.precision import kind_of
from probe.results.diff import Criterion, InputDiff, Status, TensorDiff, Verdict
from probe.results.tensors import Role, TensorInfo
from probe.store.source import TensorSource

# Judged on every input by itself as well: one loud input must not hide a quiet one. The others are statistics of the whole set.
WORST_CASE = frozenset("range_rel range_rel_item max_abs max_rel cosine ulp_max kl_max max_steps channel_worst".split())

_WORSE: tuple[Verdict, ...] = ("passed", "warned", "not_judged", "failed")


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; the same for every tensor of a diff."""

    acceptance: tuple[Criterion, ...] = ()
    precision: str | None = None
    preset: str | None = None
    worst: int = 5
    tolerances: bool = False
    quantised: bool = False  # Q/DQ model: nothing is judged by default


@dataclass(slots=True)
class Side:
    """One tensor of one source, over the paired inputs. ``rows[k]`` is None where input k has no such tensor."""

    source: TensorSource
    rows: list[TensorInfo | None]
    default_precision: str = ""

    @property
    def first(self) -> TensorInfo:
        return next(row for row in self.rows if row is not None)


@runtime_checkable
class Measures(Protocol):
    """A source that compares its own tensors, where they lie. It is told of all pairs before it is asked for the first."""

    def expect(self, row: TensorInfo, golden: TensorSource, golden_row: TensorInfo, spec: Spec, /) -> None: ...

    def sums(self, row: TensorInfo, golden: TensorSource, golden_row: TensorInfo, spec: Spec, /) -> Sums | None:
        """Of a pair; None where ``measure`` has to make them."""
        ...


@dataclass(slots=True)
class Compared:
    """A TensorDiff in the making, with the sums it came from."""

    diff: TensorDiff
    sums: Sums | None = None
    near: tuple[str, ...] = ()
    criteria: tuple[Criterion, ...] = field(default=())


def compare_tensor(
    actual: Side, golden: Side, labels: Sequence[str], role: Role, options: Options, space: Workspace
) -> Compared:
    """Compare a tensor that both sides know. ``labels`` name the inputs.

    Raises:
        InputError: stored bytes cannot be read or are not those recorded.
    """
    first_a, first_g = actual.first, golden.first
    precision, rule = _rule(actual, golden, options)
    criteria = criteria_for(options, rule if options.preset else None, precision, first_a.dtype, first_g.dtype)
    base = _describe(first_a, first_g, role, precision)
    found: list[tuple[str, Sums, Judgement]] = []
    for label, a, g in zip(labels, actual.rows, golden.rows, strict=True):
        if a is None or g is None:
            lost = _absent(a, g, label, role)
            if lost is not None:
                return Compared(_with(base, *lost), criteria=criteria)
            continue
        obstacle = _obstacle(a, g, label)
        if obstacle is not None:
            status, verdict, reason = obstacle
            if status == "not_run" and len(labels) > 1 and (role != "output" or a.status == g.status):
                continue  # this branch ran for other inputs; an output that one side alone has was not compared
            return Compared(_with(base, status, verdict, reason, shape_a=a.shape, shape_g=g.shape), criteria=criteria)
        sums = _sums(actual.source, a, golden.source, g, _spec(a, label, role, rule, precision, options), space)
        if sums is None:
            return Compared(_with(base, *_by_statistics(a, g)), criteria=criteria)
        mine = [c for c in criteria if c.metric in WORST_CASE] if len(labels) > 1 else criteria
        found.append((label, sums, _judge(sums, mine, first_g, first_a)))
    if not found:
        return Compared(_with(base, "not_run", "passed" if role == "internal" else "not_judged", "ran for no input"))
    return _merged(base, found, criteria, first_a, first_g, options, len(labels) > 1)


def _merged(
    base: TensorDiff,
    found: Sequence[tuple[str, Sums, Judgement]],
    criteria: tuple[Criterion, ...],
    a: TensorInfo,
    g: TensorInfo,
    options: Options,
    several: bool,
) -> Compared:
    total = reduce(Sums.merge, (sums for _, sums, _ in found))
    whole = _judge(total, criteria, g, a)
    failing = tuple(label for label, _, one in found if one.verdict == "failed")
    # "not judged" of one input says only that no worst-case metric was asked for
    verdict = worst_verdict(
        [whole.verdict, *(one.verdict for _, _, one in found if several and one.verdict != "not_judged")]
    )
    reasons = list(whole.reasons)
    verdict, said = beside_blanks(verdict, {label: one for label, _, one in found})
    reasons += said
    worst = max(found, key=lambda one: (one[2].verdict == "failed", one[1].nonfinite_mismatch, range_rel(one[1])))
    if several and worst[2].reasons and worst[2].verdict == verdict != "passed":
        reasons.append(f"input {worst[0]}: {worst[2].reasons[0]}")
    step = _step(a, g)
    return Compared(
        replace(
            base,
            status="compared",
            verdict=verdict,
            metrics=metrics_of(total, step=step, tolerances=options.tolerances),
            worst=worst_elements(total),
            worst_input=worst[0] if several else None,
            failing_inputs=failing if several else (),
            per_input=_per_input(found) if several and base.role == "output" else (),
            inputs=len(found),
            beyond=verdict == "failed",
            reasons=tuple(reasons),
        ),
        total,
        whole.near,
        criteria,
    )


def _per_input(found: Sequence[tuple[str, Sums, Judgement]]) -> tuple[InputDiff, ...]:
    return tuple(
        InputDiff(label, one.verdict, range_rel(s), cosine(s), s.max_abs, s.nonfinite_mismatch)
        for label, s, one in found
    )


def worst_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of several; ``not_judged`` when there are none."""
    return _WORSE[max(map(_WORSE.index, verdicts))] if verdicts else "not_judged"


def criteria_for(
    options: Options, rule: Rule | None, precision: str | None, dtype_a: str, dtype_g: str
) -> tuple[Criterion, ...]:
    if options.acceptance:
        return options.acceptance
    if rule is not None:
        return rule.criteria
    if options.quantised and kind_of(dtype_g) == "float":
        return ()
    return default_acceptance(precision, dtype_a, dtype_g)


def _judge(sums: Sums, criteria: Sequence[Criterion], g: TensorInfo, a: TensorInfo) -> Judgement:
    """Softmax-like outputs add top1 as a warning to the default acceptance; a user's acceptance stands as it is."""
    default = all(c.source == "default" for c in criteria)
    softmax_like = default and sums.kl_rows > 0 and "output" in (g.role, a.role)
    return judge(sums, criteria, output=g.name, step=_step(a, g), softmax_like=softmax_like)


def _step(a: TensorInfo, g: TensorInfo) -> float | None:
    return g.step if g.step is not None else a.step


def expect_tensor(actual: Side, golden: Side, labels: Sequence[str], role: Role, options: Options) -> None:
    """Tell a source that compares its own tensors what ``compare_tensor`` will ask it for."""
    assert isinstance(actual.source, Measures)
    precision, rule = _rule(actual, golden, options)
    for label, a, g in zip(labels, actual.rows, golden.rows, strict=True):
        if a is not None and g is not None and _obstacle(a, g, label) is None and g.status == "recorded":
            actual.source.expect(a, golden.source, g, _spec(a, label, role, rule, precision, options))


def _rule(actual: Side, golden: Side, options: Options) -> tuple[str | None, Rule]:
    """The precision a tensor was stored in, and the element-wise rule."""
    first_a, first_g = actual.first, golden.first
    precision = options.precision or first_a.precision or actual.default_precision or None
    preset = rule_of(options.preset, first_a.dtype, first_g.dtype) if options.preset else None
    return precision, preset or default_rule(first_a.dtype, first_g.dtype)


def _spec(a: TensorInfo, label: str, role: Role, rule: Rule, precision: str | None, options: Options) -> Spec:
    return Spec(
        atol=rule.atol, rtol=rule.rtol, either=rule.combine == "larger", equal_nan=rule.equal_nan, equal_inf=rule.equal_inf,
        storage=storage_of(precision, a.dtype), rows=role == "output", tolerances=options.tolerances, worst=options.worst,
        input_id=label,
    )  # fmt: skip


def _sums(
    source_a: TensorSource, a: TensorInfo, source_g: TensorSource, g: TensorInfo, spec: Spec, space: Workspace
) -> Sums | None:
    if "stats_only" in (a.status, g.status):
        same = a.sha256 is not None and a.sha256 == g.sha256 and a.dtype == g.dtype and not (g.nan or 0)
        return _identical(g) if same else None
    if isinstance(source_a, Measures):
        found = source_a.sums(a, source_g, g, spec)
        if found is not None:
            return found
    reader_a, reader_g = source_a.open(a), source_g.open(g)
    sums = measure(reader_a, reader_g, spec, space)
    reader_a.close()
    reader_g.close()
    return sums


def _identical(g: TensorInfo) -> Sums:
    """Sums of a tensor whose bytes are known to be equal on both sides, from its row."""
    sums = Sums(count=g.count, compared=g.count - (g.inf or 0), range=g.absmax_finite or 0.0)
    sums.inf_actual = sums.inf_golden = g.inf or 0
    if g.min is not None and g.max is not None:
        sums.golden_min = sums.actual_min = g.min
        sums.golden_max = sums.actual_max = g.max
    sums.errors.counts[0] = sums.compared
    return sums


def _by_statistics(a: TensorInfo, g: TensorInfo) -> tuple[Status, Verdict, str]:
    if (a.nan, a.inf) != (g.nan, g.inf):
        return "stats_only", "failed", f"actual has {a.nan} NaN and {a.inf} Inf, golden {g.nan} and {g.inf}"
    return "stats_only", "not_judged", "recorded with --stats-only and not identical: record it again with --select"


def _absent(a: TensorInfo | None, g: TensorInfo | None, label: str, role: Role) -> tuple[Status, Verdict, str] | None:
    if a is None and g is None:
        return None
    if role != "output":
        return None  # interior tensors may be recorded for some inputs only
    side = "actual" if a is None else "golden"
    return ("missing" if a is None else "extra"), "failed", f"input {label}: not in {side}"


def _obstacle(a: TensorInfo, g: TensorInfo, label: str) -> tuple[Status, Verdict, str] | None:
    """Why two rows cannot be compared element by element; None when they can."""
    if "not_run" in (a.status, g.status):
        both = a.status == g.status
        reason = g.note or a.note if both else f"ran in {'golden' if a.status == 'not_run' else 'actual'} only"
        return "not_run", "passed" if both and g.role == "internal" else "not_judged", reason
    if "unsupported" in (a.status, g.status):
        return "unsupported", "not_judged", a.note or g.note
    if kind_of(a.dtype) != kind_of(g.dtype):
        return "kind_mismatch", "failed", f"actual is {a.dtype}, golden {g.dtype}"
    if a.shape != g.shape:
        return "shape_mismatch", "failed", f"input {label}: actual is {list(a.shape)}, golden {list(g.shape)}"
    return None


def _describe(a: TensorInfo, g: TensorInfo, role: Role, precision: str | None) -> TensorDiff:
    return TensorDiff(
        name=g.name, actual_name=a.name, status="compared", role=role, verdict="not_judged",
        dtype_actual=a.dtype, dtype_golden=g.dtype, shape=g.shape, shape_actual=a.shape, precision=precision,
        layer=a.layer or g.layer, nodes=g.nodes or a.nodes, reads=g.reads or a.reads, tactic=a.tactic,
    )  # fmt: skip


def _with(
    base: TensorDiff,
    status: Status,
    verdict: Verdict,
    reason: str,
    shape_a: tuple[int, ...] | None = None,
    shape_g: tuple[int, ...] | None = None,
) -> TensorDiff:
    return replace(
        base, status=status, verdict=verdict, reasons=(reason,) if reason else (), beyond=verdict == "failed",
        shape=base.shape if shape_g is None else shape_g, shape_actual=base.shape_actual if shape_a is None else shape_a,
    )  # fmt: skip
