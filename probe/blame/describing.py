"""What every result of this room says of the network, its golden and its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probe.compare.diff import environment
from probe.debug.goldens import golden_kind
from probe.debug.run import device_in_words
from probe.results.diff import SourceInfo
from probe.results.run import GoldenInfo
from probe.results.tensors import InputInfo

if TYPE_CHECKING:
    from probe.blame.choosing import Work
    from probe.engine.engine import Engine
    from probe.store.source import TensorSource


def about(work: Work, engine: Engine, golden: TensorSource) -> dict[str, Any]:
    """Fields that results share, by name."""
    head = golden.header
    source = SourceInfo(
        path=golden.path, kind=golden.kind, runner=head.runner, model=head.model, model_sha256=head.model_sha256,
        precision=head.precision, golden=head.golden, inputs=head.inputs,
    )  # fmt: skip
    words = device_in_words(engine.settings.device, engine.settings.precision)
    return {
        "model": str(work.model.path), "model_sha256": work.model.sha256, "precision": engine.settings.precision,
        "device": words.replace(", FP32 accumulation, emulated", ", each layer computed as its tactic says, emulated"),
        "golden": GoldenInfo(golden_kind(work.options.golden), source),
        "inputs": tuple(InputInfo(one.id, one.sha256, one.source) for one in work.sets),
        "environment": {**environment(), **(head.environment or {})}, "command": work.options.command, "seconds": work.seconds,
    }  # fmt: skip
