"""``Judge``: graph outputs in, verdict and margin out, as ``probe.compare.diff`` judges, for thousands of evaluations of one golden."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.compare.diff import resolved
from probe.compare.pair import WORST_CASE, Options, criteria_for, worst_verdict
from probe.culprits.check_program import Check, Checker, checker
from probe.culprits.expected import Arrays, Expected, check_criteria, check_numbers, expected_of
from probe.culprits.margins import Values, aggregate_of
from probe.metrics.acceptance import (
    BLANK,
    OPERATORS,
    Judgement,
    beside_blanks,
    check_outputs,
    judge,
    used_metrics,
    value_of,
)
from probe.metrics.formulas import range_rel
from probe.metrics.measure import Spec, Workspace, measure, storage_of
from probe.metrics.plain import Parts, parts_of
from probe.metrics.presets import default_rule, rule_of
from probe.metrics.sums import Sums
from probe.precision import Kind, dtype_name, kind_of
from probe.results.diff import Criterion, Verdict
from probe.results.numbers import beside
from probe.store.feeds import InputSet, hash_feeds
from probe.store.numpy_files import ArrayReader

if TYPE_CHECKING:
    from probe.store.source import TensorSource

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the outputs of all inputs are worth.

    Attributes:
        verdict: as ``diff`` gives it; also ``not_judged`` where nothing failed and an input was not run.
        passed: passed or warned.
        margin: how far inside the acceptance, the least over outputs and criteria (``margins.margin_of``): 0 at the limit, negative
            beyond; -Inf for NaN, Inf or masks that golden has not, and where something did not run or was not there to compare; NaN
            where nothing says how far.
        reasons: of the outputs with this verdict, before them why something did not run.
        metrics: output -> metric of its acceptance -> the value that decides: of all inputs together, or of the worst one.
        failing_inputs: that fail by themselves, in order.
        worst: range_rel of the worst output and input, Inf where NaN or Inf differ; None where something could not be compared.
    """

    verdict: Verdict
    passed: bool
    margin: float
    reasons: tuple[str, ...] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    failing_inputs: tuple[str, ...] = ()
    worst: float | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """The outputs of one input beside their golden: sums by name, or why there are none."""

    sums: Mapping[str, Sums]
    dtypes: Mapping[str, str]
    obstacles: Mapping[str, tuple[Verdict, str]]
    outputs: Outputs | None = None  # for a check


