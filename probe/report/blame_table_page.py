"""A ``TacticsTableResult`` as terminal text: layers whose choice matters, the front of the network, every candidate with ``-v``."""

from __future__ import annotations

import math

from probe.report.blame_words import UNBOUND, bounded, foot, outcome, recorded_with, short, times, whole
from probe.report.numbers import count, number
from probe.report.steps import Step
from probe.report.text import Column, Page, elide, escape, sections, wrap
from probe.report.words import verdict_lines
from probe.results.blame import MeasuredTactic, TacticsOfLayer, TacticsTableResult

READING = (
    "rms err, range_rel: of the layer alone, against float64 from the same rounded inputs, on the activations of these inputs. moves: how "
    "far the graph outputs move, as range_rel, when this one choice is flipped; run: the verdict then."
)
_DENIED = 8  # rules that a command line may hold
_WORTH_SAYING = 1.5  # times as wrong: less is the luck of rounding


def tactics_table_page(result: TacticsTableResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds the layers shown, the most affected first; ``verbose`` shows all, in execution order."""
    return sections(
        tactics_table_headline(result, page),
        _fastest(result, page, UNBOUND if verbose else rows),
        _candidates(result, page, UNBOUND if verbose else rows, in_order=verbose),
        _front(result, page),
        foot(result, page, tactics_table_facts(result)),
    )


def tactics_table_headline(result: TacticsTableResult, page: Page) -> list[str]:
    """The verdict in one sentence."""
    return verdict_lines("passed" if result.base.passed else "failed", tactics_table_sentence(result), page)


def tactics_table_sentence(result: TacticsTableResult) -> str:
    """The verdict of the network as it is, and what flipping single choices does to it."""
    flips = [(layer, one) for layer in result.layers for one in layer.candidates if one.flipped is not None]
    broken = [(layer, one) for layer, one in flips if one.flipped is not None and not one.flipped.passed]
    said = f"{result.precision}: the network as it is {outcome(result.base)}; "
    if not flips:
        said += "no choice was flipped"
    elif result.base.passed:
        said += f"{len(broken)} of {count(len(flips), 'single flip')} break it"
        said += f", first {broken[0][1].tactic} on {broken[0][0].layer}" if broken else ""
    else:
        cured = len(flips) - len(broken)
        said += f"{cured} of {count(len(flips), 'single flip')} cure it"
    return said


def _fastest(result: TacticsTableResult, page: Page, rows: int) -> list[str]:
    """Lines a user can act on."""
    costly = where_speed_costs(result)
    lines = [line for said in costly[:rows] for line in wrap(said, page.width, first="  ")]
    lines += [f"  and {len(costly) - rows} more (-v)"] if len(costly) > rows else []
    return [page.paint("where speed costs accuracy", "bold"), *lines] if lines else []


def where_speed_costs(result: TacticsTableResult) -> list[str]:
    """A sentence for each layer whose fastest choice is less accurate than another one, the worst first."""
    costly = [
        (cost, one)
        for one in result.layers
        if (cost := one.cost_of_fastest) is not None and cost >= _WORTH_SAYING and len(one.candidates) > 1
    ]
    costly.sort(key=lambda pair: -pair[0])
    lines: list[str] = []
    for cost, one in costly:
        fast, best = one.fastest, one.most_accurate
        assert fast is not None and best is not None, "there is a cost"
        gain = (best.median_us or 0.0) / (fast.median_us or 1.0)
        worse = "makes NaN or Inf" if math.isinf(cost) else f"is {times(cost)} less accurate"
        lines.append(
            f"{elide(one.layer, 48)}: the fastest choice here, {fast.tactic}, {worse} than {best.tactic}, and {times(gain)} as fast"
        )
    return lines


def next_steps(result: TacticsTableResult) -> list[Step]:
    """Choose for speed, but never what breaks the network: for pages that are read later than the terminal."""
    broken = [
        (one, layer)
        for layer in result.layers
        for one in layer.candidates
        if one.flipped is not None and not one.flipped.passed
    ]
    if not result.base.passed or not 0 < len(broken) <= _DENIED:
        return []
    why = "Choose the fastest of what is left: never those that break the network by themselves."
    denied = [(one.tactic, layer.outputs) for one, layer in broken]
    return [Step(why, recorded_with(result, "--deny", denied, "good.tactics"))]


def _candidates(result: TacticsTableResult, page: Page, rows: int, *, in_order: bool) -> list[str]:
    layers = [one for one in result.layers if len(one.candidates) > 1 or in_order]
    if not in_order:
        layers = sorted(layers, key=_harm, reverse=True)
    columns = [
        Column("layer, its candidates", 0, "<"), Column("us", 8), Column("rms err", 8), Column("range_rel", 9), Column("front", 5, "<"),
        Column("moves", 8), Column("run", 4, "<"),
    ]  # fmt: skip
    lines: list[str] = []
    for one in layers[:rows]:
        head, *made = bounded(columns, [_row(candidate, one) for candidate in one.candidates], page, UNBOUND)
        # A name has a line of its own: layers of one network begin alike and end alike.
        lines += [
            *([] if lines else [head]),
            *wrap(f"{whole(one.layer)} ({escape(one.kind)})", page.width, first="  "),
            *made,
        ]
    lines += [f"  and {len(layers) - rows} more layers (-v)"] if len(layers) > rows else []
    return [*lines, "", *wrap(f"{READING} *: what the network runs.", page.width, first="  ")] if lines else []


def _row(one: MeasuredTactic, layer: TacticsOfLayer) -> tuple[str, ...]:
    mark = "*" if one.tactic == layer.tactic else "-"
    sure = "" if one.deterministic else ", not deterministic"
    return (
        f"{mark} {one.tactic}{sure}", number(one.median_us),
        number(one.rms), number(one.local), "front" if one.front else "", number(one.changed), short(one.flipped),
    )  # fmt: skip


def _harm(one: TacticsOfLayer) -> tuple[bool, float]:
    """Layers first where a flip decides the verdict, then by how far one moves the outputs, or errs."""
    decides = any(c.flipped is not None and not c.flipped.passed for c in one.candidates)
    moved = [c.changed for c in one.candidates if c.changed is not None] or [c.rms or 0.0 for c in one.candidates]
    return decides, max(moved, default=0.0)


def _front(result: TacticsTableResult, page: Page) -> list[str]:
    if len(result.front) < 2:
        return []
    cells = [
        (one.words, number(one.layers_us), str(len(one.tactics)), number(one.run.metric), short(one.run))
        for one in result.front
    ]
    columns = [
        Column("the network, from accurate to fast", 0, "<"), Column("us, summed", 10), Column("not exact", 9), Column("range_rel", 9),
        Column("run", 4, "<"),
    ]  # fmt: skip
    return bounded(columns, cells, page, UNBOUND)


def tactics_table_facts(result: TacticsTableResult) -> list[tuple[str, str]]:
    """Facts of its own."""
    without = [one for one in result.layers if one.note]
    facts = [
        ("layers", f"{len(result.layers)}, {sum(len(one.candidates) > 1 for one in result.layers)} with a choice"),
        ("reference", "float64, numpy, from what each layer reads and its weights, rounded as the precision says"),
        ("evaluations", str(result.evaluations)),
    ]
    if without:
        facts.append(("no number", f"{count(len(without), 'layer')}, such as {elide(without[0].layer, 40)}: {whole(without[0].note)}"))  # fmt: skip
    return facts
