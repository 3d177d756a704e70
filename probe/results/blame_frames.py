"""Candidates of layers and suspects as polars frames, for ``--table`` and notebooks. polars is imported only when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from probe.results.blame import TacticsTableResult


def candidate_frame(result: TacticsTableResult) -> pl.DataFrame:
    """A row a candidate, layers in execution order, the fastest first: what was measured of it, and of its flip (``run_passed``,
    ``run_range_rel`` of the whole network, ``changed``); null where it was not."""
    import polars as pl

    schema: dict[str, Any] = {
        **dict.fromkeys(("layer", "outputs", "kind", "precision", "problem", "tactic"), pl.String),
        **dict.fromkeys(("runs", "deterministic", "front", "run_passed"), pl.Boolean),
        **dict.fromkeys(("median_us", "local", "rms", "changed", "run_range_rel"), pl.Float64), "note": pl.String,
    }  # fmt: skip
    rows = [
        {
            "layer": layer.layer, "outputs": " + ".join(layer.outputs), "kind": layer.kind, "precision": layer.precision,
            "problem": layer.problem, "tactic": one.tactic, "runs": one.tactic == layer.tactic, "deterministic": one.deterministic,
            "front": one.front, "run_passed": None if one.flipped is None else one.flipped.passed, "median_us": one.median_us,
            "local": one.local, "rms": one.rms, "changed": one.changed,
            "run_range_rel": None if one.flipped is None else one.flipped.metric, "note": one.note or layer.note,
        }
        for layer in result.layers
        for one in layer.candidates
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")
