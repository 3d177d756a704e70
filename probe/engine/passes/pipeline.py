"""The passes in their order, and the run of them: verified after each, and stopped after N changes when asked to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from probe.engine.network import Network, check
from probe.engine.passes.batch_norm import fold_batch_norm
from probe.engine.passes.common_subexpressions import merge_common_subexpressions
from probe.engine.passes.constant_folding import fold_constants
from probe.engine.passes.dead_code import remove_dead_code
from probe.engine.passes.edit import Change, Edit, Fuel
from probe.engine.passes.identities import remove_identities, remove_zero_additions
from probe.engine.passes.input_scales import fold_input_scales
from probe.engine.passes.pad_into_conv import fold_pads
from probe.engine.passes.repeats import remove_repeats
from probe.engine.passes.scales import fold_scales
from probe.engine.passes.shapes import infer_shapes
from probe.engine.passes.transposes import merge_movements
from probe.engine.passes.weights import forget_exact
from probe.engine.passes.zero_weights import remove_zero_weights

Level = Literal["none", "safe", "all"]
_MOST_ROUNDS = (
    50  # each round but the last removes or merges something; a pass that undoes another's work must not loop
)


@dataclass(frozen=True, slots=True)
class Pass:
    """One way to change a network without changing what it computes, beyond rounding.

    Attributes:
        name: in fates, changes and errors. A promise to those who read saved results.
        does: what, in a line.
        level: "safe": outputs move by rounding only, as with every runtime. "all": may change where NaN or Inf appears, or sums in an
            order that costs accuracy in low precision; the function's docstring says which.
        transform: changes the network, one unit of fuel a change.
    """

    name: str
    does: str
    level: Literal["safe", "all"]
    transform: Callable[[Edit], None]

    def run(self, network: Network, fuel: Fuel) -> int:
        """Apply the pass once. Returns how many changes it made."""
        before = len(fuel.changes)
        self.transform(Edit(network, self.name, fuel))
        return len(fuel.changes) - before


PIPELINE = (
    Pass("constant_folding", "computes what depends on constants only", "safe", fold_constants),
    Pass("identities", "removes nodes that hand on what they read", "safe", remove_identities),
    Pass("zero_additions", "removes additions of +0.0", "all", remove_zero_additions),
    Pass("zero_weights", "replaces products with all-zero weights by their bias", "all", remove_zero_weights),
    Pass("repeats", "removes functions applied to what they made themselves", "safe", remove_repeats),
    Pass("transposes", "merges a movement of data with the one before it", "safe", merge_movements),
    Pass("common_subexpressions", "computes once what several nodes compute", "safe", merge_common_subexpressions),
    Pass("pad_into_conv", "lets convolutions and pools pad for themselves", "safe", fold_pads),
    Pass("scales", "folds constant factors and offsets into the weights before them", "safe", fold_scales),
    Pass("batch_norm", "folds batch normalisation into the weights before it", "safe", fold_batch_norm),
    Pass(
        "input_scales", "folds factors, offsets and normalisation into the weights after them", "all", fold_input_scales
    ),
    Pass("dead_code", "removes what nothing reads", "safe", remove_dead_code),
)


@dataclass(frozen=True, slots=True)
class PassReport:
    """What the passes did.

    Attributes:
        level: as asked for.
        changes: in the order in which they were made.
        stopped: whether the limit forbade a further change.
        notes: what looked possible and was not done, and why.
    """

    level: Level
    changes: tuple[Change, ...] = ()
    stopped: bool = False
    notes: tuple[str, ...] = ()


def run_passes(network: Network, level: Level = "safe", limit: int | None = None) -> PassReport:
    """Clean a network up, in place: rounds of all passes of the level until one changes nothing.

    Args:
        network: as ``read_network`` made it.
        level: "none" runs nothing.
        limit: stop after so many changes. The first N changes are the same whatever the limit, so a pass that breaks a network is found by
            bisection.

    Raises:
        RuntimeError: a pass failed or left the network broken: our bug. Says which, and what ran before.
    """
    if level == "none":
        return PassReport(level)
    check(network, "reading")
    fuel = Fuel(limit)
    passes = [one for one in PIPELINE if level == "all" or one.level == "safe"]
    for _ in range(_MOST_ROUNDS):
        before = len(fuel.changes)
        infer_shapes(network)
        for one in passes:
            _run(one, network, fuel)
        if len(fuel.changes) == before or fuel.stopped:
            break
    else:
        raise RuntimeError(f"the passes do not come to an end: {_ran(fuel)}")
    forget_exact(network)
    return PassReport(level, tuple(fuel.changes), fuel.stopped, tuple(fuel.notes))


def _run(one: Pass, network: Network, fuel: Fuel) -> None:
    before = len(fuel.changes)
    try:
        if one.run(network, fuel):
            check(network, one.name)
    except Exception as error:
        made = [change.what for change in fuel.changes[before:]]
        raise RuntimeError(
            f"pass {one.name} failed: {type(error).__name__}: {error}. It made changes {before + 1} to {len(fuel.changes)} of the pipeline"
            f"{', the last: ' + made[-1] if made else ''}. Before it ran {_ran(fuel, before)}. Bisect with --passes-limit N"
        ) from error


def _ran(fuel: Fuel, until: int | None = None) -> str:
    counts: dict[str, int] = {}
    for change in fuel.changes[:until]:
        counts[change.by] = counts.get(change.by, 0) + 1
    return ", ".join(f"{name} ({count} changes)" for name, count in counts.items()) or "nothing"
