"""What ``probe inspect`` and ``probe dump`` say. Saved as ``probe.inspect/1`` and ``probe.dump/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from probe.results.tensors import InputInfo, RunHeader, TensorInfo


@dataclass(frozen=True, slots=True)
class PortReport:
    """An input or output of a model. A symbolic extent is its name, an unknown one None; shape None: unknown rank."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class OpCount:
    """How often an operator occurs, bodies included. ``domain`` is "" for the ONNX standard's own."""

    op: str
    domain: str
    count: int


@dataclass(frozen=True, slots=True)
class WeightCount:
    """Initialisers of one type."""

    dtype: str
    tensors: int
    parameters: int  # elements
    bytes: int


@dataclass(frozen=True, slots=True)
class ControlFlowReport:
    """A node that owns bodies: If, Loop, Scan."""

    node: str  # identity
    op: str
    bodies: tuple[str, ...]  # "then_branch", "body", ...
    nodes: int  # in all its bodies, nested ones included


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node by its identity, with the tensors it reads and writes."""

    node: str
    op: str
    inputs: tuple[str, ...]  # "" where an optional input is omitted
    outputs: tuple[str, ...]
    body: str = ""  # "" at the top level, else owning node + "/" + branch


@dataclass(frozen=True, slots=True)
class LayerReport:
    """Nodes that the engine computes together. Operations and bytes are None where a shape or an operator's formula is not known."""

    name: str
    kind: str  # "conv" | "matmul" | "pointwise" | "norm" | ...
    pattern: str  # the fusion that made it: "conv + relu"; "" for a single node
    nodes: tuple[str, ...]  # identities of the ONNX nodes
    outputs: tuple[PortReport, ...]  # tensors read outside it
    works: bool  # launches work: no view, no host arithmetic, no concatenation written in place
    flops: int | None  # floating-point operations
    bytes: int | None  # read, written and of weights
    weights_bytes: int | None
    scope: str = ""  # "" at the top level, else the If and its branch


@dataclass(frozen=True, slots=True)
class FateReport:
    """A tensor of the file that the passes removed."""

    tensor: str
    status: str  # "folded": computed away | "equivalent": the same values under another name
    by: str  # the pass
    to: str = ""  # equivalent: the tensor that holds the values


@dataclass(frozen=True, slots=True)
class RefusalReport:
    """A fusion whose pattern was there and that was not made."""

    pattern: str
    nodes: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class LayersReport:
    """What the engine makes of a model."""

    passes: str  # "none" | "safe" | "all"
    fusion: str  # "none" | "safe" | "full"
    layers: tuple[LayerReport, ...]  # in execution order, branches before their If
    changes: dict[str, int]  # pass -> changes it made
    fates: tuple[FateReport, ...] = ()
    refusals: tuple[RefusalReport, ...] = ()
    notes: tuple[str, ...] = ()  # what the passes could not do, and why
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # as given

    @property
    def working(self) -> int:
        """Layers that launch work."""
        return sum(layer.works for layer in self.layers)


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What an ONNX model is made of."""

    path: str
    sha256: str
    bytes: int  # of the .onnx file
    external_bytes: int  # of its external data files
    external_files: tuple[str, ...]
    ir_version: int
    producer: str
    opset: dict[str, int]  # domain -> version
    numerics: str  # "float32" | "float16" | "bfloat16" | "float64" | "qdq"
    inputs: tuple[PortReport, ...]
    outputs: tuple[PortReport, ...]
    nodes: int  # bodies included
    nodes_in_bodies: int
    unnamed_nodes: int
    ops: tuple[OpCount, ...]  # most frequent first
    weights: tuple[WeightCount, ...]
    control_flow: tuple[ControlFlowReport, ...]
    custom_domains: tuple[str, ...]
    notes: tuple[str, ...] = ()  # what was noticed and tolerated while loading
    selected: str = ""  # the regular expression; "" for none
    selected_nodes: tuple[NodeReport, ...] = ()  # whose identity or outputs it is found in
    layers: LayersReport | None = None
    not_compiled: str = ""  # why there are no layers

    @property
    def parameters(self) -> int:
        """Elements of all initialisers."""
        return sum(w.parameters for w in self.weights)


@dataclass(frozen=True, slots=True)
class TensorValues:
    """First elements of a tensor, in C order. Integers beyond 2**53, strings and complex numbers are text."""

    name: str
    input_id: str
    values: tuple[float | str, ...]


@dataclass(frozen=True, slots=True)
class RecordingReport:
    """What a recording holds. ``tensors`` are those selected; the counts are of the whole recording."""

    path: str
    kind: str  # "dump" | "npz" | "npy folder" | "polygraphy" | "safetensors"
    header: RunHeader
    roles_known: bool
    total_tensors: int
    total_bytes: int  # of stored values
    statuses: dict[str, int]
    tensors: tuple[TensorInfo, ...]
    values: tuple[TensorValues, ...] = ()
    selected: str = ""  # the regular expression; "" for all


@dataclass(frozen=True, slots=True)
class InspectResult:
    """Exactly one of ``model`` and ``recording`` is there."""

    kind: Literal["model", "recording"]
    model: ModelReport | None = None
    recording: RecordingReport | None = None
    command: str = ""
    schema: str = "probe.inspect/1"

    def __post_init__(self) -> None:
        if (self.model is None) == (self.recording is None):
            raise ValueError(
                "an inspection is of a model or of a recording"
            )  # reading a damaged file makes it a ValidationError


@dataclass(frozen=True, slots=True)
class DumpResult:
    """What ``probe dump`` recorded, and where."""

    path: str
    kind: str  # "dump" | "npz" | "safetensors"
    header: RunHeader
    tensors: int  # rows, network inputs included
    statuses: dict[str, int]  # status -> rows
    not_recorded: tuple[TensorInfo, ...]  # rows without values although asked for, each with its note
    bytes: int  # of tensor values written; of those read, for --stats-only
    nonfinite: tuple[str, ...]  # tensors that hold NaN or Inf
    inputs: tuple[InputInfo, ...]
    random_inputs: bool  # made up from a seed: they may hide failures
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    command: str = ""
    schema: str = "probe.dump/1"
