"""What the pages of two results have in common: the sentence, what to do, how a part is computed otherwise, where both come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import count, number
from probe.report.steps import Step, compiled_so, exactly, fed_again, judged_by, on_device, typed_again
from probe.report.text import elide, escape
from probe.report.words import WORDS, sentence
from probe.results.regression import (
    FindingChange,
    PartChange,
    PartLayer,
    RegressionResult,
    ResultSide,
    TensorChange,
    What,
)

_LISTED = 6  # layers that a command line may name
_STEPS = 4


def regression_sentence(result: RegressionResult) -> str:
    """What decided, or how much moved."""
    if result.reasons:
        return sentence(result.reasons[0])
    if result.of_searches:
        return _search_sentence(result)
    moved: list[TensorChange] | list[PartChange]
    moved, noun = (list(result.parts), "part") if result.parts else (list(result.changes), "tensor")
    worse, better = (sum(1 for one in moved if one.status == status) for status in ("worse", "better"))
    if not worse and not better:
        return f"no output got worse, and none of {count(len(moved), noun)}" if moved else "no output got worse"
    return f"no output got worse; inside, {worse:,} of {count(len(moved), noun)} did, and {better:,} got better"


def _search_sentence(result: RegressionResult) -> str:
    """Of two searches of which the second is not worse."""
    now = sum(one.status != "only_before" for one in result.kept)
    stays = f"{now:,} must stay FP32" if now else "nothing must stay FP32"
    if result.verdict_after != "passed":
        return "the search ended well neither before nor now"
    if result.verdict_before != "passed":
        return f"the search ends well now and did not before: {stays}"
    if not result.kept:
        return f"{stays}, as before"
    same = all(one.status == "same" for one in result.kept)
    return "the same must stay FP32" if same else "no more must stay FP32 than before"


def next_steps(result: RegressionResult) -> list[Step]:
    """At most four commands, most useful first; empty where nothing got worse and the two can be compared."""
    if len(result.sides) != 2:
        return []
    before, after = result.sides
    steps: list[Step] = []
    if any(said.startswith(("the models", "the inputs", "the goldens")) for said in result.warnings):
        steps.append(
            Step(
                "The two were not made from the same. Make the first one again as the second, then compare.",
                _again(before, after),
            )
        )
    if result.verdict == "failed" and after.schema == "probe.run/1":
        worse = [one for one in ordered(result.parts, "worse") if one.own == "worse"]
        names = [layer.name for one in worse for layer in one.layers_after][:_LISTED]
        if names:
            steps.append(
                Step(
                    "Look at the layers that add more error by themselves than before.",
                    (*_run(after), "--layers", exactly(names), "-v"),
                )
            )
        differs = {one.name for one in result.settings}
        if differs & {"fusion", "passes", "interior"}:
            steps.append(
                Step("Rule out that it is the fusion or the clean-up: run as before.", _run(after, like=before))
            )
        if any("tactic" in one.changed for one in worse):
            steps.append(
                Step(
                    "Their tactics are not as before. Which of them is to blame, the two tactic files tell.",
                    (
                        "probe",
                        "tactics",
                        "bisect",
                        "good.tactics",
                        "bad.tactics",
                        after.model,
                        *_fed(after),
                        *on_device(after.device),
                    ),
                )
            )
        if after.verdict == "failed" and after.precision in ("fp16", "bf16"):
            steps.append(
                Step(
                    "Search for what must stay FP32.",
                    (
                        *("probe", "find", after.model, "--precision", after.precision),
                        *(*_fed(after), *on_device(after.device), *_judged(after)),
                    ),
                )
            )
    return steps[:_STEPS]


def _again(before: ResultSide, after: ResultSide) -> tuple[str, ...]:
    if before.schema == "probe.run/1" and after.schema == "probe.run/1":
        return (*_run(before, model=after.model, inputs=after), "--json", "again.json")
    return ()


def _run(
    side: ResultSide, *, like: ResultSide | None = None, model: str = "", inputs: ResultSide | None = None
) -> tuple[str, ...]:
    """The command that runs this again; ``like`` another one in what the compiler does."""
    shape = like or side
    words = ["probe", "run", model or side.model, "--precision", side.precision, *_fed(inputs or side)]
    words += compiled_so(shape.passes, shape.fusion, shape.interior)
    typed = typed_again(side.command, ("--keep",))  # as short as it was typed: a file may name hundreds
    words += on_device(side.device)
    return (*words, *_judged(side), *(typed or (("--keep", exactly(side.keep)) if side.keep else ())))


def _fed(side: ResultSide) -> tuple[str, ...]:
    return fed_again(side.inputs, side.command)


def _judged(side: ResultSide) -> tuple[str, ...]:
    """Options that judge as a side was judged; of a golden that was recorded, the result does not say where it lies."""
    return (*(("--golden", "fp64") if side.golden == "fp64" else ()), *judged_by(side.acceptance))


# --- order


def largest_change(change: TensorChange) -> tuple[bool, float, float]:
    """Sort key, descending, within one status: outputs, then the largest change for the worse (or the better), then the error itself."""
    ratio = change.ratio if change.ratio is not None and not math.isnan(change.ratio) else math.inf
    size = change.after if change.after is not None and not math.isnan(change.after) else math.inf
    return (change.role == "output", -ratio if change.status == "better" else ratio, size)


def ordered(parts: Iterable[PartChange], status: str) -> list[PartChange]:
    """Parts that got ``worse`` or ``better``, those first whose own error changed most, then whose error at the boundary did."""
    sign = 1.0 if status == "worse" else -1.0
    chosen = [one for one in parts if one.status == status or (one.status == "same" and one.own == status)]

    def change(one: PartChange) -> tuple[float, float]:
        return sign * _growth(one.own_before, one.own_after), sign * _growth(one.before, one.after)

    return sorted(chosen, key=change, reverse=True)


def _growth(before: float | None, after: float | None) -> float:
    if before is None or after is None or before == after or math.isnan(after - before):
        return 0.0
    return after - before


# --- parts in words


def change_of(part: PartChange) -> str:
    """``worse, by itself``: its own error grew; ``worse, arrives``: what it reads is worse; ``worse`` where that was not measured."""
    word = part.status.replace("_", " ")
    if part.status in ("worse", "better"):
        return word + {"unknown": "", part.status: ", by itself"}.get(part.own, ", arrives")
    return f"{word}; {part.own} by itself" if part.status == "same" and part.own in ("worse", "better") else word


def how_changed(part: PartChange, result: RegressionResult) -> list[str]:
    """What a part is computed with otherwise: ``2 layers -> 1``, ``precision fp16 -> bf16``, ``tactic exact -> winograd_f4``.

    The precision only where it is not that of the whole network which changed.
    """
    said: dict[What, str] = {
        "fusion": f"{count(len(part.layers_before), 'layer')} -> {len(part.layers_after)}",
        "precision": f"precision {_words(part.layers_before, lambda one: one.precision)} -> "
        f"{_words(part.layers_after, lambda one: one.precision)}",
        "tactic": f"tactic {_words(part.layers_before, lambda one: one.tactic)} -> {_words(part.layers_after, lambda one: one.tactic)}",
        "fallback": "falls back now" if any(one.fallback for one in part.layers_after) else "no longer falls back",
    }
    if len(part.layers_before) == len(part.layers_after):
        said["fusion"] = "fused otherwise"
    everywhere = {
        f"precision {elide(one.before, 24)} -> {elide(one.after, 24)}"
        for one in result.settings
        if one.name == "precision"
    }
    return [said[what] for what in part.changed if said[what] not in everywhere]


def _words(layers: Iterable[PartLayer], what: Callable[[PartLayer], str]) -> str:
    return "/".join(elide(one, 24) for one in dict.fromkeys(map(what, layers)) if one) or "unknown"


def layer_in_words(one: PartLayer) -> str:
    """Precision, tactic and errors of a layer of one side; its name is for the page to show."""
    facts = [escape(one.precision)] if one.precision else []
    facts += [escape(one.tactic)] if one.tactic else []
    facts += [f"fused as {escape(one.pattern)}"] if one.pattern else []
    facts += [f"accumulated {number(one.accumulated)}"] if one.accumulated is not None else []
    facts += [f"injected {number(one.injected)}"] if one.injected is not None else []
    facts += [f"local {number(one.local)}"] if one.local is not None else []
    facts += [f"falls back: {sentence(one.fallback)}"] if one.fallback else []
    return ", ".join(facts)


def start_sentence(result: RegressionResult) -> str:
    """Whether error starts elsewhere; empty where it starts on neither side, or in the same parts."""
    if result.parts:
        moved = any(one.starts_before != one.starts_after for one in result.parts)
    else:
        moved = result.first_before != result.first_after
    if not moved:
        return ""
    sides = [", ".join(elide(name, 60) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
             for names in (result.first_before, result.first_after)]  # fmt: skip
    if not sides[0]:
        return f"error beyond the acceptance starts in {sides[1]} now, and started nowhere before"
    return f"error started in {sides[0]} before, and starts {f'in {sides[1]}' if sides[1] else 'nowhere'} now"


def finding_in_words(one: FindingChange) -> str:
    fatal = one.fatal or (one.status == "only_before" and one.was_fatal)
    turned = one.status == "same" and one.fatal != one.was_fatal
    word = ("fatal now: " if one.fatal else "no longer fatal: ") if turned else "fatal: " if fatal else ""
    return word + " ".join(elide(part, 120) if part else "" for part in escape(one.message).split(" "))


def moved_findings(result: RegressionResult) -> tuple[list[FindingChange], list[FindingChange]]:
    """Those that came or turned fatal, and those that went or no longer are."""
    came = [
        f for f in result.findings if f.status == "only_after" or (f.status == "same" and f.fatal and not f.was_fatal)
    ]
    went = [
        f for f in result.findings if f.status == "only_before" or (f.status == "same" and f.was_fatal and not f.fatal)
    ]
    return came, went


# --- the foot


def regression_facts(result: RegressionResult) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot. Texts are escaped."""
    facts: list[tuple[str, str]] = []
    if result.changes:
        same = sum(1 for c in result.changes if c.status == "same")
        facts.append(("tensors", f"{count(same)} as before, {count(len(result.changes) - same)} changed"))
    if result.parts:
        alike = sum(1 for one in result.parts if "fusion" not in one.changed and one.layers_before and one.layers_after)
        layers = [sum(len(getattr(one, side)) for one in result.parts) for side in ("layers_before", "layers_after")]
        facts.append(
            (
                "parts",
                f"{count(len(result.parts))} of {layers[0]:,} layers before and {layers[1]:,} after; {alike:,} fused alike",
            )
        )
    named: dict[str, ResultSide] = dict(zip(("before", "after"), result.sides, strict=False))
    for label, path, verdict in (
        ("before", result.before, result.verdict_before),
        ("after", result.after, result.verdict_after),
    ):
        facts.append((label, _side(path, WORDS[verdict].lower(), named.get(label))))
    if result.of_searches:
        facts.append(("worse means", "the search no longer ends well, or more must stay FP32"))
        return facts
    allowed = f"range_rel more than {result.worse_factor:g} times larger (--worse-factor), beyond {number(result.noise)} or its noise floor"
    facts.append(("worse means", f"{allowed}; or a worse verdict; outputs decide"))
    if result.sides and result.sides[1].acceptance:
        facts.append(("acceptance", acceptance_in_words(result.sides[1].acceptance)))
    return facts


def _side(path: str, verdict: str, side: ResultSide | None) -> str:
    said = [f"{escape(path)}: {verdict}"]
    if side is not None:
        said += [escape(side.precision)] if side.precision else []
        said += [f"passes {escape(side.passes)}, fusion {escape(side.fusion)}"] if side.fusion else []
        digest = f" ({side.model_sha256[:8]})" if side.model_sha256 else ""
        said += [f"model {elide(side.model, 48)}{digest}"] if side.model else []
        said += [count(len(side.inputs), "input set")] if side.inputs else []
        said += [f"golden {escape(side.golden)}"] if side.golden else []
    return ", ".join(said)
