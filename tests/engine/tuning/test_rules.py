"""Rules: what they are about, and that exact ones survive any name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.tuning.rules import Rule, read_rules, write_rules
from probe.errors import InputError
from tests.engine.tuning.selectors import context

ABOUT = [
    ("acc16", "acc16", True),
    ("acc16", "sum_acc16", False),
    (".*acc16", "sum_acc16", True),
    ("winograd_.* @ ^conv1$", "winograd_f4", True),
    ("winograd_.* @ ^conv$", "winograd_f4", False),
    ("winograd_.* @ y", "winograd_f4", True),  # a tensor that it makes
    ("winograd_.* @ a @ b", "winograd_f4", False),  # split at the first
]


@pytest.mark.parametrize(("text", "tactic", "about"), ABOUT)
def test_what_a_rule_is_about(text: str, tactic: str, about: bool) -> None:
    rule = Rule.parse(text)
    assert (rule.concerns(context()) and rule.names(tactic)) is about
    assert Rule.parse(str(rule)) == rule


@given(st.text(min_size=1), st.text())
def test_an_exact_rule_is_about_one_layer_whatever_it_is_called(name: str, other: str) -> None:
    mine, another = context("first of the test", (name,)), context("second of the test", (other,))
    rule = Rule.of(mine, "splitk2")
    (read,) = read_rules([str(rule)], "--deny")
    for one in (rule, read):
        assert one.concerns(mine) and one.names("splitk2") and not one.names("splitk22")
        assert one.concerns(another) is (other == name)


def test_a_rule_of_a_layer_is_not_about_a_node_called_like_its_tensor() -> None:
    mine, other = context("conv", ("y",)), context("y", ("z",))
    assert Rule.of(mine, "acc16").concerns(other)
    rule = Rule.of(mine, "acc16", [mine, other])
    assert rule.concerns(mine) and not rule.concerns(other)
    assert str(Rule.of(mine, "acc16", [mine])) == str(Rule.of(mine, "acc16"))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_a_file_of_rules_is_read_back(tmp_path_factory: pytest.TempPathFactory, outputs: list[str]) -> None:
    rules = tuple(Rule.of(context("a", (name,)), "acc16") for name in outputs)
    path = tmp_path_factory.mktemp("rules") / "deny.txt"
    path.write_text(write_rules(rules, "found by bisecting\ntwo files"), encoding="utf-8")
    read = read_rules([f"@{path}"], "--deny")
    assert list(map(str, read)) == list(map(str, rules))


BAD = ["", " @ conv1", "acc16 @ ", "(", "acc16 @ (", "@nowhere.txt"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(InputError) as refused:
        read_rules([text], "--deny")
    assert refused.value.where == f"--deny {text}"


def test_a_file_without_rules(tmp_path: Path) -> None:
    path = tmp_path / "deny.txt"
    path.write_text("# nothing\n\n")
    with pytest.raises(InputError, match="no rules in"):
        read_rules([f"@{path}"], "--deny")
