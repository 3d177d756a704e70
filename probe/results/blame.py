"""Which tactic is to blame: suspects from files of good and bad runs, choices found guilty, every candidate measured, builds compared.

Saved as ``probe.tactics-diff/1``, ``probe.tactics-bisect/1``, ``probe.tactics-table/1``, ``probe.builds/1``. Layers are named by the tensors
they make, ``outputs``; their names are for the reader. In ``changed``, Inf where NaN or Inf are on one side only, and None: did not run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from probe.results.diff import Criterion, Verdict
from probe.results.find import Evaluated, SearchStep, Status
from probe.results.run import GoldenInfo
from probe.results.tensors import InputInfo

if TYPE_CHECKING:
    import polars as pl

# Errors within 2 % are one: a tie of two roundings decides which is the smaller, and other inputs decide otherwise.
ALIKE = 1.02

# --- files of good and bad runs


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that says which tactics a run had."""

    path: str
    bad: bool
    layers: int
    sha256: str = ""  # of its choices: equal ones are the same build


@dataclass(frozen=True, slots=True)
class TacticSuspect:
    """A choice that bad runs have more often than good ones."""

    layer: str
    outputs: tuple[str, ...]
    tactic: str  # with its precision where files differ in that
    bad: int  # bad runs that have it
    good: int  # good runs that have it
    bad_runs: int  # bad runs that have the layer
    good_runs: int
    p_value: (
        float  # Fisher's exact test, one-sided: chance of so many bad ones among those that have it, were it innocent
    )
    confidence: float  # posterior that this choice alone makes runs bad; see the result's ``prior``
    alike: int = 0  # other choices in exactly the same runs: files cannot tell them apart
    instead: dict[str, int] = field(default_factory=dict)  # what good runs have there -> how many

    @property
    def only_in_bad(self) -> bool:
        """Whether no good run has it: what a plain set difference lists."""
        return self.good == 0


@dataclass(frozen=True, slots=True)
class TacticsDiffResult:
    """What ``probe tactics diff`` found. True when there is a suspect."""

    good: tuple[RunFile, ...]
    bad: tuple[RunFile, ...]
    suspects: tuple[TacticSuspect, ...]  # the most suspect first
    unexplained: float  # posterior that no single choice is to blame
    prior: str  # what the posterior assumes
    layers: int  # in any file
    same: int  # of these, with the same choice in all runs
    kind: Literal["probe", "polygraphy"] = "probe"
    notes: tuple[str, ...] = ()
    command: str = ""
    schema: str = "probe.tactics-diff/1"

    def __bool__(self) -> bool:
        return bool(self.suspects)


# --- bisecting


@dataclass(frozen=True, slots=True)
class TacticDifference:
    """A layer for which two tactic files say something else."""

    layer: str
    outputs: tuple[str, ...]
    kind: str
    precision: str
    good: str  # tactic
    bad: str
    changed: float | None = None  # RMS of (bad - good) over RMS of good, of this layer alone on activations in FP32


@dataclass(frozen=True, slots=True)
class GuiltyChoice:
    """A choice to pin, and how it is known to be guilty."""

    choice: TacticDifference
    group: tuple[
        TacticDifference, ...
    ]  # with these, and with no fewer, the good run fails; this choice alone: it fails by itself
    certificate: int  # place of the failing evaluation with all other guilty choices pinned and this one not; -1: none
    flipped: Evaluated | None  # the good run with the group as in the bad one: fails. None: no small group explains it
    alternatives: tuple[str, ...] = ()  # layers of the group any of which could be pinned instead

    @property
    def alone(self) -> bool:
        """Whether it breaks the good run by itself."""
        return len(self.group) == 1


@dataclass(frozen=True, slots=True)
class TacticsBisectResult:
    """What ``probe tactics bisect`` found. True when guilty choices were found and confirmed by flipping them both ways.

    ``nothing_needed``: the bad run passes. ``unreachable``: the good run fails, too.
    """

    status: Status
    reason: str
    model: str
    model_sha256: str
    good: str
    bad: str
    precision: str
    device: str
    differences: tuple[TacticDifference, ...]  # the most suspect first
    guilty: tuple[GuiltyChoice, ...]
    good_run: Evaluated | None
    bad_run: Evaluated | None
    good_with_guilty: Evaluated | None  # the good run with the guilty choices of the bad one; fails when confirmed
    bad_without_guilty: Evaluated | None  # the bad run with those pinned to the good one; passes when confirmed
    confirmed: bool
    evaluations: dict[str, int]  # by kind: search, probes, proof, confirm
    sweep: int  # evaluations of a full sweep: each difference by itself, and both files
    layers: int
    golden: GoldenInfo | None = None
    acceptance: tuple[Criterion, ...] = ()
    steps: tuple[SearchStep, ...] = ()
    pinned: str = ""  # tactic file that was written: the bad one, the guilty choices pinned
    denied: str = ""  # deny-list that was written
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    schema: str = "probe.tactics-bisect/1"

    def __bool__(self) -> bool:
        return self.confirmed


# --- every candidate of every layer


