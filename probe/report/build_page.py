"""A ``BuildResult`` as terminal text: what is in a saved engine, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.diff_facts import fact_lines
from probe.report.numbers import count, seconds, size
from probe.report.steps import Step, step_lines
from probe.report.text import Page, elide, escape, sections, wrap
from probe.report.words import sentence
from probe.results.build import BuildResult, SavedEngine

_LISTED = 6


def build_page(result: BuildResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each list of names, ``verbose`` lifts the bound."""
    shown = 1 << 30 if verbose else min(rows, _LISTED)
    facts = fact_lines(build_facts(result, shown), page)
    return sections(build_headline(result, page), facts, step_lines(build_steps(result), page))


def header_page(header: SavedEngine, page: Page) -> list[str]:
    """The header of a saved engine, by itself."""
    what = f"the header of an engine: {escape(header.model)} in {header.precision}, {count(header.layers, 'layer')}, for {header.device}"
    return wrap(what, page.width)


def build_headline(result: BuildResult, page: Page) -> list[str]:
    """What the file is, in a sentence."""
    what = f"{escape(result.path)}: {escape(result.model)} in {result.precision}, {count(result.layers, 'layer')}, {size(result.bytes)}"
    return [page.paint(line, "bold") for line in wrap(what, page.width)]


def build_facts(result: BuildResult, shown: int = _LISTED) -> list[tuple[str, str]]:
    """Label and sentence of each fact; what is not known is left out. Texts are escaped."""
    low = (
        f"{result.low_layers:,} compute in {result.precision}" if result.precision != "fp32" else "all compute in FP32"
    )
    compiled = f"passes {result.passes} ({count(result.changes, 'change')}), fusion {result.fusion}, interior {result.interior}"
    used = [f"{escape(name)} {count(layers, 'layer')}" for name, layers in sorted(result.tactics.items())]
    tactics = ", ".join(used) if set(result.tactics) - {"exact"} else "exact"
    fingerprint = result.fingerprint
    facts = [
        ("model", f"{escape(result.model)} ({fingerprint.model_sha256[:8]})"),
        ("runs on", escape(result.device)),
        ("layers", f"{low}; {compiled}"),
        ("tactics", tactics + (f", of {escape(result.tactic_file)}" if result.tactic_file else "")),
        ("kept FP32", _some(result.kept, shown)),
        ("weights", f"{count(result.weights)}, {size(result.weight_bytes)}"),
        ("kernels", f"{count(result.kernels)}, compiled" if result.kernels else ""),
        ("fallbacks", count(result.fallbacks, "layer") + " without a kernel" if result.fallbacks else ""),
        (
            "built for",
            escape(", ".join(one for one in (fingerprint.device, fingerprint.processor, fingerprint.driver) if one)),
        ),
        ("built by", f"probe {escape(result.probe)}"),
        ("took", _took(result)),
    ]
    facts += [("note", sentence(note)) for note in result.notes]
    return [(label, text) for label, text in facts if text]


def _took(result: BuildResult) -> str:
    phases = ", ".join(f"{name} {seconds(spent)}" for name, spent in result.seconds.items())
    loads = f"loads in {seconds(result.load_seconds)}" if result.load_seconds is not None else ""
    return "; ".join(one for one in (phases, loads) if one)


def build_steps(result: BuildResult) -> list[Step]:
    """What to do with an engine."""
    return [
        Step(
            "Judge it, layer by layer, against its model in FP32.",
            ("probe", "run", result.path, "--inputs", "FILE.npz"),
        ),
        Step("Measure how fast it runs.", ("probe", "bench", result.path)),
    ]


def _some(names: Sequence[str], shown: int) -> str:
    more = f", and {len(names) - shown} more (-v)" if len(names) > shown else ""
    return ", ".join(elide(name, 48) for name in names[:shown]) + more
