"""Check: what will break in a low precision, from one golden pass and the graph, without running anything in that precision."""

from __future__ import annotations

from probe.debug.check.network import CheckOptions as CheckOptions
from probe.debug.check.network import check_network as check_network
