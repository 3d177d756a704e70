"""A saved engine's header, and what ``probe build`` says. Saved as ``probe.engine/1`` (inside a ``.probe`` file) and ``probe.build/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from probe.results.tactics import Fingerprint


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a ``.probe`` file."""

    name: str
    offset: int  # bytes from the start of the file
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SavedChoice:
    """How a layer runs."""

    precision: str
    tactic: str


@dataclass(frozen=True, slots=True)
class SavedGroup:
    """Nodes that are one layer."""

    pattern: str
    kind: str
    nodes: tuple[int, ...]  # numbers in the order of ``SavedEngine.origins``


@dataclass(frozen=True, slots=True)
class SavedFate:
    """Why the network no longer makes a tensor that the ONNX file names."""

    status: Literal["folded", "equivalent"]
    by: str  # the pass
    to: str = ""  # equivalent: the tensor that holds the values


@dataclass(frozen=True, slots=True)
class SavedChange:
    """One change that a pass made."""

    by: str
    what: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SavedRefusal:
    """A fusion that nearly applied, and why it did not."""

    pattern: str
    nodes: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class SavedEngine:
    """The header of a ``.probe`` file: what was compiled, how, for which device, and where everything lies.

    Sections: ``model`` is the ONNX model and ``network`` what the passes made of it, both without large weights; ``weight/N`` is
    a weight's bytes, little-endian, referred to as external data by either; ``device/NAME`` is what a device keeps of its own.
    """

    probe: str  # version that wrote it
    model: str  # name of the ONNX file
    fingerprint: Fingerprint
    precision: str
    device: str
    passes: str
    fusion: str
    interior: str
    default: SavedChoice  # of layers that are not in ``choices``
    choices: dict[str, SavedChoice]  # by layer
    kept: tuple[str, ...]  # tensors that are never rounded
    origins: tuple[
        tuple[str, ...], ...
    ]  # of each node, bodies after the graph that holds them: the ONNX nodes it computes
    groups: tuple[SavedGroup, ...]
    fates: dict[str, SavedFate]  # by tensor of the ONNX file
    changes: tuple[SavedChange, ...]  # of the passes
    stopped: bool  # whether a limit forbade a further change
    pass_notes: tuple[str, ...]
    refusals: tuple[SavedRefusal, ...]
    layers: int
    layers_sha256: (
        str  # of the layers, their nodes, types and edges: a program that forms others does not run this engine
    )
    sections: tuple[Section, ...]
    schema: str = "probe.engine/1"


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What is in a saved engine, and what building it took."""

    path: str
    bytes: int
    probe: str  # version that wrote it
    model: str
    fingerprint: Fingerprint
    precision: str
    device: str  # in words
    passes: str
    fusion: str
    interior: str
    layers: int
    low_layers: int  # layers that compute in less than FP32
    kept: tuple[str, ...]
    tactics: dict[str, int]  # tactic -> layers that run it
    tactic_file: str = ""
    changes: int = 0  # that the passes made
    weights: int = 0
    weight_bytes: int = 0
    fallbacks: int = 0  # layers without a kernel
    kernels: int = 0  # of a GPU, compiled and saved
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    load_seconds: float | None = None  # that reading the file back took
    schema: str = "probe.build/1"
