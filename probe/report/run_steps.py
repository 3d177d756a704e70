"""What to do after a run: at most four exact commands, most useful first."""

from __future__ import annotations

from probe.report.numbers import count
from probe.report.steps import Step, exactly, fed_again, judged_by, typed_again
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
        steps.append(Step(why, (*command_of(result, made_up=False), "--inputs", "FILE.npz")))
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
    return Step(why, command_of(result, keep=cure.keep))


def command_of(
    result: RunResult,
    *,
    precision: str | None = None,
    passes: str | None = None,
    fusion: str | None = None,
    interior: str | None = None,
    keep: tuple[str, ...] = (),
    made_up: bool = True,
) -> tuple[str, ...]:
    """The command that does this run again, with some settings changed; options at their defaults are left out.

    Args:
        keep: names, beside those that were kept.
        made_up: with the inputs of this run, also where they were made up.
    """
    words = ["probe", "run", result.model, "--precision", precision or result.precision]
    words += fed_again(result.inputs, result.command) if made_up else ()
    if result.golden.kind != "ort":
        words += ["--golden", "fp64" if result.golden.kind == "fp64" else result.golden.source.path]
    for option, value, usual in (
        ("--passes", passes or result.passes, "safe"),
        ("--fusion", fusion or result.fusion, "safe"),
        ("--interior", interior or result.interior, "storage"),
    ):
        words += [option, value] if value != usual else []
    words += judged_by(result.acceptance)
    typed = typed_again(result.command, ("--keep",))  # as short as it was typed: a file may name hundreds
    kept = tuple(dict.fromkeys(keep if typed else (*result.keep, *keep)))
    return (*words, *typed, *(("--keep", exactly(kept)) if kept else ()))
