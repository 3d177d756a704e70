"""Rules about sums that are FP32 inside here and need not be elsewhere: their inner range, their length, what cancels in a product."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from probe.debug.check.facts import MASK, norm
from probe.debug.check.hits import Hit, alike
from probe.debug.check.look import Look
from probe.debug.check.ranges import fits
from probe.debug.check.sites import Site, Source
from probe.debug.finite_causes import INNER_SQUARES, inner_overflow

_SUMMED = frozenset(("ReduceSum", "ReduceMean", "CumSum", "GlobalAveragePool", "AveragePool"))
_MEANS = frozenset(("ReduceMean", "GlobalAveragePool"))
_LOST = 0.05  # share of a product's range that the rounding of its operands becomes
_ACCUMULATED = (
    0.5  # n * roundoff from which a sum in the storage format is worth a word: the first terms count, the last may not
)
_LARGEST_EXPONENT = 700.0  # exp of it is still a float64
_EXPONENTIAL = frozenset(("Softmax", "LogSoftmax"))
_RECURRENT = frozenset(("LSTM", "GRU", "RNN"))


def sum_inside(look: Look, site: Site) -> Iterator[Hit]:
    """A reduction whose result fits and whose sum, or the sum of magnitudes, does not: a runtime that adds in the format overflows."""
    source = site.inputs[0] if site.op in _SUMMED and site.inputs else None
    if source is None or source.constant or site.looped:
        return
    reach, result, form = look.reach(source.name), look.range(site.tensor), look.form
    value = look.array(source.name) if reach else None
    golden = look.array(site.tensor) if value is not None else None
    if (
        value is None
        or golden is None
        or result is None
        or result.absmax is None
        or not fits(result.absmax, form)
        or not golden.size
    ):
        return
    terms = value.size // golden.size if site.op in _MEANS or site.op == "ReduceSum" else value.size
    if fits(reach * terms, form) or not fits(reach, form):
        return
    sizes = np.where(np.abs(value) < MASK, np.abs(value), 0.0)
    made = look.compute(site, [sizes, *(look.read(one) for one in site.inputs[1:])]).get(site.tensor)
    if made is None or not made.size:
        return
    inside = float(made.max()) * (terms if site.op in _MEANS else 1)
    if fits(inside, form):
        return
    yield Hit(
        "sum_inside", "warning",
        f"{site.node} ({site.op}) adds up {terms:,} elements whose magnitudes sum to {inside:.4g}, beyond {form.name} ({form.max:.5g}), though "
        f"its result ({result.absmax:.4g}) fits: right where sums are FP32 inside, as here; a runtime that adds in {form.name} can overflow",
        "make sure that the runtime accumulates in FP32, or divide before summing", site.tensor, site.node, site.op, site.position,
        result, form.max / inside, keep=(site.tensor,), severity=inside, alike=alike(site.op, site.tensor),
    )  # fmt: skip


def inner_range(look: Look, site: Site) -> Iterator[Hit]:
    """Composite operators that are FP32 inside here, where a runtime that computes them in the format overflows."""
    source = site.inputs[0] if site.inputs else None
    if source is None or source.constant or site.looped:
        return
    form, reach = look.form, 0.0
    if site.op in INNER_SQUARES:
        if fits(look.reach(source.name) ** 2 * 4096, form):
            rows = look.rows.get(source.name)
            if rows is None or math.prod(rows.shape[-1:]) <= 4096:
                return
        value = look.array(source.name)
        reach = inner_overflow(site.op, value, form) or 0.0 if value is not None else 0.0
        level, what = "warning", "its sum of squares"
        cure = "make sure that the runtime computes it in FP32 inside (fused, as most do); exported node by node it overflows"
    elif site.op in _EXPONENTIAL:
        high = look.range(source.name)
        top = high.high if high is not None and high.high is not None else 0.0
        reach = math.exp(min(top, _LARGEST_EXPONENT)) if top > math.log(form.max) else 0.0
        level, what = "lint", f"the exponential of its largest element ({top:.4g})"
        cure = "make sure that the runtime subtracts the maximum of a row first, as it should"
    elif site.op in _RECURRENT:
        reach = _gates(look, site)
        level, what = "lint", "what goes into its gates"
        cure = "make sure that the runtime computes its gates in FP32"
    else:
        return
    if fits(reach, form):
        return
    yield Hit(
        "inner_range", level,
        f"{site.node} ({site.op}) is FP32 inside here; {what} reaches {reach:.4g}, beyond {form.name} ({form.max:.5g}): a runtime that computes "
        f"it in {form.name} overflows", cure, site.tensor, site.node, site.op, site.position, look.range(source.name), form.max / reach,
        severity=reach, alike=alike(site.op, site.tensor),
    )  # fmt: skip


def _gates(look: Look, site: Site) -> float:
    """A bound of |W x + R h + b| before the gates of a recurrent node: h is within [-1, 1]."""
    bound = 0.0
    for at, reach in ((1, look.reach_of(site.inputs[0])), (2, 1.0), (3, 1.0)):
        held = look.sites.held(site.inputs[at]) if len(site.inputs) > at else None
        if held is not None and held.dtype.kind == "f" and held.ndim:
            sums = np.abs(held).sum(axis=-1) if at < 3 else np.abs(held)
            bound += reach * float(sums.max(initial=0.0))
    return bound


def product(look: Look, site: Site) -> Iterator[Hit]:
    """MatMul and Gemm whose result is small beside its terms: their rounding becomes its error."""
    if site.op not in ("MatMul", "Gemm") or site.looped or len(site.inputs) < 2:
        return
    result = look.reach(site.tensor)
    reaches = [look.reach_of(source) for source in site.inputs[:2]]
    if not result or not all(reach > 0 and fits(reach, look.form) for reach in reaches):
        return
    axes = -2 if site.attribute("transA", 0) else -1, -1 if site.attribute("transB", 0) else -2
    norms = [_norm(look, source, axis) for source, axis in zip(site.inputs, axes, strict=False)]
    terms = _terms(look, site)
    # Independent roundings of the terms: their root mean square, each relative to its term, over sqrt(n) terms of about |a||b| / n.
    lost = look.form.roundoff * norms[0] * norms[1] / math.sqrt(max(terms, 1)) / result
    if not _LOST <= lost < math.inf:
        return
    names = " and ".join(s.name for s in site.inputs[:2] if s is not None)
    yield Hit(
        "cancellation", "warning",
        f"{site.tensor} is small beside the terms that {site.node} ({site.op}) adds up: they reach {norms[0] * norms[1]:.4g} in all, the result "
        f"{result:.4g}; the rounding of {names} to {look.form.name} is about {lost:.2g} of it",
        f"keep {names} in FP32, or take out of them what cancels (a common offset) before", site.tensor, site.node, site.op, site.position,
        look.range(site.tensor), look.form.max / result, keep=tuple(s.name for s in site.inputs[:2] if s is not None and not s.constant),
        severity=lost, alike=alike(site.op, site.tensor),
    )  # fmt: skip


def _norm(look: Look, source: Source | None, axis: int) -> float:
    """The largest norm of what is multiplied; 0 for vectors and what is not known."""
    if source is None:
        return 0.0
    if source.constant:
        facts = look.sites.facts(source)
        return facts.rows if axis == -1 else facts.columns
    value = look.array(source.name)
    return norm(value, axis) if value is not None and value.ndim >= 2 and value.dtype.kind == "f" else 0.0


def long_sum(look: Look, site: Site) -> Iterator[Hit]:
    """Sums so long that the format, as accumulator, loses their last terms. Only for runtimes that accumulate in it."""
    terms = _terms(look, site)
    bound = terms * look.form.roundoff
    if bound < _ACCUMULATED:
        return
    yield Hit(
        "long_sum", "lint",
        f"{site.node} ({site.op}) adds up {terms:,} products or elements: with an accumulator in {look.form.name} its relative error may reach "
        f"{bound:.2g}, with one in FP32, as here, {terms * 2.0**-24:.2g}",
        "choose kernels that accumulate in FP32 for it", site.tensor, site.node, site.op, site.position, look.range(site.tensor),
        severity=float(terms), alike=site.op,
    )  # fmt: skip


def _terms(look: Look, site: Site) -> int:
    """How many terms a result is the sum of; 0 for operators that do not sum, and where extents are not known."""
    if site.op in ("MatMul", "Gemm"):
        shape = _shape(look, site, 0)
        return shape[-2 if site.attribute("transA", 0) else -1] if len(shape) > 1 else 0
    if site.op == "Conv":
        return math.prod(_shape(look, site, 1)[1:])
    if site.op in _SUMMED and site.op not in ("CumSum", "AveragePool") and not site.looped:
        made = look.rows.get(site.tensor)
        size = math.prod(made.shape) if made is not None else 0
        return math.prod(_shape(look, site, 0)) // size if size else 0
    return 0


def _shape(look: Look, site: Site, at: int) -> tuple[int, ...]:
    source = site.inputs[at] if len(site.inputs) > at else None
    if source is None:
        return ()
    if source.constant:
        return look.sites.shape(source) or ()
    row = look.rows.get(source.name)
    return row.shape if row is not None else ()
