"""Escaping, widths, wrapping, quoting, numbers."""

from __future__ import annotations

import math
import re
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from probe.report.numbers import cosine, count, number, seconds, shape, size
from probe.report.steps import exactly
from probe.report.text import cells, command, elide, escape, pad, quote, wrap

ANY = st.text(max_size=200)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("conv1", "conv1"),
        ("", '""'),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u202e", r"\u202e"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("\x9b", r"\x9b"),
        ("\u2028", r"\u2028"),
        ("層/é", "層/é"),
        ("[bold]", "[bold]"),
        ("\xa0", r"\xa0"),
        (" a  b ", r"\x20a  b\x20"),
        ("  ", r"\x20\x20"),
    ],
)
def test_escape(raw: str, shown: str) -> None:
    assert escape(raw) == shown


@given(ANY)
def test_escape_leaves_nothing_that_moves_the_cursor_and_is_stable(text: str) -> None:
    once = escape(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", once)
    assert escape(once) == once


@given(ANY, st.integers(0, 60))
@example("層" * 50, 11)
def test_elide_fits(text: str, width: int) -> None:
    assert cells(elide(text, width)) <= width


def test_elide_keeps_both_ends() -> None:
    short = elide("encoder/layer.0/attention/self/query/MatMul_output_0", 30)
    assert len(short) == 30
    assert short.startswith("encoder") and short.endswith("MatMul_output_0")


@given(ANY.map(escape), st.integers(20, 100), st.integers(0, 10))
def test_wrap_fits_and_loses_nothing_but_spaces(text: str, width: int, indent: int) -> None:
    lines = wrap(text, width, first=" " * indent)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30))
@example("a'b")
@example("\x1b3")
@example("\\")
@example("$(id)")
def test_quote_means_the_same_to_a_shell(word: str) -> None:
    quoted = quote(word)
    assert escape(quoted) == quoted
    said = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True, timeout=20).stdout
    assert said == word.encode()


def test_command_breaks_before_options() -> None:
    lines = command(("probe", "diff", "a" * 30, "b" * 30, "--select", "^x y$", "--metrics", "all"), 60)
    assert lines == [
        f"    probe diff {'a' * 30} \\",
        f"      {'b' * 30} --select '^x y$' \\",
        "      --metrics all",
    ]


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.text(max_size=20))
def test_exactly_matches_the_names_and_no_other(listed: list[str], other: str) -> None:
    pattern = re.compile(exactly(listed))
    for name in listed:
        assert pattern.search(name)
    if other not in listed and other.rstrip("\n") not in listed:  # "$" also matches before a last newline
        assert not pattern.search(other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.0, "0"), (0.1, "0.1"), (0.012345, "0.0123"), (1.2e-5, "1.2e-05"), (123.456, "123"), (1000.4, "1000"),
        (12345.6, "12346"), (99999.6, "1e+05"), (3.4028234663852886e38, "3.4e+38"), (math.nan, "nan"), (-math.inf, "-inf"), (7, "7"),
        (123456789, "1.23e+08"), (5e-324, "4.94e-324"),
    ],
)  # fmt: skip
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


@given(st.floats())
def test_number_and_cosine_fit_a_column(value: float) -> None:
    assert len(number(value)) <= 10  # -4.94e-324: no metric is a negative subnormal
    assert len(cosine(max(-1.0, min(1.0, value)))) <= 9


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.000000"), (0.9999999, "1-1e-07"), (0.995, "0.995000"), (-1.0, "-1.000000"), (math.nan, "nan")],
)
def test_cosine(value: float, text: str) -> None:
    assert cosine(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (150_234_112, "150.2 MB"), (2_300_000_000, "2.3 GB"),
     (9_999_000_000_000_000, "9999.0 TB")],
)  # fmt: skip
def test_size(value: int, text: str) -> None:
    assert size(value) == text


def test_small_ones() -> None:
    assert count(1234) == "1,234"
    assert count(1, "tensor") == "1 tensor"
    assert count(2, "tensor") == "2 tensors"
    assert [seconds(s) for s in (0.214, 3.44, 95.2)] == ["0.21 s", "3.4 s", "95 s"]
    assert [shape(s) for s in ((1, "n", None), (), None)] == ["[1,n,?]", "[]", "[...]"]
    assert pad("層", 4) == "層  "
    assert pad("x", 3, ">") == "  x"
