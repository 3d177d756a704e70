"""What the functions of the API take, and what is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probe.results.diff import Criterion
from probe.store.feeds import InputSet
from probe.store.source import TensorSource

if TYPE_CHECKING:
    from probe.model import Model

Tensors = str | Path | TensorSource | Mapping[str, Any]
Inputs = str | Path | Sequence[str | Path] | Mapping[str, Any]


def loaded_model(model: str | Path | Model) -> Model:
    """A model, loaded if it is a path.

    Raises:
        InputError: not readable as a model.
    """
    if isinstance(model, (str, Path)):
        from probe.model import load

        return load(model)
    return model


def criteria(accept: Iterable[str | Criterion]) -> tuple[Criterion, ...]:
    """Acceptance as typed, as criteria.

    Raises:
        InputError: one that cannot be read.
    """
    from probe.metrics.acceptance import parse_criterion

    return tuple(parse_criterion(one) if isinstance(one, str) else one for one in accept)


def input_sets(
    model: Model,
    inputs: Inputs | None,
    seed: int,
    shapes: Mapping[str, Sequence[int]] | None,
    ranges: Mapping[str, tuple[float, float]] | None,
    golden: Any = None,
) -> tuple[list[InputSet], list[str]]:
    """The inputs of a run, and notes about them.

    Args:
        inputs: files, folders, dumps, or arrays by input name; None: those that a recorded golden holds, else made up from ``seed``.
        golden: the recording to take inputs from.

    Raises:
        InputError: none, or inputs that do not fit the model.
    """
    from probe.debug.record import collect_inputs

    if inputs is None and golden is not None and not shapes and not ranges:
        from probe.debug.goldens import inputs_of_golden

        inputs = inputs_of_golden(golden) or None
    if isinstance(inputs, Mapping):
        from probe.model.inputs import check_feeds

        notes: list[str] = []
        return [InputSet("arrays", check_feeds(model, inputs, notes=notes), "arrays in memory")], notes
    paths = [inputs] if isinstance(inputs, (str, Path)) else inputs or []
    return collect_inputs(model, paths, shapes=shapes, seed=seed, ranges=ranges)
