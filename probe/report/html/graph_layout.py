"""Where everything of the layer graph stands: columns that are read like a newspaper's, lines that go from one to the next.

A network is a hundred times as deep as it is wide. Drawn as one column it has to be scrolled, and no picture of it can be mailed; cut into
columns side by side, 200 layers fit on a page with their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from probe.report.html.graph_order import Rows, order, positions, rows_of
from probe.report.html.graph_ranks import ranked

Point = tuple[float, float]

GUTTER = 22.0  # between columns, beside the lines that run there
LANE = 6.0  # between lines side by side
_MOST_COLUMNS = 24
_TALL = 640.0  # a graph lower than this stays one column
_GAP = 10.0  # between things side by side


@dataclass(frozen=True, slots=True)
class Box:
    """A thing. ``x`` and ``y`` are its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    column: int

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass(frozen=True, slots=True)
class Line:
    """What leads from a source to its readers: ``bends`` from one row to the next, and ``turns``, polygons from the foot of a column to the
    head of the next one."""

    source: int
    bends: tuple[tuple[Point, Point], ...]
    turns: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing of ``width`` times ``height``. ``jumps``: (source, reader) without a line."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    jumps: tuple[tuple[int, int], ...]
    width: float
    height: float
    columns: int


def laid_out(
    sizes: Sequence[tuple[float, float]], readers: Sequence[Sequence[int]], *, row: float, room: float, drop: float
) -> Layout:
    """A drawing of things ``0..n-1``; the same for the same arguments.

    Args:
        sizes: width and height of each thing.
        readers: of each thing, those that read it; each larger than itself.
        row: the sum of widths that stand side by side in a row; a wider thing has a row to itself.
        room: the width that columns side by side do not exceed. A single column may, where ``row`` or the lines beside it take more.
        drop: from a row to the next.
    """
    widths = [width for width, _ in sizes]
    above = ranked(widths, readers, row)
    made = rows_of(above, widths, readers, LANE)
    order(made)
    x = positions(made, _GAP)
    heights = [max(sizes[vertex][1] for vertex in row if not made.is_point(vertex)) + drop for row in made.rows]
    cuts = _columns(made, x, heights, room)
    return _Drawing(made, x, heights, cuts, sizes, drop).layout(above.jumps)


def _columns(made: Rows, x: Sequence[float], heights: Sequence[float], room: float) -> list[int]:
    """Where columns begin, as rows: as few as are low enough, else as many as fit side by side."""
    best = [0]
    for columns in range(1, _MOST_COLUMNS + 1):
        cuts = _cut(made, heights, columns)
        if columns > 1 and _width(made, x, cuts) > room:
            break
        best = cuts
        if _tallest(heights, cuts) <= _TALL:
            break
    return best


def _cut(made: Rows, heights: Sequence[float], columns: int) -> list[int]:
    """Equal heights, give or take an eighth: there, where the fewest lines pass."""
    tops = [0.0, *accumulate(heights)]
    share = tops[-1] / columns
    cuts = [0]
    for column in range(1, columns):
        near = [row for row in range(cuts[-1] + 1, len(heights)) if abs(tops[row] - column * share) <= share / 8]
        if near:
            cuts.append(min(near, key=lambda row: (len(_passing(made, row)), abs(tops[row] - column * share))))
    return cuts


def _passing(made: Rows, row: int) -> list[int]:
    """Vertices of the row above from which lines lead into ``row``."""
    return [vertex for vertex in made.rows[row - 1] if made.down[vertex]]


def _tallest(heights: Sequence[float], cuts: Sequence[int]) -> float:
    return max((sum(heights[a:b]) for a, b in pairwise([*cuts, len(heights)])), default=0.0)


def _width(made: Rows, x: Sequence[float], cuts: Sequence[int]) -> float:
    spans = [_span(made, x, a, b) for a, b in pairwise([*cuts, len(made.rows)])]
    turning = sum(len(_passing(made, row)) for row in cuts[1:])
    return sum(right - left for left, right in spans) + (len(cuts) + 1) * GUTTER + turning * LANE


def _span(made: Rows, x: Sequence[float], first: int, end: int) -> tuple[float, float]:
    """Left and right end of some rows."""
    vertices = [vertex for row in made.rows[first:end] for vertex in row]
    return (min((x[v] - made.width[v] / 2 for v in vertices), default=0.0),
            max((x[v] + made.width[v] / 2 for v in vertices), default=0.0))  # fmt: skip


