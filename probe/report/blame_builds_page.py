"""A ``BuildsResult`` as terminal text: what flips between builds, what that does, what to pin."""

from __future__ import annotations

from collections import Counter

from probe.report.blame_words import UNBOUND, bounded, foot, outcome, recorded_with, short
from probe.report.numbers import count, number
from probe.report.steps import Step
from probe.report.text import Column, Page, elide, escape, fitted, sections, wrap
from probe.report.words import verdict_lines
from probe.results.blame import BuildsResult, Pin

_PINNED = 8  # pins that a command line may hold
READING = "flips: between one build and the next. moves: range_rel of the outputs against what most builds choose; 0: the same bits."


def builds_page(result: BuildsResult, page: Page, *, rows: int = 12, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds the layers shown, those that do most first; ``verbose`` lifts the bound."""
    bound = UNBOUND if verbose else rows
    return sections(
        builds_headline(result, page),
        _builds(result, page, bound),
        _flips(result, page, bound),
        _pins(result, page, bound),
        foot(result, page, [("evaluations", str(result.evaluations))]),
    )


def builds_headline(result: BuildsResult, page: Page) -> list[str]:
    """The verdict in one sentence."""
    return verdict_lines(result.verdict, builds_sentence(result), page)


def builds_sentence(result: BuildsResult) -> str:
    """How many builds pass, and how much they differ."""
    passing = sum(one.run.passed for one in result.builds)
    bits = len({one.outputs_sha256 for one in result.builds})
    said = (
        f"{result.precision}: {passing} of {count(len(result.builds), 'build')} pass; {len(result.flipping)} of "
        f"{count(result.layers, 'layer')} with a choice flip between builds; "
    )
    return said + ("all make the same bits" if bits == 1 else f"they make {bits} different results")


def _builds(result: BuildsResult, page: Page, rows: int) -> list[str]:
    names = {digest: f"#{at}" for at, digest in enumerate(dict.fromkeys(b.tactics_sha256 for b in result.builds), 1)}
    bits = {digest: f"#{at}" for at, digest in enumerate(dict.fromkeys(b.outputs_sha256 for b in result.builds), 1)}
    cells = [
        (
            f"build {at}",
            names[one.tactics_sha256],
            bits[one.outputs_sha256],
            number(one.layers_us),
            number(one.run.metric),
            "passes" if one.run.passed else outcome(one.run),
        )
        for at, one in enumerate(result.builds, 1)
    ]
    columns = [
        Column("", 9, "<"), Column("choices", 7), Column("bits", 4), Column("us, summed", 10), Column("range_rel", 9),
        Column("run", 0, "<"),
    ]  # fmt: skip
    return bounded(columns, cells, page, rows)


def _flips(result: BuildsResult, page: Page, rows: int) -> list[str]:
    layers = sorted(result.flipping, key=lambda one: max(e.changed or 0.0 for e in one.effects), reverse=True)
    cells: list[tuple[str, ...]] = []
    for one in layers[:rows]:
        cells.append((one.layer, "", str(one.flips), "", ""))
        cells += [(f"- {e.tactic}", str(e.builds), "", number(e.changed), short(e.run)) for e in one.effects]
    if not cells:
        return []
    columns = [
        Column("layers that flip", 0, "<"), fitted("builds", (row[1] for row in cells)), Column("flips", 5), Column("moves", 9),
        Column("run", 4, "<"),
    ]  # fmt: skip
    lines = bounded(columns, cells, page, UNBOUND)
    lines += [f"  and {len(layers) - rows} more layers (-v)"] if len(layers) > rows else []
    return [*lines, "", *wrap(READING, page.width, first="  ")]


def next_steps(result: BuildsResult) -> list[Step]:
    """Choose once, with what must be pinned, and replay that in every build."""
    pins = result.pins or result.pins_for_bits
    if not 0 < len(pins) <= _PINNED:
        return []
    why = "Record the choices with these pinned, then replay the file in every build."
    return [Step(why, recorded_with(result, "--allow", [(one.tactic, one.outputs) for one in pins], "pinned.tactics"))]


def _pins(result: BuildsResult, page: Page, rows: int) -> list[str]:
    lines: list[str] = []
    if result.pins:
        lines += wrap("Every build passes with", page.width, first="  ")
        lines += _listed(result.pins, page, rows)
    elif not result.pinned_passes:
        lines += wrap("No choice of what flips makes every build pass.", page.width, first="  ")
    if result.pins_for_bits:
        lines += wrap("All builds make the same bits with", page.width, first="  ")
        lines += _listed(result.pins_for_bits, page, rows)
    return [page.paint("what to pin", "bold"), *lines] if lines else []


def _listed(pins: tuple[Pin, ...], page: Page, rows: int) -> list[str]:
    lines = [
        line
        for one in pins[:rows]
        for line in wrap(f"{escape(one.tactic)} on {elide(one.layer, 60)}", page.width, first="    ")
    ]
    if len(pins) > rows:
        others = Counter(one.tactic for one in pins[rows:])
        lines.append(f"    and {len(pins) - rows} more ({', '.join(escape(name) for name in others)}) (-v)")
    return lines
