"""Tactic files replayed: the same choices on another build, and whether they make the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from probe.blame.choosing import Progress, TacticOptions, Work, check_new, noted
from probe.blame.polygraphy_replay import is_polygraphy_replay, meaning_of, read_polygraphy_replay
from probe.engine.assignment import Assignment, Choice
from probe.engine.tuning.choose import choose
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.tactic_file import base_of, differences, read_tactic_file, tactic_file_of, text_of
from probe.errors import InputError
from probe.results.json import write_text
from probe.results.tactics import TacticFile, TacticsReplayResult

if TYPE_CHECKING:
    from probe.engine.tuning.selector import Selector
    from probe.model.model import Model
    from probe.results.tactics import RecordedOutputs, TacticRun
    from probe.store.feeds import InputSet

_SETTINGS = ("precision", "passes", "fusion", "interior")


def replay_tactics(
    model: Model,
    sets: Sequence[InputSet],
    file: str | Path,
    options: TacticOptions | None = None,
    *,
    strict: bool = True,
    out: str | Path | None = None,
    selectors: Sequence[Selector] = (),
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> TacticsReplayResult:
    """Run a network with the tactics of a file, judge, and compare the outputs with those recorded, bit for bit.

    The network is compiled as the file says: precision, passes, fusion, interior and kept tensors are its own.

    Args:
        file: a tactic file; or, lenient only, a tactic replay of Polygraphy, of which precisions are taken.
        strict: whatever is not as it was recorded is an error; all of it is listed. Lenient: what does not fit is chosen as ``selectors`` say,
            exact without any, and listed in ``misses``.
        out: write what ran as a new tactic file.
        selectors: asked before the file is.

    Raises:
        InputError: the file cannot be read or does not fit, or as ``record_tactics``. Nothing is written then.
    """
    options = options or TacticOptions()
    if out is not None:
        check_new(out, options, model)
    told = progress or (lambda _phase, _what: None)
    if is_polygraphy_replay(file):
        if strict:
            raise InputError(
                "a tactic replay of Polygraphy cannot be replayed strictly: its tactics are TensorRT's, which are not here", where=str(file),
                hint="--lenient takes the precisions it stores layers in, and says what it ignores",
            )  # fmt: skip
        return _of_polygraphy(model, sets, Path(file), options, out, selectors, notes, told)
    recorded, as_written = read_tactic_file(file)
    if strict and not as_written:
        raise InputError(
            "the tactic file was edited, damaged or cut short: its hash is not that of its text", where=str(file),
            hint="--lenient reads it all the same, and with -o writes a file that can be replayed strictly",
        )  # fmt: skip
    options = _as_recorded(recorded, options)
    with ExitStack() as opened:
        work = Work(model, sets, options, told, opened)
        engine = work.compile()
        engine.assignment = base_of(recorded, engine)
        replay = Replay(recorded, strict=strict, engine=engine, edited=not as_written, source=str(file))
        with work.phase("choose") as tell:
            timings = work.timings(engine) if not strict and options.timing_cache is not None else None
            choices = choose(engine, sets[0].feeds, [*selectors, replay], timings=timings, progress=tell)
        made = work.run(engine, choices, notes=(*notes, *noted(selectors)))
        made = replace(made, notes=(*differences(recorded.fingerprint, made.fingerprint), *made.notes))
        if out is not None:
            write_text(text_of(tactic_file_of(engine, choices, made.recorded, made.verdict)), out)
        work.save(timings)
    compared, differing = _compare(recorded.recorded, made.recorded)
    return TacticsReplayResult(
        run=made, file=str(file), kind="probe", strict=strict, identical=not differing if compared else None, compared=compared,
        differing=differing, misses=tuple(replay.misses), written=str(out or ""), command=options.command,
    )  # fmt: skip


def _as_recorded(file: TacticFile, options: TacticOptions) -> TacticOptions:
    """Options with what the file says of the compiler; kept tensors are named in it, so no patterns are needed."""
    device = options.device if options.device != "auto" else file.fingerprint.device.partition(" ")[0]
    settings: dict[str, Any] = {name: getattr(file, name) for name in _SETTINGS}
    return replace(options, **settings, device=device, keep=())


def _compare(then: Sequence[RecordedOutputs], now: Sequence[RecordedOutputs]) -> tuple[int, tuple[str, ...]]:
    """How many inputs both have outputs of, and those whose outputs are not the same bits."""
    known = {one.input_sha256: one.outputs_sha256 for one in then}
    met = [one for one in now if one.input_sha256 in known]
    return len(met), tuple(one.input for one in met if one.outputs_sha256 != known[one.input_sha256])


def _of_polygraphy(
    model: Model,
    sets: Sequence[InputSet],
    file: Path,
    options: TacticOptions,
    out: str | Path | None,
    selectors: Sequence[Selector],
    notes: Sequence[str],
    told: Progress,
) -> TacticsReplayResult:
    found = read_polygraphy_replay(file)
    options = replace(options, device="cpu" if options.device == "auto" else options.device)
    with ExitStack() as opened:
        work = Work(model, sets, options, told, opened)
        engine = work.compile()
        meant = meaning_of(found, engine)
        base = engine.assignment
        layers = {name: Choice(precision) for name, precision in meant.precisions.items()}
        engine.assignment = Assignment(base.default, {**base.layers, **layers}, base.kept)
        with work.phase("choose") as tell:
            choices = choose(engine, sets[0].feeds, selectors, progress=tell)
        made: TacticRun = work.run(engine, choices, notes=(*notes, *noted(selectors)))
        if out is not None:
            write_text(text_of(tactic_file_of(engine, choices, made.recorded, made.verdict)), out)
    taken = f"precisions of {len(meant.precisions)} layers are taken from it"
    return TacticsReplayResult(
        run=replace(made, notes=(taken, *made.notes)), file=str(file), kind=cast("Any", "polygraphy"), strict=False, identical=None,
        ignored=meant.ignored, written=str(out or ""), command=options.command,
    )  # fmt: skip
