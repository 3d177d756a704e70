"""Where an answer of ``find`` comes from: baselines, proofs, cost, acceptance, inputs. The foot of its pages, on any medium."""

from __future__ import annotations

from probe.report.convert_page import proof_in_words
from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import count, number, seconds, size
from probe.report.text import cells, elide, escape
from probe.report.words import inputs_in_words, sentence
from probe.results.find import Evaluated, FindResult


def find_facts(result: FindResult) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot; what is not known is left out. Texts are escaped."""
    asked = result.evaluations
    evaluations = ", ".join(
        f"{asked[kind]:,} {kind}" for kind in ("tactics", "search", "probes", "proof", "cached") if asked.get(kind)
    )
    oracle = result.oracle
    facts = [
        ("model", f"{escape(result.model)} ({result.model_sha256[:8]})"),
        ("device", result.device),
        ("engine", f"passes {result.passes}, fusion {result.fusion}, interior {result.interior}"),
        ("all low", said_of(oracle.all_low)),
        ("all FP32", said_of(oracle.all_fp32) + _floor(oracle.float64_floor)),
        ("answer", said_of(oracle.answer)),
        ("run again", said_of(oracle.answer_rerun, "in an engine compiled anew")),
        ("held out", _held_out(result)),
        *(("proof", proof_in_words(one)) for one in (result.exported.proofs if result.exported is not None else ())),
        ("cost", _cost(result)),
        ("asked", f"{evaluations} of {count(result.units, 'unit')}" if evaluations else ""),
        (
            "voted",
            f"the oracle contradicted itself ({number(result.voting.noise)} of all-FP32 evaluations fail); each question is decided with confidence {result.voting.confidence:g}"
            if result.voting
            else "",
        ),
        (
            "not monotone",
            f"{count(result.violations, 'evaluation')} where keeping more was worse" if result.violations else "",
        ),
        ("acceptance", (acceptance_in_words(result.acceptance) if result.acceptance else "") + _how(result)),
        ("golden", _golden(result)),
        ("inputs", inputs_in_words(result.inputs)),
        ("log", escape(result.log) if result.log else ""),
        ("took", seconds(sum(result.seconds.values())) if result.seconds else ""),
    ]
    export = result.exported.conversion.notes if result.exported is not None else ()
    facts += [("export", sentence(note)) for note in export if note not in result.notes]
    facts += [("note", sentence(note)) for note in result.notes]
    return [(label, text) for label, text in facts if text]


def said_of(one: Evaluated | None, more: str = "") -> str:
    """Whether an evaluation passes, how closely, and if not, why; empty for none."""
    if one is None:
        return ""
    closeness = f", range_rel {number(one.metric)}" if one.metric is not None else ""
    votes = (
        f" ({one.votes[0]} of {sum(one.votes)} evaluations pass)" if one.votes is not None and all(one.votes) else ""
    )
    failing = f" on {some(one.failing_inputs)}" if one.failing_inputs and not one.passed else ""
    why = f": {sentence(one.reasons[0])}" if one.reasons and not one.passed else ""
    return f"{'passes' if one.passed else 'fails'}{failing}{closeness}{votes}{', ' + more if more else ''}{why}"


def _golden(result: FindResult) -> str:
    golden = result.golden
    if golden is None or not golden.path:
        return ""
    changed = f", {golden.golden}" if golden.golden not in ("", "as_is") else ""
    return escape(golden.path) + changed


def _floor(floors: dict[str, float]) -> str:
    if not floors:
        return ""
    worst = max(floors, key=lambda name: floors[name])
    return f"; the golden itself is range_rel {number(floors[worst])} from float64 ({elide(worst, 40)})"


def _held_out(result: FindResult) -> str:
    one = result.held_out
    if one is None:
        return ""
    exported = f"; exported: {one.exported.verdict.replace('_', ' ')}" if one.exported is not None else ""
    return f"{count(len(one.inputs), 'input')}: {said_of(one.evaluated)}{exported}"


def _cost(result: FindResult) -> str:
    cost = result.cost
    if cost is None:
        return ""
    parts: list[str] = []
    if cost.flops and cost.flops_fp32 is not None:
        parts.append(f"{number(float(f'{100 * cost.flops_fp32 / cost.flops:.2g}'))} % of the FLOPs in FP32")
    if cost.bytes_fp32 is not None:
        parts.append(f"{size(cost.bytes_fp32)} more")
    if cost.casts is not None:
        parts.append(count(cost.casts, "Cast"))
    if cost.latency is not None:
        whole = f" (everything in FP32: {cost.latency_fp32:.3g}x)" if cost.latency_fp32 is not None else ""
        parts.append(f"latency {cost.latency:.3g}x of all-low{whole}, modelled: {cost.model}")
    return ", ".join(parts)


def _how(result: FindResult) -> str:
    parts = [f"{result.aggregate} of the inputs"] if result.aggregate != "worst" else []
    parts += [f"judged by {escape(result.check)}"] if result.check else []
    return ("; " if result.acceptance and parts else "") + "; ".join(parts)


def some(names: tuple[str, ...] | list[str], shown: int = 3) -> str:
    """The first few of many names, escaped."""
    listed = ", ".join(elide(name, 64) if cells(escape(name)) > 64 else escape(name) for name in names[:shown])
    return listed + (f" and {len(names) - shown} more" if len(names) > shown else "")
