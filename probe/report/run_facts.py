"""Where a run comes from: model, device, clean-up, golden, acceptance, inputs, time. The foot of its pages, on any medium."""

from __future__ import annotations

from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import count, number, seconds
from probe.report.text import elide, escape
from probe.report.words import first_few, inputs_in_words, sentence
from probe.results.run import RunResult

_FALLBACKS = 4  # listed
_STATUSES = {
    "equivalent": "that another tensor stands for",
    "folded": "folded by the clean-up",
    "not_run": "not run (branches not taken)",
}


def run_facts(result: RunResult) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot of a run's page; what is not known is left out. Texts are escaped."""
    statuses = result.statuses
    order = ["compared", *sorted(s for s in statuses if s not in ("compared", "extra"))]
    counted = ", ".join(f"{statuses[s]:,} {_STATUSES.get(s) or s.replace('_', ' ')}" for s in order if statuses.get(s))
    extra = f"; {statuses['extra']:,} more that the golden does not have" if statuses.get("extra") else ""
    other = result.other_interior
    interior = "" if result.precision == "fp32" else f"tensors inside fused layers {_inside(result, result.interior)}"
    if interior and other is not None:
        interior += f"; {_inside(result, other.interior)}: {_beside(other.verdict, differs=other.differs)}"
    written = result.as_written
    cleaned = ""
    if written is not None:
        passes = ", ".join(name.replace("_", " ") for name in written.by)
        verdict = _beside(written.verdict, differs=written.differs)
        cleaned = (
            f"{count(written.changes, 'change')} ({passes}); as written (passes none, fusion none): {verdict}, "
            f"range_rel {number(written.range_rel)}"
        )
    facts = [
        ("model", f"{escape(result.model)} ({result.model_sha256[:8]})"),
        ("device", f"{result.device}; passes {result.passes}, fusion {result.fusion}"),
        ("clean-up", cleaned),
        ("interior", interior),
        ("golden", _golden(result)),
        (
            "layers",
            f"{len(result.layers):,}; {sum(x.injected is not None for x in result.layers):,} of them also run by themselves, on golden inputs",
        ),
        ("tensors", (counted or "none") + extra),
        ("kept FP32", first_few(result.keep, 4)),
        (
            "fallbacks",
            _fallbacks(result),
        ),
        ("observer", _observer(result)),
        ("repeated", _repeated(result)),
        ("acceptance", acceptance_in_words(result.acceptance)),
        ("inputs", inputs_in_words(result.inputs)),
        ("took", _took(result)),
    ]
    facts += [("note", sentence(note)) for note in result.notes]
    return [(label, text) for label, text in facts if text]


def _fallbacks(result: RunResult) -> str:
    """How many layers the device has no kernel for, and the first of them."""
    shown = [
        f"{elide(f.layer, 40)} ({escape(f.op)}) by {escape(f.by)}: {escape(f.reason)}"
        for f in result.fallbacks[:_FALLBACKS]
    ]
    if not shown:
        return ""
    left = len(result.fallbacks) - len(shown)
    more = f"; and {left:,} more" if left else ""
    return f"{count(len(result.fallbacks), 'layer')}: {'; '.join(shown)}{more}"


def _inside(result: RunResult, interior: str) -> str:
    return f"rounded to {result.precision}" if interior == "storage" else "kept in FP32"


def _beside(verdict: str, *, differs: bool) -> str:
    said = verdict.replace("_", " ")
    return f"{said}, which differs" if differs else f"{said} as well"


def _golden(result: RunResult) -> str:
    golden = result.golden
    made = {"ort": "ONNX Runtime in FP32, optimisation off", "fp64": "float64"}.get(
        golden.kind, escape(golden.source.path)
    )
    how = escape(golden.source.golden).replace("qdq kept", "Q/DQ nodes kept")
    facts = [made, *([how] if how not in ("", "as_is") else [])]
    if golden.noise_floor:
        worst = max(golden.noise_floor, key=lambda name: golden.noise_floor[name])
        facts.append(f"noise floor range_rel {number(golden.noise_floor[worst])} (the engine in FP32 against it)")
    return ", ".join(facts)


def _observer(result: RunResult) -> str:
    if result.observer is None:
        return ""
    compared = count(result.observer.outputs, "output")
    if result.observer.identical:
        return f"without taps the same bits ({compared})"
    return f"WITHOUT TAPS {len(result.observer.differences)} OF {compared} DIFFER"


def _repeated(result: RunResult) -> str:
    check = result.repeats
    if check is None:
        return ""
    if check.identical:
        return f"{count(check.runs, 'run')}, with and without taps: the same bits ({count(check.tensors, 'tensor')})"
    return f"{check.differing} OF {count(check.tensors, 'tensor')} DIFFER FROM RUN TO RUN"


def _took(result: RunResult) -> str:
    longest = sorted(result.seconds.items(), key=lambda one: -one[1])[:3]
    parts = ", ".join(f"{phase} {seconds(value)}" for phase, value in longest)
    return f"{seconds(sum(result.seconds.values()))}, of which {parts}" if longest else ""
