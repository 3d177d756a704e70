"""What ``probe diff`` found: verdict, outputs, tensors, findings. Saved as ``probe.diff/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from probe.results.detail import Detail
from probe.results.numbers import exact
from probe.results.tensors import InputInfo, Role

if TYPE_CHECKING:
    import polars as pl

Verdict = Literal["passed", "warned", "failed", "not_judged"]
Status = Literal[
    "compared", "interior", "folded", "equivalent", "not_run", "not_recorded", "stats_only",
    "missing", "extra", "shape_mismatch", "kind_mismatch", "unsupported",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Criterion:
    """One bound of an acceptance, such as ``range_rel<=0.01 @ logits``."""

    metric: str
    op: Literal["<=", ">=", "<", ">", "=="]
    threshold: float
    output: str | None = None  # None: every output
    level: Literal["fail", "warn"] = "fail"
    source: str = "default"  # "default" | "user" | "preset torch" ...

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{exact(self.threshold)}" + (
            f" @ {self.output}" if self.output is not None else ""
        )


@dataclass(frozen=True, slots=True)
class WorstElement:
    """One of the elements with the largest absolute difference."""

    index: tuple[int, ...]
    actual: float
    golden: float
    error: float  # |actual - golden|, in units of the tensor
    input_id: str = ""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of one tensor pair, merged over all inputs. Formulas, units and corner cases: ``probe.metrics.formulas``.

    None means "not defined here" (KL of rows that do not sum to 1, ULP of integers), never "zero".
    """

    count: int  # elements of golden
    compared: int  # of them finite in both and no sentinel: what the sums below run over
    range: float  # max |golden| over finite elements without sentinels
    max_abs: float
    mean_abs: float
    max_rel: float
    mean_rel: float
    range_rel: float
    range_rel_item: float | None
    rmse: float
    nmse: float
    sqnr_db: float
    psnr_db: float
    cosine: float
    kl: float | None
    kl_max: float | None
    ulp_max: float | None
    ulp_p99: float | None
    ulp_over_1: int | None
    mismatched: int
    mismatch_fraction: float
    p50: float
    p90: float
    p99: float
    p999: float
    top1: float | None
    top5: float | None
    channel_worst: float | None  # largest error of a channel / that channel's own range
    channel: int | None
    channel_axis: int | None
    max_steps: float | None  # max_abs in quantisation steps
    item: int | None  # index on axis 0 of range_rel_item
    nonfinite_mismatch: int  # NaN or Inf where golden has none, or of another kind or sign, and the reverse
    nan_actual: int
    inf_actual: int
    nan_golden: int
    inf_golden: int
    sentinels: int  # elements of golden that are masks (see design: range_rel)
    sentinel_value: float | None  # the largest of them in magnitude
    sentinel_mismatch: int
    actual_min: float
    actual_max: float
    golden_min: float
    golden_max: float
    smallest_atol: float | None = None  # with rtol = 0; only with --smallest-tolerance
    smallest_rtol: float | None = None  # with atol = 0
    smallest_both: float | None = None  # atol = rtol = this


@dataclass(frozen=True, slots=True)
class InputDiff:
    """One output for one input of a dataset: enough to find the inputs worth looking at."""

    input_id: str
    verdict: Verdict
    range_rel: float
    cosine: float
    max_abs: float
    nonfinite_mismatch: int


@dataclass(frozen=True, slots=True)
class TensorDiff:
    """One golden tensor (or an extra of actual), over all inputs. ``beyond``: outside the acceptance of an output."""

    name: str  # golden's name
    actual_name: str | None
    status: Status
    role: Role
    verdict: Verdict
    dtype_actual: str | None
    dtype_golden: str | None
    shape: tuple[int, ...]  # of golden, first input
    shape_actual: tuple[int, ...] | None = None
    precision: str | None = None
    layer: str | None = None
    nodes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    tactic: str | None = None
    metrics: Metrics | None = None
    worst: tuple[WorstElement, ...] = ()
    worst_input: str | None = None
    failing_inputs: tuple[str, ...] = ()
    per_input: tuple[InputDiff, ...] = ()  # outputs of datasets only
    inputs: int = 0  # inputs compared
    beyond: bool = False
    reasons: tuple[str, ...] = ()
    detail: Detail | None = None  # of outputs, first divergences and the worst: a bounded number of tensors


@dataclass(frozen=True, slots=True)
class Finding:
    """Something noticed that explains or qualifies the verdict."""

    kind: str  # "first_nan", "inputs_differ", "names_do_not_match", "near_threshold", ...
    message: str
    tensor: str | None = None
    node: str | None = None
    cure: str = ""
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A likely partner for an unmatched name; never used unless the user maps it."""

    actual: str
    golden: str
    similarity: float  # 0..1 of the names
    same_shape: bool


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """One side of a diff."""

    path: str
    kind: str  # "dump", "npz", "npy folder", "polygraphy", "safetensors", "result"
    runner: str = ""
    model: str = ""
    model_sha256: str = ""
    precision: str = ""
    golden: str = ""
    inputs: tuple[InputInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class DiffResult:
    """Everything ``probe diff`` says. True when the verdict is passed or warned."""

    verdict: Verdict
    reasons: tuple[str, ...]
    actual: SourceInfo
    golden: SourceInfo
    acceptance: tuple[Criterion, ...]
    tensors: tuple[TensorDiff, ...]  # every golden tensor in recorded order, then extras
    first_divergence: tuple[str, ...]
    findings: tuple[Finding, ...]
    suggestions: tuple[Suggestion, ...]
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    strict_layers: bool = False
    roles_known: bool = True  # False: neither side records roles, every tensor was judged as an output
    seconds: float = 0.0
    schema: str = "probe.diff/1"

    def __bool__(self) -> bool:
        return self.verdict in ("passed", "warned")

    def frame(self) -> pl.DataFrame:
        """The tensors as a polars frame, a row each; outputs of a dataset have one more for every input (``probe.results.frames``)."""
        from probe.results.frames import diff_frame

        return diff_frame(self)

    @property
    def outputs(self) -> tuple[TensorDiff, ...]:
        return tuple(t for t in self.tensors if t.role == "output")
