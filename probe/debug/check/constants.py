"""Rules about constants: those a format turns into zero, and those it turns into Inf, masks above all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from probe.debug.causes import rounded
from probe.debug.check.hits import Hit, Range, alike
from probe.debug.check.look import Look
from probe.debug.check.ranges import too_large_after
from probe.debug.check.sites import Site, Source
from probe.debug.finite_causes import vanishes

_NEVER = 1e3  # times the format's maximum, negative: a mask, not a number


def constant_vanishes(look: Look, source: Source) -> Iterator[Hit]:
    """Most non-zero elements of a constant are zero in the format: an epsilon of 1e-12 in FP16."""
    form = look.form
    if not _may_vanish(look, source):
        return
    value = look.sites.value(source)
    if not vanishes(value, form):
        return
    site = _reader(look, source)
    stored = rounded(value, form)
    lost = (value != 0) & (stored == 0)
    least = float(np.abs(value[lost]).max())
    yield Hit(
        "constant_vanishes", "error",
        f"the constant {source.name} of {site.node} ({site.op}) is {_shown(value, lost)} and becomes 0: the smallest number of {form.name} is "
        f"{form.smallest_subnormal:.3g}",
        f"raise it to {form.smallest_normal:.2g} or more where that changes nothing, or keep it and {site.tensor} in FP32",
        source.name, site.node, site.op, site.position, Range.of(value), None, lost, (source.name, *filter(None, site.outputs[:1])),
        1 / least, {source.key: np.where(lost, stored, value)}, alike(site.op, source.name), doubtful=True,
    )  # fmt: skip


def _may_vanish(look: Look, source: Source) -> bool:
    """From a sample, which is all of a small constant: whether half of what is not zero may become 0."""
    facts = look.sites.facts(source)
    if not facts.is_float:
        return False
    size = np.abs(facts.sample[facts.sample != 0])
    return bool(size.size) and int((size <= look.form.smallest_subnormal).sum()) * 4 >= size.size


def constant_overflow(look: Look, source: Source) -> Iterator[Hit]:
    """A constant beyond the format becomes Inf. Masks (finfo.min, -1e9) mean to: then it matters what they are added to, and whether a
    row is masked whole."""
    absmax, form = look.sites.facts(source).absmax, look.form
    if absmax is None or absmax <= form.max:
        return
    value = look.sites.value(source)
    stored = rounded(value, form)
    lost = np.isfinite(value) & ~np.isfinite(stored)
    if not lost.any():
        return
    site = _reader(look, source)
    keep = too_large_after(look, source.key)
    mask = bool((value[lost] < 0).all()) and absmax >= min(_NEVER * form.max, 1e9)
    shown = _shown(value, lost)
    if mask:
        where = _into_words(look, keep)
        yield Hit(
            "mask", "error", f"the mask {source.name} is {shown} and becomes -Inf in {form.name}; it goes into {site.node} ({site.op}){where}. A row "
            "that is masked whole then has no largest element, and a softmax makes NaN of it",
            f"use a mask that {form.name} has, such as {-form.max if form.name != 'fp16' else -1e4:.3g}, or keep it and what it flows into in FP32; "
            "multiplied by 0 it makes NaN: select (Where), do not multiply",
            source.name, site.node, site.op, site.position, Range.of(value), form.max / absmax, lost, keep, absmax,
            {source.key: np.where(lost, stored, value)}, alike(site.op, source.name), doubtful=True,
        )  # fmt: skip
        return
    yield Hit(
        "constant_overflow", "error",
        f"the constant {source.name} of {site.node} ({site.op}) holds {shown}, which {form.name} (ends at {form.max:.5g}) turns into Inf",
        f"replace it by a value within {form.name}, fold its scale into its neighbours, or keep it and what it flows into in FP32",
        source.name, site.node, site.op, site.position, Range.of(value), form.max / absmax, lost, keep, absmax,
        {source.key: np.where(lost, stored, value)}, alike(site.op, source.name),
    )  # fmt: skip


def _reader(look: Look, source: Source) -> Site:
    return look.sites.readers[source.key][0]


def _shown(value: np.ndarray, lost: np.ndarray) -> str:
    first = float(value[lost].flat[0])
    return f"{first:.5g}" if value.size == 1 else f"{first:.5g} in {int(lost.sum()):,} of {value.size:,} elements"


def _into_words(look: Look, chain: tuple[str, ...]) -> str:
    """Where the masked tensor is added and normalised: ``, added in /attn/Add, read by Softmax``."""
    said: list[str] = []
    for name in chain[1:]:
        site = look.sites.maker.get(name)
        if site is not None and site.op in ("Add", "Sub", "Mul"):
            said.append(f"{'added' if site.op != 'Mul' else 'multiplied'} in {site.node}")
            normalised = [r.op for r in look.sites.readers.get(name, ()) if r.op in ("Softmax", "LogSoftmax")]
            said += [f"read by {normalised[0]}"] if normalised else []
            break
    return f", {', '.join(said)}" if said else ""
