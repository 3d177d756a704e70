"""``group``: a network's nodes into layers-to-be."""

from __future__ import annotations

from probe.engine.fusion.concat import written_in_place
from probe.engine.fusion.grouping import LEVELS, Group, Grouping, Level, Refusal
from probe.engine.fusion.horizontal import fuse_siblings
from probe.engine.fusion.matcher import Matcher
from probe.engine.fusion.pointwise import fuse_pointwise
from probe.engine.fusion.table import FUSIONS
from probe.engine.network import Network
from probe.errors import InputError


def group(network: Network, level: Level = "safe") -> Grouping:
    """Group the nodes of every graph of a network: the declared fusions in their order, pointwise regions, and at ``full`` siblings.

    Groups do not overlap, lie in one graph each, and never wait for themselves, alone or through one another. A node in no group is a
    layer of its own. Nothing is rewritten.

    Args:
        level: ``none``: no groups. ``safe``: what runtimes do by default, one output a group. ``full``: also what some do: pooling into
            convolutions, siblings, what follows a softmax or a reduction; concatenations written in place.

    Raises:
        InputError: no such level.
    """
    if level not in LEVELS:
        raise InputError(f"no fusion level {level!r}", where="fusion", hint=f"one of {', '.join(LEVELS)}")
    groups: list[Group] = []
    refusals: dict[Refusal, None] = {}
    in_place = []
    graphs = () if level == "none" else tuple(network.graphs())
    returned = [value for graph in graphs for value in graph.outputs]
    for graph in graphs:
        matcher = Matcher(graph, returned, network.opset, level)
        for fusion in FUSIONS:
            matcher.apply(fusion)
        fuse_pointwise(matcher)
        if level == "full":
            fuse_siblings(matcher)
            in_place += written_in_place(graph, returned)
        groups += matcher.groups
        refusals.update(dict.fromkeys(matcher.refusals()))
    return Grouping(tuple(groups), tuple(refusals), tuple(in_place))
