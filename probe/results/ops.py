"""What ``probe inspect ops`` says: the operators the engine knows, or those of a model. Saved as ``probe.ops/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# kernel: of ONNX Runtime. function: the operator's body of other operators. reference: onnx's, slowly. weight: a constant, which nobody
# computes. none: nothing runs it.
OpRuns = Literal["kernel", "function", "reference", "weight", "none"]
# rounds: what it makes is rounded. exact: rounded inputs make a rounded result. moves: values are handed on unchanged. integers: it makes
# no floating-point tensor. bodies: what stands in its bodies decides.
OpNumerics = Literal["rounds", "exact", "moves", "integers", "bodies"]


@dataclass(frozen=True, slots=True)
class OpReport:
    """An operator: what the engine makes of it, with attributes at their defaults, and how the device runs it."""

    op: str
    domain: str  # "" for the standard's own
    since: int  # version of its domain that it has had this form since; 0: onnx does not define it
    kind: str  # as of a layer: conv, matmul, pointwise, ...
    numerics: OpNumerics
    runs: OpRuns  # of a model: the worst that any of its nodes gets
    tactics: tuple[str, ...]
    nodes: int = 0  # of a model, bodies included
    falls_back: int = 0  # layers of a model that the device has no kernel for because of it


@dataclass(frozen=True, slots=True)
class FallbackReport:
    """A layer that the device has no kernel for."""

    layer: str
    op: str
    reason: str
    by: Literal["reference", "cpu", "nothing"]


@dataclass(frozen=True, slots=True)
class OpsResult:
    """The operators of the ONNX standard, or with ``model`` those it uses, most frequent first."""

    model: str  # path; "" for the standard
    model_sha256: str
    opset: int  # version of the standard operators asked about
    device: str
    ops: tuple[OpReport, ...]
    fallbacks: tuple[FallbackReport, ...] = ()  # in execution order
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    schema: str = "probe.ops/1"
