"""Recorded and replayed tactics, tactic files and TensorRT's logs of them, as terminal text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import cosine, count, number, seconds
from probe.report.steps import Step, inputs_of, on_device
from probe.report.text import Column, Page, elide, escape, fitted, sections, table, wrap
from probe.report.words import WORDS, sentence, verdict_lines
from probe.results.diff import Verdict
from probe.results.tactics import (
    LayerChoice,
    TacticFile,
    TacticMiss,
    TacticRun,
    TacticsLogResult,
    TacticsRecordResult,
    TacticsReplayResult,
    TrtDifference,
    TrtOp,
)

EXACT = "exact"
_UNMEASURED = number(None)
_LONG = 120
_KERNEL = 34


def record_page(result: TacticsRecordResult, page: Page, *, rows: int = 20, verbose: bool = False) -> list[str]:
    """The whole page of ``probe tactics record``. ``rows`` bounds each table; ``verbose`` lifts the bound and lists every candidate."""
    rows = 1 << 30 if verbose else rows
    return sections(
        record_headline(result, page),
        _outputs(result.run, page, rows),
        _choices(result.run.layers, page, rows),
        _candidates(result.run.layers, page) if verbose else [],
        _facts([*record_facts(result), *run_facts(result.run, verbose=verbose)], page),
    )


def record_facts(result: TacticsRecordResult) -> list[tuple[str, str]]:
    """What was written, and how it was chosen."""
    times = (
        f"{result.measured:,} measured, {result.reused:,} from a cache" if result.measured or result.reused else "none"
    )
    cache = f"; kept in {escape(result.timing_cache)}" if result.timing_cache else ""
    return [
        ("written", escape(result.file)),
        ("chosen by", escape(", ".join(result.selectors))),
        ("times", times + cache),
    ]


def record_headline(result: TacticsRecordResult, page: Page) -> list[str]:
    """The verdict in one sentence."""
    return verdict_lines(result.run.verdict, record_sentence(result), page)


def record_sentence(result: TacticsRecordResult) -> str:
    """How the recorded run was judged, and how many layers have another tactic than exact."""
    return f"{judged_in_words(result.run)}; {_summary(result.run.layers)}, recorded"


def replay_page(result: TacticsReplayResult, page: Page, *, rows: int = 20, verbose: bool = False) -> list[str]:
    """The whole page of ``probe tactics replay``. ``rows`` bounds each table; ``verbose`` lifts the bound."""
    rows = 1 << 30 if verbose else rows
    return sections(
        replay_headline(result, page),
        _misses(result.misses, page, rows),
        [line for one in result.ignored for line in wrap(sentence(one), page.width, first="  ignored: ", rest="    ")],
        _outputs(result.run, page, rows),
        _choices(result.run.layers, page, rows),
        _facts([*replay_facts(result), *run_facts(result.run, verbose=verbose)], page),
    )


def replay_headline(result: TacticsReplayResult, page: Page) -> list[str]:
    """The verdict in one sentence, and whether the bits are the recorded ones."""
    return verdict_lines(replay_verdict(result), replay_sentence(result), page)


def replay_sentence(result: TacticsReplayResult) -> str:
    """Whether the bits are the recorded ones, and how the run was judged."""
    return f"{bits_in_words(result)}; {judged_in_words(result.run)}"


def replay_verdict(result: TacticsReplayResult) -> Verdict:
    """That of the run; a strict replay with other bits has failed."""
    return "failed" if not result and result.run.verdict in ("passed", "warned") else result.run.verdict


def next_steps(result: TacticsRecordResult | TacticsReplayResult) -> list[Step]:
    """What to do with the file, or with a replay that was not what was recorded. For pages: on a terminal the next command is near."""
    run = result.run
    inputs = (*inputs_of(run.inputs), *on_device(run.device))
    steps: list[Step] = []
    if run.verdict == "failed":
        words = ("probe", "tactics", "table", run.model, "--precision", run.precision, *inputs)
        steps.append(Step("See what each candidate of each layer does to the outputs.", words))
    if isinstance(result, TacticsRecordResult):
        if run.verdict != "failed":
            steps.append(
                Step("Run with exactly these choices.", ("probe", "tactics", "replay", run.model, result.file, *inputs))
            )
    elif result.misses and not result.written:
        words = ("probe", "tactics", "record", run.model, "--precision", run.precision, *inputs, "-o", "new.tactics")
        steps.append(Step("The file does not fit here. Record anew.", words))
    elif result.strict and result.identical is False:
        steps.append(
            Step("The same choices make other bits here. How far off they are, another golden tells.",
                 ("probe", "tactics", "replay", run.model, result.file, *inputs, "--golden", "fp64"))
        )  # fmt: skip
    return steps


def replay_facts(result: TacticsReplayResult) -> list[tuple[str, str]]:
    """What was replayed, and what was written."""
    facts = [("replayed", escape(result.file) + ("" if result.strict else ", lenient"))]
    return facts + ([("written", escape(result.written))] if result.written else [])


def bits_in_words(result: TacticsReplayResult) -> str:
    """How the outputs compare with the recorded ones."""
    if result.identical is None:
        return "no outputs were recorded for these inputs"
    if result.identical:
        return f"the outputs of {count(result.compared, 'input')} are those recorded, bit for bit"
    names = ", ".join(result.differing[:3]) + (" ..." if len(result.differing) > 3 else "")
    return (
        f"the outputs are NOT those recorded for {len(result.differing)} of {count(result.compared, 'input')} ({names})"
    )


def file_page(file: TacticFile, page: Page, *, rows: int = 40, verbose: bool = False) -> list[str]:
    """A tactic file: where it comes from, and its lines."""
    rows = 1 << 30 if verbose else rows
    head = wrap(file_sentence(file), page.width)
    cells = [(line.layer, line.precision, line.tactic) for line in file.layers]
    return sections(head, _facts(file_facts(file), page), _bounded("layer", ("precision", "tactic"), cells, page, rows))


def file_sentence(file: TacticFile) -> str:
    """How many layers have which tactic, and how the recorded run ended."""
    counted = Counter(line.tactic for line in file.layers)
    used = ", ".join(f"{n} {escape(name)}" for name, n in counted.most_common())
    return f"tactics of {count(len(file.layers), 'layer')}: {used or 'none'}; the recorded run {_past(file)}"


def file_facts(file: TacticFile) -> list[tuple[str, str]]:
    """Where a tactic file comes from."""
    one = file.fingerprint
    compiled = f"{file.precision}, passes {file.passes}, fusion {file.fusion}, interior {file.interior}"
    facts = [
        ("model", one.model_sha256[:12]),
        ("compiled", escape(compiled)),
        ("device", escape(", ".join(x for x in (one.device, one.processor, one.driver) if x))),
        ("sources", one.sources[:12]),
        ("outputs", f"recorded of {count(len(file.recorded), 'input')}"),
    ]
    facts += [("kept", escape(", ".join(file.kept[:6])) + (" ..." if len(file.kept) > 6 else ""))] if file.kept else []
    return facts


def _past(file: TacticFile) -> str:
    return "was not judged" if file.verdict == "not_judged" else WORDS[file.verdict].lower()


# --- parts -----------------------------------------------------------------------------------------------------------


def judged_in_words(run: TacticRun) -> str:
    """How a run was judged, and why."""
    if run.verdict == "passed":
        return f"{run.precision}: {count(len(run.outputs), 'output')} within the acceptance"
    return f"{run.precision}: {run.reasons[0] if run.reasons else WORDS[run.verdict].lower()}"


def _summary(layers: Sequence[LayerChoice]) -> str:
    other = sum(one.tactic != EXACT for one in layers)
    return f"{count(len(layers), 'layer')}, {other:,} with another tactic than exact"


def _outputs(run: TacticRun, page: Page, rows: int) -> list[str]:
    cells = [
        (
            name,
            WORDS[one.verdict],
            *((number(m.range_rel), cosine(m.cosine)) if (m := one.metrics) is not None else ("-", "-")),
        )
        for name, one in run.outputs.items()
    ]
    columns = [Column("output", 0, "<"), Column("verdict", 10, "<"), Column("range_rel", 10), Column("cosine", 10)]
    lines = table(columns, cells[:rows], page)
    lines += [f"  and {len(cells) - rows} more (-v)"] if len(cells) > rows else []
    for reason in run.reasons[1:4] if run.verdict != "passed" else ():
        lines += wrap(sentence(reason), page.width, first="  and     ")
    return lines


def _choices(layers: Sequence[LayerChoice], page: Page, rows: int) -> list[str]:
    """Layers with another tactic than exact; what exact takes there beside it."""
    shown = [one for one in layers if one.tactic != EXACT]
    if not shown:
        return []
    cells: list[tuple[str, ...]] = []
    for one in shown:
        times = {c.tactic: c.median_us for c in one.candidates}
        cells.append((one.layer, one.precision, one.tactic, number(times.get(one.tactic)), number(times.get(EXACT))))
    titles = ("precision", "tactic", "us", "us exact")
    if all(row[3] == row[4] == _UNMEASURED for row in cells):
        titles, cells = titles[:2], [row[:3] for row in cells]
    return _bounded(f"layer ({len(shown)} of {len(layers)})", titles, cells, page, rows)


def _bounded(first: str, titles: Sequence[str], cells: Sequence[Sequence[str]], page: Page, rows: int) -> list[str]:
    columns = [Column(first, 0, "<")]
    columns += [
        fitted(title, (row[at] for row in cells), align=">" if title.startswith("us") else "<", most=20)
        for at, title in enumerate(titles, 1)
    ]
    lines = table(columns, cells[:rows], page)
    return lines if len(cells) <= rows else [*lines, f"  and {len(cells) - rows} more (-v)"]


def _candidates(layers: Sequence[LayerChoice], page: Page) -> list[str]:
    lines = [page.paint("candidates, fastest first", "bold")]
    for one in layers:
        if len(one.candidates) < 2:
            continue
        told = ", ".join(
            c.tactic
            + (f" {number(c.median_us)} us" if c.median_us is not None else "")
            + (f" (refused by {escape(c.refused_by)})" if c.refused_by else "")
            for c in one.candidates
        )
        lines += wrap(f"{elide(one.layer, 48)}: {told}", page.width, first="  ", rest="    ")
    return lines if len(lines) > 1 else []


def _misses(misses: Sequence[TacticMiss], page: Page, rows: int) -> list[str]:
    if not misses:
        return []
    lines = [page.paint(f"{count(len(misses), 'thing')} not as recorded", "yellow", "bold")]
    for one in misses[:rows]:
        who = f"{elide(one.layer, 48)}: " if one.layer else ""
        instead = f"; {escape(one.chosen)} was taken" if one.chosen else ""
        lines += wrap(f"{who}{_whole(one.message)}{instead}", page.width, first="  - ", rest="    ")
    return lines if len(misses) <= rows else [*lines, f"  and {len(misses) - rows} more (-v)"]


def _whole(text: str) -> str:
    return " ".join(elide(word, _LONG) if word else "" for word in escape(text).split(" "))


def _facts(facts: Sequence[tuple[str, str]], page: Page) -> list[str]:
    return [line for name, told in facts for line in wrap(told, page.width, first=f"{name:<12}")]


def run_facts(run: TacticRun, *, verbose: bool) -> list[tuple[str, str]]:
    """Label and sentence of each fact of a run; ``verbose``: how long each phase took, too. Texts are escaped."""
    inputs = ", ".join(f"{one.id} ({one.source})" for one in run.inputs[:3]) + (" ..." if len(run.inputs) > 3 else "")
    here = run.fingerprint
    facts = [
        ("model", escape(run.model)),
        ("engine", escape(f"{run.device}; passes {run.passes}, fusion {run.fusion}, interior {run.interior}")),
        ("on", escape(", ".join(x for x in (here.device, here.processor, here.driver) if x))),
        ("golden", escape(run.golden.kind if run.golden.kind != "file" else run.golden.source.path)),
        ("inputs", escape(inputs)),
        ("acceptance", escape(acceptance_in_words(run.acceptance))),
    ]
    facts += [("kept", f"{count(len(run.kept), 'tensor')} in FP32")] if run.kept else []
    facts += [("note", _whole(note)) for note in run.notes]
    if verbose:
        facts.append(("took", ", ".join(f"{escape(name)} {seconds(spent)}" for name, spent in run.seconds.items())))
    return facts


# --- TensorRT's log --------------------------------------------------------------------------------------------------


def log_page(result: TacticsLogResult, page: Page, *, rows: int = 20, verbose: bool = False) -> list[str]:
    """Operators with their candidates; with a second log, what differs. ``verbose``: every candidate of every operator."""
    bound = 1 << 30 if verbose else rows
    lines = log_headline(result, page)
    if result.other:
        lines += ["", *_flips(result.differences, page, bound)] if result.differences else []
    else:
        lines += ["", *(_ops_whole(result.ops, page) if verbose else _ops(result.ops, page, bound))]
    for note in result.notes if verbose else result.notes[:rows]:
        lines += wrap(_whole(note), page.width, first="note        ")
    return lines


def log_headline(result: TacticsLogResult, page: Page) -> list[str]:
    """What the log holds, or what the two differ in."""
    return [page.paint(line, "bold") for line in wrap(sentence(log_sentence(result)), page.width)]


def log_sentence(result: TacticsLogResult) -> str:
    """What the log holds, or what the two differ in; names as they are."""
    several = sum(len(one.tactics) > 1 for one in result.ops)
    if not result.other:
        return f"{count(len(result.ops), 'operator')} autotuned in {result.log}, {several:,} with a choice"
    flips = sum(one.kind == "choice" for one in result.differences)
    return (
        f"{count(flips, 'operator')} chosen differently in {result.other} than in {result.log}; {result.same:,} alike"
    )


def _ops(ops: Sequence[TrtOp], page: Page, rows: int) -> list[str]:
    cells = []
    for one in ops:
        taken = one.taken
        ahead = min((t.cost_ms for t in one.tactics if t.tactic_hash != one.chosen), default=None)
        margin = ahead / taken.cost_ms if ahead is not None and taken is not None and taken.cost_ms > 0 else None
        kernel = taken.kernel if taken is not None else ""
        cells.append((one.op, str(len(one.tactics)), number(one.chosen_ms), number(margin), one.chosen, kernel))
    columns = [
        Column("operator", 0, "<"), Column("of", 3), Column("ms", 8), Column("next", 5), Column("tactic hash", 18, "<"),
        Column("kernel", max(12, page.width - 64), "<"),
    ]  # fmt: skip
    lines = table(columns, cells[:rows], page)
    lines += [f"  and {len(cells) - rows} more (-v)"] if len(cells) > rows else []
    return [
        *lines,
        "",
        *wrap("next: how many times the chosen one's time the best other takes; -v lists all", page.width, first="  "),
    ]


def _ops_whole(ops: Sequence[TrtOp], page: Page) -> list[str]:
    lines: list[str] = []
    for one in ops:
        lines += [
            *([""] if lines else []),
            *wrap(f"{elide(one.op, 60)}", page.width),
            *wrap(f"key {one.key}", page.width, first="  "),
        ]
        cells = [
            ("*" if t.tactic_hash == one.chosen else "", number(t.cost_ms), number(t.slowdown), t.tactic_hash, t.kernel)
            for t in one.tactics
        ]
        columns = [
            Column("", 1), Column("ms", 8), Column("slowdown", 8), Column("tactic hash", 18, "<"), Column("kernel", 0, "<"),
        ]  # fmt: skip
        lines += table(columns, cells, page)
    return lines


def _flips(differences: Sequence[TrtDifference], page: Page, rows: int) -> list[str]:
    lines: list[str] = []
    for one in differences[:rows]:
        kernels = [f" {elide(kernel, _KERNEL)}" if kernel else "" for kernel in (one.first_kernel, one.second_kernel)]
        if one.kind == "choice":
            told = f"{elide(one.op, 48)}: {one.first or 'nothing'}{kernels[0]} -> {one.second or 'nothing'}{kernels[1]}; {_whole(one.message)}"
        else:
            told = f"{elide(one.op, 48)}: {_whole(one.message)}"
        lines += wrap(told, page.width, first="  - ", rest="    ")
    return lines if len(differences) <= rows else [*lines, f"  and {len(differences) - rows} more (-v)"]
