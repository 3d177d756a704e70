"""``diff_sources``: every golden tensor gets a status, every output a verdict, and the recording as a whole one sentence."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from probe.compare.align import InputPair, match_names, pair_inputs, suggest
from probe.compare.details import with_details
from probe.compare.explain import explain, first_divergence
from probe.compare.pair import Compared, Measures, Options, Side, compare_tensor, expect_tensor, worst_verdict
from probe.errors import InputError
from probe.metrics.acceptance import check_outputs
from probe.metrics.measure import Workspace
from probe.precision import PRECISIONS
from probe.results.diff import Criterion, DiffResult, Finding, SourceInfo, TensorDiff, Verdict
from probe.results.tensors import Role, TensorInfo
from probe.store.source import TensorSource

Rows = dict[str, dict[str, TensorInfo]]  # name -> input id -> row, in recorded order


def diff_sources(
    actual: TensorSource,
    golden: TensorSource,
    *,
    acceptance: Sequence[Criterion] = (),
    precision: str | None = None,
    preset: str | None = None,
    strict_layers: bool = False,
    name_map: Mapping[str, str] | None = None,
    select: re.Pattern[str] | None = None,
    worst: int = 5,
    smallest_tolerance: bool = False,
    details: int = 0,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> DiffResult:
    """Compare two recordings tensor by tensor and judge the graph outputs.

    Args:
        acceptance: replaces the default (or the preset's) for every output it names.
        precision: of the run that made ``actual``, when the recording does not say; it chooses the default acceptance and ULP.
        preset: another tool's element-wise rule (``probe.metrics.presets``).
        strict_layers: interior tensors beyond the acceptance fail the verdict too.
        name_map: name in actual -> name in golden.
        select: compare only tensors whose golden name it finds; outputs left out are then not judged.
        worst: elements kept a tensor.
        smallest_tolerance: also compute the least atol and rtol that would pass.
        details: tensors that get a ``detail``, at most (``probe.compare.details``).
        progress: called with (tensors done, tensors in all).

    Raises:
        InputError: unreadable tensors, no common input, an acceptance or map that names nothing.
    """
    started = time.perf_counter()
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}", hint=f"precisions: {', '.join(PRECISIONS)}")
    pairs, findings = pair_inputs(actual, golden)
    rows_a, rows_g = _by_name(actual, golden), _by_name(golden, actual)
    matched = match_names(list(rows_a), list(rows_g), name_map)
    roles = _Roles(actual, golden, rows_a, rows_g, matched)
    outputs = [name for name in rows_g if roles.of(name) == "output"]
    check_outputs(acceptance, outputs)
    quantised = "qdq" in golden.header.golden or "qdq" in actual.header.golden
    options = Options(tuple(acceptance), precision, preset, worst, smallest_tolerance, quantised)
    wanted = [name for name in rows_g if select is None or select.search(name)]
    space = Workspace()
    compared: list[Compared] = []
    sides: dict[str, tuple[Side, Side]] = {}
    if isinstance(actual, Measures):
        for name in wanted:
            partner = matched.get(name)
            if partner is not None:
                expected_a = Side(actual, [rows_a[partner].get(p.actual) for p in pairs], actual.header.precision)
                expected_g = Side(golden, [rows_g[name].get(p.golden) for p in pairs])
                if any(expected_a.rows) and any(expected_g.rows):
                    expect_tensor(expected_a, expected_g, [p.label for p in pairs], roles.of(name), options)
    for done, name in enumerate(wanted):
        if progress is not None:
            progress(done, len(wanted))
        partner = matched.get(name)
        if partner is None:
            compared.append(Compared(_lone(next(iter(rows_g[name].values())), roles.of(name), "golden")))
            continue
        side_a = Side(actual, [rows_a[partner].get(p.actual) for p in pairs], actual.header.precision)
        side_g = Side(golden, [rows_g[name].get(p.golden) for p in pairs])
        if not any(side_a.rows) or not any(side_g.rows):
            lone = "golden" if any(side_g.rows) else "actual"
            row = next(iter((rows_g[name] if lone == "golden" else rows_a[partner]).values()))
            compared.append(Compared(_lone(row, roles.of(name), lone)))
            continue
        sides[name] = side_a, side_g
        compared.append(compare_tensor(side_a, side_g, [p.label for p in pairs], roles.of(name), options, space))
    extras = [name for name in rows_a if name not in set(matched.values()) and (select is None or select.search(name))]
    diffs = [c.diff for c in compared]
    diffs += [_lone(next(iter(rows_a[name].values())), roles.of_extra(name), "actual") for name in extras]
    left_out = [name for name in outputs if name not in set(wanted)]
    verdict, reasons = _verdict(diffs, left_out, strict_layers)
    reads = {name: next(iter(by_input.values())).reads for name, by_input in rows_g.items()}
    first = first_divergence(diffs, reads)
    if details > 0:
        diffs[: len(compared)] = with_details(compared, sides, [p.label for p in pairs], first, details)
    unmatched = [next(iter(rows_g[c.diff.name].values())) for c in compared if c.diff.actual_name is None]
    return DiffResult(
        verdict=verdict,
        reasons=reasons,
        actual=source_info(actual, {p.actual for p in pairs}),
        golden=source_info(golden, {p.golden for p in pairs}),
        acceptance=resolved(
            [(c.diff.name, one) for c in compared if c.diff.role == "output" for one in c.criteria], acceptance
        ),
        tensors=tuple(diffs),
        first_divergence=first,
        findings=(*findings, *_random(golden, pairs), *explain(compared, rows_a, rows_g, verdict)),
        suggestions=suggest([next(iter(rows_a[name].values())) for name in extras], unmatched),
        environment=environment(),
        command=command,
        strict_layers=strict_layers,
        roles_known=roles.known,
        seconds=time.perf_counter() - started,
    )


class _Roles:
    """Which tensors are outputs: as recorded by golden, else by actual, else all of them."""

    def __init__(
        self, actual: TensorSource, golden: TensorSource, rows_a: Rows, rows_g: Rows, matched: Mapping[str, str]
    ) -> None:
        self.known = actual.roles_known or golden.roles_known
        self._golden_known, self._actual_known = golden.roles_known, actual.roles_known
        self._rows_a, self._rows_g, self._matched = rows_a, rows_g, matched

    def of(self, name: str) -> Role:
        if self._golden_known:
            return next(iter(self._rows_g[name].values())).role
        if self._actual_known and name in self._matched:
            return next(iter(self._rows_a[self._matched[name]].values())).role
        return "output"

    def of_extra(self, name: str) -> Role:
        """An extra of a source without roles is an output only when the other side has none either."""
        if self._actual_known:
            return next(iter(self._rows_a[name].values())).role
        return "internal" if self._golden_known else "output"


def _by_name(source: TensorSource, other: TensorSource) -> Rows:
    """What is compared: no network inputs, as the source tells them, or the other side where the source tells no roles."""
    fed = {row.name for row in other.rows() if row.role == "input"} if not source.roles_known else set()
    rows: Rows = {}
    for row in source.rows():
        if row.role != "input" and row.name not in fed:
            rows.setdefault(row.name, {})[row.input_id] = row
    if not rows:
        raise InputError(f"{source.path} holds network inputs only", hint="record outputs with probe dump")
    return rows


def _lone(row: TensorInfo, role: Role, side: str) -> TensorDiff:
    """A tensor that one side lacks. Outputs break the verdict; interior tensors were merely not recorded."""
    golden = side == "golden"
    broken = role == "output"
    return TensorDiff(
        name=row.name, actual_name=None if golden else row.name,
        status=("missing" if broken else "not_recorded") if golden else "extra",
        role=role, verdict="failed" if broken else "not_judged",
        dtype_actual=None if golden else row.dtype, dtype_golden=row.dtype if golden else None, shape=row.shape,
        layer=row.layer, nodes=row.nodes, reads=row.reads,
        reasons=(f"not in {'actual' if golden else 'golden'}",) if broken else (),
    )  # fmt: skip


def _verdict(diffs: Sequence[TensorDiff], left_out: Sequence[str], strict: bool) -> tuple[Verdict, tuple[str, ...]]:
    judged = [t for t in diffs if t.role == "output"]
    verdict = worst_verdict([t.verdict for t in judged])
    reasons = [
        f"{t.name}: {t.reasons[0] if t.reasons else t.status}" for t in judged if t.verdict == verdict != "passed"
    ]
    if not judged:
        reasons.append("no graph output was compared")
    if left_out and verdict != "failed":
        verdict = "not_judged"
        were = "output was" if len(left_out) == 1 else "outputs were"
        reasons.append(f"{len(left_out)} {were} left out by the selection: {', '.join(left_out[:3])}")
    if strict:
        beyond = [t.name for t in diffs if t.role == "internal" and t.beyond]
        if beyond:
            verdict = "failed"
            reasons.append(
                f"{len(beyond)} interior tensors are beyond the acceptance (--strict-layers): {', '.join(beyond[:3])}"
            )
    return verdict, tuple(reasons)


def resolved(used: Sequence[tuple[str, Criterion]], acceptance: Sequence[Criterion]) -> tuple[Criterion, ...]:
    """Every criterion that was applied to an output, once; defaults that differ by type name their output.

    Args:
        used: (output, criterion) as applied.
        acceptance: as given; it stands for itself.
    """
    if acceptance:
        return tuple(acceptance)
    outputs = {name for name, _ in used}
    result: dict[Criterion, None] = {}
    for name, criterion in used:
        everywhere = sum(1 for _, other in used if other == criterion) == len(outputs)
        result[criterion if everywhere else replace(criterion, output=name)] = None
    return tuple(result)


def _random(golden: TensorSource, pairs: Sequence[InputPair]) -> list[Finding]:
    sources = {one.id: one.source for one in golden.header.inputs}
    if pairs and all(sources.get(p.golden, "").startswith("seed") for p in pairs):
        return [
            Finding(
                "random_inputs",
                "the inputs were made up: random inputs hide failures that real ones show",
                cure="record both sides with --inputs FILE",
            )
        ]
    return []


def source_info(source: TensorSource, used: Collection[str] | None = None) -> SourceInfo:
    """What a result says of a recording.

    Args:
        used: ids of the inputs it speaks of; None: all.
    """
    head = source.header
    return SourceInfo(
        path=source.path, kind=source.kind, runner=head.runner, model=head.model, model_sha256=head.model_sha256,
        precision=head.precision, golden=head.golden, inputs=tuple(one for one in head.inputs if used is None or one.id in used),
    )  # fmt: skip


def environment() -> dict[str, str]:
    """Versions a result was made with."""
    import numpy as np

    from probe import __version__

    return {
        "probe": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
