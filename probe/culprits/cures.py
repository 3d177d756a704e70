"""Lighter cures than FP32: what else would make the network pass, tried one after another on the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.results.find import LighterCure

if TYPE_CHECKING:
    from probe.culprits.judge import Judged
    from probe.engine.engine import Engine

Compile = Callable[..., "Engine"]
Evaluate = Callable[["Engine"], "Judged"]


def lighter_cures(
    precision: str, compile_as: Compile, evaluate: Evaluate, *, tell: Callable[[str], None]
) -> tuple[LighterCure, ...]:
    """The whole network in another precision with nothing kept, and as a runtime that fuses would run it.

    Args:
        precision: that fails.
        compile_as: an engine with other settings.
        evaluate: an engine with nothing kept, on all inputs.
    """
    return tuple(_tried(_trials(precision), compile_as, evaluate, tell))


def _trials(precision: str) -> Sequence[tuple[str, str, dict[str, str]]]:
    fused = {"precision": precision, "passes": "safe", "fusion": "safe", "interior": "fp32"}
    trials = [
        (
            "fused_interior",
            f"{precision} with nothing kept, where the runtime fuses and keeps what is inside fused layers in FP32",
            fused,
        )
    ]
    if precision == "fp16":
        trials.append(("bf16", "bf16 with nothing kept", {"precision": "bf16"}))
    if precision in ("fp16", "bf16"):
        trials.append(("tf32", "tf32: FP32 storage, products on tensor cores", {"precision": "tf32"}))
    return trials


def _tried(
    trials: Sequence[tuple[str, str, dict[str, str]]],
    compile_as: Compile,
    evaluate: Evaluate,
    tell: Callable[[str], None],
) -> Iterator[LighterCure]:
    for kind, words, settings in trials:
        tell(kind)
        try:
            judged = evaluate(compile_as(**settings))
        except InputError as error:
            yield LighterCure(kind, words, "not_judged", None, (error.what,))
            continue
        yield LighterCure(kind, words, judged.verdict, judged.worst, judged.reasons)
