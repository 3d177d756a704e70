"""Rows of a recording: what is known about one tensor without reading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["input", "output", "internal"]
RowStatus = Literal["recorded", "stats_only", "not_run", "unsupported"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of one input, as a manifest row. ``(name, input_id)`` is its identity; names may hold any character."""

    name: str
    dtype: str  # probe.precision type name
    shape: tuple[int, ...]
    input_id: str = ""
    role: Role = "internal"
    status: RowStatus = "recorded"
    precision: str | None = None  # storage the runner rounded to, when not the dtype's own: fp16 values held in float32
    layer: str | None = None
    nodes: tuple[str, ...] = ()  # ONNX nodes that produce it, by node identity
    reads: tuple[str, ...] = ()  # tensors its producer reads: what "first divergence" follows
    tactic: str | None = None
    step: float | None = None  # quantisation step, for tensors written by DequantizeLinear or read by QuantizeLinear
    note: str = ""  # why status is not "recorded"
    data: int | None = None  # NNN of data-NNN.bin
    offset: int | None = None  # bytes, multiple of 4096
    bytes: int | None = None
    sha256: str | None = None  # of the stored bytes, also in a --stats-only dump
    min: float | None = None  # finite elements only, as are max and mean
    max: float | None = None
    absmax_finite: float | None = None
    min_abs_nonzero: float | None = None
    mean: float | None = None
    nan: int | None = None
    inf: int | None = None

    @property
    def count(self) -> int:
        total = 1
        for extent in self.shape:
            total *= extent
        return total


@dataclass(frozen=True, slots=True)
class InputInfo:
    """One set of network inputs: ``sha256`` covers names, types, shapes and bytes, so equal hashes mean equal feeds."""

    id: str
    sha256: str
    source: str  # "file PATH", "seed 0", ...


@dataclass(frozen=True, slots=True)
class RunHeader:
    """First line of a manifest: where the recording came from. Empty strings mean "not known", as for a plain .npz."""

    runner: str = ""
    command: str = ""
    model: str = ""  # path as given
    model_sha256: str = ""
    precision: str = ""  # the run's, e.g. "fp16"; "" when the runner does not say
    golden: str = ""  # how goldens were made: "as_is", "upcast from float16", "qdq kept", ...
    device: str = ""
    interior: str = ""
    passes: str = ""
    fusion: str = ""
    inputs: tuple[InputInfo, ...] = ()
    environment: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    stats_only: bool = False
