"""What every result of this room says of the network, its golden and its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probe.compare.diff import environment, source_info
from probe.debug.goldens import golden_kind
from probe.debug.run import device_in_words
from probe.results.run import GoldenInfo
from probe.store.feeds import input_infos

if TYPE_CHECKING:
    from probe.blame.choosing import Work
    from probe.engine.engine import Engine
    from probe.store.source import TensorSource


def about(work: Work, engine: Engine, golden: TensorSource) -> dict[str, Any]:
    """Fields that results share, by name."""
    return {
        "model": str(work.model.path), "model_sha256": work.model.sha256, "precision": engine.settings.precision,
        "device": tactic_device_in_words(engine),
        "golden": GoldenInfo(golden_kind(work.options.golden), source_info(golden)),
        "inputs": input_infos(work.sets),
        "environment": {**environment(), **(golden.header.environment or {})}, "command": work.options.command, "seconds": work.seconds,
    }  # fmt: skip


def tactic_device_in_words(engine: Engine) -> str:
    """What a verdict of this network stands for, whose layers run with chosen tactics."""
    return device_in_words(engine.settings.device, engine.settings.precision, tactics=True)
