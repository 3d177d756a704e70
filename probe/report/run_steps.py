"""What to do after a run: at most four exact commands, most useful first."""

from __future__ import annotations

from probe.report.numbers import count
from probe.report.steps import (
    NO_NUMBERS,
    Step,
    compiled_so,
    exactly,
    fed_again,
    is_blank,
    judged_by,
    on_device,
    typed_again,
)
from probe.report.words import sentence
from probe.results.run import RunResult

_LISTED = 16  # names a command line may hold before it is no longer one to read
_SEARCHED = frozenset(("fp16", "bf16", "tf32"))  # what probe find lowers to
_RANGE = frozenset(("overflow", "constant_overflow", "operand_overflow"))


def next_steps(result: RunResult) -> list[Step]:
    """Empty for a plain pass: then there is nothing to do."""
    base = command_of(result)
    kinds = {f.kind for f in result.findings if f.fatal}
    steps: list[Step] = []
    if any(map(is_blank, result.tensors)):
        steps.append(Step(NO_NUMBERS, _recorded(result)))
    elif result.verdict == "not_judged":
        steps.append(Step(_unjudged(result), (*base, "--accept", "range_rel<=0.01")))
    if kinds & {"baseline_fails", "differs_in_fp32"} and (result.passes, result.fusion) != ("none", "none"):
        plain = command_of(result, passes="none", fusion="none")
        steps.append(Step("It differs in FP32 already. Rule out that probe's own clean-up does that.", plain))
    if result.cure is not None:
        steps.append(_cure(result))
    by_rounding = result.precision in _SEARCHED and not kinds & {"baseline_fails", "differs_in_fp32"}
    if result.verdict == "failed" and by_rounding and not result.strict_layers:  # the search judges outputs alone
        why = "Find which tensors must stay FP32, each with a proof, and write the model to deploy."
        steps.append(Step(why, _find(result)))
    if kinds & _RANGE and result.precision == "fp16":
        steps.append(Step("BF16 has the range of FP32, with fewer digits.", command_of(result, precision="bf16")))
    if result.other_interior is not None and result.other_interior.differs:
        other = result.other_interior
        kept = other.interior == "fp32"
        rounds = "keeps what is inside fused layers in FP32" if kept else "rounds inside fused layers too"
        verdict = other.verdict.replace("_", " ")
        steps.append(
            Step(
                f"It depends on the runtime: with one that {rounds}, the verdict is {verdict}.",
                command_of(result, interior=other.interior),
            )
        )
    if result.as_written is not None and result.as_written.differs:
        by = ", ".join(name.replace("_", " ") for name in result.as_written.by)
        verdict = result.as_written.verdict.replace("_", " ")
        why = f"It depends on how a runtime rewrites the graph ({by}): run as it is written, the verdict is {verdict}."
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


def _unjudged(result: RunResult) -> str:
    if result.acceptance:
        return "Say what is good enough."
    quantised = "a model with Q/DQ nodes has" if "qdq" in result.golden.source.golden else "these outputs have"
    return f"No limit was given, and {quantised} no default one: say what is good enough."


def _recorded(result: RunResult) -> tuple[str, ...]:
    """What shows the golden's tensors: it, where it is a recording, else recording it."""
    if result.golden.kind not in ("ort", "fp64"):
        return "probe", "inspect", result.golden.source.path
    return "probe", "dump", _compiled_anew(result), "-o", "golden", *fed_again(result.inputs, result.command)


def _find(result: RunResult) -> tuple[str, ...]:
    """The search for what must stay FP32, fed and judged as this run; it takes a model, never a saved engine."""
    words = ["probe", "find", _compiled_anew(result), "--precision", result.precision]
    words += (*fed_again(result.inputs, result.command), *_golden(result), *judged_by(result.acceptance))
    words += on_device(result.device)
    return (*words, *_kept(result), "-o", "mixed.onnx")


def _golden(result: RunResult) -> tuple[str, ...]:
    golden = result.golden
    return () if golden.kind == "ort" else ("--golden", "fp64" if golden.kind == "fp64" else golden.source.path)


def _kept(result: RunResult, more: tuple[str, ...] = ()) -> tuple[str, ...]:
    """As short as it was typed: a file may name hundreds."""
    typed = typed_again(result.command, ("--keep",))
    kept = tuple(dict.fromkeys(more if typed else (*result.keep, *more)))
    return (*typed, *(("--keep", exactly(kept)) if kept else ()))


def _compiled_anew(result: RunResult) -> str:
    """What compiles takes the model that a saved engine was built from, whose path the engine does not hold."""
    return "MODEL.onnx" if result.model.endswith(".probe") else result.model


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
    asked = (precision, passes, fusion, interior)
    built = (result.precision, result.passes, result.fusion, result.interior)
    anew = any(one not in (None, was) for one, was in zip(asked, built, strict=True))
    model = _compiled_anew(result) if anew else result.model
    words = ["probe", "run", model, "--precision", precision or result.precision]
    words += fed_again(result.inputs, result.command) if made_up else ()
    words += _golden(result)
    words += compiled_so(passes or result.passes, fusion or result.fusion, interior or result.interior)
    words += (*on_device(result.device), *judged_by(result.acceptance))
    return (*words, *_kept(result, keep))
