"""The layer graph: a layout that any network gets right, and boxes that say what the result says."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probe.report.html.graph import layer_graph
from probe.report.html.graph_boxes import Thing, short_name
from probe.report.html.graph_layout import Box, Layout, laid_out
from probe.report.html.graph_order import crossings, isotonic, order, rows_of
from probe.report.html.graph_ranks import MOST_TRUNKS, ranked
from probe.report.html.graph_scale import CLASSES, error_scale
from probe.report.html.page import html_page
from probe.report.text import cells
from probe.results.diff import Criterion
from probe.results.publish import example_layer, example_run, example_tensor
from probe.results.run import LayerError, RunResult
from tests.report.test_html import HOSTILE, Tree

few = settings(max_examples=40)
Readers = list[list[int]]
Sizes = list[tuple[float, float]]


@st.composite
def networks(draw: st.DrawFn, most: int = 40) -> tuple[Sizes, Readers]:
    """Things of some sizes, each read by later ones: chains, skips, wide rows, parts that hang together with nothing."""
    count = draw(st.integers(1, most))
    readers: Readers = [[] for _ in range(count)]
    for reader in range(1, count):
        near = st.integers(max(0, reader - 3), reader - 1)
        for source in draw(st.sets(near | st.integers(0, reader - 1), max_size=3)):
            readers[source].append(reader)
    sizes = draw(st.lists(st.sampled_from([(100.0, 18.0), (10.0, 10.0), (60.0, 12.0)]), min_size=count, max_size=count))
    return sizes, readers


def drawn(sizes: Sizes, readers: Readers, *, row: float = 350.0, room: float = 700.0) -> Layout:
    return laid_out(sizes, readers, row=row, room=room, drop=12.0)


@few
@given(networks())
def test_every_thing_has_a_box_and_none_overlap(network: tuple[Sizes, Readers]) -> None:
    sizes, readers = network
    layout = drawn(sizes, readers)
    assert [(box.width, box.height) for box in layout.boxes] == sizes
    boxes = sorted(layout.boxes, key=lambda box: box.x)
    for at, box in enumerate(boxes):
        assert box.x >= 0 and box.y >= 0 and box.x + box.width <= layout.width and box.y + box.height <= layout.height
        for other in boxes[at + 1 :]:
            beside = other.x >= box.x + box.width - 0.01 or other.x + other.width <= box.x + 0.01
            assert beside or other.y >= box.y + box.height or other.y + other.height <= box.y


@few
@given(networks())
def test_connections_go_down_or_into_a_later_column(network: tuple[Sizes, Readers]) -> None:
    layout = drawn(*network)
    for source, several in enumerate(network[1]):
        for reader in several:
            above, below = layout.boxes[source], layout.boxes[reader]
            assert above.column < below.column or (above.column == below.column and above.y + above.height < below.y)


@few
@given(networks())
def test_lines_lead_from_their_source_to_each_reader_or_a_number_stands_for_them(
    network: tuple[Sizes, Readers],
) -> None:
    sizes, readers = network
    layout = drawn(sizes, readers)
    lines = {line.source: line for line in layout.lines}
    jumps = set(layout.jumps)
    assert all(reader in readers[source] for source, reader in jumps)
    for source, several in enumerate(readers):
        reached = _reached(layout, lines, source)
        for reader in several:
            box = layout.boxes[reader]
            assert ((round(box.middle, 3), round(box.y, 3)) in reached) == ((source, reader) not in jumps)


def test_branches_on_both_sides_of_a_column_break_are_joined() -> None:
    """Diamonds, one below the other: breaks fall where one line passes, which leads to two readers or comes from two sources."""
    readers: Readers = []
    for top in range(0, 120, 3):
        readers += [[top + 1, top + 2], [top + 3], [top + 3]]
    sizes = [(60.0, 12.0)] * 121
    layout = drawn(sizes, [*readers, []])
    lines = {line.source: line for line in layout.lines}
    assert max(len(line.turns) for line in layout.lines) == 2, "a break with two readers below it"
    for source, several in enumerate(readers):
        ends = {(round(layout.boxes[one].middle, 3), round(layout.boxes[one].y, 3)) for one in several}
        assert ends <= _reached(layout, lines, source)


@few
@given(networks())
def test_lines_pass_beside_boxes_and_boxes_keep_their_distance(network: tuple[Sizes, Readers]) -> None:
    layout = drawn(*network)
    upright = [(x, y, to_y) for line in layout.lines for (x, y), (to_x, to_y) in line.bends if x == to_x]
    upright += [
        (x, min(y, to_y), max(y, to_y))
        for line in layout.lines
        for turn in line.turns
        for (x, y), (to_x, to_y) in pairwise(turn)
        if x == to_x
    ]
    for x, y, to_y in upright:
        for box in layout.boxes:
            inside = box.x + 0.01 < x < box.x + box.width - 0.01
            assert not inside or to_y <= box.y + 0.01 or y >= box.y + box.height - 0.01
    rows: dict[tuple[int, float], list[Box]] = {}
    for box in layout.boxes:
        rows.setdefault((box.column, box.y), []).append(box)
    for row in rows.values():
        row.sort(key=lambda box: box.x)
        assert all(right.x - left.x - left.width > 9.9 for left, right in pairwise(row))


def _reached(layout: Layout, lines: dict[int, Any], source: int) -> set[tuple[float, float]]:
    """Points that a pen gets to from the foot of a box along its line; every point is in the picture, no piece goes up but in a gutter."""
    box = layout.boxes[source]
    found = {(round(box.middle, 3), round(box.y + box.height, 3))}
    if source not in lines:
        return found
    pieces = [(start, end) for start, end in lines[source].bends] + [(t[0], t[-1]) for t in lines[source].turns]
    assert all(end[1] >= start[1] for start, end in lines[source].bends)
    points = [p for piece in pieces for p in piece] + [p for turn in lines[source].turns for p in turn]
    assert all(0 <= x <= layout.width and 0 <= y <= layout.height for x, y in points)
    rounded = [tuple((round(x, 3), round(y, 3)) for x, y in piece) for piece in pieces]
    for _ in rounded:
        found |= {end for start, end in rounded if start in found}
    return found


@few
@given(networks())
def test_the_same_network_is_drawn_the_same(network: tuple[Sizes, Readers]) -> None:
    assert drawn(*network) == drawn(*network)


@few
@given(networks(), st.sampled_from([5.0, 150.0, 350.0]))
def test_rows_hold_what_there_is_room_for(network: tuple[Sizes, Readers], row: float) -> None:
    sizes, readers = network
    found = ranked([width for width, _ in sizes], readers, row)
    for each in set(found.rank):
        widths = [width for (width, _), at in zip(sizes, found.rank, strict=True) if at == each]
        assert len(widths) == 1 or sum(widths) <= row
    assert set(found.rank) == set(range(max(found.rank) + 1)), "no row is empty"
    for source, several in enumerate(readers):
        assert all(found.rank[reader] > found.rank[source] for reader in several)


def test_long_lines_give_way_where_too_many_pass() -> None:
    """Twenty sources, all read by the last of a long chain: a row holds some lines, the others are numbers."""
    count, chain = 20, 30
    readers: Readers = [[count + chain - 1] for _ in range(count)] + [[count + i + 1] for i in range(chain - 1)] + [[]]
    for source in range(count):
        readers[source].append(count)  # so that none of them sinks
    found = ranked([10.0] * len(readers), readers, 500.0)
    assert len(found.jumps) == count - MOST_TRUNKS
    passing = Counter(row for source, end in found.trunk.items() for row in range(found.rank[source] + 1, end))
    assert max(passing.values()) == MOST_TRUNKS


def test_sources_and_chains_sink_towards_what_reads_them() -> None:
    """0 is read by 1..6, a chain, and at its end by 9; 7 and 8 hang on it: a shape, computed for 9."""
    readers: Readers = [[1, 7, 9], [2], [3], [4], [5], [6], [9], [8], [9], [10], []]
    rank = ranked([10.0] * 11, readers, 500.0).rank
    assert rank == [0, 1, 2, 3, 4, 5, 6, 5, 6, 7, 8]
    assert ranked([10.0] * 4, [[1], [2], [], [2]], 500.0).rank == [0, 1, 2, 1], "an input stands above its reader"


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.1, 10)), min_size=1, max_size=20))
def test_positions_are_an_isotonic_regression(given_: list[tuple[float, float]]) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    wanted, weights = [w for w, _ in given_], [w for _, w in given_]
    best = optimize.isotonic_regression(wanted, weights=weights).x
    assert isotonic(wanted, weights) == pytest.approx(list(best), abs=1e-6)


@few
@given(networks(most=25))
def test_crossings_are_counted_and_sweeps_never_add_any(network: tuple[Sizes, Readers]) -> None:
    sizes, readers = network
    widths = [width for width, _ in sizes]
    made = rows_of(ranked(widths, readers, 350.0), widths, readers, 6.0)
    before = crossings(made)
    place = {vertex: at for row in made.rows for at, vertex in enumerate(row)}
    brute = 0
    for row in made.rows:
        edges = [(place[v], place[w]) for v in row for w in made.down[v]]
        brute += sum(a < c and d < b for at, (a, b) in enumerate(edges) for c, d in (*edges[:at], *edges[at + 1 :]))
    assert before == brute
    order(made)
    assert crossings(made) <= before


def test_two_swapped_branches_are_untangled() -> None:
    readers: Readers = [[1, 2], [4], [3], [5], [5], []]
    made = rows_of(ranked([10.0] * 6, readers, 500.0), [10.0] * 6, readers, 6.0)
    assert crossings(made) == 1
    order(made)
    assert crossings(made) == 0


def test_a_chain_is_one_upright_line_cut_into_columns() -> None:
    layout = drawn([(100.0, 18.0)] * 60, [[i + 1] for i in range(59)] + [[]])
    assert layout.columns > 1 and layout.height < 700
    for column in range(layout.columns):
        assert len({box.x for box in layout.boxes if box.column == column}) == 1
    assert sum(len(line.turns) for line in layout.lines) == layout.columns - 1


def test_a_dense_network_stays_bounded() -> None:
    """Each of 120 layers reads 30 earlier ones: the picture must not grow with connections."""
    drawn_from = random.Random(0)
    readers: Readers = [[] for _ in range(120)]
    for reader in range(1, 120):
        for source in sorted(drawn_from.sample(range(reader), min(reader, 30))):
            readers[source].append(reader)
    layout = drawn([(22.0, 12.0)] * 120, readers)
    assert layout.jumps
    assert sum(len(line.bends) for line in layout.lines) < 120 * 5 * MOST_TRUNKS
    assert layout.width < 700


# --- what it says


def run_of(*layers: LayerError, **changed: Any) -> RunResult:
    return replace(example_run(), layers=layers, first_divergence=changed.pop("first", ()), tensors=(), **changed)


def chain(*errors: float | None, **changed: Any) -> tuple[LayerError, ...]:
    return tuple(
        example_layer(f"/block.{i}/MatMul", reads=(f"t{i}",), outputs=(f"t{i + 1}",), accumulated=error, **changed)
        for i, error in enumerate(errors)
    )


def tree_of(result: RunResult) -> Tree:
    made = layer_graph(result, [x for x in result.layers if x.note != "not selected"], rows="layers-table")
    assert made is not None
    return Tree(made)


def nodes_of(tree: Tree) -> dict[str, dict[str, str | None]]:
    return {a["href"] or "": a for tag, a in tree.tags if tag == "a"}


def classes(node: dict[str, str | None]) -> set[str]:
    return set((node["class"] or "").split())


@pytest.mark.parametrize("count", [1, 7, 120, 450])
def test_every_layer_stands_there_once_and_leads_to_its_row(count: int) -> None:
    tree = tree_of(run_of(*chain(*[1e-3] * count)))
    links = tree.values("href")
    assert Counter(links) == Counter(f"#layers-table-{i}" for i in range(count))
    rows = set(Tree(html_page(run_of(*chain(*[1e-3] * count)))).values("id"))
    assert {link[1:] for link in links} <= rows


def test_what_must_not_be_missed_is_a_shape_or_a_sign_and_not_only_a_colour() -> None:
    good, first, broken, kept, unknown = chain(1e-6, 0.2, math.inf, 1e-3, None)
    layers = (
        good,
        replace(first, beyond=True),
        replace(broken, nonfinite=3, beyond=True),
        replace(kept, precision="fp32"),
        unknown,
    )
    tree = tree_of(run_of(*layers, first=(first.name,)))
    nodes = [nodes_of(tree)[f"#layers-table-{i}"] for i in range(5)]
    assert [classes(node) for node in nodes] == [
        {"node", "e0"}, {"node", "e7", "over", "starts"}, {"node", "e8", "over"}, {"node", "e3", "kept"}, {"node", "unknown"},
    ]  # fmt: skip
    page = layer_graph(run_of(*layers, first=(first.name,)), layers, rows="t") or ""
    assert page.split("<figcaption>")[0].count('class="hatched"') == 1
    assert page.split("<figcaption>")[0].count('class="flag"') == 1
    assert '<rect x="' in page and 'rx="9.0"' in page, "ends are round where FP32 is kept"
    for words in (
        "first divergence",
        "NaN or Inf",
        "over the default limits for fp16",
        "stays FP32, not fp16",
        "was not measured",
    ):
        assert words in tree.text, words
    plain = tree_of(run_of(*chain(1e-6, 1e-4)))
    for words in ("first divergence", "NaN or Inf", "thick frame", "FP32", "was not measured", "no line is drawn"):
        assert words not in plain.text, words


def test_a_box_is_read_aloud_with_all_of_it() -> None:
    layer = example_layer("/m/Pow", accumulated=0.7, beyond=True, nonfinite=2, precision="fp32")
    said = tree_of(run_of(layer, first=("/m/Pow",))).text
    assert "/m/Pow, accumulated 0.7, first divergence, over the default limits, NaN or Inf, kept in FP32" in said
    assert "1 layer, each coloured by its accumulated error. Error starts in /m/Pow. 1 layer beyond 0.05." in " ".join(
        tree_of(run_of(layer, first=("/m/Pow",))).values("aria-label")
    )


def test_inputs_outputs_and_branches_are_connected_and_unselected_layers_passed_through() -> None:
    a = example_layer("a", reads=("x",), outputs=("t",))
    gone = example_layer("gone", reads=("t",), outputs=("u",), note="not selected")
    then, other = (example_layer(n, reads=("u",), outputs=("v",), scope=f"If/{n}") for n in ("then", "else"))
    last = example_layer("last", reads=("v", "folded"), outputs=("logits",))
    result = replace(run_of(a, gone, then, other, last), tensors=(example_tensor("folded", status="folded"),))
    tree = tree_of(result)
    nodes = nodes_of(tree)
    assert "input x" in tree.text and "output logits" in tree.text and "folded" not in tree.text
    at = {href: node["data-at"] for href, node in nodes.items()}
    assert len(nodes) == 4
    first, *branches, end = (nodes[f"#layers-table-{i}"] for i in range(4))
    assert first["data-in"] == "0" and (first["data-out"] or "").split() == [
        at["#layers-table-1"],
        at["#layers-table-2"],
    ]
    assert (end["data-in"] or "").split() == [node["data-at"] for node in branches]
    assert set(tree.values("data-of")) == {"0", *(at[f"#layers-table-{i}"] or "" for i in range(4))}


def test_the_scale_is_anchored_at_the_limit() -> None:
    scale = error_scale(example_run().acceptance)
    assert scale.limited and scale.edges[-2] == 0.05
    assert [scale.class_of(v) for v in (0.0, 4e-5, 6e-5, 0.049, 0.05, 0.5, math.inf, math.nan)] == [
        0,
        0,
        1,
        6,
        7,
        8,
        8,
        8,
    ]
    assert sorted(scale.edges) == list(scale.edges) and len(scale.edges) == CLASSES - 1
    words = [scale.words(position) for position in range(CLASSES)]
    assert words[0] == "below 5e-05" and words[-2:] == ["0.05 to 0.5", "0.5 and more"]
    loose = error_scale([Criterion("range_rel", "<=", 0.3), Criterion("range_rel", "<=", 0.2, output="y")])
    assert loose.edges[-2] == 0.2
    assert not error_scale([Criterion("cosine", ">=", 0.99), Criterion("range_rel", "<=", 0.0)]).limited
    assert "fails from" not in tree_of(run_of(*chain(1e-3), acceptance=())).text


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_are_told_apart_without_hues_and_text_on_them_is_read(dark: bool) -> None:
    style = files("probe.report.html").joinpath("style.css").read_text(encoding="utf-8")
    named = {name: pair[dark] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    ramp = [named[f"e{i}"] for i in range(CLASSES)]
    shades = [_luminance(colour) for colour in ramp]
    assert shades == sorted(shades, reverse=not dark)
    assert all(_contrast(a, b) > 1.1 for a, b in pairwise(ramp))
    for i, colour in enumerate(ramp):  # WCAG 2 AA for text
        assert _contrast(colour, named["on-high" if i >= 6 else "text"]) >= 4.5, (i, colour)


@pytest.mark.parametrize(
    ("name", "width", "short"),
    [
        ("/m/enc/query/MatMul", 12, "query/MatMul"),
        ("/m/enc/query/MatMul", 11, "MatMul"),
        ("/m/enc/LayerNormalization_3", 10, "LayerNo\u2026_3"),
        ("a + b + c", 9, "a +2"),
        ("node_conv2d_12", 10, "conv2d_12"),
        ("node_", 10, "node_"),
        ("Conv(fire2/squeeze1x1_1)", 10, "Conv \u2026x1_1"),
        ("Conv(fire2/squeeze1x1_1)", 20, "Conv squeeze1x1_1"),
        ("LeakyRelu(t1) + b", 13, "LeakyRelu +1"),
        ("GlobalAveragePool(t)", 10, "GlobalAve\u2026"),
        ("", 10, '""'),
        ("\u5c42" * 20, 10, "\u5c42...\u5c42\u5c42"),
    ],
)
def test_short_names_tell_layers_apart(name: str, width: int, short: str) -> None:
    assert short_name(name, width) == short


@given(st.text(max_size=60), st.integers(4, 20))
@example(" \u094d", 4)  # a combining mark takes no cell
def test_short_names_fit(name: str, width: int) -> None:
    assert cells(short_name(name, width)) <= width or " +" in short_name(name, width)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_are_text(hostile: str) -> None:
    layer = example_layer(hostile, reads=(hostile + "in",), outputs=("logits",), nonfinite=1)
    plain = example_layer("plain", reads=("in",), outputs=("logits",), nonfinite=1)
    made = [Counter(tag for tag, _ in tree_of(run_of(one)).tags) for one in (layer, plain)]
    assert made[0] == made[1]


def test_no_layers_no_picture() -> None:
    assert layer_graph(run_of(), (), rows="t") is None
    assert 'id="graph"' not in html_page(run_of())


def test_quiet_things_are_those_without_an_error() -> None:
    shape = example_layer("s", kind="shape", accumulated=0.0)
    assert Thing("s", shape).quiet and not Thing("s", replace(shape, accumulated=0.5)).quiet
    assert Thing("s", replace(shape, accumulated=None)).quiet
    assert not Thing("s", replace(shape, accumulated=None), starts=1).quiet


@pytest.mark.parametrize(("name", "opset_layers"), [("mnist", 8), ("squeezenet_fp16", 30)])
def test_real_networks_are_drawn_whole(name: str, opset_layers: int, models: Path) -> None:
    import probe

    data = models / "data" / f"{name}__main.npz"
    result = probe.run(models / "models" / f"{name}.onnx", precision="fp16", inputs=data, fusion="none", passes="none")
    tree = tree_of(result)
    assert len(nodes_of(tree)) == len(result.layers) >= opset_layers
    assert {f"output {one}" for one in result.outputs} <= set(tree.said)
    connected = {one for node in nodes_of(tree).values() for one in (node.get("data-in") or "").split()}
    assert len(connected) >= len(result.layers) - len(result.outputs)