@dataclass(frozen=True, slots=True)
class _Output:
    """One output over all inputs. ``broken``: classes differ, or there was nothing to compare; no number can save it."""

    name: str
    verdict: Verdict
    reasons: tuple[str, ...]
    margin: float = -math.inf
    values: Mapping[str, float] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()
    worst: float | None = None
    broken: bool = True


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an output of a type is judged, and what must be measured for that. ``parts`` None: everything."""

    criteria: tuple[Criterion, ...]
    spec: Spec
    parts: Parts | None
    default: bool


class Judge:
    """Judges evaluations against one golden, whose outputs it reads into memory once.

    Args:
        golden: a recording, or arrays by input id and output name.
        outputs: names of the graph outputs; needed where the recording does not say which of its tensors they are.
        inputs: those that are judged, in order: sets, or ids. All of the golden's by default. Sets are found by their content in a golden
            that calls them otherwise, and are what a check program is shown.
        acceptance, preset: as for ``diff_sources``; the default of ``precision`` without them.
        precision: of the evaluations: chooses the default acceptance, and the type ULPs are counted in.
        over: how the values of several inputs are joined. ``worst``: each input is judged, and the sums of all together. ``mean``,
            ``quantile:Q``: the mean of a criterion's values, or what the best share Q of them stays within; NaN, Inf or masks that golden
            lacks fail all the same, and so does an input that does not run.
        check: judges in place of the default acceptance, and beside one that is given; asked where nothing has failed before. NaN and Inf
            that golden lacks fail before it is asked: comparisons with NaN are false, and a program of one line would accept it.

    Raises:
        InputError: golden lacks an input, holds no output or no values; an acceptance, preset, aggregate or check that cannot be used.
    """

    def __init__(
        self,
        golden: TensorSource | Arrays,
        outputs: Sequence[str] = (),
        inputs: Sequence[InputSet | str] = (),
        *,
        acceptance: Sequence[Criterion] = (),
        precision: str | None = None,
        preset: str | None = None,
        over: str = "worst",
        check: Check | None = None,
    ) -> None:
        self._aggregate = aggregate_of(over)
        self._expected: Expected = expected_of(golden, outputs, inputs)
        self.ids = self._expected.ids
        check_outputs(acceptance, self._expected.names)
        self._options = Options(tuple(acceptance), precision, preset, quantised=self._expected.quantised)
        self._explicit = bool(acceptance or preset)
        self._rules: dict[tuple[str, str], _Rule] = {}
        self._space = Workspace()
        self._check: Checker | None = None
        if check is not None:
            self._check = checker(check, [one for one in inputs if isinstance(one, InputSet)])

    @property
    def golden_sha256(self) -> str:
        """Of all that is judged against: what tells one recording from another."""
        return hash_feeds(
            {
                f"{key}/{name}": golden.reference.array
                for key, named in self._expected.tensors.items()
                for name, golden in named.items()
                if golden.reference is not None
            }
        )

    def __call__(self, outputs: Mapping[str, Outputs], failures: Mapping[str, str] | None = None) -> Judged:
        """Judge one evaluation.

        Args:
            outputs: input id -> output -> array.
            failures: input id -> why it did not run.

        Raises:
            InputError: the check failed to say yes or no.
        """
        return self.decide({key: self.look(key, arrays) for key, arrays in outputs.items()}, failures)

    @property
    def acceptance(self) -> tuple[Criterion, ...]:
        """The criteria applied so far, as ``diff`` gives them; none where a check judges in place of the default."""
        if self._check is not None and not self._explicit:
            return ()
        used = [(name, one) for (name, _), rule in self._rules.items() for one in rule.criteria]
        return resolved(used, self._options.acceptance)

    def require_criteria(self) -> None:
        """Refuse to search for identical outputs because nothing says what is good enough, or where no set could ever pass.

        Raises:
            InputError: neither a criterion nor a check is of an output, or golden has no number in one.
        """
        if self._check is None and self._options.preset is None:
            expected, options = self._expected, self._options
            check_criteria(expected, lambda dtype: criteria_for(options, None, options.precision, dtype, dtype))
            check_numbers(expected, self._blank)

    def _blank(self, name: str, golden: Array, input_id: str) -> bool:
        sums = self._sums(golden, name, dtype := dtype_name(golden.dtype), input_id)
        return judge(sums, self._rule(name, dtype).criteria, output=name).blank

    # --- one input

    def look(self, input_id: str, outputs: Outputs) -> Looked:
        """Measure the outputs of one input. Their arrays are let go, unless there is a check."""
        wanted = self._expected.tensors[input_id]
        sums: dict[str, Sums] = {}
        dtypes: dict[str, str] = {}
        obstacles: dict[str, tuple[Verdict, str]] = {}
        for name, array in outputs.items():
            if name in self._expected.fed:
                continue
            actual = np.asarray(array)
            dtype, kind = _type(actual.dtype)
            dtypes[name] = dtype
            golden = wanted.get(name)
            if golden is None:
                continue
            if golden.reference is None:
                obstacles[name] = ("not_judged", golden.note)
            elif kind != golden.kind:
                obstacles[name] = ("failed", f"actual is {dtype}, golden {golden.dtype}")
            elif actual.shape != golden.shape:
                shapes = f"actual is {list(actual.shape)}, golden {list(golden.shape)}"
                obstacles[name] = ("failed", f"input {input_id}: {shapes}")
            else:
                sums[name] = self._sums(actual, name, dtype, input_id)
        return Looked(sums, dtypes, obstacles, outputs if self._check is not None else None)

    def _sums(self, actual: Array, name: str, dtype: str, input_id: str) -> Sums:
        reference = self._expected.tensors[input_id][name].reference
        assert reference is not None
        rule = self._rule(name, dtype)
        if rule.parts is not None and (plain := reference.plain(actual.dtype)) is not None:
            parts = rule.parts | {"rows"} if rule.default and plain.probabilities else rule.parts
            found = plain.sums(actual, parts, rule.spec)
            if found is not None:
                return found
        return measure(ArrayReader(actual), ArrayReader(reference.array), rule.spec, self._space)

    def _rule(self, name: str, dtype: str) -> _Rule:
        key = (name, dtype)
        if key not in self._rules:
            golden, options = self._expected.first[name].dtype, self._options
            tolerances = rule_of(options.preset, dtype, golden) if options.preset else None
            criteria = criteria_for(options, tolerances, options.precision, dtype, golden)
            tolerances = tolerances or default_rule(dtype, golden)
            spec = Spec(
                atol=tolerances.atol, rtol=tolerances.rtol, either=tolerances.combine == "larger", equal_nan=tolerances.equal_nan,
                equal_inf=tolerances.equal_inf, storage=storage_of(options.precision, dtype), rows=True, worst=1,
            )  # fmt: skip
            mine = tuple(c for c in criteria if c.output in (None, name))
            metrics = used_metrics(mine)
            if "range_rel" in metrics:
                metrics.add("range_rel_item")  # the worst item of a batch makes a warning
            self._rules[key] = _Rule(mine, spec, parts_of(metrics), all(c.source == "default" for c in criteria))
        return self._rules[key]

    def _judge(self, name: str, sums: Sums, rule: _Rule, criteria: Sequence[Criterion]) -> Judgement:
        if not rule.criteria and self._check is not None and not _broken(sums):
            return Judgement("passed", ())  # the check alone speaks of it
        return judge(sums, criteria, output=name, step=self._step(name), softmax_like=rule.default and sums.kl_rows > 0)

    def _step(self, name: str) -> float | None:
        return self._expected.first[name].step

    def _by_input(self, rule: _Rule, *, several: bool) -> Sequence[Criterion]:
        """What one input is judged by: of several, worst-case metrics alone, unless it is their values that are joined."""
        if not several or self._aggregate is not None:
            return rule.criteria
        return [c for c in rule.criteria if c.metric in WORST_CASE]

    def fails_alone(self, looked: Looked) -> bool:
        """Whether this input by itself fails the whole evaluation, whatever the others do."""
        if any(verdict == "failed" for verdict, _ in looked.obstacles.values()):
            return True
        for name, sums in looked.sums.items():
            if _broken(sums):
                return True
            if self._aggregate is not None or (self._check is not None and not self._explicit):
                continue
            rule = self._rule(name, looked.dtypes[name])
            if self._judge(name, sums, rule, self._by_input(rule, several=len(self.ids) > 1)).verdict == "failed":
                return True
        return False

    # --- all inputs

    def decide(self, looked: Mapping[str, Looked], failures: Mapping[str, str] | None = None) -> Judged:
        """Judge an evaluation by what was looked at.

        Raises:
            InputError: as the call.
        """
        ran = {key: looked[key] for key in self.ids if key in looked}
        found = [self._output(name, ran) for name in self._expected.names if ran]
        extras = dict.fromkeys(name for one in ran.values() for name in one.dtypes if name not in self._expected.known)
        found += [_Output(name, "failed", ("not in golden",)) for name in extras]
        judged = _joined(found, self.ids)
        if failures:
            return self._with_failures(judged, failures)
        missing = len(self.ids) - len(ran)
        if missing:
            reason = f"{missing} of {len(self.ids)} inputs were not run"
            return judged if judged.verdict == "failed" else _unjudged(judged, reason)
        if self._check is None or any(one.broken for one in found) or (self._explicit and judged.verdict == "failed"):
            return judged
        return self._checked(judged, {key: one.outputs or {} for key, one in ran.items()})

    def _with_failures(self, judged: Judged, failures: Mapping[str, str]) -> Judged:
        several = len(self.ids) > 1
        said = [f"it does not run: {failures[key]}" + (f" (input {key})" if several else "") for key in failures]
        failing = tuple(key for key in self.ids if key in failures or key in judged.failing_inputs)
        return replace(
            judged, verdict="failed", passed=False, margin=-math.inf, reasons=(*said, *judged.reasons), failing_inputs=failing, worst=None
        )  # fmt: skip

    def _checked(self, judged: Judged, outputs: Mapping[str, Outputs]) -> Judged:
        assert self._check is not None
        answer = self._check(outputs)
        margin = answer.margin
        if not answer.accepted:
            reason = "the check rejects it" + (f": {answer.said}" if answer.said else "")
            only = self.ids if len(self.ids) == 1 else ()
            return replace(
                judged, verdict="failed", passed=False, margin=margin, reasons=(reason,), failing_inputs=only
            )
        if not self._explicit:
            return replace(judged, verdict="passed", passed=True, margin=margin, reasons=(), failing_inputs=())
        return judged if math.isnan(margin) else replace(judged, margin=min(judged.margin, margin))

    def _output(self, name: str, ran: Mapping[str, Looked]) -> _Output:
        if not any(name in one.dtypes for one in ran.values()):
            return _Output(name, "failed", ("not in actual",), failing=frozenset(ran))
        found: dict[str, Sums] = {}
        for key, one in ran.items():
            expected = name in self._expected.tensors[key]
            if expected != (name in one.dtypes):
                side = "actual" if expected else "golden"
                return _Output(name, "failed", (f"input {key}: not in {side}",), failing=frozenset({key}))
            if name in one.obstacles:
                verdict, reason = one.obstacles[name]
                failed = verdict == "failed"
                failing = frozenset({key}) if failed else frozenset()
                margin = -math.inf if failed else math.nan
                return _Output(name, verdict, (reason,) if reason else (), margin, failing=failing, broken=failed)
            if expected:
                found[key] = one.sums[name]
        rule = self._rule(name, next(one.dtypes[name] for one in ran.values() if name in one.dtypes))
        return (
            self._mean_or_quantile(name, found, rule) if self._aggregate is not None else self._worst(name, found, rule)
        )

    def _worst(self, name: str, found: Mapping[str, Sums], rule: _Rule) -> _Output:
        """Each input by itself, and the sums of all: as ``probe.compare.pair`` does."""
        several = len(found) > 1
        total = reduce(Sums.merge, found.values())
        whole = self._judge(name, total, rule, rule.criteria)
        mine = self._by_input(rule, several=several)
        each = {key: self._judge(name, sums, rule, mine) for key, sums in found.items()} if several else {"": whole}
        # "Not judged" of one input says only that no worst-case metric was asked for.
        alone: list[Verdict] = [one.verdict for one in each.values() if several and one.verdict != "not_judged"]
        verdict = worst_verdict([whole.verdict, *alone])
        reasons = list(whole.reasons)
        if several:
            worst = max(
                found, key=lambda k: (each[k].verdict == "failed", found[k].nonfinite_mismatch, range_rel(found[k]))
            )
            if each[worst].reasons and each[worst].verdict == verdict != "passed":
                reasons.append(f"input {worst}: {each[worst].reasons[0]}")
            failing = frozenset(key for key, one in each.items() if one.verdict == "failed")
            verdict, said = beside_blanks(verdict, each)
            reasons += said
        else:
            failing = frozenset(found) if verdict == "failed" else frozenset()
        values = Values()
        for criterion in rule.criteria:
            for one in [total, *(found.values() if several and criterion in mine else ())]:
                values.add(criterion, value_of(criterion.metric, one, self._step(name)))
        return self._summed(name, verdict, tuple(reasons), values, failing, found)

    def _mean_or_quantile(self, name: str, found: Mapping[str, Sums], rule: _Rule) -> _Output:
        """The values of each criterion joined to one; what cannot be joined, classes, fails by itself, and an input whose golden has no number
        has no value to join.
        """
        assert self._aggregate is not None
        each = {key: self._judge(name, sums, rule, rule.criteria) for key, sums in found.items()}
        failing = frozenset(key for key, one in each.items() if one.verdict == "failed")
        failures = [f"input {key}: {each[key].reasons[0]}" for key in found if _broken(found[key])]
        warnings: list[str] = []
        unjudged: list[str] = []
        values = Values()
        joined = [sums for key, sums in found.items() if not each[key].blank] or list(found.values())
        for criterion in rule.criteria:
            known = [v for one in joined if (v := value_of(criterion.metric, one, self._step(name))) is not None]
            if len(known) < len(joined):
                unjudged.append(f"{criterion.metric} is not defined for this tensor")
                continue
            value = self._aggregate.of(criterion, known)
            values.add(criterion, value)
            if not OPERATORS[criterion.op](value, criterion.threshold):
                left, right = beside(value, criterion.threshold)
                said = f"{self._aggregate.name} {criterion.metric} is {left}, not {criterion.op} {right}"
                (failures if criterion.level == "fail" else warnings).append(said)
        if (
            not rule.criteria
            and self._check is None
            and not failures
            and any(one.verdict != "passed" for one in each.values())
        ):
            unjudged.append("no acceptance applies")
        if all(one.blank for one in each.values()):
            unjudged.append(BLANK)
        verdict: Verdict = "failed" if failures else "not_judged" if unjudged else "warned" if warnings else "passed"
        verdict, said = beside_blanks(verdict, each)
        return self._summed(name, verdict, tuple(failures or [*unjudged, *warnings, *said]), values, failing, found)

    def _summed(
        self, name: str, verdict: Verdict, reasons: tuple[str, ...], values: Values, failing: frozenset[str],
        found: Mapping[str, Sums],
    ) -> _Output:  # fmt: skip
        broken = any(map(_broken, found.values()))
        margin = values.margin if values.margin is not None else math.inf if verdict == "passed" else math.nan
        margin = -math.inf if broken else math.nan if verdict == "not_judged" else margin
        worst = max(math.inf if sums.nonfinite_mismatch else range_rel(sums) for sums in found.values())
        return _Output(name, verdict, reasons, margin, values.deciding, failing, worst, broken)


@cache
def _type(dtype: np.dtype[Any]) -> tuple[str, Kind]:
    name = dtype_name(dtype)
    return name, kind_of(name)


def _broken(sums: Sums) -> bool:
    return bool(sums.nonfinite_mismatch or sums.sentinel_mismatch)


def _joined(found: Sequence[_Output], ids: Sequence[str]) -> Judged:
    verdict = worst_verdict([one.verdict for one in found])
    reasons = [f"{one.name}: {said}" for one in found if one.verdict == verdict != "passed" for said in one.reasons]
    margins = [one.margin for one in found if verdict != "failed" or not math.isnan(one.margin)]
    worsts = [one.worst for one in found]
    return Judged(
        verdict,
        passed=verdict in ("passed", "warned"),
        margin=math.nan if verdict == "not_judged" else min(margins, default=math.nan),
        reasons=tuple(reasons),
        metrics={one.name: one.values for one in found if one.values},
        failing_inputs=tuple(key for key in ids if any(key in one.failing for one in found)),
        worst=max((w for w in worsts if w is not None), default=None) if None not in worsts else None,
    )


def _unjudged(judged: Judged, reason: str) -> Judged:
    return replace(judged, verdict="not_judged", passed=False, margin=math.nan, reasons=(reason, *judged.reasons))
