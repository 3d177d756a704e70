"""What lies between the products of Attention (opset 23 on): its scale, its cap, what each query may look at; as steps of a kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.expressions import literal
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.tensors.formats import B8
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.formats import Format
    from probe.engine.device.cuda.tensors.tensor import Tensor

# What ONNX Runtime adds to scores of keys that a query may not look at; the standard says -Inf, which is stored and multiplied alike.
_LOWEST = literal(float(np.finfo(np.float32).min))
_MINUS_INF = literal(-math.inf)
OF_PRODUCT, OF_CAP, OF_MASK, OF_SOFTMAX = range(4)  # what qk_matmul_output is: qk_matmul_output_mode


@dataclass(frozen=True, slots=True)
class Place:
    """What expressions call the query and the key of a score."""

    query: str
    key: str


@dataclass(frozen=True, slots=True)
class Looking:
    """What becomes of scores.

    Attributes:
        scale: of the product.
        cap: scores are bent to stay within it; 0: they are not.
        causal: a query looks at no key behind its own.
        window: keys before and behind its own that a query looks at; -1: all.
        mask: added to scores, or says at which keys to look; its axes those of scores.
        lengths: of the keys of each batch; ``past``: keys before the first query, the same for every batch. At most one of them is there.
        queries: that there are.
        kept: which scores qk_matmul_output is, where somebody wants it.
    """

    scale: float
    cap: float
    causal: bool
    window: tuple[int, int]
    mask: Tensor | None
    lengths: Tensor | None
    past: int
    queries: int
    kept: int

    @property
    def readings(self) -> list[tuple[str, Reading]]:
        """What steps read, by the name that they call it; broadcast to the scores."""
        found = []
        if self.mask is not None:
            found.append(("mask", Reading(self.mask)))
        if self.lengths is not None:
            found.append(("lengths", Reading(self.lengths)))
        elif self.past and self.walks:
            found.append(("past", Reading(host_tensor(np.array(self.past, np.int32)))))
        return found

    @property
    def asks_where(self) -> bool:
        """Whether anything depends on which query and key a score is of."""
        return self.walks or self.lengths is not None

    @property
    def seen(self) -> int:
        """Keys that the first query looks at, where each further one looks at one more; 0: it is otherwise."""
        return self.past + 1 if self.causal and self.lengths is None and self.queries > 1 else 0

    @property
    def walks(self) -> bool:
        """Whether a query looks at keys by where they lie behind or before its own."""
        return self.causal or max(self.window) >= 0

    @property
    def leaves_rows_empty(self) -> bool:
        """Whether a query may have no key to look at: what it gets is 0."""
        return self.mask is not None or self.lengths is not None or max(self.window) >= 0

    def _looks(self, at: Place) -> list[str]:
        """Conditions under which a query looks at a key."""
        found = []
        behind = f"({at.key} - {at.query})"  # how far the key lies behind the query
        if self.lengths is not None:
            found.append(f"{at.key} < lengths")
            behind = f"({behind} - (lengths - {self.queries}))"
        elif self.past and self.walks:
            behind = f"({behind} - past)"
        before, ahead = self.window
        if self.causal:
            found.append(f"{behind} <= 0")
        if before >= 0:
            found.append(f"{behind} >= -{before}")
        if ahead >= 0:
            found.append(f"{behind} <= {ahead}")
        if self.mask is not None and self.mask.format is B8:
            found.append("mask")
        return found

    def between(self, at: Place, store: Format | None) -> list[Step]:
        """From a product to what the softmax is made of.

        Args:
            store: of the scores that are an output; None: nobody wants them.
        """
        steps = [Step("s_", "float", "sum"), Step("scaled", "float", f"op_mul(s_, {literal(self.scale)})")]
        ends = [len(steps)]
        if self.cap:
            bent = f"op_mul(op_tanh(op_div(scaled, {literal(self.cap)})), {literal(self.cap)})"
            steps.append(Step("capped", "float", bent))
        ends.append(len(steps))
        if self.mask is not None and self.mask.format is not B8:
            steps.append(Step("masked", "float", f"op_add({steps[-1].name}, mask)"))
        looks = self._looks(at)
        if looks:
            hides = f"({' && '.join(looks)}) ? 0.f : {_LOWEST}"
            steps.append(Step("seen", "float", f"op_add({steps[-1].name}, ({hides}))"))
        ends.append(len(steps))
        if self.kept != OF_SOFTMAX:
            steps[ends[self.kept] - 1] = replace(steps[ends[self.kept] - 1], store=store)
        return steps

    def looks(self, at: Place) -> str:
        """The condition under which a query looks at a key."""
        found = self._looks(at)
        if self.mask is not None and self.mask.format is not B8:
            found.append(f"mask != {_MINUS_INF}")
        return " && ".join(found) or "true"

    def after(self, at: Place, store: Format | None) -> list[Step]:
        """From the softmax to what multiplies the values; ``store`` as for ``between``. Weights of rows without a key are zeros."""
        steps = [Step("w_", "float", "sum")]
        if self.leaves_rows_empty:
            steps.append(Step("w", "float", f"({self.looks(at)}) ? w_ : 0.f"))
        if self.kept == OF_SOFTMAX:
            steps[-1] = replace(steps[-1], store=store)
        return steps
