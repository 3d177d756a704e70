"""What ``probe run`` found: verdict, outputs, layers with local and accumulated error, causes. Saved as ``probe.run/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from probe.results.diff import Criterion, Metrics, SourceInfo, TensorDiff, Verdict
from probe.results.tensors import InputInfo

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class GoldenInfo:
    """The reference, and how close the engine comes to it without low precision."""

    kind: Literal["ort", "fp64", "file"]
    source: SourceInfo
    noise_floor: dict[str, float] = field(default_factory=dict)  # output -> range_rel; Inf where NaN or Inf differ
    noise_method: str = ""  # how the floor was measured; "" when it was not


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """A graph output in short; ``tensors`` has the whole of it."""

    verdict: Verdict
    metrics: Metrics | None  # None: not compared
    noise_floor: float | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerError:
    """A layer and the errors of its worst output, as range_rel; Inf where NaN or Inf appear that the reference lacks.

    With g the golden inputs of the layer, f_p the layer in its precision, f_32 in FP32, R rounding to its precision: None means
    "could not be measured", for which ``note`` has the reason, never "zero".
    """

    name: str
    kind: str  # conv, matmul, pointwise, reduce, norm, softmax, move, ...
    pattern: str  # the fusion that made it; "" for a single node
    nodes: tuple[str, ...]  # ONNX nodes, by identity
    reads: tuple[str, ...]  # activations from outside
    outputs: tuple[str, ...]
    precision: str
    tactic: str
    accumulated: float | None = None  # in the running engine against the golden
    local: float | None = None  # f_p(R(g)) against f_32(R(g)): what its own arithmetic and storage add
    injected: float | None = None  # f_p(g) against the golden: the same with the rounding of its inputs
    floor: float | None = None  # f_32(g) against the golden: how much is not precision at all
    gain: float | None = None  # noise-to-signal power out / in of errors that arrive: above 1 it amplifies
    nonfinite: int = 0  # elements of its outputs that are NaN or Inf and not in the golden, or the reverse
    beyond: bool = False  # an output is beyond the acceptance of outputs
    scope: str = ""  # "" at the top, "If_1/then_branch" inside
    worst_output: str | None = None
    worst_input: str | None = None  # of a dataset
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunFinding:
    """Something noticed inside the network, with numbers. ``fatal``: on the way to an output that fails; else harmless.

    ``range`` is the largest golden magnitude, or what the finding is about; ``margin`` the format's maximum over it: below 1 it overflows.
    """

    kind: str
    message: str
    tensor: str | None = None
    node: str | None = None
    layer: str | None = None
    range: float | None = None
    margin: float | None = None
    where: str = ""  # how many elements, and the first of them: "3 of 40 elements, first [0,17]"
    cure: str = ""
    keep: tuple[str, ...] = ()  # tensors that would have to stay in FP32, as far as this finding goes
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class CureTried:
    """The run repeated with what the fatal findings would keep in FP32: whether they tell the whole story."""

    keep: tuple[str, ...]
    verdict: Verdict
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherInterior:
    """The verdict with the insides of fused layers stored the other way: as a runtime that fuses more, or less, would."""

    interior: str
    verdict: Verdict
    differs: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AsWritten:
    """The verdict with passes none, fusion none, insides stored: node by node as the file has them. Says why a verdict differs from that
    of a tool that changes nothing."""

    verdict: Verdict
    differs: bool
    changes: int  # that the passes made
    by: tuple[str, ...]  # the passes that made them
    range_rel: float  # of its worst output
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedDifference:
    """An output that was not the same when nothing was tapped."""

    output: str
    input_id: str
    elements: int  # that differ in their bits
    count: int
    max_abs: float  # Inf where NaN or Inf differ


@dataclass(frozen=True, slots=True)
class ObserverCheck:
    """The run repeated without taps, and whether watching changed what was watched."""

    identical: bool
    outputs: int  # compared, over all inputs
    differences: tuple[ObservedDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class RepeatDifference:
    """A tensor that was not the same in a later run, in a run with every tensor handed out or, ``output`` of one without, in that."""

    tensor: str
    layer: str | None
    input_id: str
    run: int  # the first it differed in, counted from 1; it is compared with run 1
    elements: int  # that differ in their bits
    count: int
    max_abs: float  # Inf where NaN or Inf differ
    tapped: bool = True


@dataclass(frozen=True, slots=True)
class RepeatCheck:
    """The run repeated, every tensor compared bit by bit."""

    identical: bool
    runs: int
    tensors: int  # compared each time, over all inputs
    differing: int = 0  # of them
    first: RepeatDifference | None = None  # in execution order


@dataclass(frozen=True, slots=True)
class Fallback:
    """A layer that the device has no kernel for, and what computes it instead."""

    layer: str
    op: str
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class RunResult:
    """Everything ``probe run`` says. True when the verdict is passed or warned, and repeating, where asked for, gave the same bits."""

    verdict: Verdict
    reasons: tuple[str, ...]
    model: str
    model_sha256: str
    precision: str
    device: str  # in words: "cpu: FP16 storage, FP32 accumulation, emulated"
    golden: GoldenInfo
    acceptance: tuple[Criterion, ...]
    outputs: dict[str, OutputVerdict]
    layers: tuple[LayerError, ...]  # in execution order, those of branches before their If
    tensors: tuple[TensorDiff, ...]  # every golden tensor in recorded order with its status, then extras
    first_divergence: tuple[str, ...]  # layers beyond the acceptance that read only what is within it
    findings: tuple[RunFinding, ...]  # fatal ones first, each kind in execution order
    interior: str = "storage"
    other_interior: OtherInterior | None = None
    as_written: AsWritten | None = None  # None where the passes change nothing
    passes: str = "safe"
    fusion: str = "safe"
    keep: tuple[str, ...] = ()  # tensors and layers kept in FP32
    fallbacks: tuple[Fallback, ...] = ()
    cure: CureTried | None = None
    observer: ObserverCheck | None = None
    repeats: RepeatCheck | None = None
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    strict_layers: bool = False
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    schema: str = "probe.run/1"

    def __bool__(self) -> bool:
        return self.verdict in ("passed", "warned") and (self.repeats is None or self.repeats.identical)

    def frame(self) -> pl.DataFrame:
        """The layers as a polars frame, a row each, errors as columns (``probe.results.frames``)."""
        from probe.results.frames import layer_frame

        return layer_frame(self)

    @property
    def statuses(self) -> dict[str, int]:
        """Status -> tensors."""
        counted: dict[str, int] = {}
        for tensor in self.tensors:
            counted[tensor.status] = counted.get(tensor.status, 0) + 1
        return counted