class _Drawing:
    """Rows at their heights, in their columns, and the lines between them."""

    def __init__(self, made: Rows, x: Sequence[float], heights: Sequence[float], cuts: Sequence[int],
                 sizes: Sequence[tuple[float, float]], drop: float) -> None:  # fmt: skip
        self.made, self.sizes, self.drop, self.cuts = made, sizes, drop, cuts
        ends = [*cuts[1:], len(made.rows)]
        turning = [len(_passing(made, row)) for row in cuts[1:]]  # lines from each column to the next
        self.head = LANE * (max(turning, default=0) + 1)
        self.x = [0.0] * len(x)
        self.y = [0.0] * len(made.rows)
        self.column = [0] * len(made.rows)
        self.right: list[float] = []
        self.foot: list[float] = []
        left = GUTTER / 2
        for number, (first, end) in enumerate(zip(cuts, ends, strict=True)):
            low, high = _span(made, x, first, end)
            y = self.head
            for row in range(first, end):
                self.y[row], self.column[row] = y, number
                y += heights[row]
                for vertex in made.rows[row]:
                    self.x[vertex] = x[vertex] - low + left
            self.foot.append(y - drop)
            self.right.append(left + high - low)
            left = self.right[-1] + GUTTER + LANE * (turning[number] if number < len(turning) else 0)
        self.row = {vertex: row for row, several in enumerate(made.rows) for vertex in several}
        most = max(turning, default=0)
        self.height = max(self.foot, default=0.0) + LANE * (most + 1)
        self.width = max(self.right, default=0.0) + GUTTER / 2

    def layout(self, jumps: Iterable[tuple[int, int]]) -> Layout:
        boxes = tuple(self._box(thing) for thing in range(len(self.sizes)))
        bends: dict[int, list[tuple[Point, Point]]] = {}
        turns: dict[int, list[tuple[Point, ...]]] = {}
        for row, several in enumerate(self.made.rows[:-1]):
            if row + 1 in self.cuts:
                continue
            for vertex in several:
                mine = bends.setdefault(self.made.source[vertex], [])
                top, foot = self._end(vertex), self.y[row + 1] - self.drop
                if self.made.down[vertex] and top < foot:  # straight past the things of this row
                    mine.append(((self.x[vertex], top), (self.x[vertex], foot)))
                for reader in self.made.down[vertex]:
                    mine.append(((self.x[vertex], foot), (self.x[reader], self.y[row + 1])))
        for number, row in enumerate(self.cuts[1:]):
            for vertex, one in self._turns(number, row):
                turns.setdefault(self.made.source[vertex], []).append(one)
        lines = tuple(Line(source, tuple(bends.get(source, ())), tuple(turns.get(source, ())))
                      for source in sorted(bends.keys() | turns.keys()) if bends.get(source) or turns.get(source))  # fmt: skip
        return Layout(boxes, lines, tuple(jumps), round(self.width, 1), round(self.height, 1), len(self.cuts))

    def _box(self, thing: int) -> Box:
        width, height = self.sizes[thing]
        row = self.row[thing]
        return Box(self.x[thing] - width / 2, self.y[row], width, height, self.column[row])

    def _end(self, vertex: int) -> float:
        """Height where a line leaves a thing, or comes into the row that it passes."""
        return self.y[self.row[vertex]] + (0.0 if self.made.is_point(vertex) else self.sizes[vertex][1])

    def _turns(self, number: int, row: int) -> Iterable[tuple[int, tuple[Point, ...]]]:
        """From the foot of a column through the gutter to the head of the next one. The line that is furthest to the right turns first, so that
        lines whose order stays do not cross."""
        leaving = _passing(self.made, row)
        for inner, vertex in enumerate(reversed(leaving)):
            x = self.x[vertex]
            track = self.right[number] + GUTTER / 2 + LANE * inner
            lower = self.foot[number] + LANE * (inner + 1)
            upper = self.head - LANE * (len(leaving) - inner)
            for reader in self.made.down[vertex]:
                yield (
                    vertex,
                    (
                        (x, self._end(vertex)),
                        (x, lower),
                        (track, lower),
                        (track, upper),
                        (self.x[reader], upper),
                        (self.x[reader], self.y[row]),
                    ),
                )
