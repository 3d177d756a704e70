"""Which row of the layer graph each thing stands in, and which connections are drawn as lines over how many rows.

The first steps of a layered drawing (Sugiyama, Tagawa, Toda 1981): rows by longest path, so that every connection goes down; then what a
connection needs in the rows between its ends. Connections with one source share one line, its trunk: a tensor that ten layers read
is one line with ten branches and not ten lines side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_TRUNKS = 8  # lines that pass a row; of what would be more, the longest are numbers at both ends instead
_ALWAYS = 3  # rows below its source where a line is drawn however many there are


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows for things, and for lines that pass through rows.

    Attributes:
        rank: row of each thing, 0 at the top; each source stands above what reads it.
        trunk: source -> the last row that its line reaches; sources without a line are missing.
        jumps: (source, reader) of connections that no line is drawn for, in order.
    """

    rank: list[int]
    trunk: dict[int, int]
    jumps: list[tuple[int, int]]


def ranked(widths: Sequence[float], readers: Sequence[Sequence[int]], room: float) -> Ranked:
    """Rows for things ``0..n-1``, given in an order in which each stands before its readers.

    Args:
        widths: of each thing.
        readers: of each thing, those that read it; each larger than itself.
        room: the sum of widths that a row holds; a wider thing has a row to itself.
    """
    rank = _sunk(_longest_paths(readers), readers)
    rank = _narrow(rank, widths, readers, room)
    trunk, jumps = _trunks(rank, readers)
    return Ranked(rank, trunk, jumps)


def _longest_paths(readers: Sequence[Sequence[int]]) -> list[int]:
    rank = [0] * len(readers)
    for source, several in enumerate(readers):
        for reader in several:
            rank[reader] = max(rank[reader], rank[source] + 1)
    return rank


def _sunk(rank: list[int], readers: Sequence[Sequence[int]]) -> list[int]:
    """Things moved down towards what reads them, where no line gets longer by it: sources of the network, and chains that hang on a line
    that passes there anyway, as computations of shapes do."""
    sources: list[list[int]] = [[] for _ in readers]
    for source, several in enumerate(readers):
        for reader in several:
            sources[reader].append(source)
    deepest: list[float] = []  # the lowest row where each thing may stand
    for at, above in enumerate(sources):
        others = [rank[reader] for source in above[:1] for reader in readers[source] if reader != at]
        if not above:
            deepest.append(len(rank))
        elif len(above) > 1:
            deepest.append(rank[at])
        else:
            deepest.append(max(others) if others else deepest[above[0]] + 1)
    for at in range(len(readers) - 1, -1, -1):
        if readers[at]:
            lowest = min(rank[reader] for reader in readers[at]) - 1
            rank[at] = max(rank[at], int(min(lowest, deepest[at])))
    return rank


def _narrow(rank: Sequence[int], widths: Sequence[float], readers: Sequence[Sequence[int]], room: float) -> list[int]:
    """Rows of limited width: what has no room goes to the next one, and what reads it further down. Rows left empty are closed."""
    placed = [0] * len(rank)
    least = [0] * len(rank)  # below the last source
    used: dict[int, float] = {}
    full: dict[int, int] = {}  # row -> the next one to try, for rows that are full
    thinnest = min(widths, default=0.0)
    for at in sorted(range(len(rank)), key=lambda i: (rank[i], i)):
        row = max(rank[at], least[at])
        while True:
            while row in full:
                row = full[row]
            taken = used.get(row, 0.0)
            if not taken or taken + widths[at] <= room:
                break
            row += 1
        used[row] = taken + widths[at]
        if used[row] + thinnest > room:
            full[row] = row + 1
        placed[at] = row
        for reader in readers[at]:
            least[reader] = max(least[reader], row + 1)
    closed = {row: position for position, row in enumerate(sorted(set(placed)))}
    return [closed[row] for row in placed]


def _trunks(rank: Sequence[int], readers: Sequence[Sequence[int]]) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """How far each line goes. A line grows from reader to reader; the shortest pieces are granted first, while a row has room."""
    pieces: list[tuple[int, int, int, int]] = []  # length, source, from row, to row
    for source, several in enumerate(readers):
        row = rank[source]
        for reached in sorted({rank[reader] for reader in several}):
            pieces.append((reached - row, source, row, reached))
            row = reached
    passing = [0] * (max(rank, default=0) + 1)
    granted: set[tuple[int, int]] = set()
    for _, source, start, end in sorted(pieces):
        between = range(start + 1, end)
        if end - rank[source] <= _ALWAYS or all(passing[row] < MOST_TRUNKS for row in between):
            granted.add((source, end))
            for row in between:
                passing[row] += 1
    trunk: dict[int, int] = {}
    jumps: list[tuple[int, int]] = []
    for source, several in enumerate(readers):
        whole = True
        for reached in sorted({rank[reader] for reader in several}):
            whole = whole and (source, reached) in granted
            if whole:
                trunk[source] = reached
            else:
                jumps += [(source, reader) for reader in sorted(set(several)) if rank[reader] == reached]
    return trunk, jumps
