"""Words that several pages share: verdicts, statuses, non-finite values, sentences with long names cut short."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.numbers import count, shape
from probe.report.text import Page, cells, elide, escape, wrap
from probe.results.diff import TensorDiff, Verdict
from probe.results.tensors import InputInfo

WORDS = {"passed": "PASSED", "warned": "WARNED", "failed": "FAILED", "not_judged": "NOT JUDGED"}
_STYLES = {
    "passed": ("green", "bold"),
    "warned": ("yellow", "bold"),
    "failed": ("red", "bold"),
    "not_judged": ("yellow", "bold"),
}

NOT_COMPARED = {
    "interior": "interior of a fused layer",
    "folded": "folded by a pass",
    "not_run": "did not run (branch)",
    "not_recorded": "not recorded",
    "stats_only": "statistics only",
    "shape_mismatch": "shape differs",
    "kind_mismatch": "type differs in kind",
}


def verdict_lines(verdict: Verdict, sentence: str, page: Page) -> list[str]:
    """``FAILED  sentence``, wrapped under itself."""
    return headed_lines(WORDS[verdict], _STYLES[verdict], sentence, page)


def headed_lines(word: str, styles: Sequence[str], sentence: str, page: Page) -> list[str]:
    """``WORD  sentence``, wrapped under itself; the word is painted, the sentence escaped."""
    lines = wrap(escape(sentence), page.width, first=word + "  ")
    lines[0] = page.paint(word, *styles) + lines[0][len(word) :]
    return lines


def sentence(reason: str) -> str:
    """A name of 300 characters would bury the numbers: long words are cut in the middle."""
    return " ".join(word if cells(word) <= 48 else elide(word, 48) for word in escape(reason).split(" "))


def more_reasons(reasons: Sequence[str], page: Page, shown: int = 6) -> list[str]:
    """Those behind the first, which the headline says: all within the first ``shown``, and how many there are beyond."""
    lines = [line for one in reasons[1:shown] for line in wrap(sentence(one), page.width, first="  and     ")]
    beyond = len(reasons) - shown
    return [*lines, f"  and     {count(beyond, 'more reason')}"] if beyond > 0 else lines


def first_few(names: Sequence[str], shown: int = 3) -> str:
    """``a, b, c, and 4 more``: each escaped, and cut to 48 cells."""
    beyond = f", and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(elide(name, 48) for name in names[:shown]) + beyond


def inputs_in_words(inputs: Sequence[InputInfo]) -> str:
    """How many input sets and where they come from, each place once; "" for none. What is judged on made-up ones may hide failures."""
    if not inputs:
        return ""
    sources = list(dict.fromkeys(one.source for one in inputs))
    hides = "; random data can hide failures" if any(one.startswith("seed") for one in sources) else ""
    return f"{count(len(inputs), 'input set')}: {first_few(sources)}{hides}"


def why_not_compared(tensor: TensorDiff) -> str:
    """Why a tensor has no numbers, with what was found instead."""
    if tensor.reasons:
        return sentence(tensor.reasons[0])
    if tensor.status == "shape_mismatch" and tensor.shape_actual is not None:
        return f"shape {shape(tensor.shape_actual)}, golden {shape(tensor.shape)}"
    if tensor.status == "kind_mismatch":
        return f"type {tensor.dtype_actual}, golden {tensor.dtype_golden}: not the same kind of number"
    return NOT_COMPARED.get(tensor.status, tensor.status)


def nonfinite(tensor: TensorDiff) -> str:
    """``4 NaN (golden 0)`` where non-finite values are not the golden's; empty where they are."""
    m = tensor.metrics
    if m is None or not m.nonfinite_mismatch:
        return ""
    parts = [
        f"{count(actual)} {kind} (golden {count(golden)})"
        for kind, actual, golden in (("NaN", m.nan_actual, m.nan_golden), ("Inf", m.inf_actual, m.inf_golden))
        if actual or golden
    ]
    return ", ".join(parts) or "non-finite values differ"
