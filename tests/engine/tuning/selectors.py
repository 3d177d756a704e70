"""Selectors and candidates made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from probe.engine.tuning.context import Candidate, LayerContext


def context(
    layer: str = "conv1", outputs: tuple[str, ...] = ("y",), precision: str = "fp16", **changed: str
) -> LayerContext:
    return LayerContext(
        layer,
        "conv",
        (layer,),
        ("x",),
        outputs,
        precision,
        changed.get("problem", "Conv(fp16[1,3,8,8]) -> fp16[1,4,8,8]"),
    )


def candidate(tactic: str, us: float | None = None, *, deterministic: bool = True) -> Candidate:
    return Candidate(tactic, "as its name says", 0, ("fp16", "fp16"), deterministic, us)


def names(candidates: Sequence[Candidate]) -> list[str]:
    return [one.tactic for one in candidates]


class Asked:
    """Writes down what it is asked and told; answers ``tactics``, or everything."""

    name = "asked"

    def __init__(self, *tactics: str) -> None:
        self.tactics = tactics
        self.asked: list[tuple[LayerContext, list[str]]] = []
        self.told: list[tuple[str, str]] = []

    def select(self, context: LayerContext, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        self.asked.append((context, names(candidates)))
        return [one for one in candidates if one.tactic in self.tactics] if self.tactics else candidates

    def chosen(self, context: LayerContext, candidate: Candidate) -> None:
        self.told.append((context.layer, candidate.tactic))
