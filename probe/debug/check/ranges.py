"""Rules about one tensor and a format's range: it overflows, or nearly; all of it is too small; the golden itself holds NaN or Inf."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator

import numpy as np

from probe.debug.causes import rounded
from probe.debug.check.facts import MASK
from probe.debug.check.hits import Hit, alike
from probe.debug.check.look import Look
from probe.debug.check.sites import Site, Source
from probe.precision import Precision

_TIGHT = 4.0  # maximum over range: below it, a somewhat louder input overflows
_FEW_BITS = 0.01  # error of a tensor's largest elements, below the normal numbers, from which it is noticed
_SUMS = frozenset(("ReduceSum", "CumSum"))


def overflow(look: Look, name: str) -> Iterator[Hit]:
    """Golden values beyond the format, where they first appear; readers that do not fit either ride with it."""
    known = look.range(name)
    if known is None or known.absmax is None or fits(known.absmax, look.form):
        return
    site = look.sites.maker.get(name)
    if site is not None and any(_too_large(look, source) for source in site.inputs):
        return  # said where it starts
    value = look.array(name)
    if value is None:
        return
    stored = rounded(value, look.form)
    lost = np.isfinite(value) & ~np.isfinite(stored)
    form, absmax = look.form, known.absmax
    chain = too_large_after(look, name)
    more = f"; {len(chain) - 1} more after it do, too" if len(chain) > 1 else ""
    yield Hit(
        "overflow", "error",
        f"{name} overflows: golden reaches {absmax:.5g}, {form.name} ends at {form.max:.5g} ({absmax / form.max:.3g} times too large){more}",
        _cure_of_overflow(look, site, name), name, site.node if site is not None else None, site.op if site is not None else "",
        site.position if site is not None else -1, known, form.max / absmax, lost, chain, absmax, {name: np.where(lost, stored, value)},
        alike(site.op if site is not None else "", name),
    )  # fmt: skip


def _cure_of_overflow(look: Look, site: Site | None, name: str) -> str:
    other = " (or the whole network in bf16, which reaches 3.39e+38)" if look.form.name == "fp16" else ""
    if site is None:
        return f"scale the input {name} down before it is fed, and the first weights up"
    if _squares(look, site):
        return (
            f"keep {name} in FP32{other}; or scale down before the square (a normalisation does not see it, with epsilon scaled by its "
            "square); or use the fused operator, LayerNormalization or RMSNormalization, where the runtime computes it in FP32"
        )
    if site.op in _SUMS:
        return f"keep {name} in FP32{other}; or divide before summing, so that the mean is formed and not the sum"
    return f"keep {name} in FP32{other}, or scale down before {site.node}"


def _squares(look: Look, site: Site) -> bool:
    """Whether a node makes squares of what it reads."""
    if site.op == "Mul":
        return len(site.inputs) == 2 and site.inputs[0] == site.inputs[1]
    exponent = look.sites.held(site.inputs[1]) if site.op == "Pow" and len(site.inputs) == 2 else None
    return site.op == "ReduceSumSquare" or (exponent is not None and bool((exponent == 2).all()))


def too_large_after(look: Look, start: Hashable) -> tuple[str, ...]:
    """Tensors from one on that are connected to it and do not fit the format, in execution order. A constant's key gives its name first."""
    source = look.sites.constants.get(start)
    found: dict[str, int] = {str(start) if source is None else source.name: -1}
    pending: deque[Hashable] = deque([start])
    while pending:
        for site in look.sites.readers.get(pending.popleft(), ()):
            for made in site.outputs:
                known = look.range(made) if made and made not in found else None
                if known is not None and known.absmax is not None and not fits(known.absmax, look.form):
                    found[made] = site.position
                    pending.append(made)
    return tuple(sorted(found, key=lambda one: found[one]))


def fits(absmax: float, form: Precision) -> bool:
    """Whether a magnitude is still finite once it is rounded."""
    return absmax <= form.max or bool(np.isfinite(rounded(np.asarray(absmax, np.float64), form)))


