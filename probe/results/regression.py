"""Two saved results, before and after: what got better or worse, tensor by tensor and part by part. Saved as ``probe.regression/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from probe.results.diff import Criterion, Verdict
from probe.results.tensors import InputInfo, Role

ChangeStatus = Literal["same", "better", "worse", "only_before", "only_after"]
Presence = Literal["same", "only_before", "only_after"]
What = Literal["fusion", "precision", "tactic", "fallback"]  # that a part is computed with otherwise than before


@dataclass(frozen=True, slots=True)
class ResultSide:
    """Where one of the two results comes from. Empty: it does not say."""

    path: str
    schema: str  # of the result
    verdict: Verdict
    model: str = ""
    model_sha256: str = ""
    precision: str = ""
    device: str = ""
    passes: str = ""
    fusion: str = ""
    interior: str = ""
    golden: str = ""  # how it was made, or where it lies
    acceptance: tuple[Criterion, ...] = ()
    inputs: tuple[InputInfo, ...] = ()
    keep: tuple[str, ...] = ()  # tensors and layers kept in FP32, as far as that was asked for
    layers: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True, slots=True)
class SettingChange:
    """Something that is not the same on both sides: precision, fusion, a version."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor in two saved results. ``ratio`` = after / before of range_rel; above 1 is worse. Inf: NaN or Inf that the golden lacks."""

    name: str
    status: ChangeStatus
    role: Role
    before: float | None
    after: float | None
    ratio: float | None
    verdict_before: Verdict | None = None
    verdict_after: Verdict | None = None


@dataclass(frozen=True, slots=True)
class PartLayer:
    """A layer of one side. Errors as in ``probe.results.run.LayerError``."""

    name: str
    nodes: tuple[str, ...]
    precision: str
    tactic: str
    pattern: str = ""  # the fusion that made it; "" for a single node
    fallback: str = ""  # what computes it in place of the device
    accumulated: float | None = None
    injected: float | None = None
    local: float | None = None


@dataclass(frozen=True, slots=True)
class PartChange:
    """The same part of the network on both sides: the smallest groups of layers that compute the same ONNX nodes.

    Where fusions agree a part is one layer; where they do not, the layers between tensors that both sides write. ``status`` speaks of the
    error at those tensors, in the running networks; ``own`` of what the layers add by themselves, from exact inputs.
    """

    name: str  # of its layer, or the largest one
    status: ChangeStatus
    own: Literal["same", "better", "worse", "unknown"]
    boundary: tuple[str, ...]  # tensors that both sides write: where their errors are compared
    before: float | None  # largest range_rel at the boundary
    after: float | None
    ratio: float | None  # after / before
    own_before: float | None  # largest injected error of its layers (local where that was not measured)
    own_after: float | None
    layers_before: tuple[PartLayer, ...]
    layers_after: tuple[PartLayer, ...]
    changed: tuple[What, ...] = ()
    starts_before: bool = False  # error first exceeds the acceptance here
    starts_after: bool = False


@dataclass(frozen=True, slots=True)
class FindingChange:
    """A finding that only one side has, or both."""

    status: Presence
    kind: str
    message: str
    fatal: bool  # after; before where it is gone
    was_fatal: bool = False
    tensor: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class KeptChange:
    """Of two searches: a tensor or layer that must stay FP32 on one side or both."""

    name: str
    status: Presence


@dataclass(frozen=True, slots=True)
class RegressionResult:
    """Two saved results of run, diff or find, before and after. True when nothing got worse beyond the allowance.

    ``warnings``: what makes the two incomparable in part, such as other inputs. Parts and tensors inside are listed and decide nothing.
    """

    verdict: Literal["passed", "failed"]
    reasons: tuple[str, ...]
    before: str
    after: str
    verdict_before: Verdict
    verdict_after: Verdict
    changes: tuple[TensorChange, ...]  # in recorded order
    worse_factor: float  # an error this many times larger counts as worse
    noise: float = (
        1e-6  # range_rel below this neither improves nor worsens; of an output, its noise floor if that is larger
    )
    parts: tuple[PartChange, ...] = ()  # in execution order; () where no layers were recorded
    findings: tuple[FindingChange, ...] = ()
    kept: tuple[KeptChange, ...] = ()
    first_before: tuple[str, ...] = ()  # where error starts: layers of a run, tensors of a diff
    first_after: tuple[str, ...] = ()
    settings: tuple[SettingChange, ...] = ()
    warnings: tuple[str, ...] = ()
    sides: tuple[ResultSide, ...] = ()  # before, after; () in files of older versions
    schema: str = "probe.regression/1"

    def __bool__(self) -> bool:
        return self.verdict == "passed"

    @property
    def of_searches(self) -> bool:
        """Whether the two are searches, which are compared by what must stay FP32."""
        return bool(self.kept) or any(side.schema == "probe.find/1" for side in self.sides)
