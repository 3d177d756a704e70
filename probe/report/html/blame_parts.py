"""Pages about guilty tactics: suspects from files, choices found guilty, every candidate measured, builds compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from probe.report.blame_bisect_page import (
    confirmation,
    evidence,
    in_words,
    tactics_bisect_facts,
    tactics_bisect_sentence,
)
from probe.report.blame_bisect_page import next_steps as bisect_steps
from probe.report.blame_builds_page import READING as FLIPS
from probe.report.blame_builds_page import builds_sentence, next_steps
from probe.report.blame_diff_page import next_steps as diff_steps
from probe.report.blame_diff_page import reading, tactics_diff_facts, tactics_diff_sentence
from probe.report.blame_table_page import READING as CANDIDATES
from probe.report.blame_table_page import next_steps as table_steps
from probe.report.blame_table_page import tactics_table_facts, tactics_table_sentence, where_speed_costs
from probe.report.blame_words import described, outcome, short
from probe.report.html.element import Child, Markup, bullets, element, name, section
from probe.report.html.parts import MOST_ROWS, behind, cut_short, facts, names, provenance, to_do, verdict
from probe.report.html.path_plot import path_plot
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.report.words import WORDS, sentence
from probe.results.blame import (
    BuildsResult,
    MeasuredTactic,
    Pin,
    TacticDifference,
    TacticsBisectResult,
    TacticsDiffResult,
    TacticsOfLayer,
    TacticsTableResult,
    TacticSuspect,
)
from probe.results.find import Evaluated

_STYLES = {"green": "passed", "yellow": "warned", "red": "failed"}
_SUSPECT = (
    Column("Layer"),
    Column("Tactic"),
    Column("Bad runs", about="that have it, of those that have the layer"),
    Column("Good runs"),
    Column("p", numeric=True, about="chance of so many bad runs among those that have it, were it innocent"),
    Column("Blame", numeric=True, about="posterior that this choice alone makes runs bad, in percent"),
    Column("Good runs have"),
)
_DIFFERENCE = (
    Column("Layer"),
    Column("Kind"),
    Column("Good"),
    Column("Bad"),
    Column("Changes", numeric=True, about="RMS of bad - good over RMS of good, of this layer alone"),
)
_CANDIDATE = (
    Column("Layer"),
    Column("Tactic"),
    Column("us", numeric=True, about="median time"),
    Column("RMS error", numeric=True, about="over the RMS of the reference, of this layer alone"),
    Column("range_rel", numeric=True, about="of this layer alone"),
    Column("Front", about="no other candidate is both faster and more accurate"),
    Column("Moves", numeric=True, about="how far the graph outputs move when this one choice is flipped, as range_rel"),
    Column("Run", about="the verdict of the network then"),
)
_CANDIDATE_FILTERS = {"used": "what the network runs", "front": "on the front", "breaks": "breaks the network"}
_FRONT = (
    Column("The network"),
    Column("us, summed", numeric=True),
    Column("Not exact", numeric=True, about="layers with another tactic than exact"),
    Column("range_rel", numeric=True),
    Column("Run"),
)
_BUILD = (
    Column("Build"),
    Column("Choices", about="builds with the same number chose the same"),
    Column("Bits", about="builds with the same number made the same bits"),
    Column("us, summed", numeric=True),
    Column("range_rel", numeric=True),
    Column("Run"),
)
_FLIP = (
    Column("Layer that flips"),
    Column("Flips", numeric=True, about="between one build and the next"),
    Column("Tactic"),
    Column("Builds", numeric=True, about="that choose it"),
    Column("Moves", numeric=True, about="range_rel of the outputs against what most builds choose; 0: the same bits"),
    Column("Run"),
)


def tactics_diff_parts(result: TacticsDiffResult) -> list[Markup | None]:
    """Files of good and bad runs."""
    word, said = tactics_diff_sentence(result)
    rows = [_suspect(one) for one in result.suspects[:MOST_ROWS]]
    return [
        verdict("warned" if result.suspects else "passed", word, said, (), ("probe tactics diff",)),
        to_do(diff_steps(result)),
        section("suspects", "Suspects", data_table("suspects-table", count(len(rows), "suspect"), _SUSPECT, rows) if rows else None,
                cut_short(len(result.suspects)), about=reading(result)),
        provenance(tactics_diff_facts(result), "", result.command, {}),
    ]  # fmt: skip


def _suspect(one: TacticSuspect) -> Row:
    alike = f"{count(one.alike, 'other choice')} in exactly the same runs" if one.alike else ""
    said: list[tuple[str, Child]] = [("name", name(one.layer)), ("writes", names(one.outputs, 8)), ("alike", alike)]
    instead = ", ".join(f"{tactic} ({n})" if n > 1 else tactic for tactic, n in one.instead.items())
    cells = (behind(name(one.layer, 64), facts(said)), name(one.tactic), f"{one.bad} of {one.bad_runs}", f"{one.good} of {one.good_runs}",
             number(one.p_value), f"{100 * one.confidence:.3g}", instead)  # fmt: skip
    return Row(cells)


def tactics_bisect_parts(result: TacticsBisectResult) -> list[Markup | None]:
    """Guilty choices, and how they are known to be."""
    word, style, said = tactics_bisect_sentence(result)
    guilty = bullets(
        ([element("p", element("strong", in_words(one.choice))), facts(evidence(one))] for one in result.guilty),
        class_="findings",
    )
    tried = facts((label, outcome(one)) for label, one in confirmation(result) if one is not None)
    rows = [_difference(one) for one in result.differences[:MOST_ROWS]]
    return [
        verdict(_STYLES[style], word, said, (), ("probe tactics bisect", result.model, result.precision, result.device)),
        to_do(bisect_steps(result)),
        section("guilty", "To be pinned", guilty),
        section("flipped", "Flipped both ways" if result.guilty else "Evaluated", tried),
        section("path", "Path of the search", path_plot(result.steps),
                about="Each evaluation runs the bad network with some choices pinned to the good ones: kept counts those. Point at one, or "
                "walk through them with the arrow keys."),
        section("differences", "Differences, most suspect first",
                data_table("differences-table", count(len(rows), "difference"), _DIFFERENCE, rows) if rows else None,
                cut_short(len(result.differences))),
        _foot(result, tactics_bisect_facts(result)),
    ]  # fmt: skip


def _difference(one: TacticDifference) -> Row:
    said: list[tuple[str, Child]] = [("name", name(one.layer)), ("writes", names(one.outputs, 8))]
    cells = (behind(name(one.layer, 64), facts(said)), one.kind, name(one.good), name(one.bad), number(one.changed))
    return Row(cells)


def tactics_table_parts(result: TacticsTableResult) -> list[Markup | None]:
    """Every candidate of every layer."""
    rows = [row for layer in result.layers for row in _candidates(layer)]
    front = [
        Row(
            (one.words, number(one.layers_us), str(len(one.tactics)), number(one.run.metric), short(one.run)),
            (),
            _mark(one.run),
        )
        for one in result.front
    ]
    mark = "passed" if result.base.passed else "failed"
    costs = bullets(where_speed_costs(result))
    return [
        verdict(mark, WORDS[mark], tactics_table_sentence(result), (), ("probe tactics table", result.model, result.precision, result.device)),
        to_do(table_steps(result)),
        section("costs", "Where speed costs accuracy", costs),
        section("front", "From accurate to fast", data_table("front-table", count(len(front), "choice"), _FRONT, front) if len(front) > 1 else None,
                about="The whole network with a choice for every layer; times are the sum of its layers."),
        section("candidates", "Candidates",
                data_table("candidates-table", count(len(rows), "candidate"), _CANDIDATE, rows[:MOST_ROWS], filters=_CANDIDATE_FILTERS) if rows else None,
                cut_short(len(rows), "first"), about=CANDIDATES),
        _foot(result, tactics_table_facts(result)),
    ]  # fmt: skip


def _candidates(layer: TacticsOfLayer) -> Iterable[Row]:
    return (_candidate(one, layer) for one in layer.candidates)


def _candidate(one: MeasuredTactic, layer: TacticsOfLayer) -> Row:
    used = one.tactic == layer.tactic
    breaks = one.flipped is not None and not one.flipped.passed
    said: list[tuple[str, Child]] = [
        ("name", name(layer.layer)),
        ("problem", layer.problem),
        ("numerics", one.numerics),
        ("writes", names(layer.outputs, 8)),
        ("then", outcome(one.flipped) if one.flipped is not None else None),
        ("note", one.note),
    ]
    tactic: list[Child] = [
        name(one.tactic),
        "" if one.deterministic else ", not deterministic",
        " (runs)" if used else "",
    ]
    cells = (behind(name(layer.layer, 64), facts(said)), tactic, number(one.median_us), number(one.rms), number(one.local),
             "front" if one.front else "", number(one.changed), short(one.flipped))  # fmt: skip
    tags = (*(("used",) if used else ()), *(("front",) if one.front else ()), *(("breaks",) if breaks else ()))
    return Row(cells, tags, "failed" if breaks else "")


def builds_parts(result: BuildsResult) -> list[Markup | None]:
    """Several builds: what flips between them, and what to pin."""
    names_of = {digest: f"#{at}" for at, digest in enumerate(dict.fromkeys(b.tactics_sha256 for b in result.builds), 1)}
    bits = {digest: f"#{at}" for at, digest in enumerate(dict.fromkeys(b.outputs_sha256 for b in result.builds), 1)}
    builds = [
        Row((f"build {at}", names_of[one.tactics_sha256], bits[one.outputs_sha256], number(one.layers_us), number(one.run.metric), outcome(one.run) if not one.run.passed else "passes"),
            (), _mark(one.run))
        for at, one in enumerate(result.builds, 1)
    ]  # fmt: skip
    flips = [
        Row(
            (
                name(layer.layer, 64),
                str(layer.flips),
                name(one.tactic),
                str(one.builds),
                number(one.changed),
                short(one.run),
            ),
            (),
            _mark(one.run),
        )
        for layer in result.flipping
        for one in layer.effects
    ]
    return [
        verdict(result.verdict, WORDS[result.verdict], builds_sentence(result), (), ("probe run --builds", result.model, result.precision, result.device)),
        to_do(next_steps(result)),
        section("pins", "What to pin", _pins(result)),
        section("builds", "Builds", data_table("builds-table", count(len(builds), "build"), _BUILD, builds)),
        section("flips", "What flips between builds",
                data_table("flips-table", count(len(flips), "choice"), _FLIP, flips[:MOST_ROWS]) if flips else None, about=FLIPS),
        _foot(result, [("evaluations", str(result.evaluations))]),
    ]  # fmt: skip


def _pins(result: BuildsResult) -> list[Child]:
    content: list[Child] = []
    if result.pins:
        content += [element("p", "Every build passes with"), _listed(result.pins)]
    elif not result.pinned_passes:
        content += [element("p", "No choice of what flips makes every build pass.")]
    if result.pins_for_bits:
        content += [element("p", "All builds make the same bits with"), _listed(result.pins_for_bits)]
    return content


def _listed(pins: Iterable[Pin]) -> Markup | None:
    return bullets([name(one.tactic), " on ", name(one.layer)] for one in pins)


def _mark(run: Evaluated | None) -> str:
    return "failed" if run is not None and not run.passed else ""


def _foot(result: Any, own: list[tuple[str, str]]) -> Markup | None:
    """What results about a network have in common."""
    return provenance(
        [(label, sentence(text) if label == "note" else text) for label, text in described(result, own)],
        result.model_sha256, result.command, result.environment,
    )  # fmt: skip
