"""Whole pages: known results, hostile names, 80 columns."""

from __future__ import annotations

import importlib.util
import math
import string
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.report.terminal import page_for, render
from probe.report.text import Page, cells
from probe.results.diff import DiffResult, Finding, SourceInfo, Suggestion, TensorDiff
from probe.results.publish import example_diff, example_metrics, example_tensor, examples
from probe.results.regression import TensorChange

_spec = importlib.util.spec_from_file_location("pages", Path(__file__).parent / "pages.py")
assert _spec is not None and _spec.loader is not None
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)

HOSTILE = {
    "escape": "a\x1b[31mred\x1b[0m",
    "clear": "\x1b[2J\x1b[H",
    "newline": "conv1\nPASSED  everything is fine",
    "carriage": "FAILED\rPASSED",
    "title": "\x1b]0;owned\x07",
    "c1": "a\x9b31mred",
    "bidi": "a\u202egnp.exe",
    "zero width": "a\u200bb",
    "surrogate": "a\ud800b",
    "markup": "[bold]x[/bold] [link=file:///etc]y[/link]",
    "format": "{name} %s %(x)s",
    "shell": "a'; rm -rf $HOME; `id` $(id) \\",
    "long": "encoder/" * 40,
    "wide": "層" * 120,
    "empty": "",
    "spaces": "a  b   ",
    "combining": "e" + "\u0301" * 60,
}


