"""Following one change downstream: what becomes of a rounded tensor when all else stays FP32, operator by operator, as far as it is cheap."""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from probe.debug.causes import describe_effect
from probe.debug.check.look import Look, error_of
from probe.debug.check.sites import Site
from probe.precision import Precision

Array = np.ndarray[Any, Any]

FAILS = 0.05  # range_rel beyond which outputs fail by default
_NODES = 160  # computed again for one change at most
_WORK = 1.5e8  # multiplications and elements computed for one change at most: a quarter of a second
_BEYOND_DOUBT = 1e-3  # range_rel that no order of FP32 sums explains
_SAMPLED = 4096
_ALL_WORK = 3e8  # for all changes of a check
_ARISES = {
    "Div": "division by zero:",
    "Reciprocal": "division by zero:",
    "Log": "of zero or less:",
    "Sqrt": "of less than zero:",
}
_PRODUCTS = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention", "LSTM", "GRU", "RNN"))


@dataclass(slots=True)
class Fate:
    """What became of a change.

    Attributes:
        effects: where it turned into something else, in words, in execution order.
        ended: nodes whose results are as they should be, so that it went no further there.
        outputs: graph outputs it reached -> error there (max|error| / range; Inf: NaN or Inf).
        stopped: node it was not followed through -> why.
        open_error: the worst error among tensors that were not followed further.
        computed: nodes that were computed again.
    """

    effects: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    outputs: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    open_error: float = 0.0
    computed: int = 0

    @property
    def worst_output(self) -> str | None:
        return max(self.outputs, key=lambda name: self.outputs[name], default=None)

    @property
    def breaks(self) -> bool:
        """Whether an output is wrong, or what was not followed to its end still was."""
        return max(self.outputs.values(), default=0.0) > FAILS or (bool(self.stopped) and self.open_error > FAILS)

    def words(self) -> str:
        """A clause or two."""
        said = list(self.effects[:3])
        worst = self.worst_output
        if worst is not None:
            off = self.outputs[worst]
            amount = "NaN or Inf there" if math.isinf(off) else f"off by {off:.2g} of its range there"
            judged = "" if off > FAILS else ", which is within what is accepted by default"
            said.append(f"with all else in FP32 it reaches the output {worst}: {amount}{judged}")
        if self.stopped and (worst is None or self.outputs[worst] <= FAILS):
            where, why = next(iter(self.stopped.items()))
            off = "NaN or Inf" if math.isinf(self.open_error) else f"off by up to {self.open_error:.2g} of the range"
            said.append(f"followed as far as {where} ({why}): {off} there")
        elif worst is None and self.ended:
            more = f" and {len(self.ended) - 2} more" if len(self.ended) > 2 else ""
            said.append(f"it ends in {', '.join(self.ended[:2])}{more}: the results there are right")
        return "; ".join(said)


@dataclass(slots=True)
class Budget:
    """What is left to compute, in multiplications; for the whole check. The first changes get it: they are the first in execution order."""

    left: float = _ALL_WORK


def follow(look: Look, changed: Mapping[Hashable, Array], budget: Budget | None = None) -> Fate:
    """What becomes of tensors that hold ``changed`` instead of their golden values, nothing else rounded.

    Elements count as changed as long as they differ by more than four roundings of the format from what the same computation makes of
    golden operands. Bodies of Loop and Scan are not entered, and what leaves the body of an If is not
    followed.
    """
    return _Following(look, dict(changed), budget or Budget()).run()