def _too_large(look: Look, source: Source | None) -> bool:
    if source is None:
        return False
    if source.constant:
        absmax = look.sites.facts(source).absmax or 0.0
    else:
        known = look.range(source.name)
        absmax = 0.0 if known is None or known.absmax is None else known.absmax
    return not fits(absmax, look.form)


def near_overflow(look: Look, name: str) -> Iterator[Hit]:
    """Less than a factor of four below the format's maximum, where that is not handed on from what is read."""
    known, form = look.range(name), look.form
    if (
        known is None
        or known.absmax is None
        or not form.max / _TIGHT < known.absmax < MASK
        or not fits(known.absmax, form)
    ):
        return
    site = look.sites.maker.get(name)
    if site is not None and any(look.reach_of(source) >= known.absmax * 0.999 for source in site.inputs):
        return
    yield Hit(
        "near_overflow", "warning",
        f"{name} reaches {known.absmax:.5g} on this input, {form.name} ends at {form.max:.5g}: one {form.max / known.absmax:.2g} times as large "
        "overflows", f"try louder inputs; keep {name} in FP32 if they are to be expected", name,
        site.node if site is not None else None, site.op if site is not None else "", site.position if site is not None else -1,
        known, form.max / known.absmax, keep=(name,), severity=known.absmax, alike=alike(site.op if site is not None else "", name),
    )  # fmt: skip


def underflow(look: Look, name: str) -> Iterator[Hit]:
    """Tensors whose largest elements, too, lie below what the format has full precision for."""
    known, form = look.range(name), look.form
    if known is None or not known.absmax or form.smallest_subnormal / 2 < _FEW_BITS * known.absmax:
        return
    site = look.sites.maker.get(name)
    if site is not None and site.moves:
        return
    value = look.array(name)
    if value is None:
        return
    stored = rounded(value, form)
    nonzero = (value != 0) & np.isfinite(value)
    flushed = nonzero & (stored == 0)
    yield Hit(
        "underflow", "error",
        f"{name} is too small for {form.name}: golden reaches no more than {known.absmax:.3g}, {form.name} has full precision from "
        f"{form.smallest_normal:.3g} on; {flushed.sum() / nonzero.sum():.0%} of its non-zero elements become 0",
        f"scale {name} up and its readers down, or keep it in FP32" + (", or use bf16" if form.name == "fp16" else ""),
        name, site.node if site is not None else None, site.op if site is not None else "", site.position if site is not None else -1,
        known, form.max / known.absmax, flushed, (name,), 1 / known.absmax, {name: stored},
        alike(site.op if site is not None else "", name),
    )  # fmt: skip


def golden_nonfinite(look: Look, name: str) -> Iterator[Hit]:
    """NaN or Inf that are in FP32 already, where they first appear: no precision cures them, and nothing can be judged behind them."""
    row = look.rows.get(name)
    if row is None or not (row.nan or row.inf):
        return
    site = look.sites.maker.get(name)
    reads = [look.rows.get(s.name) for s in site.inputs if s is not None and not s.constant] if site is not None else []
    if any(one is not None and (one.nan or (one.inf and not row.nan)) for one in reads):
        return
    held = [look.sites.held(s) for s in site.inputs] if site is not None else []
    masked = any(h is not None and h.dtype.kind == "f" and bool(np.isneginf(h).any()) for h in held)
    if not row.nan and masked:
        return  # a mask of -Inf is written into the model
    outputs = [look.rows.get(one) for one in look.sites.outputs]
    reaches = bool(row.nan) and any(one is not None and one.nan for one in outputs)
    value = look.array(name)
    what = f"{row.nan:,} NaN" if row.nan else f"{row.inf:,} Inf"
    yield Hit(
        "golden_nonfinite", "error" if reaches else "warning" if row.nan else "lint",
        f"the golden itself has {what} in {name}: no precision cures that" + (", and an output has NaN, too" if reaches else ""),
        "look at the inputs and at the operands of this node; nothing behind it can be judged by this golden", name,
        site.node if site is not None else None, site.op if site is not None else "", site.position if site is not None else -1,
        look.range(name), None, ~np.isfinite(value) if value is not None else None, severity=float((row.nan or 0) + (row.inf or 0)),
        alike=alike(site.op if site is not None else "", name),
    )  # fmt: skip
