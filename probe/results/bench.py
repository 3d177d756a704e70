"""What ``probe bench`` measured: latency, throughput, time by layer against the machine's ceilings, memory. Saved as ``probe.bench/1``.

All times are seconds of one monotonic clock. A value that was not measured, or has no meaning on the device, is None and never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from probe.results.inspect import PortReport
from probe.results.tensors import InputInfo

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Spread:
    """How several measured times lie, in seconds. Percentiles are interpolated linearly between order statistics."""

    runs: int  # at least two
    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    max: float
    std: float  # of the sample, n - 1

    @property
    def cv(self) -> float:
        """Coefficient of variation: deviation over mean."""
        return self.std / self.mean if self.mean else 0.0


@dataclass(frozen=True, slots=True)
class InferenceTimes:
    """One inference, as moments of the clock counted from the first one's begin."""

    stream: int
    begin: float  # the host hands the inputs over
    fed: float  # they are where the device reads them
    computed: float
    end: float  # the outputs are back on the host
    enqueued: float | None = None  # the host has issued all work and is free; None where the host computes itself
    issuing: float | None = None  # the host begins to issue it, which may be before the inputs are there
    sent: float | None = None  # the device begins to copy the inputs; None: as begin
    back: float | None = None  # the outputs are copied, before the host looks at them; None: as end

    @property
    def latency(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class LayerTime:
    """A layer run by itself, in the order of execution, and what that is of what the machine could do.

    ``floor`` is the least time that the ceilings allow: the larger of flops over the peak and bytes over the bandwidth. ``roofline`` is
    floor over median; above 1 its tensors came out of a cache, which is faster than the memory that the ceiling was measured in.
    """

    name: str
    kind: str
    pattern: str  # the fusion that made it; "" for a single node
    nodes: tuple[str, ...]  # ONNX nodes, by identity
    outputs: tuple[str, ...]
    precision: str
    tactic: str
    runs: int  # 0: it did not run, as in a branch that was not taken
    min: float | None = None
    mean: float | None = None
    median: float | None = None
    share: float | None = None  # of the sum of all layers' medians
    flops: int | None = None  # None: not known
    bytes: int | None = None  # of activations and weights that cross its edge, each once
    flops_per_second: float | None = None
    bytes_per_second: float | None = None
    floor: float | None = None
    roofline: float | None = None
    bound: Literal["compute", "memory", ""] = ""  # which of the two sets the floor
    live_bytes: int | None = None  # held while it runs, its inputs and outputs included
    reads: tuple[str, ...] = ()  # activations from outside
    scope: str = ""  # "" at the top, "If_1/then_branch" inside


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this machine reached in the same run: the roofs of the roofline."""

    flops_per_second: float
    bytes_per_second: float
    method: str  # how both were measured
    by_precision: dict[str, float] = field(default_factory=dict)  # FLOP/s where a device has them in several precisions

    def flops_in(self, precision: str) -> float:
        """FLOP/s for layers of a precision."""
        return self.by_precision.get(precision, self.flops_per_second)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Memory of the tensors between layers, each in a buffer of its own from its maker to its last reader, in bytes."""

    arena: int  # the block that the plan needs
    peak_live: int  # the largest sum alive at one layer: no plan needs less
    peak_layer: str
    weights: int
    tensors: int  # planned
    unknown: int = 0  # tensors whose size is not known, which are left out
    note: str = ""  # what the plan does not describe
    workspace: int = 0  # the most that a layer has for itself alone, within the arena
    pinned: int = 0  # of the host, that inputs and outputs are copied through, for each stream


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Everything ``probe bench`` measured. True when the times are stable enough to be compared with others."""

    status: Literal["stable", "unstable"]
    warnings: tuple[str, ...]  # why times are unstable, or do not say what one might think
    model: str
    model_sha256: str
    precision: str
    device: str  # in words: "cpu: FP32, nothing rounded"
    executor: str  # in words: what ran when latency was measured
    emulated: bool  # times include the emulation of a precision that the device does not compute in
    streams: int
    latency: Spread  # from handing the inputs over to having the outputs back
    compute: Spread
    input_copy: Spread
    output_copy: Spread
    enqueue: Spread | None  # None: the host computes itself, there is no queue
    throughput: float  # inferences a second, all streams together
    batch: int | None  # extent that the first axis of all inputs has in common; None: there is none
    times: tuple[InferenceTimes, ...]  # in order of their begin, at most 10,000 of them, evenly chosen
    inferences: int  # that were measured
    warmup_inferences: int  # before them, which do not count
    measured_seconds: float
    layers: tuple[LayerTime, ...] = ()  # in execution order; () where they were not timed
    layers_sum: float | None = None  # of the layers' medians
    layers_whole: float | None = (
        None  # median compute of the whole network in turns with the layers: compares with the sum
    )
    call_seconds: float | None = (
        None  # what calling a layer takes: part of each layer's time, and not of the whole network's
    )
    layerwise: bool = False  # the executor runs layer after layer from the host, slower than the network as one program
    ceilings: Ceilings | None = None
    memory: MemoryPlan | None = None
    tensors: tuple[PortReport, ...] = ()  # graph inputs and what layers made, as stored; shapes of the first input set
    graph_inputs: tuple[str, ...] = ()
    graph_outputs: tuple[str, ...] = ()
    other_load: float | None = None  # cores that other programs kept busy meanwhile; None: not known
    load_seconds: float = 0.0  # reading the model file
    compile_seconds: dict[str, float] = field(default_factory=dict)  # by phase
    passes: str = "safe"
    fusion: str = "safe"
    interior: str = "storage"
    keep: tuple[str, ...] = ()
    tactics: str = ""  # the tactic file that was replayed
    threads: int = 0
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # by phase of the command
    schema: str = "probe.bench/1"

    def __bool__(self) -> bool:
        return self.status == "stable"

    @property
    def floor(self) -> float | None:
        """Least time of the whole network by the ceilings: the sum over layers; None unless it is known of all that ran."""
        ran = [layer.floor for layer in self.layers if layer.runs]
        known = [one for one in ran if one is not None]
        return sum(known) if known and len(known) == len(ran) else None

    def frame(self) -> pl.DataFrame:
        """As polars: a row a layer, all of them."""
        from probe.results.frames import time_frame

        return time_frame(self)
