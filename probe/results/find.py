"""What ``probe find`` found: what must stay FP32, how each part is known to be needed, how it was proved, what to hand over. Saved as ``probe.find/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from probe.results.convert_result import ConvertResult, ExportProof
from probe.results.diff import Criterion, SourceInfo, Verdict
from probe.results.run import RunFinding
from probe.results.tensors import InputInfo

if TYPE_CHECKING:
    import polars as pl

Status = Literal["nothing_needed", "found", "found_not_minimal", "unreachable", "flaky", "interrupted", "budget"]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A set kept in FP32, run on all inputs and judged."""

    passed: bool
    margin: float | None  # 1 - value / limit of the tightest criterion; -Inf for NaN or Inf; None: the judge gives none
    metric: float | None  # range_rel of the worst output; Inf where NaN or Inf differ; None: it did not run
    reasons: tuple[str, ...] = ()
    failing_inputs: tuple[str, ...] = ()
    votes: tuple[int, int] | None = None  # (passes, fails) where several evaluations decided


@dataclass(frozen=True, slots=True)
class Baselines:
    """What brackets the answer. None: was not asked, or is not known."""

    all_low: Evaluated | None
    all_fp32: Evaluated | None
    answer: Evaluated | None = None
    answer_rerun: Evaluated | None = None  # in an engine compiled anew
    noise_floor: dict[str, float] = field(default_factory=dict)  # output -> range_rel of all-FP32
    float64_floor: dict[str, float] = field(
        default_factory=dict
    )  # output -> range_rel of the golden to float64, where that was asked


@dataclass(frozen=True, slots=True)
class Voting:
    """The oracle contradicted itself: questions were decided by several evaluations each."""

    noise: float  # share of evaluations of all-FP32 that fail
    confidence: float  # of each decision


@dataclass(frozen=True, slots=True)
class Need:
    """The certificate of a kept unit: the answer with this unit alone low, evaluated afresh. It fails."""

    evaluation: int  # its place in the log
    margin: float | None
    metric: float | None
    failing_inputs: tuple[str, ...] = ()
    decided: bool = True  # False: votes stayed open


@dataclass(frozen=True, slots=True)
class Keep:
    """A tensor, or a layer, that stays FP32."""

    tensor: str  # "" where a whole layer is kept
    layer: str
    nodes_fp32: tuple[str, ...]  # its producer and its consumers, by identity, which therefore run in FP32
    unit: str  # what it was decided with
    certificate: Need | None
    shape: tuple[int, ...] | None = None
    kind: Literal["activation", "weight", "input", "layer"] = "activation"
    why: str = ""  # what the instrumented pass says about it
    reach: float | None = None  # largest finite magnitude in the golden


@dataclass(frozen=True, slots=True)
class Culprits:
    """Units that break the output when they alone are low; each of ``alternatives`` could be kept in place of ``unit``."""

    unit: str
    units: tuple[str, ...]
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compensating:
    """Units that pass together, kept or low, and fail when they are split: their errors cancel."""

    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LighterCure:
    """Something other than FP32 that was tried for the whole network."""

    kind: str  # bf16, tf32, fused_interior, constants
    words: str
    verdict: Verdict
    metric: float | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TacticSwitch:
    """A layer that runs with a more accurate tactic than the tactic file says. ``cost_us``: how much longer it takes, measured."""

    layer: str
    before: str
    after: str
    cost_us: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What keeping the answer costs, modelled. ``latency`` is a roofline's, relative to all-low (1.0), Casts counted."""

    flops: int | None
    flops_fp32: int | None
    bytes_fp32: int | None  # more bytes that tensors and weights take
    casts: int | None
    cast_bytes: int | None
    latency: float | None
    latency_fp32: float | None  # of everything in FP32, on the same scale
    model: str = ""  # which machine was assumed


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The answer on inputs that the search did not see, in the engine and, where one was written, as the export."""

    verdict: Verdict
    evaluated: Evaluated
    inputs: tuple[InputInfo, ...]
    exported: ExportProof | None = None

    def __bool__(self) -> bool:
        return self.evaluated.passed and (self.exported is None or self.exported.passed)


@dataclass(frozen=True, slots=True)
class Exported:
    """The mixed-precision model and its proofs."""

    path: str  # "" when it was made for the proof only
    proofs: tuple[ExportProof, ...]
    passed: bool
    conversion: ConvertResult  # Casts, hand-over lists and their proofs


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One evaluation, in order."""

    index: int
    kind: Literal["search", "probes", "proof"]
    why: str
    kept: int  # members in FP32
    passed: bool
    margin: float | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A unit as the instrumented pass ranked it."""

    unit: str
    score: float  # local error times gain: its part of the error at the outputs, as an amplitude
    flagged: bool


@dataclass(frozen=True, slots=True)
class FindResult:
    """Everything ``probe find`` says. True when a passing set is known and nothing that was proved afterwards failed."""

    status: Status
    reason: str  # the status in a sentence
    model: str
    model_sha256: str
    precision: str
    device: str  # in words: "cpu: FP16 storage, FP32 accumulation, emulated"
    granularity: Literal["tensor", "layer", "block"]
    objective: Literal["count", "latency", "bytes"]
    keep: tuple[Keep, ...]  # in model order; what the status speaks of
    oracle: Baselines
    evaluations: dict[str, int]  # search, probes, proof, cached; tactics: for switches of tactics
    acceptance: tuple[Criterion, ...]
    units: int = 0  # decisions of the search
    groups: tuple[Culprits, ...] = ()
    compensating: tuple[Compensating, ...] = ()
    violations: int = 0  # evaluations where keeping more was worse
    voting: Voting | None = None
    lighter: tuple[LighterCure, ...] = ()
    tactics: str = ""  # the tactic file that it ran with
    switches: tuple[TacticSwitch, ...] = ()  # its choices that had to be more accurate
    cost: Cost | None = None
    held_out: HeldOut | None = None
    exported: Exported | None = None
    aggregate: str = "worst"  # how a dataset's values are joined
    check: str = ""  # the program or function that judged, if one did
    steps: tuple[SearchStep, ...] = ()
    suspects: tuple[Suspect, ...] = ()  # the first of the ranking
    findings: tuple[RunFinding, ...] = ()  # of the instrumented all-low run
    golden: SourceInfo | None = None
    interior: str = "storage"
    passes: str = "none"
    fusion: str = "none"
    inputs: tuple[InputInfo, ...] = ()
    log: str = ""  # the evaluation log, for --resume
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    schema: str = "probe.find/1"

    def __bool__(self) -> bool:
        known = self.status in ("nothing_needed", "found", "found_not_minimal")
        proved = (self.exported is None or self.exported.passed) and (self.held_out is None or bool(self.held_out))
        rerun = self.oracle.answer_rerun
        return known and proved and (rerun is None or rerun.passed)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the kept tensors: what ``probe convert --keep @file`` and ``probe.run(keep=...)`` take."""
        return tuple(one.tensor for one in self.keep if one.tensor)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Producers and consumers of what is kept, each once: the same answer for tools that know nodes only."""
        return tuple(dict.fromkeys(node for one in self.keep for node in one.nodes_fp32))

    def frame(self) -> pl.DataFrame:
        """The evaluations as a polars frame, a row each."""
        from probe.results.frames import evaluation_frame

        return evaluation_frame(self)
