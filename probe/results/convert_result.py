"""What ``probe convert`` made: the model, what stays FP32 and why, how it was proved, what to hand to other tools. Saved as ``probe.convert/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from probe.results.diff import Criterion, SourceInfo, Verdict
from probe.results.run import OutputVerdict
from probe.results.tensors import InputInfo


@dataclass(frozen=True, slots=True)
class CastAdded:
    """A Cast that the conversion added."""

    tensor: str  # what it reads
    to: str  # fp16, bf16, fp32 or fp64


@dataclass(frozen=True, slots=True)
class ExportProof:
    """The written model, run and judged.

    ``fp16_honoured``: whether the runner rounds to the types the model declares. Where it does not, the verdict says that the model is valid and
    runs, and nothing about precision.
    """

    runner: str  # typed, ort
    fp16_honoured: bool
    verdict: Verdict
    metric: float | None  # range_rel of the worst output; Inf where NaN or Inf differ; None: it did not run
    passed: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HandOver:
    """A list for other tools, proved in this form: a conversion that keeps exactly these, in the typed runner."""

    form: Literal["tensors", "nodes"]
    names: tuple[str, ...]
    verdict: Verdict
    metric: float | None  # range_rel of the worst output
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """Everything ``probe convert`` says. True when the written model was proved: passed or warned in the typed runner, and valid."""

    verdict: Verdict  # not_judged: nothing was proved
    reasons: tuple[str, ...]
    model: str
    model_sha256: str
    path: str  # of the written model
    precision: str
    keep: tuple[str, ...]  # tensors and nodes as asked for
    kept_tensors: tuple[str, ...]  # stored in FP32 and never rounded, views included
    lifted: tuple[str, ...]  # nodes in FP32 because they make or read a kept tensor
    fp32_nodes: tuple[str, ...]  # nodes kept themselves
    without_low: dict[str, str]  # node that cannot be low -> why
    spared: tuple[str, ...]  # constants that rounding would destroy, FP32 for nodes in FP32
    shape_nodes: tuple[str, ...]  # nodes in FP32 since they compute extents
    low_nodes: int
    casts: tuple[CastAdded, ...]
    bytes_before: int  # of the model with its weights
    bytes_after: int
    convert_io: bool = False
    outputs: dict[str, OutputVerdict] = field(default_factory=dict)  # of the typed proof
    proofs: tuple[ExportProof, ...] = ()
    handed_over: tuple[HandOver, ...] = ()
    autocast: tuple[str, ...] = ()  # words behind ModelOpt AutoCast's --nodes_to_exclude
    trtexec: tuple[str, ...] = ()  # options of trtexec up to TensorRT 10
    unnamed: tuple[
        str, ...
    ] = ()  # nodes of the list that have no name in the original file, so that no tool can be told
    golden: SourceInfo | None = None
    acceptance: tuple[Criterion, ...] = ()
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    schema: str = "probe.convert/1"

    def __bool__(self) -> bool:
        return self.verdict in ("passed", "warned")
