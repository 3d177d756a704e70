"""What the functions of the API take, and what is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from probe.errors import InputError
from probe.results.diff import Criterion
from probe.store.feeds import InputSet, odd_inputs
from probe.store.source import TensorSource

if TYPE_CHECKING:
    from probe.blame.choosing import TacticOptions
    from probe.model import Model

T = TypeVar("T")
Tensors = str | Path | TensorSource | Mapping[str, Any]
Inputs = str | Path | Sequence[str | Path] | Mapping[str, Any]


def loaded_model(model: str | Path | Model, *, outputs: bool = True) -> Model:
    """A model, loaded if it is a path.

    Args:
        outputs: it is to be compiled or judged, which without outputs is nothing.

    Raises:
        InputError: not readable as a model, or without outputs.
    """
    if isinstance(model, (str, Path)):
        from probe.model import load

        model = load(model)
    if outputs and not model.outputs:
        raise InputError(
            "the model has no outputs: nothing of it would be computed or judged", where=str(model.path),
            hint="export it again with its outputs; probe inspect shows what is in it",
        )  # fmt: skip
    return model


def criteria(accept: Iterable[str | Criterion]) -> tuple[Criterion, ...]:
    """Acceptance as typed, as criteria.

    Raises:
        InputError: one that cannot be read.
    """
    from probe.metrics.acceptance import check_criterion, parse_criterion

    return tuple(parse_criterion(one) if isinstance(one, str) else check_criterion(one) for one in several(accept))


def several(values: Iterable[T]) -> tuple[T, ...]:
    """A sequence of names; a single one is not a sequence of its letters, each of which names nearly everything."""
    return (values,) if isinstance(values, str) else tuple(values)  # type: ignore[return-value]


def patterns(keep: Iterable[str | re.Pattern[str]]) -> tuple[re.Pattern[str], ...]:
    """Regular expressions, compiled.

    Raises:
        InputError: one that cannot be read.
    """
    return tuple(_compiled(one) for one in several(keep))


def pattern(text: str | re.Pattern[str] | None) -> re.Pattern[str] | None:
    """A regular expression, compiled, where one was given.

    Raises:
        InputError: one that cannot be read.
    """
    return None if text is None else _compiled(text)


def _compiled(text: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{text!r} is not a regular expression: {error}", hint="re.escape(name) is an exact name"
        ) from None


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
        inputs: files, folders, dumps, or arrays by input name; None: those that a recorded golden holds, unless ``shapes`` or ``ranges`` ask
            for others, else made up from ``seed``.
        shapes: extents of dynamic inputs, by name. ``ranges``: (low, high) of made-up values by name, "" for all.
        golden: the recording to take inputs from.

    Raises:
        InputError: none, or inputs that do not fit the model.
    """
    from probe.debug.record import collect_inputs

    if inputs is None and golden is not None and not shapes and not ranges:
        from probe.debug.goldens import inputs_of_golden

        inputs = inputs_of_golden(golden) or None
    if isinstance(inputs, Mapping) or hasattr(inputs, "__array__"):  # an array without its name is refused there
        from probe.model.inputs import check_feeds

        notes: list[str] = []
        sets = [InputSet("arrays", check_feeds(model, cast(Any, inputs), notes=notes), "arrays in memory")]
    else:
        paths = [inputs] if isinstance(inputs, (str, Path)) else inputs or []
        sets, notes = collect_inputs(model, paths, shapes=shapes, seed=seed, ranges=ranges)
    return sets, [*odd_inputs(sets), *notes]


def tactic_options(
    *,
    accept: Iterable[str | Criterion],
    custom_op_libs: Sequence[str | Path],
    memory_limit: int | None,
    keep: Iterable[str | re.Pattern[str]] = (),
    timing_cache: str | Path | None = None,
    **named: Any,
) -> TacticOptions:
    """The options of functions that run a network with chosen tactics.

    Args:
        memory_limit: bytes; None: the usual.
        named: fields of ``TacticOptions`` that are taken as they are.

    Raises:
        InputError: a criterion that cannot be read.
    """
    from probe.blame.choosing import TacticOptions
    from probe.store.tape import DEFAULT_LIMIT

    return TacticOptions(
        **named, acceptance=criteria(accept), keep=patterns(keep), timing_cache=optional_path(timing_cache),
        custom_op_libs=tuple(Path(one) for one in custom_op_libs), memory_limit=memory_limit or DEFAULT_LIMIT,
    )  # fmt: skip


def optional_path(path: str | Path | None) -> Path | None:
    """A path where one was given."""
    return None if path is None else Path(path)
