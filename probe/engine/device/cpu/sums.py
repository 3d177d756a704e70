"""The orders of a sum, in numpy: the arithmetic of the tactics ``sum_*`` on rows of terms."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.engine.tactics import Tactic

Array = np.ndarray[Any, Any]


def total(terms: Array, tactic: Tactic) -> Array:
    """Sums of the last axis of float32 [..., k], as the tactic adds: float32 [..., 1]. No terms: 0."""
    if not terms.shape[-1]:
        return np.zeros((*terms.shape[:-1], 1), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow to Inf is what is being modelled
        if tactic.order == "pairwise":
            return _pairwise(terms)
        if tactic.order == "sequential":
            return _sequential(terms.astype(np.float16)) if tactic.accumulator == "fp16" else _sequential(terms)
        return terms.sum(axis=-1, keepdims=True, dtype=np.float32)


def _sequential(terms: Array) -> Array:
    # accumulate adds one term after the other by definition, each sum rounded to the type of the terms; reduce does not.
    return np.add.accumulate(terms, axis=-1)[..., -1:].astype(np.float32)


def _pairwise(terms: Array) -> Array:
    while (count := terms.shape[-1]) > 1:
        sums = terms[..., 0 : count - 1 : 2] + terms[..., 1:count:2]
        terms = np.concatenate((sums, terms[..., count - 1 :]), axis=-1) if count % 2 else sums
    return terms.copy()
