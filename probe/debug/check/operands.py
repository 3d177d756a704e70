"""Rules about one operator made again from its rounded operands: poles, steep functions, cancellation, steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from probe.debug.causes import rounded, spacing
from probe.debug.check.hits import Hit, alike
from probe.debug.check.look import Look, error_of
from probe.debug.check.sites import Site, Sites, Source
from probe.debug.finite_causes import STEEP, vanishes

Array = np.ndarray[Any, Any]

_NOTICED = 0.01  # range_rel at outputs, or where following ends, from which a suspicion is worth a finding
_STEEP_ERROR = 0.05  # of a result, from its operand's rounding alone
_FEW_BITS = 0.05  # relative error of a denominator that has lost most of its bits
_POWERS = frozenset((0.5, -0.5, -1.0, -2.0))  # with a pole, or a steep root, at zero
_POLES = frozenset(("Log", "Reciprocal", "Sqrt"))
_STEPS = frozenset(
    "Floor Ceil Round Cast Mod Equal Greater GreaterOrEqual Less LessOrEqual Range ArgMax ArgMin".split()
)
_HANDS_ON = frozenset("Add Sub Mul Max Min Clip Relu Abs Where Cast Identity".split())
_WALKED = 5  # nodes between a difference and the pole that it feeds


# --- poles


def pole(look: Look, site: Site) -> Iterator[Hit]:
    """Division by, logarithm, root or negative power of what the format turns into zero, or leaves few bits of."""
    source = pole_operand(look.sites, site)
    if source is None or source.constant or site.looped or look.least(source.name) >= look.form.smallest_normal:
        return
    value = look.array(source.name)
    if value is None or value.dtype.kind != "f":
        return
    form = look.form
    stored = rounded(value, form)
    with np.errstate(all="ignore"):
        coarse = (np.abs(stored - value) > _FEW_BITS * np.abs(value)) & np.isfinite(stored)
    if not coarse.any():
        return
    made = look.from_rounded(site)
    if made is None:
        return
    flushed = coarse & (stored == 0)
    small = np.abs(value[coarse])
    constants = _vanished_constants(look, source.name)
    said = f"; the constant {constants[0]} that should keep it above zero becomes 0 itself" if constants else ""
    fate = f"{int(flushed.sum()):,} elements become 0" if flushed.any() else "what is left of them are a few bits"
    yield Hit(
        "pole", "error",
        f"{source.name} is as small as {float(small.min()):.3g} where {site.node} ({site.op}) {_asks(site)} it; the smallest number of {form.name} "
        f"is {form.smallest_subnormal:.3g} and full precision begins at {form.smallest_normal:.3g}: {fate}{said}",
        f"keep {source.name} in FP32, or raise its smallest value (its floor or epsilon) to {form.smallest_normal:.2g}, if that is small beside "
        "what matters; or scale it up before",
        source.name, site.node, site.op, site.position, look.range(source.name), None, coarse, (source.name, *constants),
        1 / float(small.min()), {site.tensor: made}, alike(site.op, source.name), least=_NOTICED,
    )  # fmt: skip


def pole_operand(sites: Sites, site: Site) -> Source | None:
    """The operand whose zeros matter; None for operators without."""
    if site.op == "Div" and len(site.inputs) > 1:
        return site.inputs[1]
    if site.op in _POLES and site.inputs:
        return site.inputs[0]
    if site.op == "Pow" and len(site.inputs) > 1:
        exponent = sites.held(site.inputs[1])
        if exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) in _POWERS:
            return site.inputs[0]
    return None


def _asks(site: Site) -> str:
    return {"Div": "divides by", "Log": "takes the logarithm of", "Sqrt": "takes the root of"}.get(
        site.op, "takes a negative power of"
    )


def _vanished_constants(look: Look, name: str) -> tuple[str, ...]:
    """Constants that should have kept a tensor above zero and are zero themselves once rounded."""
    site = look.sites.maker.get(name)
    held = (
        [(s.name, look.sites.value(s)) for s in site.inputs if s is not None and s.constant] if site is not None else []
    )
    return tuple(constant for constant, value in held if vanishes(value, look.form))


# --- steep functions


def steep(look: Look, site: Site) -> Iterator[Hit]:
    """Softmax, Exp, Sin...: absolute errors of the operand count, and large arguments have large ones, whatever their differences."""
    source = site.inputs[0] if site.op in STEEP and site.inputs else None
    if (
        source is None
        or source.constant
        or site.looped
        or spacing(look.reach(source.name), look.form) / 2 < _STEEP_ERROR / 4
    ):
        return
    value, golden = look.array(source.name), look.array(site.tensor)
    if value is None or golden is None:
        return
    stored = rounded(value, look.form)
    stored = np.where(np.isfinite(stored), stored, value)  # overflow is another rule's
    made = look.compute(site, [stored, *(look.read(one) for one in site.inputs[1:])]).get(site.tensor)
    if made is None:
        return
    error = error_of(made, golden)
    if error <= _STEEP_ERROR:
        return
    reach = look.reach(source.name)
    before = same_values_before(look, source.name)
    already = f"; {before[0]} already, of which it is a scaled copy, loses these differences" if before else ""
    axis = site.attribute("axis", -1)
    varies = _spread(value, axis if isinstance(axis, int) else -1) if "Softmax" in site.op else None
    rows = (
        f", though within a row they differ by no more than {varies:.3g}"
        if varies is not None and varies < reach / 2
        else ""
    )
    cure = {
        True: f"keep {', '.join((*before, source.name))} in FP32; or take the common offset out before it is stored: a bias of the keys adds the same "
        "to every logit of a row and does not change a softmax; or subtract the row's maximum in FP32",
        False: f"keep {source.name} in FP32, or reduce it to one period or a smaller range before it is stored",
    }["Softmax" in site.op]
    yield Hit(
        "coarse_argument", "error",
        f"{source.name} reaches {reach:.4g}, where numbers of {look.form.name} are {spacing(reach, look.form):.3g} apart{rows}; "
        f"{site.node} ({site.op}) makes an error of {error:.2g} of its range{already}",
        cure, source.name, site.node, site.op, site.position, look.range(source.name),
        look.form.max / reach, None, (*before, source.name), error, {site.tensor: made}, alike(site.op, source.name), least=_NOTICED,
    )  # fmt: skip


def _spread(x: Array, axis: int) -> float:
    """The largest difference within a row, masks left out."""
    if not x.ndim or not -x.ndim <= axis < x.ndim:
        return 0.0
    keep = np.isfinite(x) & (np.abs(x) < 1e30)
    high = np.where(keep, x, -np.inf).max(axis=axis, initial=-np.inf)
    low = np.where(keep, x, np.inf).min(axis=axis, initial=np.inf)
    rows = np.isfinite(high) & np.isfinite(low)
    return float((high - low)[rows].max()) if rows.any() else 0.0


def same_values_before(look: Look, name: str) -> tuple[str, ...]:
    """Tensors that one is a view, a scaled or a shifted copy of: they lose the same bits when they are stored."""
    chain: list[str] = []
    while (site := look.sites.maker.get(name)) is not None:
        computed = [s for s in site.inputs if s is not None and not s.constant and look.is_float(s.name)]
        scaled = site.op in ("Mul", "Div", "Add", "Sub") and len(computed) == 1
        masked = site.op == "Add" and len(computed) == 2
        if not computed or not (scaled or masked or site.moves or site.op in ("Where", "Cast")):
            break
        name = max(computed, key=lambda one: look.reach(one.name)).name
        if name not in look.sites.maker:
            break
        chain.insert(0, name)
    return tuple(chain)


# --- cancellation


def cancellation(look: Look, site: Site) -> Iterator[Hit]:
    """A difference much smaller than its operands, whose rounding becomes its error: as a whole, or where a root or a division reads it."""
    if site.op not in ("Add", "Sub") or site.looped or len(site.inputs) != 2 or not look.is_float(site.tensor):
        return
    operands = [look.reach_of(source) for source in site.inputs]
    result, form = look.reach(site.tensor), look.form
    if min(operands) == 0.0 or result == 0.0 or not result <= form.max:
        return
    whole = max(operands) / result * form.roundoff >= _STEEP_ERROR / 2
    behind = None if whole else _pole_behind(look.sites, site.tensor)
    if not whole and behind is None:
        return
    made, golden = look.from_rounded(site), look.array(site.tensor)
    if made is None or golden is None or made.shape != golden.shape:
        return
    with np.errstate(all="ignore"):
        off = (np.abs(made - golden) > 0.2 * np.abs(golden)) & np.isfinite(made) & np.isfinite(golden)
        below = off & (made < 0) & (golden >= 0)
    if not off.any() or not (whole or bool((off & (np.abs(golden) > 0)).any())):
        return
    names = " and ".join(s.name for s in site.inputs if s is not None)
    negative = (
        f"; {int(below.sum()):,} elements fall below zero (least {float(made[below].min()):.3g}), and {behind.node} ({behind.op}) makes NaN of them"
        if behind is not None and behind.op in ("Sqrt", "Log", "Pow") and below.any() else ""
    )  # fmt: skip
    ratio = max(operands) / result
    yield Hit(
        "cancellation", "error",
        f"{site.tensor} is a small difference of large numbers: {names} reach {max(operands):.4g}, the result {result:.4g}; from operands rounded to "
        f"{form.name} {int(off.sum()):,} of its elements are off by more than 20 %{negative}",
        f"keep {names} in FP32; compute a variance from centred values, mean((x - mean(x))^2), and not as E[x^2] - E[x]^2; or clamp it at a "
        "small positive number",
        site.tensor, site.node, site.op, site.position, look.range(site.tensor), form.max / max(operands), below if below.any() else off,
        (*(s.name for s in site.inputs if s is not None and not s.constant), site.tensor), ratio, {site.tensor: made},
        alike(site.op, site.tensor), least=_NOTICED,
    )  # fmt: skip


def _pole_behind(sites: Sites, name: str) -> Site | None:
    """The root, logarithm or division that reads a tensor, over nodes that only shift, scale, clamp or move it."""
    pending, seen = [(name, 0)], {name}
    while pending:
        one, steps = pending.pop(0)
        for site in sites.readers.get(one, ()):
            operand = pole_operand(sites, site)
            if operand is not None and operand.name == one:
                return site
            alone = sum(s is not None and not s.constant for s in site.inputs) == 1
            if steps < _WALKED and alone and (site.op in _HANDS_ON or site.moves) and site.tensor not in seen:
                seen.add(site.tensor)
                pending.append((site.tensor, steps + 1))
    return None


# --- steps


def discrete(look: Look, site: Site) -> Iterator[Hit]:
    """Floor, Cast to an integer, comparisons, indices: a rounded operand crosses a step; whole numbers beyond 2048 (FP16) are not all there."""
    if site.op not in _STEPS or site.looped:
        return
    floats = [s for s in site.inputs if s is not None and not s.constant and look.is_float(s.name)]
    golden = look.array(site.tensor) if floats else None
    if golden is None or (site.op == "Cast" and golden.dtype.kind == "f"):
        return
    source = max(floats, key=lambda one: look.reach(one.name))
    reach, exact = look.reach(source.name), 2.0 ** (look.form.mantissa_bits + 1)
    value = look.array(source.name)
    if value is None:
        return
    whole = reach > exact and bool((value[np.isfinite(value)] == np.rint(value[np.isfinite(value)])).all())
    if not whole and site.op in ("ArgMax", "ArgMin"):
        return  # ties fall either way: that is the precision, and no fault of the operator
    made = look.from_rounded(site)
    if made is None:
        return
    resized = made.shape != golden.shape
    changed = np.ones(made.shape, bool) if resized else made != golden
    if not changed.any():
        return
    detail = (
        f"{source.name} holds whole numbers up to {reach:.5g}, and {look.form.name} has all of them only up to {exact:.5g}" if whole
        else f"rounding {source.name} to {look.form.name} crosses one of its steps"
    )  # fmt: skip
    size = (
        f"; its shape becomes {list(made.shape)} instead of {list(golden.shape)}, and the network may not run"
        if resized
        else ""
    )
    yield Hit(
        "discrete_step", "error", f"{site.node} ({site.op}) jumps: {detail}{size}",
        f"keep {source.name} in FP32, or compute it in integers", source.name, site.node, site.op, site.position, look.range(source.name),
        look.form.max / reach if reach else None, changed, (source.name,), float(changed.sum()), {site.tensor: made},
        alike(site.op, source.name), least=0.0 if whole else _NOTICED,
    )  # fmt: skip
