"""Which tensors of a diff get a drill-down, and what is read again for it: a bounded share of a bounded number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from probe.compare.pair import Compared, Side
from probe.metrics.detail import detail_of
from probe.metrics.sums import Sums
from probe.metrics.thumbnails import images_of
from probe.precision import kind_of, precision_of
from probe.results.detail import Detail
from probe.results.diff import TensorDiff
from probe.store.source import TensorReader

Array = np.ndarray[Any, Any]
Sides = Mapping[str, tuple[Side, Side]]  # golden's name -> both sides, over the paired inputs

ELEMENTS = 1 << 20  # of all details of a diff together: what is read a second time, in 0.02 s
PIECES = 16  # that a sample is spread over
_OUTPUTS, _FIRST = 12, 8  # of these at most before others have their turn
_PICTURES = 400_000  # characters of thumbnails together: no more are made once that is reached


def with_details(
    compared: Sequence[Compared], sides: Sides, labels: Sequence[str], first: Sequence[str], most: int
) -> list[TensorDiff]:
    """The diffs, ``most`` of them with ``detail``: outputs, first divergences, what is beyond the acceptance, the worst of the rest.

    Args:
        labels: of the paired inputs, as in the sides.
        first: names of the first divergences.

    Raises:
        InputError: stored bytes cannot be read.
    """
    able = [one for one in compared if _has_numbers(one) and _places(*sides[one.diff.name])]
    chosen = _chosen(able, first, most)
    made: dict[str, Detail] = {}
    left, drawn, weights = ELEMENTS, 0, sum(map(_weight, chosen))
    for one in chosen:
        share = left * _weight(one) // weights
        weights -= _weight(one)
        pictured = one.diff.role == "output" and drawn < _PICTURES
        detail = _detail(one, *sides[one.diff.name], labels, share, pictured=pictured)
        left -= detail.elements
        drawn += _characters(detail)
        made[one.diff.name] = detail
    return [replace(one.diff, detail=made[one.diff.name]) if one.diff.name in made else one.diff for one in compared]


def _weight(one: Compared) -> int:
    return 4 if one.diff.role == "output" else 1


def _characters(detail: Detail) -> int:
    """Of its pictures."""
    images = detail.images
    return len(images.golden) + len(images.actual) + len(images.difference) if images is not None else 0


def _chosen(able: Sequence[Compared], first: Sequence[str], most: int) -> list[Compared]:
    able = sorted(able, key=_badness, reverse=True)
    by_name = {one.diff.name: one for one in able}
    order = [
        *[one for one in able if one.diff.role == "output"][:_OUTPUTS],
        *[by_name[name] for name in first if name in by_name][:_FIRST],
        *[one for one in able if one.diff.beyond],
        *[one for one in able if _badness(one)[1:] > (0, 0.0)],
    ]
    return list({one.diff.name: one for one in order}.values())[:most]


def _has_numbers(one: Compared) -> bool:
    kinds = {kind_of(dtype) for dtype in (one.diff.dtype_actual, one.diff.dtype_golden) if dtype is not None}
    return one.diff.status == "compared" and one.sums is not None and one.sums.count > 0 and kinds <= {"float", "int"}


def _badness(one: Compared) -> tuple[bool, int, float]:
    m = one.diff.metrics
    return (one.diff.verdict == "failed", m.nonfinite_mismatch, m.range_rel) if m is not None else (False, 0, 0.0)


def _detail(one: Compared, actual: Side, golden: Side, labels: Sequence[str], most: int, *, pictured: bool) -> Detail:
    """Of the worst input: the numbers of several would hide each other."""
    assert one.sums is not None
    there = _places(actual, golden)
    position = next((i for i in there if labels[i] == one.diff.worst_input), there[0])
    row_a, row_g = actual.rows[position], golden.rows[position]
    assert row_a is not None and row_g is not None
    item = _item(one.sums, row_g.shape, labels[position])
    with closing(actual.source.open(row_a)) as reader_a, closing(golden.source.open(row_g)) as reader_g:
        images = images_of(reader_a, reader_g, item) if pictured else None
        sample_a, sample_g = (_sample(reader, row_g.count, most) for reader in (reader_a, reader_g))
    return detail_of(
        sample_a, sample_g, one.sums, count=row_g.count, precision=one.diff.precision or precision_of(row_a.dtype),
        input_id=labels[position], images=images,
    )  # fmt: skip


def _places(actual: Side, golden: Side) -> list[int]:
    """Inputs that both sides have values of: what was recorded as statistics alone cannot be looked into."""
    pairs = zip(actual.rows, golden.rows, strict=True)
    return [i for i, (a, g) in enumerate(pairs) if a and g and a.status == g.status == "recorded"]


def _item(sums: Sums, shape: tuple[int, ...], label: str) -> int:
    """The batch item to look at: that of the worst element on this input."""
    place = next((w.place for w in sums.worst if w.input_id == label and w.place), None)
    return place[0] if place is not None and place[0] < shape[0] else 0


def _sample(reader: TensorReader, count: int, most: int) -> Array:
    """The tensor, or ``most`` of its elements: the middle of each of ``PIECES`` parts. A copy.

    Not its beginning, where a dump would begin to hash what was hashed when it was measured.
    """
    if count <= most:
        return np.array(reader.window(0, count))
    pieces = min(PIECES, max(1, most))
    length = max(1, most // pieces)
    starts = [((2 * i + 1) * count // pieces - length) // 2 for i in range(pieces)]
    return np.concatenate([reader.window(start, start + length) for start in starts])
