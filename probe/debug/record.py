"""Run a runner over input sets and write down every tensor it makes, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probe.errors import InputError
from probe.precision import dtype_name
from probe.results.tensors import TensorInfo
from probe.runners.protocol import Runner
from probe.store.feeds import InputSet, input_infos, read_input_sets

if TYPE_CHECKING:
    from probe.model.model import Model
    from probe.store.opening import Sink


def record(
    runner: Runner, input_sets: Sequence[InputSet], sink: Sink, *, select: Callable[[str], bool] | None = None
) -> list[TensorInfo]:
    """Add to ``sink`` what ``runner`` makes of every input set: its inputs first (role ``input``), then its tensors in execution order.

    Holds one tensor at a time beyond what the runner holds. The sink's header becomes the runner's, completed with the inputs and their
    hashes. Leaving by an exception, Ctrl-C included, ends the runner's work; the sink's own ``with`` then leaves nothing behind.

    Args:
        sink: entered; the caller's ``with`` decides when the recording appears.
        select: tensors to keep, by name; inputs are always kept, a recording without them cannot be repeated. ``RunnerOptions.select``
            spares the runner from making the others.

    Returns:
        The rows as written, with statistics.

    Raises:
        InputError: no input sets, two with one id, nothing recorded, or whatever the runner and the sink find wrong.
    """
    _check_ids(input_sets)
    rows: list[TensorInfo] = []
    tensors = 0
    for one in input_sets:
        for name, value in one.feeds.items():
            array = np.asarray(value)
            row = TensorInfo(
                name=name, dtype=dtype_name(array.dtype), shape=tuple(array.shape), input_id=one.id, role="input"
            )
            rows.append(sink.add(row, array))
        made = runner.run(one.feeds, one.id)
        try:
            for tensor in made:
                if select is None or select(tensor.info.name):
                    rows.append(sink.add(tensor.info, tensor.array))
                    tensors += 1
                del tensor
        finally:
            # An abandoned generator would keep its session, files or process until it is collected.
            close = getattr(made, "close", None)
            if close is not None:
                close()
    if not tensors:
        raise InputError(
            "no tensor was recorded",
            where=f"runner {runner.name}",
            hint="nothing matches --select"
            if select is not None
            else "a model whose outputs are its inputs computes nothing",
        )
    sink.replace_header(replace(runner.header, inputs=input_infos(input_sets)))
    return rows


def collect_inputs(
    model: Model | None,
    paths: Sequence[str | Path] = (),
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> tuple[list[InputSet], list[str]]:
    """Input sets from files, or made up; and notes: what was chosen, what was cast, that random inputs hide failures.

    Ids are unique: sets from files of one name get ``-2``, ``-3``... Feeds are checked against the model, where there is one.

    Raises:
        InputError: no data in the files, data that does not fit the model, shapes or ranges beside files, or neither files nor a model.
    """
    if not paths:
        if model is None:
            raise InputError("without a model no inputs can be made up", hint="give data: --inputs FILE")
        from probe.model.inputs import RANDOM_INPUTS_WARNING, make_inputs

        feeds, notes = make_inputs(model, seed=seed, shapes=shapes, ranges=ranges)
        if not feeds:
            return [InputSet("none", {}, "the model has no inputs")], []
        return [InputSet(f"seed-{seed}", feeds, f"seed {seed}")], [*notes, RANDOM_INPUTS_WARNING.format(seed=seed)]
    if shapes or ranges:
        option = "--input-shapes" if shapes else "--val-range"
        raise InputError(
            f"{option} is for made-up inputs; the data in {paths[0]} is what it is",
            where=option,
            hint="drop it, or --inputs",
        )
    notes: list[str] = []
    sets = [one for path in paths for one in read_input_sets(path)]
    if not sets:
        raise InputError("no input sets", where=", ".join(map(str, paths)))
    if model is not None:
        sets = [replace(one, feeds=_checked(model, one, notes)) for one in sets]
    return _with_unique_ids(sets), notes


def split_inputs(sets: Sequence[InputSet], share: float, seed: int) -> tuple[list[InputSet], list[InputSet]]:
    """Inputs to work with, and inputs held out: a share of all, at least one, drawn by ``seed``; both keep their order.

    Raises:
        InputError: a share that is none, or fewer than two inputs.
    """
    if not 0 < share < 1:
        raise InputError(f"cannot hold out a share of {share:g}", where="--split", hint="between 0 and 1, such as 0.2")
    if len(sets) < 2:
        raise InputError(
            "one input cannot be split", where="--split", hint="give more inputs, or others with --held-out"
        )
    number = min(len(sets) - 1, max(1, round(share * len(sets))))
    drawn = set(np.random.default_rng(seed).choice(len(sets), number, replace=False).tolist())
    return [s for i, s in enumerate(sets) if i not in drawn], [s for i, s in enumerate(sets) if i in drawn]


def _checked(model: Model, one: InputSet, notes: list[str]) -> Mapping[str, np.ndarray]:
    from probe.model.feeds import check_feeds

    try:
        return check_feeds(model, one.feeds, notes=notes)
    except InputError as error:
        where = one.source.removeprefix("file ")
        raise InputError(error.what, where="; ".join(filter(None, (where, error.where))), hint=error.hint) from None


def _with_unique_ids(sets: Sequence[InputSet]) -> list[InputSet]:
    taken: set[str] = set()
    unique: list[InputSet] = []
    for one in sets:
        name, number = one.id, 2
        while name in taken:
            name, number = f"{one.id}-{number}", number + 1
        taken.add(name)
        unique.append(one if name == one.id else replace(one, id=name))
    return unique


def _check_ids(input_sets: Sequence[InputSet]) -> None:
    if not input_sets:
        raise InputError("no input sets to run")
    ids = [one.id for one in input_sets]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise InputError(f"two input sets are called {twice[0]!r}")
