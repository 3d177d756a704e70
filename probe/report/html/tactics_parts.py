"""Pages of recorded and replayed tactics, of tactic files, and of TensorRT's logs of them."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.html.convert_parts import judged_outputs
from probe.report.html.element import Child, Markup, bullets, name, section
from probe.report.html.parts import MOST_ROWS, behind, cut_short, facts, names, provenance, to_do, verdict
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.report.tactics_page import (
    EXACT,
    file_facts,
    file_sentence,
    log_sentence,
    next_steps,
    record_facts,
    record_sentence,
    replay_facts,
    replay_sentence,
    replay_verdict,
    run_facts,
)
from probe.report.words import WORDS, sentence
from probe.results.tactics import (
    CandidateReport,
    LayerChoice,
    TacticFile,
    TacticMiss,
    TacticRun,
    TacticsLogResult,
    TacticsRecordResult,
    TacticsReplayResult,
    TrtDifference,
    TrtOp,
)

_CHOICE = (
    Column("Layer", about="open one for its problem and every candidate"),
    Column("Kind"),
    Column("Precision"),
    Column("Tactic"),
    Column("us", numeric=True, about="median time of its tactic"),
    Column("us exact", numeric=True, about="median time of the tactic exact there"),
    Column("Candidates", numeric=True),
)
_CHOICE_FILTERS = {
    "other": "another tactic than exact",
    "choice": "with a choice",
    "refused": "a candidate was refused",
}
_LINE = (Column("Layer"), Column("Kind"), Column("Precision"), Column("Tactic"))
_MISS = (Column("Not as recorded"), Column("Layer"), Column("In the file"), Column("Taken"))
_OP = (
    Column("Operator"),
    Column("Tactics", numeric=True),
    Column("ms", numeric=True, about="of the chosen one"),
    Column("Next", numeric=True, about="how many times the chosen one's time the best other takes"),
    Column("Tactic hash"),
    Column("Kernel"),
)
_DIFFERENCE = (Column("Operator"), Column("First log"), Column("Second log"), Column("Cost", numeric=True, about="of the first log's tactic in the second log, over its own"), Column("What"))  # fmt: skip


def record_parts(result: TacticsRecordResult) -> list[Markup | None]:
    """``probe tactics record``."""
    run = result.run
    return [
        verdict(run.verdict, WORDS[run.verdict], record_sentence(result), run.reasons[1:], ("probe tactics record", run.model, run.precision)),
        to_do(next_steps(result)),
        section("outputs", "Outputs", judged_outputs(run.outputs)),
        *_layers(run),
        _foot(run, record_facts(result), result.command),
    ]  # fmt: skip


def replay_parts(result: TacticsReplayResult) -> list[Markup | None]:
    """``probe tactics replay``."""
    run, word = result.run, replay_verdict(result)
    mark = "warned" if word == "passed" and result.identical is False else word  # a pass, and not the recorded bits
    return [
        verdict(mark, WORDS[word], replay_sentence(result), [*run.reasons[1:], *map(sentence, result.ignored)],
                ("probe tactics replay", run.model, run.precision, result.file)),
        to_do(next_steps(result)),
        section("misses", "Not as recorded", _misses(result.misses)),
        section("differing", "Inputs with other bits than recorded", names(result.differing) if result.differing else None),
        section("outputs", "Outputs", judged_outputs(run.outputs)),
        *_layers(run),
        _foot(run, replay_facts(result), result.command),
    ]  # fmt: skip


def file_parts(file: TacticFile) -> list[Markup | None]:
    """A tactic file."""
    rows = [
        Row((behind(name(one.layer, 64), facts([("problem", one.problem), ("reads", names(one.reads, 8)), ("writes", names(one.outputs, 8))])),
             one.kind, one.precision, name(one.tactic)), ("other",) if one.tactic != EXACT else ())
        for one in file.layers[:MOST_ROWS]
    ]  # fmt: skip
    table = (
        data_table("layers-table", count(len(rows), "layer"), _LINE, rows, filters=_CHOICE_FILTERS) if rows else None
    )
    return [
        verdict(
            file.verdict,
            WORDS[file.verdict],
            file_sentence(file),
            (),
            ("tactic file", file.precision, file.fingerprint.device),
        ),
        section("layers", "Layers", table, cut_short(len(file.layers), "first")),
        section("kept", "Tensors that are never rounded", names(file.kept, 200) if file.kept else None),
        provenance(file_facts(file), file.fingerprint.model_sha256, "", {}),
    ]


def _foot(run: TacticRun, own: Sequence[tuple[str, str]], command: str) -> Markup | None:
    return provenance([*own, *run_facts(run, verbose=True)], run.fingerprint.model_sha256, command, run.environment)


def _layers(run: TacticRun) -> list[Markup | None]:
    rows = [_layer(one) for one in run.layers[:MOST_ROWS]]
    table = (
        data_table("layers-table", count(len(rows), "layer"), _CHOICE, rows, filters=_CHOICE_FILTERS) if rows else None
    )
    return [section("layers", "Layers", table, cut_short(len(run.layers), "first"))]


def _layer(one: LayerChoice) -> Row:
    times = {c.tactic: c.median_us for c in one.candidates}
    said: list[tuple[str, Child]] = [
        ("ONNX nodes", names(one.nodes) if one.nodes != (one.layer,) else None),
        ("problem", one.problem),
        ("candidates", bullets([name(c.tactic), f": {_candidate(c)}"] for c in one.candidates)),
        ("reads", names(one.reads, 8)),
        ("writes", names(one.outputs, 8)),
    ]
    tags = (
        *(("other",) if one.tactic != EXACT else ()), *(("choice",) if len(one.candidates) > 1 else ()),
        *(("refused",) if any(c.refused_by for c in one.candidates) else ()),
    )  # fmt: skip
    cells = (behind(name(one.layer, 64), facts(said)), one.kind, one.precision, name(one.tactic), number(times.get(one.tactic)),
             number(times.get(EXACT)), str(len(one.candidates)))  # fmt: skip
    return Row(cells, tags)


def _candidate(one: CandidateReport) -> str:
    said = [f"{number(one.median_us)} us"] if one.median_us is not None else []
    said += [one.numerics] if one.numerics else []
    said += [] if one.deterministic else ["not deterministic"]
    said += [f"refused by {one.refused_by}"] if one.refused_by else []
    return "; ".join(said)


def _misses(misses: Sequence[TacticMiss]) -> Markup | None:
    rows = [
        Row((sentence(one.message), name(one.layer, 64) if one.layer else "", name(one.wanted) if one.wanted else "", name(one.chosen) if one.chosen else ""))
        for one in misses[:MOST_ROWS]
    ]  # fmt: skip
    return data_table("misses-table", count(len(rows), "thing"), _MISS, rows) if rows else None


# --- TensorRT's log


def log_parts(result: TacticsLogResult) -> list[Markup | None]:
    """``probe tactics log``: what was tried and taken; with a second log, what that one does otherwise."""
    word = "TACTICS" if not result.other else "ALIKE" if result else "DIFFERENT"
    rows = [_difference(one) for one in result.differences[:MOST_ROWS]]
    ops = [_op(one) for one in result.ops[:MOST_ROWS]]
    return [
        verdict("passed" if result else "warned", word, log_sentence(result), (), ("probe tactics log", result.log, result.other)),
        section("differences", "What differs", data_table("differences-table", count(len(rows), "operator"), _DIFFERENCE, rows) if rows else None,
                cut_short(len(result.differences), "first")),
        section("operators", "Operators", data_table("operators-table", count(len(ops), "operator"), _OP, ops) if ops else None,
                cut_short(len(result.ops), "first"), about="Open one for every tactic that was tried."),
        provenance([("log", result.log), ("second log", result.other), *(("note", sentence(one)) for one in result.notes)], "", result.command, {}),
    ]  # fmt: skip


def _difference(one: TrtDifference) -> Row:
    sides = [
        [name(tactic) if tactic else "nothing", [" ", name(kernel)] if kernel else None]
        for tactic, kernel in ((one.first, one.first_kernel), (one.second, one.second_kernel))
    ]
    return Row(
        (name(one.op, 64), *sides, number(one.cost_of_first), sentence(one.message)),
        (one.kind,),
        "warned" if one.kind == "choice" else "",
    )


def _op(one: TrtOp) -> Row:
    taken = one.taken
    ahead = min((t.cost_ms for t in one.tactics if t.tactic_hash != one.chosen), default=None)
    margin = ahead / taken.cost_ms if ahead is not None and taken is not None and taken.cost_ms > 0 else None
    tried = bullets(
        [name(t.tactic_hash), f": {number(t.cost_ms)} ms{', taken' if t.tactic_hash == one.chosen else ''}, {t.kernel}"]
        for t in one.tactics
    )
    said: list[tuple[str, Child]] = [
        ("layers", one.layers),
        ("key", name(one.key) if one.key else None),
        ("tried", tried),
    ]
    cells = (behind(name(one.op, 64), facts(said)), str(len(one.tactics)), number(one.chosen_ms), number(margin),
             name(one.chosen) if one.chosen else "", name(taken.kernel) if taken is not None and taken.kernel else "")  # fmt: skip
    return Row(cells)
