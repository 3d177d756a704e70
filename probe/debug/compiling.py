"""``compile_as``: a network compiled as the options of a command say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from probe.engine.build import compile_model

if TYPE_CHECKING:
    from probe.engine.build import FusionLevel, PassLevel
    from probe.engine.engine import Engine, Interior
    from probe.model.model import Model


class CompilerOptions(Protocol):
    """What the options of every command that compiles have in common."""

    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def passes(self) -> PassLevel: ...
    @property
    def fusion(self) -> FusionLevel: ...
    @property
    def interior(self) -> Interior: ...
    @property
    def threads(self) -> int: ...
    @property
    def custom_op_libs(self) -> Sequence[Path]: ...


def compile_as(model: Model, options: CompilerOptions, **changed: Any) -> Engine:
    """The engine that the options ask for; nothing is kept in it.

    Args:
        changed: settings of ``compile_model`` that are other than in ``options``.

    Raises:
        InputError: as ``compile_model``.
    """
    settings: dict[str, Any] = {
        "precision": options.precision, "device": options.device, "passes": options.passes, "fusion": options.fusion,
        "interior": options.interior, "threads": options.threads, "libraries": options.custom_op_libs,
    }  # fmt: skip
    return compile_model(model, **settings | changed)