class _Following:
    def __init__(self, look: Look, changed: dict[Hashable, Array], budget: Budget) -> None:
        self.look, self.values, self.fate = look, changed, Fate()
        self.carriers: set[Hashable] = set()  # what holds NaN or Inf that the golden lacks, or stems from it
        self.queue: list[tuple[int, Site]] = []
        self.queued: set[int] = set()
        self.work, self.budget = 0.0, budget

    def run(self) -> Fate:
        for key in list(self.values):
            self._spread(key)
        while self.queue:
            _, site = heapq.heappop(self.queue)
            work = self._work(site)
            if self.fate.computed >= _NODES or self.work + work > min(_WORK, self.budget.left):
                self._stop(site, "far enough")
                continue
            self.work += work
            self._compute(site)
        self.budget.left -= self.work
        return self.fate

    def _spread(self, key: Hashable) -> None:
        """A tensor has changed: note it if it is an output, and queue its readers."""
        if isinstance(key, str):
            golden = self.look.array(key)
            if not self.carriers and golden is not None and self._has_new_nonfinite(self.values[key], golden):
                self.carriers.add(key)
            if key in self.look.sites.outputs and golden is not None:
                self.fate.outputs[key] = error_of(self.values[key], golden)
            maker = self.look.sites.maker.get(key)
            if maker is not None and maker.returns(key):
                self.fate.stopped.setdefault(f"{maker.owner} (control flow)", "it leaves a body")
                error = error_of(self.values[key], golden) if golden is not None else np.inf
                self.fate.open_error = max(self.fate.open_error, error)
        elif not np.isfinite(self.values[key]).all():
            self.carriers.add(key)
        for site in self.look.sites.readers.get(key, ()):
            if site.position not in self.queued:
                self.queued.add(site.position)
                heapq.heappush(self.queue, (site.position, site))

    @staticmethod
    def _has_new_nonfinite(actual: Array, golden: Array) -> bool:
        finite = np.isfinite(actual)
        return not finite.all() and not np.array_equal(finite, np.isfinite(golden))

    def _stop(self, site: Site, why: str) -> None:
        self.fate.stopped.setdefault(f"{site.node} ({site.op})", why)
        for source in site.inputs:
            if source is not None and source.key in self.values:
                golden = self.look.read(source)
                error = error_of(self.values[source.key], golden) if golden is not None else np.inf
                self.fate.open_error = max(self.fate.open_error, error)

    def _compute(self, site: Site) -> None:
        if site.step.bodies or site.looped:
            self._stop(site, "control flow")
            return
        if site.owner and site.tensor not in self.look.rows:
            return  # of a branch that does not run
        golden = self.look.reads(site)
        if golden is None:
            self._stop(site, "the golden lacks what it reads")
            return
        values = [
            self.values.get(source.key, known) if source is not None else known
            for source, known in zip(site.inputs, golden, strict=True)
        ]
        made = self.look.compute(site, values)
        self.fate.computed += bool(made)
        if not made:
            fails = bool(self.look.compute(site, golden))
            self._stop(site, "which fails on these values" if fails else "not computed here")
            self.fate.open_error = np.inf if fails else self.fate.open_error
            return
        reference: dict[str, Array] | None = None
        moved = False
        for name, value in made.items():
            expected = self.look.array(name)
            if expected is None or not self._surely_off(name, value, expected):
                if expected is not None and not self._differs(value, expected):
                    continue
                # The same arithmetic on golden operands: what differs from it does so because of the change, and not by a sum's order.
                reference = self.look.compute(site, golden) if reference is None else reference
                if name not in reference or not self._differs(value, reference[name]):
                    continue
                expected = reference[name]
            moved = True
            self._note_effect(site, values, value, expected)
            self.values[name] = value
            self._spread(name)
        if not moved:
            self.fate.ended.append(f"{site.node} ({site.op})")

    def _surely_off(self, name: str, actual: Array, expected: Array) -> bool:
        """Whether some of a few thousand elements are off by more than any order of FP32 sums explains."""
        if actual.shape != expected.shape or actual.dtype.kind != "f" or not actual.size:
            return False
        step = max(actual.size // _SAMPLED, 1)
        some, known = actual.reshape(-1)[::step], expected.reshape(-1)[::step]
        with np.errstate(all="ignore"):
            off = np.abs(some - known)[np.isfinite(known)]
            return not bool((off <= _BEYOND_DOUBT * self.look.reach(name)).all())

    def _differs(self, actual: Array, expected: Array) -> bool:
        if actual.shape != expected.shape:
            return True
        if actual.dtype.kind != "f":
            return not np.array_equal(actual, expected)
        return differs(actual, expected, self.look.form)

    def _note_effect(self, site: Site, values: list[Array | None], actual: Array, golden: Array) -> None:
        """Where NaN or Inf arises or becomes something else; handing it on is not worth a word."""
        if actual.dtype.kind != "f" or actual.shape != golden.shape:
            return
        if not any(source is not None and source.key in self.carriers for source in site.inputs):
            if self._has_new_nonfinite(actual, golden):
                self.carriers.add(site.tensor)
                made = "NaN" if np.isnan(actual[np.isfinite(golden)]).any() else "Inf"
                self.fate.effects.append(f"in {site.node} ({site.op}): {_ARISES.get(site.op, 'out of range:')} {made}")
            return
        self.carriers.add(site.tensor)
        said = describe_effect(site.op, [v for v in values if v is not None], actual, golden)
        if said and not (said.startswith("finite") and self.fate.effects):
            self.fate.effects.append(f"in {site.node} ({site.op}): {said}")

    def _work(self, site: Site) -> float:
        rows = self.look.rows
        size = math.prod(rows[site.tensor].shape) if site.tensor in rows else 0
        if site.op not in _PRODUCTS or len(site.inputs) < 2:
            return 4.0 * size
        shapes = [self._shape(site, at) for at in (0, 1)]
        if site.op.startswith("Conv"):
            return size * float(math.prod(shapes[1][1:]))
        return size * float(shapes[0][-1] if shapes[0] else 1)

    def _shape(self, site: Site, at: int) -> tuple[int, ...]:
        source = site.inputs[at]
        if source is None:
            return ()
        if source.constant:
            return self.look.sites.shape(source) or ()
        row = self.look.rows.get(source.name)
        return row.shape if row is not None else ()


def differs(actual: Array, expected: Array, form: Precision) -> bool:
    """Whether any element is further from the expected one than four roundings of the format, or differs in being NaN or Inf."""
    with np.errstate(all="ignore"):
        near = np.abs(actual - expected) <= 4 * form.roundoff * np.abs(expected)
    return not bool((near | (actual == expected) | (np.isnan(actual) & np.isnan(expected))).all())