@dataclass(frozen=True, slots=True)
class MeasuredTactic:
    """One way to compute a layer, on the activations of a run in FP32. Errors are against float64 from the same rounded inputs."""

    tactic: str
    numerics: str
    deterministic: bool
    median_us: float | None  # None: not measured
    local: (
        float | None
    )  # range_rel of the worst output; Inf for NaN or Inf that the reference lacks; None: see ``note``
    rms: float | None  # RMS error over RMS of the reference, of the worst output
    front: bool  # no other candidate is both faster and more accurate
    flipped: Evaluated | None = None  # the network with this one choice changed; None: see ``note``
    changed: float | None = None  # of this flip: range_rel of the worst graph output, against the network without it
    note: str = ""


@dataclass(frozen=True, slots=True)
class TacticsOfLayer:
    """A layer and its candidates, the fastest first."""

    layer: str
    outputs: tuple[str, ...]
    kind: str
    precision: str
    problem: str
    tactic: str  # that the network runs it with when others are flipped
    candidates: tuple[MeasuredTactic, ...]
    note: str = ""  # why nothing was measured

    @property
    def fastest(self) -> MeasuredTactic | None:
        """Of those that were measured; None: none was."""
        return min(self._measured(), key=lambda one: one.median_us or 0.0, default=None)

    @property
    def most_accurate(self) -> MeasuredTactic | None:
        """The fastest of those with the least error, within ``ALIKE``; None: none was measured."""
        measured = self._measured()
        least = min((one.rms or 0.0 for one in measured), default=0.0)
        alike = [one for one in measured if (one.rms or 0.0) <= ALIKE * least]
        return min(alike, key=lambda one: one.median_us or 0.0, default=None)

    def _measured(self) -> list[MeasuredTactic]:
        return [one for one in self.candidates if one.median_us is not None and one.rms is not None]

    @property
    def cost_of_fastest(self) -> float | None:
        """How many times the RMS error of the most accurate candidate the fastest one has; None where that was not measured."""
        fastest = self.fastest
        if fastest is None or fastest.rms is None:
            return None
        least = min(one.rms for one in self._measured() if one.rms is not None)
        if fastest.rms == least:  # both may be 0, or Inf
            return 1.0
        return fastest.rms / least if least > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """The network with a choice for every layer: what it takes, modelled as the sum of its layers, and how right it is."""

    words: str
    tactics: dict[str, str]  # layer -> tactic, where it is not exact
    layers_us: float | None
    run: Evaluated


@dataclass(frozen=True, slots=True)
class TacticsTableResult:
    """What ``probe tactics table`` measured. True when the network passes with the choices that it started from."""

    model: str
    model_sha256: str
    precision: str
    device: str
    layers: tuple[TacticsOfLayer, ...]  # in execution order
    base: Evaluated
    front: tuple[FrontPoint, ...]  # from the most accurate to the fastest
    golden: GoldenInfo
    reference: str = "fp64"
    acceptance: tuple[Criterion, ...] = ()
    evaluations: int = 0
    timing_cache: str = ""
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    schema: str = "probe.tactics-table/1"

    def __bool__(self) -> bool:
        return self.base.passed

    def frame(self) -> pl.DataFrame:
        """A row a candidate (``probe.results.blame_frames``)."""
        from probe.results.blame_frames import candidate_frame

        return candidate_frame(self)


# --- builds


@dataclass(frozen=True, slots=True)
class Build:
    """One choice of tactics for all layers, and what the network makes with it."""

    tactics_sha256: str  # equal ones chose the same
    outputs_sha256: str  # equal ones made the same bits
    run: Evaluated
    layers_us: float | None = None  # sum over layers of what their choice took


@dataclass(frozen=True, slots=True)
class FlipEffect:
    """A choice that some builds make of a layer."""

    tactic: str
    builds: int
    median_us: tuple[float, ...]  # what each build measured for it, those that chose another included
    run: Evaluated | None  # the reference build with this layer so
    changed: float | None  # range_rel of the worst graph output, against the reference build; 0: the same bits


@dataclass(frozen=True, slots=True)
class FlippingLayer:
    """A layer that builds do not agree on, what each choice does first to last by how many builds make it."""

    layer: str
    outputs: tuple[str, ...]
    kind: str
    effects: tuple[FlipEffect, ...]
    flips: int  # between one build and the next


@dataclass(frozen=True, slots=True)
class Pin:
    """A layer that is to have one tactic in every build."""

    layer: str
    outputs: tuple[str, ...]
    tactic: str


@dataclass(frozen=True, slots=True)
class BuildsResult:
    """What ``probe run --builds N`` found. True when every build passes."""

    verdict: Verdict
    model: str
    model_sha256: str
    precision: str
    device: str
    builds: tuple[Build, ...]
    layers: int  # that have a choice
    flipping: tuple[FlippingLayer, ...]
    pins: tuple[
        Pin, ...
    ]  # with these, all builds pass, and without one of them some fails; () where all do anyway, or none can
    pins_for_bits: tuple[Pin, ...]  # with these, all builds make the same bits
    pinned_passes: bool  # every build passes with ``pins``
    evaluations: int
    golden: GoldenInfo
    acceptance: tuple[Criterion, ...] = ()
    inputs: tuple[InputInfo, ...] = ()
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    command: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    schema: str = "probe.builds/1"

    def __bool__(self) -> bool:
        return self.verdict in ("passed", "warned")
