"""What ``probe check`` found: what will break, or may, in a low precision, seen in one pass and never run. Saved as ``probe.check/1``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from probe.results.tensors import InputInfo

if TYPE_CHECKING:
    import polars as pl

Level = Literal["error", "warning", "lint"]
CheckVerdict = Literal["clean", "warnings", "errors"]


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that breaks or may break. ``error``: alone, with all else in FP32, it was followed to a wrong output, or as far as it was
    followed it was still wrong; ``warning``: it has no such effect on these inputs, or depends on the runtime; ``lint``: advice.

    ``low``, ``high`` and ``absmax`` are the range seen of the golden (finite elements); ``margin`` is the format's maximum over ``absmax``:
    below 1 it overflows.
    """

    rule: str
    level: Level
    message: str
    tensor: str | None = None
    node: str | None = None  # identity
    op: str = ""
    low: float | None = None
    high: float | None = None
    absmax: float | None = None
    margin: float | None = None
    input_id: str = ""  # the input it is worst on; "" for what the graph alone shows
    inputs: int = 0  # on how many inputs it was seen
    index: tuple[int, ...] | None = None  # the first element concerned, on that input
    elements: int = 0  # concerned, on that input
    downstream: str = ""  # what becomes of it, as far as it was followed
    output: str | None = None  # the graph output that it was followed to
    output_error: float | None = None  # there: max|error| / range, or Inf where NaN or Inf appear
    cure: str = ""
    keep: tuple[str, ...] = ()  # tensors that would have to stay in FP32, those of ``like`` included
    like: tuple[str, ...] = ()  # tensors (nodes, where it is about those) with the same finding elsewhere


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Everything ``probe check`` says. True unless the verdict is ``errors``."""

    verdict: CheckVerdict
    model: str
    model_sha256: str
    precision: str
    golden: str  # "ort", "fp64", a recording's path; "" where the graph alone was read
    findings: tuple[CheckFinding, ...]  # errors first, then warnings, then lint; each in execution order
    rules: tuple[str, ...] = ()  # that were applied
    nodes: int = 0  # that were looked at
    tensors: int = 0  # floating-point tensors of the golden that were looked at
    not_seen: tuple[str, ...] = ()  # floating-point tensors that the golden does not have
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)  # by phase
    schema: str = "probe.check/1"

    def __bool__(self) -> bool:
        return self.verdict != "errors"

    def of(self, level: Level) -> tuple[CheckFinding, ...]:
        """The findings of one level."""
        return tuple(one for one in self.findings if one.level == level)

    def frame(self) -> pl.DataFrame:
        """As polars: a row a finding."""
        from probe.results.frames import finding_frame

        return finding_frame(self)
