"""Conversions and tactics as comments on a pull request: the verdict, the table that matters, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probe.report.blame_words import outcome, short
from probe.report.markdown_text import ROWS, code, prose, table, to_do, verdict
from probe.report.numbers import cosine, count, number
from probe.report.words import WORDS, sentence
from probe.results.blame import BuildsResult, TacticsBisectResult, TacticsDiffResult, TacticsTableResult
from probe.results.convert_result import ConvertResult
from probe.results.run import OutputVerdict
from probe.results.tactics import LayerChoice, TacticFile, TacticsLogResult, TacticsRecordResult, TacticsReplayResult

Parts = list[list[str]]


def convert_parts(result: ConvertResult) -> Parts:
    """``probe convert``."""
    from probe.report.convert_page import convert_sentence, next_steps, proof_in_words

    kept = result.kept_tensors or result.keep
    listed = [f"- stays FP32: {code(one)}" for one in kept[:ROWS]]
    left = len(kept) - len(listed)
    return [
        verdict(WORDS[result.verdict], convert_sentence(result), f"`probe convert` of {code(result.model)} to {code(result.path)}", result.reasons[1:]),
        _outputs(result.outputs),
        [f"- proof: {prose(proof_in_words(one))}" for one in result.proofs],
        [*listed, *([f"- and {count(left)} more"] if left > 0 else [])],
        to_do(next_steps(result)),
    ]  # fmt: skip


def record_parts(result: TacticsRecordResult) -> Parts:
    """``probe tactics record``."""
    from probe.report.tactics_page import next_steps, record_sentence

    run = result.run
    return [
        verdict(WORDS[run.verdict], record_sentence(result), f"`probe tactics record` of {code(run.model)} to {code(result.file)}", run.reasons[1:]),
        _outputs(run.outputs),
        _choices(run.layers),
        to_do(next_steps(result)),
    ]  # fmt: skip


def replay_parts(result: TacticsReplayResult) -> Parts:
    """``probe tactics replay``."""
    from probe.report.tactics_page import next_steps, replay_sentence, replay_verdict

    run = result.run
    what = f"`probe tactics replay` of {code(result.file)} in {code(run.model)}"
    missed = [
        (prose(sentence(one.message)), code(one.layer) if one.layer else "", code(one.chosen) if one.chosen else "")
        for one in result.misses[:ROWS]
    ]
    return [
        verdict(WORDS[replay_verdict(result)], replay_sentence(result), what, run.reasons[1:]),
        table(("not as recorded", "layer", "taken instead"), missed, len(result.misses) - len(missed)),
        _outputs(run.outputs),
        _choices(run.layers),
        to_do(next_steps(result)),
    ]  # fmt: skip


def file_parts(file: TacticFile) -> Parts:
    """A tactic file."""
    from probe.report.tactics_page import EXACT, file_sentence

    other = [one for one in file.layers if one.tactic != EXACT]
    rows = [(code(one.layer), prose(one.precision), code(one.tactic)) for one in other[:ROWS]]
    return [
        verdict(
            WORDS[file.verdict],
            file_sentence(file),
            f"tactic file for {prose(file.fingerprint.device)} in {prose(file.precision)}",
        ),
        table(("layer", "precision", "tactic"), rows, len(other) - len(rows)),
    ]


def log_parts(result: TacticsLogResult) -> Parts:
    """``probe tactics log``."""
    from probe.report.tactics_page import log_sentence

    word = "TACTICS" if not result.other else "ALIKE" if result else "DIFFERENT"
    rows = [
        (code(one.op), code(one.first or "nothing"), code(one.second or "nothing"), prose(sentence(one.message)))
        for one in result.differences[:ROWS]
    ]
    sides = f"`probe tactics log` of {code(result.log)}" + (f" and {code(result.other)}" if result.other else "")
    return [
        verdict(word, sentence(log_sentence(result)), sides),
        table(("operator", "first", "second", "what"), rows, len(result.differences) - len(rows)),
    ]


def tactics_diff_parts(result: TacticsDiffResult) -> Parts:
    """``probe tactics diff``."""
    from probe.report.blame_diff_page import next_steps, reading, tactics_diff_sentence

    rows = [
        (code(one.layer), code(one.tactic), f"{one.bad} of {one.bad_runs}", f"{one.good} of {one.good_runs}", number(one.p_value), f"{one.confidence:.1%}")
        for one in result.suspects[:ROWS]
    ]  # fmt: skip
    return [
        verdict(*tactics_diff_sentence(result), "`probe tactics diff` of files of good and bad runs"),
        table(("layer", "tactic", "bad runs", "good runs", "p", "blame"), rows, len(result.suspects) - len(rows)),
        [prose(reading(result))] if rows else [],
        to_do(next_steps(result)),
    ]


def tactics_bisect_parts(result: TacticsBisectResult) -> Parts:
    """``probe tactics bisect``."""
    from probe.report.blame_bisect_page import confirmation, next_steps, tactics_bisect_sentence

    word, _, said = tactics_bisect_sentence(result)
    what = f"`probe tactics bisect` of {code(result.good)} and {code(result.bad)} in {code(result.model)}"
    rows = [
        (
            code(one.choice.layer),
            code(one.choice.bad),
            code(one.choice.good),
            number(one.choice.changed),
            prose(outcome(one.flipped)),
        )
        for one in result.guilty[:ROWS]
    ]
    return [
        verdict(word, said, what),
        table(("guilty layer", "bad", "good", "changes", "the good run with it"), rows, len(result.guilty) - len(rows)),
        [f"- {label}: {prose(outcome(one))}" for label, one in confirmation(result) if one is not None],
        to_do(next_steps(result)),
    ]


def tactics_table_parts(result: TacticsTableResult) -> Parts:
    """``probe tactics table``."""
    from probe.report.blame_table_page import next_steps, tactics_table_sentence, where_speed_costs

    costs = where_speed_costs(result)
    front = [
        (prose(one.words), number(one.layers_us), str(len(one.tactics)), number(one.run.metric), short(one.run))
        for one in result.front
    ]
    return [
        verdict("PASSED" if result.base.passed else "FAILED", tactics_table_sentence(result), f"`probe tactics table` of {code(result.model)}"),
        [*(f"- {prose(one)}" for one in costs[:ROWS]), *([f"- and {len(costs) - ROWS} more"] if len(costs) > ROWS else [])],
        table(("the network", "us, summed", "not exact", "range_rel", "run"), front, 0) if len(front) > 1 else [],
        to_do(next_steps(result)),
    ]  # fmt: skip


def builds_parts(result: BuildsResult) -> Parts:
    """``probe run --builds``."""
    from probe.report.blame_builds_page import builds_sentence, next_steps

    effects = [(layer, one) for layer in result.flipping for one in layer.effects]
    rows = [
        (code(layer.layer), code(one.tactic), str(one.builds), number(one.changed), short(one.run))
        for layer, one in effects[:ROWS]
    ]
    return [
        verdict(WORDS[result.verdict], builds_sentence(result), f"`probe run --builds` of {code(result.model)}"),
        table(("layer that flips", "tactic", "builds", "moves", "run"), rows, len(effects) - len(rows)),
        to_do(next_steps(result)),
    ]


PARTS: Mapping[str, Any] = {
    "probe.convert/1": convert_parts,
    "probe.tactics/1": file_parts,
    "probe.tactics-record/1": record_parts,
    "probe.tactics-replay/1": replay_parts,
    "probe.tactics-log/1": log_parts,
    "probe.tactics-diff/1": tactics_diff_parts,
    "probe.tactics-bisect/1": tactics_bisect_parts,
    "probe.tactics-table/1": tactics_table_parts,
    "probe.builds/1": builds_parts,
}


def _outputs(outputs: Mapping[str, OutputVerdict]) -> list[str]:
    rows = []
    for label, one in list(outputs.items())[:ROWS]:
        m = one.metrics
        numbers = (number(m.range_rel), cosine(m.cosine), number(m.max_abs)) if m is not None else ("", "", "")
        rows.append((code(label), *numbers, one.verdict.replace("_", " ")))
    return table(("output", "range_rel", "cosine", "max_abs", "verdict"), rows, len(outputs) - len(rows))


def _choices(layers: Sequence[LayerChoice]) -> list[str]:
    """Layers with another tactic than exact."""
    from probe.report.tactics_page import EXACT

    other = [one for one in layers if one.tactic != EXACT]
    rows = []
    for one in other[:ROWS]:
        times = {c.tactic: c.median_us for c in one.candidates}
        rows.append((code(one.layer), code(one.tactic), number(times.get(one.tactic)), number(times.get(EXACT))))
    return table(("layer", "tactic", "us", "us exact"), rows, len(other) - len(rows))
