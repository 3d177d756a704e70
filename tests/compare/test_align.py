"""Which tensor belongs to which, which input to which: by name, by content, by the user's map, never by position."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.compare.align import match_names, read_map, suggest
from probe.compare.diff import diff_sources
from probe.errors import InputError
from probe.results.tensors import InputInfo, RunHeader, TensorInfo
from tests.compare.recorder import GOLDEN, dataset, diff


def test_names_are_never_paired_by_position(recorder: Any) -> None:
    result = diff(recorder, {"final": GOLDEN}, {"reformat_7": GOLDEN})
    assert result.verdict == "failed"
    assert {t.status for t in result.tensors} == {"missing", "extra"}


def test_names_that_nearly_match_are_suggested_and_mapped_only_by_the_user(recorder: Any) -> None:
    names = {"decoder/logits:0": GOLDEN, "decoder/state:0": GOLDEN.T}
    renamed = {"decoder.logits": GOLDEN, "decoder.state": GOLDEN.T}
    result = diff(recorder, renamed, names)
    assert result.verdict == "failed"
    assert {(s.actual, s.golden) for s in result.suggestions} == set(zip(renamed, names, strict=True))
    mapped = diff(recorder, renamed, names, name_map=dict(zip(renamed, names, strict=True)))
    assert mapped.verdict == "passed"
    assert [t.actual_name for t in mapped.tensors] == list(renamed)


def test_a_map_that_names_nothing_is_refused(recorder: Any) -> None:
    with pytest.raises(InputError, match="no tensor of actual"):
        diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, name_map={"yy": "y"})
    with pytest.raises(InputError, match="no tensor of golden"):
        diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, name_map={"y": "x"})


def test_inputs_are_paired_by_content(recorder: Any) -> None:
    golden = dataset(recorder, {"a": GOLDEN, "b": GOLDEN * 2})
    renamed = recorder()
    renamed.header = RunHeader(inputs=(InputInfo("first", "sha-b", ""), InputInfo("second", "sha-a", "")))
    renamed.add("y", GOLDEN * 2, "output", "first").add("y", GOLDEN, "output", "second")
    assert diff_sources(renamed.open(), golden).verdict == "passed"


def test_different_inputs_are_said(recorder: Any) -> None:
    sides = []
    for sha in ("one", "other"):
        side = recorder().add("y", GOLDEN, "output", "x")
        side.header = RunHeader(inputs=(InputInfo("x", sha, "seed 0"),))
        sides.append(side.open())
    kinds = {f.kind for f in diff_sources(*sides).findings}
    assert {"inputs_differ", "random_inputs"} <= kinds


def test_no_common_input_is_an_error(recorder: Any) -> None:
    with pytest.raises(InputError, match="no input in common"):
        diff_sources(dataset(recorder, {"a": GOLDEN, "b": GOLDEN}), dataset(recorder, {"c": GOLDEN, "d": GOLDEN}))


class TestMaps:
    def test_a_map_file(self, tmp_path: Path) -> None:
        path = tmp_path / "map.json"
        path.write_text(json.dumps({"a": "b", "x\ny": "z"}))
        assert read_map(path) == {"a": "b", "x\ny": "z"}

    @pytest.mark.parametrize("content", ["", "[]", '{"a": null}', '{"a": 1}', '{"a": "x", "b": "x"}', "{", "\x00"])
    def test_bad_map_files(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "map.json"
        path.write_text(content)
        with pytest.raises(InputError):
            read_map(path)

    def test_the_map_wins_over_equal_names(self) -> None:
        assert match_names(["a", "b"], ["a", "b"], {"a": "b"}) == {"b": "a"}

    @given(
        st.lists(st.text(max_size=6), unique=True, max_size=12), st.lists(st.text(max_size=6), unique=True, max_size=12)
    )
    def test_only_equal_names_match(self, actual: list[str], golden: list[str]) -> None:
        assert match_names(actual, golden) == {name: name for name in golden if name in actual}

    @given(
        st.lists(st.text(max_size=8), unique=True, max_size=8), st.lists(st.text(max_size=8), unique=True, max_size=8)
    )
    def test_a_name_is_suggested_once(self, actual: list[str], golden: list[str]) -> None:
        found = suggest(
            [TensorInfo(n, "float32", (2,)) for n in actual], [TensorInfo(n, "float32", (2,)) for n in golden]
        )
        assert len({s.actual for s in found}) == len({s.golden for s in found}) == len(found)
