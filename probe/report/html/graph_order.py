"""Left and right in the layer graph: the order of a row, by barycentres, and then positions, by least squares."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from probe.report.html.graph_ranks import Ranked

_SWEEPS = 3  # down and up, of each kind
_STRAIGHT = (
    8.0  # how much more a line that passes a row wants to be straight than a thing wants to stand below its source
)
_SPINE = 1e6


@dataclass(slots=True)
class Rows:
    """Things and the points where lines pass a row, as vertices: things first, by their number, then points.

    Attributes:
        rows: vertices of each row, left to right.
        up, down: neighbours of each vertex in the row above and below.
        width: of each vertex.
        source: of each point, the thing whose line passes, by vertex; things are their own.
    """

    rows: list[list[int]]
    up: list[list[int]]
    down: list[list[int]]
    width: list[float]
    source: list[int]

    def is_point(self, vertex: int) -> bool:
        return self.source[vertex] != vertex


def rows_of(ranked: Ranked, widths: Sequence[float], readers: Sequence[Sequence[int]], lane: float) -> Rows:
    """The rows in the order of things, points where their sources stand.

    Args:
        lane: width of a point.
    """
    count = len(widths)
    made = Rows([[] for _ in range(max(ranked.rank, default=-1) + 1)], [[] for _ in widths], [[] for _ in widths], list(widths),
                list(range(count)))  # fmt: skip
    points: dict[tuple[int, int], int] = {}  # (source, row) -> vertex
    for source, end in sorted(ranked.trunk.items()):
        above = source
        for row in range(ranked.rank[source] + 1, end):
            point = len(made.source)
            made.source.append(source)
            made.width.append(lane)
            made.up.append([above])
            made.down.append([])
            made.down[above].append(point)
            points[source, row] = above = point
            made.rows[row].append(point)
    jumps = set(ranked.jumps)
    for source, several in enumerate(readers):
        for reader in sorted(set(several)):
            if (source, reader) not in jumps:
                above = points.get((source, ranked.rank[reader] - 1), source)
                made.down[above].append(reader)
                made.up[reader].append(above)
    for thing in range(count):
        made.rows[ranked.rank[thing]].append(thing)
    for row in made.rows:
        row.sort(key=lambda vertex: (made.source[vertex], vertex))
    return made


def order(made: Rows) -> None:
    """Reorder rows for fewer crossings: each vertex where its neighbours are on average, downwards, then upwards, the best order kept."""
    best, fewest = [list(row) for row in made.rows], crossings(made)
    for _ in range(_SWEEPS):
        if not fewest:
            break
        for neighbours, rows in ((made.up, made.rows), (made.down, made.rows[::-1])):
            place: dict[int, int] = {}
            for row in rows:
                own = {vertex: position for position, vertex in enumerate(row)}
                row.sort(key=lambda vertex: _mean(neighbours[vertex], place, own[vertex]))
                place |= {vertex: position for position, vertex in enumerate(row)}
        found = crossings(made)
        if found >= fewest:
            break
        best, fewest = [list(row) for row in made.rows], found
    made.rows[:] = best


def _mean(neighbours: Sequence[int], place: dict[int, int], own: int) -> float:
    return sum(place[one] for one in neighbours) / len(neighbours) if neighbours else own


def crossings(made: Rows) -> int:
    """Pairs of connections between neighbouring rows that cross."""
    total = 0
    for upper, lower in zip(made.rows, made.rows[1:], strict=False):
        place = {vertex: position for position, vertex in enumerate(lower)}
        seen: list[int] = []
        for vertex in upper:
            ends = sorted(place[one] for one in made.down[vertex])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def positions(made: Rows, gap: float) -> list[float]:
    """The middle of each vertex, ``gap`` or more between neighbours: as near to the vertices above and below as their order allows.

    Row by row, downwards and upwards, a least-squares fit under the distances that neighbours must keep: with those subtracted it is an
    isotonic regression, solved exactly by pooling adjacent violators (Barlow et al. 1972). What is on the spine weighs so much that it
    stays one upright line, with the rest to its sides; then come lines that pass rows.
    """
    spine = spine_of(made)
    weights = [_SPINE if v in spine else _STRAIGHT if made.is_point(v) else 1.0 for v in range(len(made.width))]
    offsets = [list(_offsets(made, row, gap)) for row in made.rows]
    fits = list(zip(made.rows, offsets, [[weights[v] for v in row] for row in made.rows], strict=True))
    up, down = _pulling(made, made.up), _pulling(made, made.down)
    both = [[*above, *below] for above, below in zip(up, down, strict=True)]
    x = [0.0] * len(made.width)
    for pulling, rows in (*((up, fits), (down, fits[::-1])) * _SWEEPS, (both, fits)):
        for row, steps, heavy in rows:
            wanted = [0.0 if weights[v] == _SPINE else _middle(pulling[v], x, x[v]) for v in row]
            fitted = isotonic([w - o for w, o in zip(wanted, steps, strict=True)], heavy)
            for vertex, value, step in zip(row, fitted, steps, strict=True):
                x[vertex] = value + step
    return x


def _pulling(made: Rows, neighbours: Sequence[Sequence[int]]) -> list[list[int]]:
    """Who says where a vertex should stand: its neighbours; of a line that passes rows its next points, so that it is straight."""
    return [[one for one in near if made.is_point(one)] or list(near) if made.is_point(vertex) else list(near)
            for vertex, near in enumerate(neighbours)]  # fmt: skip


def _middle(several: Sequence[int], x: Sequence[float], own: float) -> float:
    if len(several) == 1:
        return x[several[0]]
    return sum(x[one] for one in several) / len(several) if several else own


def spine_of(made: Rows) -> set[int]:
    """The way from top to bottom that passes most: what an eye takes for the network itself."""
    score: list[float] = [0.0] * len(made.width)
    above: list[int] = [-1] * len(made.width)
    for row in made.rows:
        for vertex in row:
            before = max(made.up[vertex], key=lambda one: score[one], default=-1)
            score[vertex] = made.width[vertex] + (score[before] if before >= 0 else 0.0)
            above[vertex] = before
    found: set[int] = set()
    at = max((v for row in made.rows for v in row), key=lambda one: score[one], default=-1)
    while at >= 0:
        found.add(at)
        at = above[at]
    return found


def _offsets(made: Rows, row: Sequence[int], gap: float) -> Iterator[float]:
    """Where each vertex of a row would stand if all stood as close as they may. Lines side by side need no gap."""
    at = 0.0
    for position, vertex in enumerate(row):
        if position:
            before = row[position - 1]
            between = 0.0 if made.is_point(vertex) and made.is_point(before) else gap
            at += (made.width[before] + made.width[vertex]) / 2 + between
        yield at


def isotonic(wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing numbers nearest to ``wanted`` in weighted least squares."""
    if len(wanted) == 1:
        return list(wanted)
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(wanted, weights, strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, heavy, many), (other, light, few) = pools[-2:]
            pools[-2:] = [((mean * heavy + other * light) / (heavy + light), heavy + light, many + few)]
    return [mean for mean, _, many in pools for _ in range(many)]
