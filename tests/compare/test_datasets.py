"""Many inputs: sums are merged, and no loud input hides a quiet one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probe.compare.diff import diff_sources
from probe.metrics.acceptance import BLANK, parse_criterion
from tests.compare.recorder import GOLDEN, dataset


def test_datasets_merge_sums_and_name_the_inputs_that_fail(recorder: Any) -> None:
    golden = {k: GOLDEN * scale for k, scale in (("a", 1), ("b", 1000), ("c", 1))}
    actual = {**golden, "c": golden["c"] + np.float32(1)}
    result = diff_sources(dataset(recorder, actual, ["c", "a", "b"]), dataset(recorder, golden))
    tensor = result.outputs[0]
    assert tensor.metrics is not None
    assert tensor.metrics.count == 3 * GOLDEN.size
    assert tensor.metrics.range_rel == pytest.approx(1 / float(np.abs(GOLDEN).max()) / 1000, rel=1e-5)
    # 0.04 % of the loud input's range, but the quiet input is wrong by a third
    assert (result.verdict, tensor.worst_input, tensor.failing_inputs) == ("failed", "c", ("c",))
    assert any("c" in f.message for f in result.findings if f.kind == "failing_inputs")
    assert tensor.worst[0].input_id == "c"


def test_statistics_of_a_dataset_are_judged_over_the_whole(recorder: Any) -> None:
    golden = {f"i{k}": np.eye(4, dtype=np.float32)[[k % 4]] for k in range(10)}
    actual = {**golden, "i3": golden["i3"][:, ::-1]}
    sides = dataset(recorder, actual), dataset(recorder, golden)
    assert diff_sources(*sides, acceptance=[parse_criterion("top1>=0.9")]).verdict == "passed"
    assert diff_sources(*sides, acceptance=[parse_criterion("top1>0.9")]).verdict == "failed"


def test_an_output_missing_for_one_input_fails(recorder: Any) -> None:
    golden = dataset(recorder, {"a": GOLDEN, "b": GOLDEN})
    short = recorder().add("y", GOLDEN, "output", "a").add("h", GOLDEN, "internal", "b")
    short.header = golden.header
    assert diff_sources(short.open(), golden).verdict == "failed"


def test_an_input_for_which_golden_has_no_numbers_is_told(recorder: Any) -> None:
    golden = {"a": GOLDEN, "b": np.full_like(GOLDEN, np.nan)}
    result = diff_sources(dataset(recorder, golden), dataset(recorder, golden))
    assert (result.verdict, result.reasons) == ("warned", (f"y: input b: {BLANK}",))
