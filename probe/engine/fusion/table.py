"""``FUSIONS``: every declared fusion, in the order in which they are tried. What is taken by one is not seen by those after it."""

from __future__ import annotations

from probe.engine.fusion.attention import ATTENTION
from probe.engine.fusion.chains import ACTIVATIONS_ALONE, FOLLOWED, PRODUCTS, QUANTISED
from probe.engine.fusion.norms import NORMS
from probe.engine.fusion.rule import Fusion
from probe.engine.fusion.softmaxes import MEAN_OVER_IMAGE, SOFTMAXES, SUMS

FUSIONS: tuple[Fusion, ...] = (
    *ATTENTION,  # before the products, of which it holds two, and before softmax
    *NORMS,
    *SOFTMAXES,
    *PRODUCTS,
    QUANTISED,
    MEAN_OVER_IMAGE,
    *SUMS,
    *FOLLOWED,
    *ACTIVATIONS_ALONE,
)
