"""The tactic file, and what ``probe tactics record`` and ``replay`` say. Saved as ``probe.tactics/1``, ``probe.tactics-record/1``,
``probe.tactics-replay/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from probe.results.diff import Criterion, Verdict
from probe.results.run import GoldenInfo, OutputVerdict
from probe.results.tensors import InputInfo

Level = Literal["none", "safe", "all", "full"]
# edited: the file is not as it was written. other_*: it was recorded of another model, on another device, or compiled in another way.
# missing_layer: no layer makes its tensors. new_layer: the file says nothing of a layer. changed_*: the layer is another problem, or another
# precision. unknown_tactic: this version has none of that name. unsupported_tactic: the device cannot compute this layer so.
MissKind = Literal[
    "edited", "other_model", "other_device", "other_settings", "missing_layer", "new_layer", "changed_problem", "changed_precision",
    "unknown_tactic", "unsupported_tactic",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Where choices, bits and times come from."""

    model_sha256: str
    device: str  # "cpu x86_64", "cuda sm_90a"
    processor: str  # its model name; "" where the system does not tell
    driver: str  # what computes there: "onnxruntime 1.31.1", a driver version
    sources: str  # sha256 of the files that say how tactics compute


@dataclass(frozen=True, slots=True)
class TacticLine:
    """A layer and its tactic. The tensors it makes are its identity."""

    tactic: str
    precision: str
    layer: str
    kind: str
    outputs: tuple[str, ...]
    reads: tuple[str, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class RecordedOutputs:
    """The graph outputs of one input: equal hashes are equal names, types, shapes and bits."""

    input: str  # id
    input_sha256: str
    outputs_sha256: str


@dataclass(frozen=True, slots=True)
class TacticFile:
    """Which tactic each layer runs, one line a layer, and what came of it. ``sha256`` of the text before it tells whether it was edited."""

    fingerprint: Fingerprint
    precision: str
    passes: str
    fusion: str
    interior: str
    layers: tuple[TacticLine, ...]  # in execution order
    kept: tuple[str, ...] = ()  # tensors that are never rounded
    recorded: tuple[RecordedOutputs, ...] = ()
    verdict: Verdict = "not_judged"  # of the run that was recorded
    schema: str = "probe.tactics/1"


@dataclass(frozen=True, slots=True)
class TacticMiss:
    """Something that keeps a tactic file from being replayed as it was recorded."""

    kind: MissKind
    message: str
    layer: str = ""
    wanted: str = ""  # tactic in the file
    chosen: str = ""  # tactic taken instead; "" where none was


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """One way to compute a layer. ``refused_by``: the selector that did not allow it; "" when all did."""

    tactic: str
    numerics: str
    workspace: int | None  # bytes; None: a shape is not known
    formats: tuple[str, ...]  # storage of each tensor it reads, then makes
    deterministic: bool
    median_us: float | None = None  # None: not measured
    refused_by: str = ""


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """A layer, the tactic it runs, and the others there were, in the order of preference."""

    layer: str
    kind: str
    precision: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    outputs: tuple[str, ...]
    problem: str
    tactic: str
    candidates: tuple[CandidateReport, ...]


@dataclass(frozen=True, slots=True)
class TacticRun:
    """A network run with chosen tactics, and judged."""

    verdict: Verdict
    reasons: tuple[str, ...]
    model: str
    fingerprint: Fingerprint
    precision: str
    device: str  # in words
    golden: GoldenInfo
    acceptance: tuple[Criterion, ...]
    outputs: dict[str, OutputVerdict]
    layers: tuple[LayerChoice, ...]
    recorded: tuple[RecordedOutputs, ...]
    passes: str = "safe"
    fusion: str = "safe"
    interior: str = "storage"
    kept: tuple[str, ...] = ()
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # by phase


@dataclass(frozen=True, slots=True)
class TacticsRecordResult:
    """What ``probe tactics record`` did. True when the recorded run passed or warned."""

    run: TacticRun
    file: str  # the tactic file that was written
    selectors: tuple[str, ...]  # that chose, in the order they were asked
    timing_cache: str = ""  # the file of measured times; "" when there is none
    measured: int = 0  # times measured now
    reused: int = 0  # times taken from the cache
    command: str = ""
    schema: str = "probe.tactics-record/1"

    def __bool__(self) -> bool:
        return self.run.verdict in ("passed", "warned")


@dataclass(frozen=True, slots=True)
class TacticsReplayResult:
    """What ``probe tactics replay`` did. True when the run passed or warned and, replayed strictly, made the recorded bits."""

    run: TacticRun
    file: str
    kind: Literal["probe", "polygraphy"]  # who wrote the file
    strict: bool
    identical: bool | None  # outputs are those recorded, bit for bit; None: none were recorded for these inputs
    compared: int = 0  # inputs whose outputs were compared with recorded ones
    differing: tuple[str, ...] = ()  # inputs whose outputs are not those recorded
    misses: tuple[TacticMiss, ...] = ()  # lenient: what was not as in the file, and what was chosen instead
    ignored: tuple[str, ...] = ()  # what the file says that means nothing here
    written: str = ""  # a new tactic file
    command: str = ""
    schema: str = "probe.tactics-replay/1"

    def __bool__(self) -> bool:
        return self.run.verdict in ("passed", "warned") and not (self.strict and self.identical is False)


@dataclass(frozen=True, slots=True)
class TrtTactic:
    """A row of TensorRT's table of evaluated tactics."""

    tactic_id: int
    cost_ms: float
    slowdown: float | None  # cost over the fastest one's
    correlation: float | None  # of TensorRT's prediction
    kernel: str
    tactic_hash: str  # "0x665ded9abbf88": what a timing cache holds
    parameter: str = ""  # tunable_parameter


@dataclass(frozen=True, slots=True)
class TrtOp:
    """An operator that TensorRT autotuned: what it tried and what it took."""

    op: str
    key: str  # of the editable timing cache
    layers: str  # what the log says behind the name
    tactics: tuple[TrtTactic, ...]  # as listed: the fastest first
    chosen: str  # tactic hash; "" where the log ends before
    chosen_ms: float | None = None

    @property
    def taken(self) -> TrtTactic | None:
        """The row that was chosen; None where the table has none."""
        return next((one for one in self.tactics if one.tactic_hash == self.chosen), None)


@dataclass(frozen=True, slots=True)
class TrtDifference:
    """An operator that two builds did not treat alike.

    ``choice``: another tactic. ``only_first``, ``only_second``: the other log does not have the operator. ``candidates``: the same tactic out of
    other candidates.
    """

    op: str
    kind: Literal["choice", "only_first", "only_second", "candidates"]
    message: str
    first: str = ""  # tactic hash
    second: str = ""
    first_kernel: str = ""
    second_kernel: str = ""
    cost_of_first: float | None = (
        None  # ms that the first log's tactic takes in the second log, over what the second log's takes there
    )


@dataclass(frozen=True, slots=True)
class TacticsLogResult:
    """What TensorRT's verbose log says of tactics, and what a second log says otherwise. True when they do not differ in a choice."""

    log: str
    ops: tuple[TrtOp, ...]  # in the order of the log
    other: str = ""  # a second log
    differences: tuple[TrtDifference, ...] = ()
    same: int = 0  # operators with the same choice in both
    notes: tuple[str, ...] = ()
    command: str = ""
    schema: str = "probe.tactics-log/1"

    def __bool__(self) -> bool:
        return not any(one.kind == "choice" for one in self.differences)
