"""The orders that images lie in, chosen together: which tactics make a network's total least when bringing a tensor into another order costs, too.

There are two orders, channels first and channels last. A part of the network (a layer) has a cost for each pair of an order it reads in and
one it makes; a tensor that somebody reads in the order it is not made in is converted once, for all who read it so. With two orders that
is a cut of a graph (Kolmogorov and Zabih, 2004, "What energy functions can be minimized via graph cuts?"): the least total is found exactly,
on any acyclic network, as long as no part is cheaper when it turns the order than when it does not in both ways together
(``t[first, first] + t[last, last] <= t[first, last] + t[last, first]``). Where parts are, their turning is made dearer until that holds, and
``Least.bound`` says how far from the least the choice can be.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

FIRST, LAST = 0, 1
Pair = tuple[int, int]  # the order that is read, the order that is made
PAIRS: tuple[Pair, ...] = tuple(product((FIRST, LAST), (FIRST, LAST)))


@dataclass(frozen=True, slots=True)
class Part:
    """What computes something.

    Attributes:
        costs: of reading and making in these orders; a pair that is not there is impossible. At least one is there.
    """

    costs: Mapping[Pair, float]


@dataclass(frozen=True, slots=True)
class Carried:
    """A tensor between parts, by their position.

    Attributes:
        maker: None for what comes from outside, channels first.
        readers: in the order that they read in; outside, which wants channels first, as None.
        cost: of bringing it from one order into the other.
    """

    maker: int | None
    readers: tuple[int | None, ...]
    cost: float


@dataclass(frozen=True, slots=True)
class Least:
    """Orders of all parts.

    Attributes:
        orders: of each part, what it reads and makes.
        total: of all parts and conversions.
        bound: no choice costs less.
    """

    orders: tuple[Pair, ...]
    total: float
    bound: float


def total_of(parts: Sequence[Part], tensors: Sequence[Carried], orders: Sequence[Pair]) -> float:
    """Of parts and conversions; inf where a pair is impossible."""
    found = sum(part.costs.get(pair, math.inf) for part, pair in zip(parts, orders, strict=True))
    for one in tensors:
        made = FIRST if one.maker is None else orders[one.maker][1]
        read = (FIRST if reader is None else orders[reader][0] for reader in one.readers)
        found += one.cost * any(order != made for order in read)
    return found


def least(parts: Sequence[Part], tensors: Sequence[Carried]) -> Least:
    """The orders of least total."""
    large = 1.0 + sum(sum(part.costs.values()) for part in parts) + sum(one.cost for one in tensors)
    dearer, cheaper = (
        [_table(part, large, up=True) for part in parts],
        [_table(part, large, up=False) for part in parts],
    )
    orders, total = _cut(dearer, tensors, large)
    orders = tuple(_possible(part, pair) for part, pair in zip(parts, orders, strict=True))
    total = total_of(parts, tensors, orders)
    bound = total if dearer == cheaper else min(_cut(cheaper, tensors, large)[1], total)
    return Least(orders, total, bound)


def _table(part: Part, large: float, *, up: bool) -> list[float]:
    """Costs of the four pairs, impossible ones so large that they are never worth it, made to fit a cut: where turning is too cheap, the way of
    turning that is dearer, or impossible anyway, gets dearer still; or else, for a bound, keeping an order gets cheaper."""
    table = [part.costs.get(pair, large) for pair in PAIRS]
    over = table[0] + table[3] - table[1] - table[2]
    if over > 0:
        impossible = [at for at in (1, 2) if PAIRS[at] not in part.costs]
        if up or impossible:
            table[(impossible or [max((1, 2), key=table.__getitem__)])[0]] += over
        else:
            table[0], table[3] = table[0] - over / 2, table[3] - over / 2
    return table


def _possible(part: Part, pair: Pair) -> Pair:
    return pair if pair in part.costs else min(part.costs, key=part.costs.__getitem__)


# --- the cut -------------------------------------------------------------------------------------------------------------


class _Flow:
    """A directed graph with capacities; the least cut between a source and a sink, by shortest augmenting paths (Edmonds and Karp, 1972)."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._left: list[float] = []
        self._edges: list[list[int]] = []

    def node(self) -> int:
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, begin: int, end: int, capacity: float) -> None:
        if capacity <= 0:
            return
        for one, other, room in ((begin, end, capacity), (end, begin, 0.0)):
            self._edges[one].append(len(self._ends))
            self._ends.append(other)
            self._left.append(room)

    def cut(self, source: int, sink: int) -> tuple[list[bool], float]:
        """Which nodes are on the source's side of the least cut, and its capacity."""
        total, least_step = 0.0, 1e-12 * sum(self._left)
        while True:
            reached = self._paths(source)
            if sink not in reached:
                return [node in reached for node in range(len(self._edges))], total
            path, node = [], sink
            while node != source:
                path.append(reached[node])
                node = self._ends[reached[node] ^ 1]
            step = min(self._left[edge] for edge in path)
            for edge in path:
                self._left[edge] -= step
                self._left[edge ^ 1] += step
                if self._left[edge] <= least_step:
                    self._left[edge] = 0.0
            total += step

    def _paths(self, source: int) -> dict[int, int]:
        """The edge by which each node is first reached."""
        found, waiting = {source: -1}, deque([source])
        while waiting:
            for edge in self._edges[waiting.popleft()]:
                end = self._ends[edge]
                if self._left[edge] > 0 and end not in found:
                    found[end] = edge
                    waiting.append(end)
        return found


def _cut(tables: Sequence[list[float]], tensors: Sequence[Carried], large: float) -> tuple[tuple[Pair, ...], float]:
    """Orders of least cost where every table fits a cut. A node on the source's side is FIRST."""
    flow = _Flow()
    source, sink = flow.node(), flow.node()
    reads, makes = [flow.node() for _ in tables], [flow.node() for _ in tables]
    constant = 0.0

    def weigh(node: int, first: float, last: float) -> float:
        """What being on a side costs, but for what both cost."""
        flow.edge(source, node, last - min(first, last))
        flow.edge(node, sink, first - min(first, last))
        return min(first, last)

    for read, made, (first, out, back, last) in zip(reads, makes, tables, strict=True):
        # E(i, o) = first + (back - first) i + (last - back) o + (out + back - first - last) (1 - i) o
        constant += first + weigh(read, 0.0, back - first) + weigh(made, 0.0, last - back)
        flow.edge(read, made, out + back - first - last)
    for one in tensors:
        made = source if one.maker is None else makes[one.maker]
        read = {source if reader is None else reads[reader] for reader in one.readers}
        # Made FIRST and read LAST by any: cut between the maker and a node that follows whoever reads LAST; and the other way round.
        for order in (LAST, FIRST):
            any_of = flow.node()
            pairs = [(made, any_of, one.cost), *((any_of, reader, 4 * large) for reader in read)]
            for begin, end, capacity in pairs:
                flow.edge(*((begin, end) if order == LAST else (end, begin)), capacity)
    sides, total = flow.cut(source, sink)
    orders = tuple(
        (FIRST if sides[read] else LAST, FIRST if sides[made] else LAST)
        for read, made in zip(reads, makes, strict=True)
    )
    return orders, constant + total