def lines_of(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")


def is_command(line: str) -> bool:
    return line.startswith("    ") and not line.strip().startswith(("reads", "made"))


def assert_readable(text: str, width: int = 80) -> None:
    """No control character but the newlines between lines, and no line wider than the page but commands to copy."""
    assert all(c == "\n" or c.isprintable() for c in text), [c for c in text if not c.isprintable() and c != "\n"]
    for line in lines_of(text):
        assert cells(line) <= width or is_command(line), (cells(line), line)
        assert line == line.rstrip()


@pytest.mark.parametrize("name", pages.RESULTS)
def test_page_is_the_known_one(name: str) -> None:
    result, options = pages.RESULTS[name]
    assert render(result, **options) == (pages.FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def test_no_stray_known_page() -> None:
    assert {p.stem for p in pages.FOLDER.glob("*.txt")} == set(pages.RESULTS)


@pytest.mark.parametrize("width", [72, 80, 132])
@pytest.mark.parametrize("name", pages.RESULTS)
def test_page_fits_its_width(name: str, width: int) -> None:
    result, options = pages.RESULTS[name]
    assert_readable(render(result, Page(width), **options), width)


def _renamed(value: Any, old: str, new: str) -> Any:
    """The same result with one text replaced wherever it stands."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, tuple):
        return tuple(_renamed(v, old, new) for v in value)
    if isinstance(value, dict):
        return {_renamed(k, old, new): _renamed(v, old, new) for k, v in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return replace(
            value, **{f.name: _renamed(getattr(value, f.name), old, new) for f in fields(value) if f.name != "schema"}
        )
    return value


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("verbose", [False, True])
def test_hostile_names_are_shown_not_obeyed(hostile: str, verbose: bool) -> None:
    for name, old in (("diff", "logits"), ("diff", "/norm/Pow_output_0"), ("diff", "norm.div"), ("diff-results", "logits"),
                      ("inspect-model", "image"), ("inspect-recording", "logits"), ("dump", "else_out"), ("run", "logits"), ("run", "/norm/Pow_output_0"),
                      ("run", "/norm/Div"), ("run", "model.onnx"), ("convert", "logits"), ("convert", "/norm/Pow"), ("convert", "mixed.onnx"),
                      ("convert", "/norm/Pow_output_0")):  # fmt: skip
        text = render(_renamed(examples()[name], old, hostile), verbose=verbose, all_metrics=True)
        assert_readable(text)


def test_a_newline_in_a_name_cannot_forge_a_verdict() -> None:
    text = render(_renamed(example_diff(), "logits", HOSTILE["newline"]))
    assert [line for line in lines_of(text) if line.startswith("PASSED")] == []
    assert text.startswith("FAILED  ")


def test_square_brackets_stay() -> None:
    assert "[bold]x[/bold]" in render(_renamed(example_diff(), "/norm/Pow_output_0", "[bold]x[/bold]"))


names = st.text(max_size=60) | st.sampled_from(sorted(HOSTILE.values()))
number = st.floats() | st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e300, 5e-324])


@st.composite
def any_diff(draw: st.DrawFn) -> DiffResult:
    def one(name: str) -> TensorDiff:
        status = draw(st.sampled_from(["compared", "missing", "extra", "shape_mismatch", "stats_only", "not_run"]))
        values = {f.name: draw(number) for f in fields(example_metrics()) if f.type == "float"}
        counts = {
            k: draw(st.integers(0, 10**12))
            for k in ("nonfinite_mismatch", "nan_actual", "inf_golden", "sentinels", "compared")
        }
        return example_tensor(
            name,
            status=status,
            role=draw(st.sampled_from(["output", "internal"])),
            verdict=draw(st.sampled_from(["passed", "warned", "failed", "not_judged"])),
            metrics=example_metrics(**values, **counts) if status == "compared" else None,
            nodes=tuple(draw(st.lists(names, max_size=3))),
            beyond=draw(st.booleans()),
        )

    tensors = tuple(one(name) for name in draw(st.lists(names, max_size=6, unique=True)))
    listed = [t.name for t in tensors]
    return replace(
        example_diff(),
        verdict=draw(st.sampled_from(["passed", "warned", "failed", "not_judged"])),
        tensors=tensors,
        reasons=tuple(draw(st.lists(names, max_size=8))),
        first_divergence=tuple(listed[:2]),
        findings=tuple(
            Finding("x", draw(names), fatal=draw(st.booleans()), cure=draw(names))
            for _ in range(draw(st.integers(0, 3)))
        ),
        suggestions=tuple(Suggestion(draw(names), n, draw(st.floats(0, 1)), same_shape=True) for n in listed[:3]),
        roles_known=draw(st.booleans()),
        actual=SourceInfo(draw(names), "dump"),
    )


@settings(max_examples=60, deadline=None)
@given(any_diff(), st.booleans(), st.integers(72, 160))
def test_any_diff_renders_within_the_page(result: DiffResult, verbose: bool, width: int) -> None:
    for options in ({}, {"verbose": verbose, "all_metrics": True}, {"quiet": True}, {"rows": 1}):
        assert_readable(render(result, Page(width), **options), width)


def test_ten_thousand_tensors_stay_one_screen() -> None:
    many = tuple(
        example_tensor(f"t{i}", role="internal", metrics=example_metrics(range_rel=i / 1e4)) for i in range(10_000)
    )
    text = render(replace(example_diff(), tensors=many, first_divergence=(), findings=(), suggestions=()))
    assert "worst 10 of 10,000 inside" in text
    assert "t9999" in text and "t9989 " not in text
    assert len(lines_of(text)) < 40


def test_worst_first_with_nan_above_all() -> None:
    rows = {"small": 0.1, "huge": 1e9, "inf": math.inf, "nan": math.nan, "zero": 0.0}
    tensors = tuple(
        example_tensor(n, role="internal", metrics=example_metrics(range_rel=v, nonfinite_mismatch=int(n == "nan")))
        for n, v in rows.items()
    )
    text = render(replace(example_diff(), tensors=tensors, first_divergence=(), suggestions=()))
    order = [line.split()[0] for line in lines_of(text) if line.split() and line.split()[0] in rows]
    assert order == ["nan", "inf", "huge", "small", "zero"]


def test_regression_lists_outputs_and_the_worst_first() -> None:
    changes = (
        TensorChange("inner", "worse", "internal", 0.1, 9.0, 90.0),
        TensorChange("out", "worse", "output", 0.1, 0.4, 4.0),
        TensorChange("broken", "worse", "internal", 0.1, math.nan, math.nan),
    )
    text = render(replace(examples()["diff-results"], changes=changes, parts=()))
    assert text.index("  out ") < text.index("  broken ") < text.index("  inner ")


def test_colour_only_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, tty: bool) -> None:
            self.isatty = lambda: tty

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "500")
    assert page_for(Stream(tty=False)) == Page(80, colour=False)  # type: ignore[arg-type]
    assert page_for(Stream(tty=True)) == Page(160, colour=True)  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not page_for(Stream(tty=True)).colour  # type: ignore[arg-type]
    painted = render(example_diff(), Page(80, colour=True))
    assert painted.startswith("\x1b[31;1mFAILED\x1b[0m  logits")
    for code in ("31;1", "31", "33", "32;1", "1", "2", "0"):
        painted = painted.replace(f"\x1b[{code}m", "")
    assert painted == render(example_diff())


def test_commands_can_be_pasted() -> None:
    import shlex

    result = _renamed(example_diff(), "/norm/Pow_output_0", HOSTILE["shell"])
    text = render(replace(result, actual=replace(result.actual, path="my runs/fp16; x"))).replace(" \\\n", " ")
    commands = [shlex.split(line) for line in lines_of(text) if line.startswith("    probe")]
    assert commands and all("my runs/fp16; x" in words for words in commands)
    import re

    patterns = [words[words.index("--select") + 1] for words in commands if "--select" in words]
    assert patterns and all(re.search(p, HOSTILE["shell"]) for p in patterns)
    assert not any(re.search(p, HOSTILE["shell"] + "x") for p in patterns)


def test_every_verdict_has_its_word() -> None:
    words = {
        v: render(pages.diff(v, (example_tensor("y"),))).split("  ")[0]
        for v in ("passed", "warned", "failed", "not_judged")
    }
    assert words == {"passed": "PASSED", "warned": "WARNED", "failed": "FAILED", "not_judged": "NOT JUDGED"}


def test_unknown_results_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot render a str"):
        render("text")


def test_names_of_ordinary_models_are_kept_verbatim() -> None:
    for name in ("Conv_0:0", "/model.0/act/Mul_output_0", "a b", "été", "層"):
        assert name in render(_renamed(example_diff(), "logits", name))


def test_ascii_only_but_for_names() -> None:
    for result in examples().values():
        assert set(render(result, verbose=True, all_metrics=True)) <= set(string.printable)
