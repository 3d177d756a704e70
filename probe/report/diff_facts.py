"""The foot of a diff page: names without a partner, what was not compared, and where everything came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from probe.report.numbers import count, seconds, shape
from probe.report.steps import is_random, unmatched
from probe.report.text import Column, Page, cells, elide, escape, table, wrap
from probe.report.words import sentence, why_not_compared
from probe.results.diff import Criterion, DiffResult, SourceInfo


def unmatched_names(result: DiffResult, page: Page, rows: int) -> list[str]:
    """Names on one side only, and which of them look alike."""
    missing, extra = unmatched(result)
    if not missing and not extra:
        return []
    lines = [page.paint(f"names without a partner: {len(missing)} only in golden, {len(extra)} only in actual", "bold")]
    for side, tensors in (("golden", missing), ("actual", extra)):
        for tensor in tensors[:rows]:
            role = "output " if tensor.role == "output" and result.roles_known else ""
            where = f"  {role}{shape(tensor.shape)}"
            lines.append(f"  {side}  {elide(tensor.name, page.width - 10 - cells(where))}{where}")
        if len(tensors) > rows:
            lines.append(f"  {side}  and {len(tensors) - rows} more (-v)")
    if result.suggestions:
        similar = Column("similar", 7)
        columns = [
            Column("look alike: golden", 0, "<"),
            Column("actual", (page.width - 22) // 2, "<"),
            similar,
            Column("shape", 8, "<"),
        ]
        pairs = [
            (s.golden, s.actual, f"{s.similarity:.0%}", "same" if s.same_shape else "differs")
            for s in result.suggestions[: max(rows, 5)]
        ]
        lines += table(columns, pairs, page)
        lines.append("  Nothing was paired by these: only --map FILE does that.")
    return lines


def not_compared(result: DiffResult, page: Page) -> list[str]:
    """Every tensor that has a partner and no numbers, with the reason."""
    rest = [t for t in result.tensors if t.metrics is None and t.status not in ("compared", "missing", "extra")]
    lines = [page.paint("not compared", "bold")] if rest else []
    for tensor in rest:
        lines += wrap(f"{elide(tensor.name, 40)}: {why_not_compared(tensor)}", page.width, first="  ", rest="    ")
    return lines


def fact_lines(facts: Sequence[tuple[str, str]], page: Page, width: int = 12) -> list[str]:
    """Facts as lines: the label in a column of ``width``, the sentence wrapped beside it."""
    return [line for label, text in facts for line in wrap(text, page.width, first=f"{label:<{width}}")]


def diff_facts(result: DiffResult) -> list[tuple[str, str]]:
    """Counts, acceptance with its source, both sides, inputs, time: label and sentence, escaped."""
    statuses = Counter(t.status for t in result.tensors)
    order = ["compared", *sorted(s for s in statuses if s != "compared")]
    counted = ", ".join(f"{statuses[s]:,} {s.replace('_', ' ')}" for s in order if statuses[s])
    mixed = sum(1 for t in result.tensors if t.status == "compared" and t.dtype_actual != t.dtype_golden)
    facts = [
        ("tensors", (counted or "none") + (f"; {mixed:,} stored in another type than the golden" if mixed else "")),
        ("acceptance", acceptance_in_words(result.acceptance)),
        ("actual", _side(result.actual)),
        ("golden", _side(result.golden)),
        ("inputs", _inputs(result)),
    ]
    if not result.roles_known:
        facts.append(("roles", "not recorded on either side: every tensor was judged as an output"))
    if result.strict_layers:
        facts.append(("strict", "findings inside the network count (--strict-layers)"))
    facts.append(("compared in", seconds(result.seconds)))
    return facts


def acceptance_in_words(acceptance: Sequence[Criterion]) -> str:
    """``fail unless range_rel<=0.05 and cosine>=0.995 (default); warn unless ...``."""
    groups: dict[tuple[str, str], list[str]] = {}
    for criterion in acceptance:
        groups.setdefault((criterion.level, criterion.source), []).append(sentence(str(criterion)))
    said = [f"{level} unless {' and '.join(texts[:6])}{' ...' if len(texts) > 6 else ''} ({escape(source)})"
            for (level, source), texts in groups.items()]  # fmt: skip
    return "; ".join(said) or "none"


def _side(side: SourceInfo) -> str:
    facts = [side.kind]
    facts += [f"runner {escape(side.runner)}"] if side.runner else []
    facts += [escape(side.precision)] if side.precision else []
    facts += [f"golden {escape(side.golden)}"] if side.golden else []
    if side.model:
        digest = f" ({side.model_sha256[:8]})" if side.model_sha256 else ""
        facts.append(f"model {elide(side.model, 48)}{digest}")
    return f"{escape(side.path)}: {', '.join(facts)}"


def _inputs(result: DiffResult) -> str:
    ours = {i.id: i.sha256 for i in result.actual.inputs}
    theirs = {i.id: i.sha256 for i in result.golden.inputs}
    if not ours or not theirs:
        return "not recorded on " + ("either side" if not ours and not theirs else "actual" if not ours else "golden")
    same = (
        "the same on both sides" if sorted(ours.values()) == sorted(theirs.values()) else "NOT THE SAME on both sides"
    )
    sources = list(dict.fromkeys(i.source for i in result.golden.inputs))
    listed = ", ".join(elide(s, 48) for s in sources[:3]) + (", ..." if len(sources) > 3 else "")
    warning = "; random data can hide failures" if is_random(result) else ""
    return f"{count(len(theirs), 'input set')}, {same}: {listed}{warning}"
