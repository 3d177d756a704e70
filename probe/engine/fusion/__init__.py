"""Fusion: which nodes are computed together. It groups nodes and never rewrites the graph, so what is computed stays the same."""

from __future__ import annotations

from probe.engine.fusion.fuse import group as group
from probe.engine.fusion.grouping import LEVELS as LEVELS
from probe.engine.fusion.grouping import Group as Group
from probe.engine.fusion.grouping import Grouping as Grouping
from probe.engine.fusion.grouping import Level as Level
from probe.engine.fusion.grouping import Refusal as Refusal
from probe.engine.fusion.kinds import is_movement as is_movement
from probe.engine.fusion.kinds import kind_of as kind_of
from probe.engine.fusion.kinds import launches as launches
from probe.engine.fusion.table import FUSIONS as FUSIONS
