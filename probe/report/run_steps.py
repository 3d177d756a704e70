"""What to do after a run: at most four exact commands, most useful first."""

from __future__ import annotations

from probe.report.numbers import count
from probe.report.steps import Step, exactly
from probe.report.words import sentence
from probe.results.run import RunResult

_LISTED = 16  # names a command line may hold before it is no longer one to read
_RANGE = frozenset(("overflow", "constant_overflow", "operand_overflow"))


def next_steps(result: RunResult) -> list[Step]:
    """Empty for a plain pass: then there is nothing to do."""
    base = command_of(result)
    kinds = {f.kind for f in result.findings if f.fatal}
    steps: list[Step] = []
    if result.verdict == "not_judged":
        steps.append(Step("Say what is good enough.", (*base, "--accept", "range_rel<=0.01")))
    if kinds & {"baseline_fails", "differs_in_fp32"} and (result.passes, result.fusion) != ("none", "none"):
        plain = command_of(result, passes="none", fusion="none")
        steps.append(Step("It differs in FP32 already. Rule out that probe's own clean-up does that.", plain))
    if result.cure is not None:
        steps.append(_cure(result))
    if kinds & _RANGE and result.precision == "fp16":
        steps.append(Step("BF16 has the range of FP32, with fewer digits.", command_of(result, precision="bf16")))
    if result.other_interior is not None and result.other_interior.differs:
        other = result.other_interior
        fused = "fuses these layers" if other.interior == "fp32" else "does not fuse them"
        steps.append(
            Step(
                f"It depends on the runtime: where it {fused}, the verdict is {other.verdict}.",
                command_of(result, interior=other.interior),
            )
        )
    if result.as_written is not None and result.as_written.differs:
        why = f"Without clean-up of the graph, as it is written, the verdict is {result.as_written.verdict.replace('_', ' ')}."
        steps.append(Step(why, command_of(result, passes="none", fusion="none")))
    cured = result.cure is not None and result.cure.verdict != "failed"
    if result.verdict in ("failed", "warned") and result.first_divergence and not cured and len(steps) < 3:
        names = result.first_divergence[:3]
        steps.append(
            Step("Look at the layers where it starts, and at every tensor.", (*base, "--layers", exactly(names), "-v"))
        )
    if any(one.source.startswith("seed") for one in result.inputs):
        why = "These inputs were made up. Real ones show what random ones hide."
        steps.append(Step(why, (*_without_seed(base), "--inputs", "FILE.npz")))
    return steps[:4]


def _cure(result: RunResult) -> Step:
    cure = result.cure
    assert cure is not None
    tensors = count(len(cure.keep), "tensor")
    if cure.verdict == "failed":
        still = f": {sentence(cure.reasons[0])}" if cure.reasons else ""
        return Step(f"Keeping {tensors} that the causes name in FP32 was tried and is not enough{still}.")
    outcome = "it passes" if cure.verdict == "passed" else f"the verdict is {cure.verdict.replace('_', ' ')}"
    why = f"Keep {tensors} in FP32: tried, {outcome}."
    if len(cure.keep) > _LISTED:
        return Step(f"{why} --json FILE lists them under cure.")
    return Step(why, command_of(result, keep=tuple(dict.fromkeys((*result.keep, *cure.keep)))))


def command_of(
    result: RunResult,
    *,
    precision: str | None = None,
    passes: str | None = None,
    fusion: str | None = None,
    interior: str | None = None,
    keep: tuple[str, ...] | None = None,
) -> tuple[str, ...]:
    """The command that does this run again, with some settings changed; options at their defaults are left out."""
    words = ["probe", "run", result.model, "--precision", precision or result.precision]
    for source in dict.fromkeys(one.source for one in result.inputs):
        if source.startswith("file "):
            words += ["--inputs", source.removeprefix("file ")]
        elif source.startswith("seed ") and source != "seed 0":
            words += ["--seed", source.removeprefix("seed ")]
    if result.golden.kind != "ort":
        words += ["--golden", "fp64" if result.golden.kind == "fp64" else result.golden.source.path]
    for option, value, usual in (
        ("--passes", passes or result.passes, "safe"),
        ("--fusion", fusion or result.fusion, "safe"),
        ("--interior", interior or result.interior, "storage"),
    ):
        words += [option, value] if value != usual else []
    for criterion in result.acceptance:
        words += ["--accept", str(criterion)] if criterion.source == "user" else []
    presets = [c.source.removeprefix("preset ") for c in result.acceptance if c.source.startswith("preset ")]
    words += ["--preset", presets[0]] if presets else []
    kept = result.keep if keep is None else keep
    return (*words, *(("--keep", exactly(kept)) if kept else ()))


def _without_seed(words: tuple[str, ...]) -> tuple[str, ...]:
    if "--seed" not in words:
        return words
    at = words.index("--seed")
    return (*words[:at], *words[at + 2 :])
