"""A ``ConvertResult`` as terminal text: was it proved, what stays FP32, what to hand over, what to do next."""

from __future__ import annotations

from collections import Counter

from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import count, number, seconds, size
from probe.report.steps import (
    NO_NUMBERS,
    Step,
    exactly,
    fed_again,
    golden_option,
    judged_by,
    step_lines,
    typed_again,
    without_numbers,
)
from probe.report.text import Column, Page, command, elide, escape, sections, table, wrap
from probe.report.words import first_few, inputs_in_words, sentence, verdict_lines
from probe.results.convert_result import ConvertResult, ExportProof

_LISTED = 6
_NAMES_IN_A_COMMAND = 16


def convert_page(result: ConvertResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each list, ``verbose`` lifts the bound."""
    rows = max(len(result.casts), len(result.outputs), len(result.autocast), rows) if verbose else rows
    return sections(
        convert_headline(result, page),
        step_lines(next_steps(result), page),
        _outputs(result, page, rows),
        hand_over(result, page, rows),
        _casts(result, page) if verbose else [],
        _facts(result, page, rows if verbose else _LISTED),
    )


def convert_headline(result: ConvertResult, page: Page) -> list[str]:
    """The verdict in one sentence."""
    return verdict_lines(result.verdict, convert_sentence(result), page)


def convert_sentence(result: ConvertResult) -> str:
    """Whether the written model was proved, and how closely."""
    written = f"{escape(result.path)} ({result.precision}) is written"
    if result.reasons:
        fails = " and fails" if result.verdict == "failed" else ""
        return f"{written}{fails}: {sentence(result.reasons[0])}"
    typed = _typed(result)
    closeness = f", range_rel {number(typed.metric)}" if typed is not None and typed.metric is not None else ""
    return f"{written} and proved{closeness}"


def _typed(result: ConvertResult) -> ExportProof | None:
    return next((proof for proof in result.proofs if proof.fp16_honoured), None)


def next_steps(result: ConvertResult) -> list[Step]:
    """Empty where it was proved on inputs that are real."""
    steps: list[Step] = []
    real = ("--inputs", "FILE.npz")
    inputs = fed_again(result.inputs, result.command)
    few = 0 < len(result.keep) <= _NAMES_IN_A_COMMAND
    keep = typed_again(result.command, ("--keep",)) or (("--keep", exactly(result.keep)) if few else ())
    judged = (*golden_option(result.golden), *judged_by(result.acceptance))
    io = ("--convert-io",) if result.convert_io else ()
    again = (
        "probe",
        "convert",
        result.model,
        "-o",
        result.path,
        "--precision",
        result.precision,
        *keep,
        *io,
        "--overwrite",
    )
    if result.verdict == "failed":
        why = "See what goes wrong in low precision, and what would cure it."
        run = ("probe", "run", result.model, "--precision", result.precision)
        steps.append(Step(why, (*run, *inputs, *judged, *keep)))
    if any(without_numbers(one.verdict, one.metrics) for one in result.outputs.values()):
        steps.append(Step(NO_NUMBERS, ("probe", "dump", result.model, "-o", "golden", *inputs)))
    elif result.verdict == "not_judged" and _typed(result) is not None:
        why = "Say what is good enough."
        steps.append(Step(why, (*again, *inputs, *judged, "--accept", "range_rel<=0.01")))
    elif result.verdict == "not_judged":
        why = "Prove it: run it as its types say and judge its outputs."
        steps.append(Step(why, (*again, *judged, *real)))
    if any(one.source.startswith("seed") for one in result.inputs):
        why = "These inputs were made up. Real ones show what random ones hide."
        steps.append(Step(why, (*again, *judged, *real)))
    return steps


def _outputs(result: ConvertResult, page: Page, rows: int) -> list[str]:
    shown = sorted(result.outputs.items(), key=lambda one: one[1].verdict == "passed")[:rows]
    if not shown:
        return []
    columns = [
        Column("outputs, as typed", 0, "<"),
        Column("range_rel", 9),
        Column("cosine", 9),
        Column("max_abs", 9),
        Column("flag", 10, "<"),
    ]
    flags = {"failed": "FAIL", "warned": "warn", "not_judged": "not judged", "passed": ""}
    cells = [
        (
            name,
            *(
                (number(m.range_rel), f"{m.cosine:.6f}", number(m.max_abs))
                if (m := one.metrics) is not None
                else ("", "", "")
            ),
            flags[one.verdict],
        )
        for name, one in shown
    ]
    lines = table(columns, cells, page)
    if len(result.outputs) > len(shown):
        lines.append(f"  and {count(len(result.outputs) - len(shown), 'more output')} (-v)")
    return lines


def hand_over(result: ConvertResult, page: Page, rows: int) -> list[str]:
    lines = [page.paint("to hand over", "bold")] if result.handed_over else []
    for one in result.handed_over:
        proved = "proved" if one.verdict in ("passed", "warned") else f"NOT PROVED ({one.verdict.replace('_', ' ')})"
        closeness = f", range_rel {number(one.metric)}" if one.metric is not None else ""
        lines += wrap(
            f"{count(len(one.names), one.form[:-1])}, {proved} in this form{closeness}:", page.width, first="  "
        )
        lines += [line for name in one.names[:rows] for line in wrap(elide(name, 120), page.width, first="    ")]
        lines += [f"    and {len(one.names) - rows} more (-v)"] if len(one.names) > rows else []
    if len(result.autocast) <= rows:
        for step in hand_over_steps(result):
            lines += [*wrap(step.why, page.width, first="  "), *command(step.words, page.width)]
    if result.handed_over and result.unnamed:
        listed = first_few(result.unnamed, _LISTED)
        why = "have no name in the original, so that other tools can only take the converted model"
        lines += wrap(f"{count(len(result.unnamed), 'node')} {why}: {listed}", page.width, first="  ")
    return lines


def hand_over_steps(result: ConvertResult) -> list[Step]:
    """The same choice of nodes for other tools, as commands."""
    steps: list[Step] = []
    if result.handed_over and result.autocast:
        tool = (
            "python",
            "-m",
            "modelopt.onnx.autocast",
            "--onnx_path",
            result.model,
            "--low_precision_type",
            result.precision,
        )
        words = (*tool, "--keep_io_types", "--data_max", "inf", "--nodes_to_exclude", *result.autocast)
        steps.append(Step("ModelOpt AutoCast, which makes the same choice of nodes from the original:", words))
    if result.handed_over and result.trtexec:
        words = ("trtexec", f"--onnx={result.model}", f"--{result.precision}", *result.trtexec)
        steps.append(Step("TensorRT 10 and older:", words))
    return steps


def _casts(result: ConvertResult, page: Page) -> list[str]:
    lines = [page.paint("Casts added", "bold")] if result.casts else []
    for cast in result.casts:
        lines += wrap(f"{elide(cast.tensor, 100)} to {cast.to}", page.width, first="  ")
    return lines


def _facts(result: ConvertResult, page: Page, shown: int) -> list[str]:
    return [
        line for label, text in convert_facts(result, shown) for line in wrap(text, page.width, first=f"{label:<12}")
    ]


def convert_facts(result: ConvertResult, shown: int = _LISTED) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot; what is not known is left out. Texts are escaped."""
    kinds = Counter(cast.to for cast in result.casts)
    casts = ", ".join(f"{number} to {to}" for to, number in sorted(kinds.items()))
    in_fp32 = (
        ("for a kept tensor", result.lifted), ("kept", result.fp32_nodes), ("without a low type", tuple(result.without_low)),
        ("for extents", result.shape_nodes),
    )  # fmt: skip
    nodes = "; ".join(f"{len(names)} FP32 {why}" for why, names in in_fp32 if names)
    facts = [
        ("model", f"{escape(result.model)} ({result.model_sha256[:8]})"),
        ("size", f"{size(result.bytes_before)}, now {size(result.bytes_after)}"),
        ("nodes", f"{result.low_nodes:,} {result.precision}" + (f"; {nodes}" if nodes else "")),
        ("Casts", f"{len(result.casts):,} added" + (f": {casts}" if casts else "")),
        ("kept FP32", first_few(result.keep, shown)),
        *(("proof", proof_in_words(one)) for one in result.proofs),
        ("golden", escape(result.golden.path) if result.golden is not None and result.golden.path else ""),
        ("acceptance", acceptance_in_words(result.acceptance) if result.acceptance else ""),
        ("inputs", inputs_in_words(result.inputs)),
        ("took", seconds(sum(result.seconds.values())) if result.seconds else ""),
    ]
    facts += [("note", sentence(note)) for note in result.notes]
    return [(label, text) for label, text in facts if text]


def proof_in_words(one: ExportProof) -> str:
    closeness = f", range_rel {number(one.metric)}" if one.metric is not None else ""
    if one.fp16_honoured:
        return f"{one.runner}: {one.verdict.replace('_', ' ')}{closeness}; every tensor rounded to the type it declares, FP32 accumulation"
    if one.metric is None:
        return sentence(one.reasons[0]) if one.reasons else f"{one.runner}: not run"
    return (
        f"{one.runner}: valid, loads and runs{closeness}; it computes in FP32, so this says nothing about low precision"
    )
