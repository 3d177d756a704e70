"""Where a run comes from: model, device, clean-up, golden, acceptance, inputs, time. The foot of its pages, on any medium."""

from __future__ import annotations

from probe.report.diff_facts import acceptance_in_words
from probe.report.numbers import count, number, seconds
from probe.report.text import elide, escape
from probe.report.words import first_few, inputs_in_words, sentence
from probe.results.run import RunResult


def run_facts(result: RunResult) -> list[tuple[str, str]]:
    """Label and sentence of each fact at the foot of a run's page; what is not known is left out. Texts are escaped."""
    statuses = result.statuses
    order = ["compared", *sorted(s for s in statuses if s not in ("compared", "extra"))]
    counted = ", ".join(f"{statuses[s]:,} {s.replace('_', ' ')}" for s in order if statuses.get(s))
    extra = f"; {statuses['extra']:,} more that the golden does not have" if statuses.get("extra") else ""
    other = result.other_interior
    interior = f"insides of fused layers: {result.interior}"
    if other is not None:
        verdict = f"{other.verdict}, which differs" if other.differs else f"{other.verdict} as well"
        interior += f"; with {other.interior}: {verdict}"
    written = result.as_written
    cleaned = ""
    if written is not None:
        passes = ", ".join(name.replace("_", " ") for name in written.by)
        verdict = f"{written.verdict}, which differs" if written.differs else f"{written.verdict} as well"
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
            f"{len(result.layers):,}, {sum(x.injected is not None for x in result.layers):,} measured by themselves",
        ),
        ("tensors", (counted or "none") + extra),
        ("kept FP32", first_few(result.keep, 4)),
        (
            "fallbacks",
            "; ".join(
                f"{elide(f.layer, 40)} ({escape(f.op)}) by {escape(f.by)}: {escape(f.reason)}"
                for f in result.fallbacks[:4]
            ),
        ),
        ("observer", _observer(result)),
        ("acceptance", acceptance_in_words(result.acceptance)),
        ("inputs", inputs_in_words(result.inputs)),
        ("took", _took(result)),
    ]
    facts += [("note", sentence(note)) for note in result.notes]
    return [(label, text) for label, text in facts if text]


def _golden(result: RunResult) -> str:
    golden = result.golden
    made = {"ort": "ONNX Runtime in FP32, optimisation off", "fp64": "float64"}.get(
        golden.kind, escape(golden.source.path)
    )
    facts = [made, *([escape(golden.source.golden)] if golden.source.golden not in ("", "as_is") else [])]
    if golden.noise_floor:
        worst = max(golden.noise_floor, key=lambda name: golden.noise_floor[name])
        facts.append(f"noise floor {number(golden.noise_floor[worst])} (the engine in FP32)")
    return ", ".join(facts)


def _observer(result: RunResult) -> str:
    if result.observer is None:
        return ""
    compared = count(result.observer.outputs, "output")
    if result.observer.identical:
        return f"without taps the same bits ({compared})"
    return f"WITHOUT TAPS {len(result.observer.differences)} OF {compared} DIFFER"


def _took(result: RunResult) -> str:
    longest = sorted(result.seconds.items(), key=lambda one: -one[1])[:3]
    parts = ", ".join(f"{phase} {seconds(value)}" for phase, value in longest)
    return f"{seconds(sum(result.seconds.values()))}, of which {parts}" if longest else ""
