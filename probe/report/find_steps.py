"""What to do after a search: at most four exact commands, most useful first."""

from __future__ import annotations

from dataclasses import replace

from probe.report.steps import (
    Step,
    exactly,
    fed_again,
    golden_option,
    inputs_of,
    judged_by,
    on_device,
    typed_again,
    unusual,
)
from probe.report.text import escape
from probe.results.find import FindResult

_NAMES_IN_A_COMMAND = 16


def next_steps(result: FindResult) -> list[Step]:
    """Empty where nothing is left to do."""
    steps: list[Step] = []
    steps += _pinned(result)
    known = result.status in ("found", "found_not_minimal", "interrupted", "budget") and result.keep
    if known and (result.exported is None or not result.exported.path):
        steps.append(Step("Write the mixed-precision model.", command_of(result, "-o", "mixed.onnx", *_resume(result))))
    elif (
        known
        and result.exported is not None
        and result.exported.passed
        and len(result.tensors) <= _NAMES_IN_A_COMMAND
        and result.tensors
    ):
        run = (
            "probe",
            "run",
            result.model,
            "--precision",
            result.precision,
            *_inputs(result),
            *golden_option(result.golden),
            *on_device(result.device),
            *judged_by(result.acceptance),
            "--keep",
            exactly(result.tensors),
        )
        steps.append(Step(f"Deploy {escape(result.exported.path)}. To see every layer of the same choice:", run))
    if result.status in ("interrupted", "budget"):
        text = "Go on where it stopped." if result.log else "Keep a log, and it can be gone on with."
        written = ("-o", result.exported.path, "--overwrite") if result.exported and result.exported.path else ()
        steps.append(Step(text, command_of(result, *written, *(_resume(result) or ("--log", "find.jsonl")))))
    if result.status == "unreachable":
        steps.append(
            Step(
                "See where FP32 itself differs from this golden.",
                (
                    "probe",
                    "run",
                    result.model,
                    "--precision",
                    "fp32",
                    *_inputs(result),
                    *golden_option(result.golden),
                    *on_device(result.device),
                    *judged_by(result.acceptance),
                ),
            )
        )
    if result.exported is not None and not result.exported.passed and not _as_exported(result):
        why = "The export is the model as it was written: search where nothing is changed or fused."
        steps.append(Step(why, command_of(replace(result, passes="none", fusion="none", interior="storage"))))
    if result.held_out is not None and not result.held_out.evaluated.passed:
        seen = inputs_of((*result.inputs, *result.held_out.inputs))
        steps.append(Step("Let the search see the inputs that fail, too.", command_of(result, fed=seen)))
    if any(one.source.startswith("seed") for one in result.inputs):
        steps.append(
            Step(
                "These inputs were made up. Real ones show what random ones hide.",
                command_of(result, fed=("--inputs", "FILE.npz")),
            )
        )
    return steps[:4]


def _pinned(result: FindResult) -> list[Step]:
    """The tactic file with the more accurate tactics, where they are the whole answer and each is what is left when its layer is denied
    the old one."""
    if result.status != "nothing_needed" or not 0 < len(result.switches) <= _NAMES_IN_A_COMMAND:
        return []
    if any(one.after != "exact" for one in result.switches):
        return []
    layers: dict[str, list[str]] = {}
    for one in result.switches:
        layers.setdefault(one.before, []).append(one.layer)
    rules = [word for tactic, names in layers.items() for word in ("--deny", f"{tactic} @ {exactly(names)}")]
    words = (
        "probe",
        "tactics",
        "replay",
        result.model,
        result.tactics,
        "--lenient",
        *rules,
        *_inputs(result),
        *on_device(result.device),
    )
    return [Step("Write the tactic file with the more accurate choices.", (*words, "-o", "cured.tactics"))]


def _as_exported(result: FindResult) -> bool:
    return (result.passes, result.fusion, result.interior) == ("none", "none", "storage")


def command_of(result: FindResult, *more: str, fed: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The command that does this search again; options at their defaults are left out.

    Args:
        fed: options for other inputs, all of them for the search.
    """
    words = ["probe", "find", result.model, "--precision", result.precision]
    words += fed or _inputs(result)
    words += (*golden_option(result.golden), *on_device(result.device))
    words += unusual(
        ("--granularity", result.granularity, "tensor"),
        ("--objective", result.objective, "count"),
        ("--aggregate", result.aggregate, "worst"),
        ("--passes", result.passes, "none"),
        ("--fusion", result.fusion, "none"),
        ("--interior", result.interior, "storage"),
    )
    words += judged_by(result.acceptance)
    words += ["--check", result.check] if result.check and "{dump}" in result.check else []
    words += ["--tactics", result.tactics] if result.tactics else []
    kept_apart = () if fed else ("--held-out", "--split")
    return (*words, *typed_again(result.command, ("--keep", *kept_apart)), *more)


def _inputs(result: FindResult) -> tuple[str, ...]:
    return fed_again(result.inputs, result.command)


def _resume(result: FindResult) -> tuple[str, ...]:
    return ("--log", result.log, "--resume") if result.log else ()
