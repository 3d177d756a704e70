"""Batch normalisation, folded into the weights of the node before it."""

from __future__ import annotations

from probe.engine.passes.affine import BATCH_NORM
from probe.engine.passes.edit import Edit
from probe.engine.passes.scales import fold_followers


def fold_batch_norm(edit: Edit) -> None:
    """Level safe: every runtime does it; outputs move by the rounding of the new weights.

    Inference is y = a x + c with a = scale / sqrt(variance + epsilon), c = bias - a mean, a channel each: folded like any scale. Stays
    where variance + epsilon is not positive, and after a MatMul, which has no bias to take c.
    """
    fold_followers(edit, BATCH_NORM)
