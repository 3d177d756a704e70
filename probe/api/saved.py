"""Saved engines: what functions do with a file that ``probe build`` wrote where they take a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.model import Model
    from probe.runners.engine import EngineRunner
    from probe.runners.protocol import RunnerOptions


def is_saved_engine(model: object) -> bool:
    """Whether a model, as functions take one, is a file that ``probe build`` wrote. Reads eight bytes."""
    from probe.engine.saved.container import is_saved_engine as looks_so

    return isinstance(model, (str, Path)) and looks_so(model)


def saved_engine(
    model: str | Path | Model, *, threads: int = 0, libraries: Sequence[str | Path] = (), **asked: tuple[Any, Any]
) -> Engine | None:
    """The engine that a file holds; None where the model is something else.

    Args:
        asked: what the caller says of compiling, by name: the value, and the usual one, which says nothing.

    Raises:
        InputError: the file is damaged, of another version or device; or what is asked for is not how it was built.
    """
    if not isinstance(model, (str, Path)) or not is_saved_engine(model):
        return None
    from probe.engine.saved.load import load_engine

    engine = load_engine(model, threads=threads, libraries=[Path(one) for one in libraries])
    for name, (value, usual) in asked.items():
        built = getattr(engine.settings, name, None)
        if value not in (usual, built):
            option = f"--{name.replace('_', '-')}"
            what = (
                f"the engine was built with {option} {built}, not {value}"
                if built is not None
                else f"{option} is about building"
            )
            raise InputError(
                what, where=str(model), hint=f"leave {option} out, or build another: probe build MODEL -o FILE"
            )
    return engine


def engine_runner(path: str | Path, runner: str, options: RunnerOptions) -> EngineRunner:
    """A saved engine as a runner: with its own assignment, and what ``options`` keep beside.

    Args:
        runner: as asked for.

    Raises:
        InputError: another runner than ``engine``; the engine cannot be loaded, or a kept name is nowhere.
    """
    from probe.engine.build import resolve_keep
    from probe.engine.saved.load import load_engine
    from probe.runners.engine import EngineRunner

    if runner != "engine":
        raise InputError(
            f"{path} is a saved engine: nothing but the runner engine computes it", where="--runner",
            hint="pass --runner engine; or, for a golden, the ONNX model that the engine was built from",
        )  # fmt: skip
    engine = load_engine(path, threads=options.threads, libraries=options.custom_op_libs)
    engine.assignment = resolve_keep(engine.assignment, options.keep, engine.layers, engine.network)
    return EngineRunner(engine)


def built_as(path: str | Path, option: str) -> Any:
    """What an engine was built with; None where it does not say.

    Raises:
        InputError: its header cannot be read.
    """
    from probe.engine.saved.load import read_header

    return getattr(read_header(path), option, None)
