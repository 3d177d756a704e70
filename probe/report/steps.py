"""What to do next: steps as lines of a page, and those after a diff, at most four exact commands, most useful first."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from probe.report.text import Page, command, escape, quote, wrap
from probe.results.diff import Criterion, DiffResult, Metrics, SourceInfo, TensorDiff
from probe.results.tensors import InputInfo


@dataclass(frozen=True, slots=True)
class Step:
    """A reason and the words of a shell command; ``raw`` is a command line that cannot be quoted word by word."""

    why: str
    words: tuple[str, ...] = ()
    raw: str = ""


def step_lines(steps: Sequence[Step], page: Page) -> list[str]:
    """The part "what to do" of a page: each reason with its command below it; nothing without steps."""
    lines = [page.paint("what to do", "bold")] if steps else []
    for step in steps:
        lines += wrap(step.why, page.width, first="  ")
        lines += ["    " + step.raw] if step.raw else command(step.words, page.width) if step.words else []
    return lines


def next_steps(result: DiffResult) -> list[Step]:
    """Empty for a plain pass: then there is nothing to do."""
    steps: list[Step] = []
    diff = ("probe", "diff", result.actual.path, result.golden.path)
    if any(f.kind == "inputs_differ" for f in result.findings):
        steps.append(_same_inputs(result))
    if result.suggestions:
        best = {s.golden: s.actual for s in reversed(result.suggestions[:3])}
        pairs = json.dumps(dict(sorted((a, g) for g, a in best.items())))
        more = "; all suggestions are in --json FILE" if len(result.suggestions) > len(best) else ""
        steps.append(
            Step(
                "If these pairs are right, say so in a map {actual: golden}" + more + ".",
                raw=f"echo {quote(pairs)} > map.json",
            )
        )
        steps.append(Step("Then compare with it.", (*diff, "--map", "map.json")))
    if result.verdict in ("failed", "warned"):
        steps += _look_at_the_first(result)
    if any(map(is_blank, result.tensors)):
        steps.append(Step(NO_NUMBERS, ("probe", "inspect", result.golden.path)))
    elif result.verdict == "not_judged" and any(t.status == "compared" for t in result.tensors):
        steps.append(Step("Say what is good enough.", (*diff, "--accept", "range_rel<=0.01")))
    steps += _record_again(result)
    return steps[:4]


NO_NUMBERS = "Golden has no number to compare with. See where NaN or Inf begin: in the inputs, or inside the network."


def is_blank(tensor: TensorDiff) -> bool:
    """Whether an output was not judged because golden has neither numbers nor masks there: no acceptance helps."""
    return tensor.role == "output" and without_numbers(tensor.verdict, tensor.metrics)


def without_numbers(verdict: str | None, found: Metrics | None) -> bool:
    """As ``is_blank``, of an output by what was measured of it."""
    return verdict == "not_judged" and found is not None and found.compared == 0 and found.sentinels < found.count


def _same_inputs(result: DiffResult) -> Step:
    """A dump holds its inputs, so it can be the ``--inputs`` of the other side."""
    why = "The two sides were fed different inputs. Record one again with the other's, then compare."
    model = result.actual.model or result.golden.model or "MODEL.onnx"
    holds_inputs = result.golden.path if result.golden.kind == "dump" else "INPUTS.npz"
    return Step(why, ("probe", "dump", model, "-o", "again", "--inputs", holds_inputs))


def _look_at_the_first(result: DiffResult) -> list[Step]:
    if result.first_divergence:
        first = result.first_divergence[0]
        row = next((t for t in result.tensors if t.name == first), None)
        there = {t.name for t in result.tensors if t.status == "compared"}
        names = [first, *(r for r in (row.reads if row else ()) if r in there)][:3]
        select = exactly(names)
        steps = [Step("Compare what diverges first with what it reads, every metric.",
                      ("probe", "diff", result.actual.path, result.golden.path, "--select", select, "--metrics", "all"))]  # fmt: skip
        inspected = exactly([row.actual_name or first if row else first])
        steps.append(
            Step(
                "Look at its values.", ("probe", "inspect", result.actual.path, "--select", inspected, "--values", "8")
            )
        )
        return steps
    if not any(t.role == "internal" for t in result.tensors) and result.roles_known:
        model = result.golden.model or result.actual.model or "MODEL.onnx"
        return [
            Step(
                "Only outputs were recorded. Record every tensor on both sides to see where it starts; for the golden:",
                ("probe", "dump", model, "-o", "golden"),
            )
        ]
    return []


def _record_again(result: DiffResult) -> list[Step]:
    steps: list[Step] = []
    stats_only = [t for t in result.tensors if t.status == "stats_only"]
    model = result.golden.model or result.actual.model
    if stats_only and model:
        names = [t.name for t in stats_only[:2]]
        steps.append(
            Step("Record values instead of statistics for the tensors in question.",
                 ("probe", "dump", model, "--select", exactly(names), "-o", "selected"))
        )  # fmt: skip
    return steps


def is_random(result: DiffResult) -> bool:
    """Whether a side says its inputs came from a seed."""
    return any(i.source.startswith("seed") for side in (result.actual, result.golden) for i in side.inputs)


def inputs_of(inputs: Iterable[InputInfo]) -> tuple[str, ...]:
    """The options of a command that give the network these inputs again."""
    words: list[str] = []
    for source in dict.fromkeys(one.source for one in inputs):
        if source.startswith("file "):
            words += ["--inputs", source.removeprefix("file ")]
        elif source.startswith("seed ") and source != "seed 0":
            words += ["--seed", source.removeprefix("seed ")]
    return tuple(words)


def golden_option(golden: SourceInfo | None) -> tuple[str, ...]:
    """The option that takes this golden again: one that was made now by its runner, a recording by its path."""
    if golden is None:
        return ()
    if golden.kind == "tape":
        return ("--golden", "fp64") if golden.runner == "fp64" else ()
    return ("--golden", golden.path) if golden.path else ()


def judged_by(acceptance: Iterable[Criterion]) -> tuple[str, ...]:
    """The options that judge so again; defaults need none."""
    words: list[str] = []
    presets: dict[str, None] = {}
    for criterion in acceptance:
        words += ["--accept", str(criterion)] if criterion.source == "user" else []
        if criterion.source.startswith("preset "):
            presets[criterion.source.removeprefix("preset ")] = None
    return (*words, *(("--preset", next(iter(presets))) if presets else ()))


def typed_again(line: str, options: Collection[str]) -> tuple[str, ...]:
    """Options of a recorded command line, with their values as they were typed: what a result does not hold itself."""
    try:
        words = shlex.split(line)
    except ValueError:  # of a file that someone edited
        return ()
    found: list[str] = []
    for at, word in enumerate(words):
        name, joined, _ = word.partition("=")
        if name in options:
            found += [word] if joined else words[at : at + 2]
    return tuple(found)


def fed_again(inputs: Iterable[InputInfo], line: str) -> tuple[str, ...]:
    """The options that give a network its inputs again: as they were typed (a folder, shapes of made-up ones), else by their sources."""
    how = typed_again(line, ("--input-shapes", "--val-range", "--custom-op-lib"))
    return (*(typed_again(line, ("--inputs", "--seed")) or inputs_of(inputs)), *how)


def unusual(*options: tuple[str, str, str]) -> tuple[str, ...]:
    """Options from (option, value, default): those at their defaults, and those of an unknown value (""), are left out."""
    return tuple(word for option, value, usual in options if value not in ("", usual) for word in (option, value))


def on_device(device: str) -> tuple[str, ...]:
    """The option that computes on the device of a result, which has it in words (``cuda: NVIDIA H200, ...``); the CPU needs none."""
    return ("--device", "cuda") if device.startswith("cuda") else ()


def compiled_so(passes: str, fusion: str, interior: str) -> tuple[str, ...]:
    """The options of ``probe run`` that compile a network so."""
    return unusual(("--passes", passes, "safe"), ("--fusion", fusion, "safe"), ("--interior", interior, "storage"))


def exactly(names: Sequence[str]) -> str:
    r"""A regular expression matching these names and no other: ``^(conv1|x\.y)$``; control characters as escapes."""
    parts = [_literal(n) for n in dict.fromkeys(names)]
    return f"^{parts[0]}$" if len(parts) == 1 else f"^({'|'.join(parts)})$"


def _literal(name: str) -> str:
    special = set(r"\.^$*+?{}[]|()")
    escaped = "".join("\\" + c if c in special else c for c in name)
    return escape(escaped) if name else ""


def unmatched(result: DiffResult) -> tuple[list[TensorDiff], list[TensorDiff]]:
    """Golden tensors without a partner, outputs first, and tensors only the actual side has.

    Both are empty when all outputs met and no other output is extra: then the rest was simply not recorded on one side.
    """
    gone = [t for t in result.tensors if t.status in ("missing", "not_recorded") and t.actual_name is None]
    extra = [t for t in result.tensors if t.status == "extra"]
    named_apart = bool(gone) and bool(extra)  # tensors inside: possibly the same under two names
    if not named_apart and not any(t.status == "missing" or t.role == "output" for t in (*gone, *extra)):
        return [], []
    return sorted(gone, key=lambda t: t.status != "missing"), extra
