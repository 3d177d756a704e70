"""What damage brought to light, each as a plain case: the wrong passes, and the exceptions that were no ``InputError``."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from probe import api
from probe.compare.regression import diff_results
from probe.errors import InputError
from probe.model import load
from probe.model.inputs import make_inputs
from probe.results.diff import Metrics
from probe.results.json import dumps, loads
from probe.results.tensors import InputInfo, RunHeader, TensorInfo
from probe.store.dump import Dump
from probe.store.opening import open_source
from probe.store.writer import DumpWriter
from tests.model import builders
from tests.store.arrays import record


def two_inputs(path: Path, *, skip: str = "", header: RunHeader | None = None) -> Path:
    with DumpWriter(path, header or RunHeader()) as writer:
        for one in ("cat", "dog"):
            row = TensorInfo("y", "float32", (3,), input_id=one, role="output")
            if one == skip:
                writer.add(replace(row, status="not_run", note="the other branch ran"), None)
            else:
                writer.add(row, np.ones(3, np.float32))
    return path


@pytest.mark.parametrize("side", ["actual", "golden"])
def test_an_output_that_ran_on_one_side_only_does_not_pass_because_of_other_inputs(side: str, tmp_path: Path) -> None:
    """Was: passed, as the other input's values were equal."""
    whole, part = two_inputs(tmp_path / "whole"), two_inputs(tmp_path / "part", skip="cat")
    result = api.diff(part, whole) if side == "actual" else api.diff(whole, part)
    assert result.verdict == "not_judged" and "ran in" in result.outputs[0].reasons[0]
    assert api.diff(part, part).verdict == "passed"


def test_an_input_whose_recorded_id_is_of_no_row_is_paired_by_its_own(tmp_path: Path) -> None:
    """Was: the input was left out, and what differed in it passed."""
    right = RunHeader(inputs=(InputInfo("cat", "1" * 64, ""), InputInfo("dog", "2" * 64, "")))
    wrong = RunHeader(inputs=(InputInfo("cow", "1" * 64, ""), InputInfo("dog", "2" * 64, "")))
    result = api.diff(two_inputs(tmp_path / "a", header=wrong), two_inputs(tmp_path / "g", header=right))
    assert result.outputs[0].inputs == 2


def test_an_error_that_is_no_number_is_a_regression() -> None:
    """Was: NaN is not larger than anything, so it passed."""
    before = api.diff({"y": [1.0, 2.0]}, {"y": [1.0, 2.0]})
    metrics = before.tensors[0].metrics
    assert isinstance(metrics, Metrics)
    after = replace(before, tensors=(replace(before.tensors[0], metrics=replace(metrics, range_rel=float("nan"))),))
    assert not diff_results(before, after)
    assert diff_results(before, before)


def test_an_inspection_of_nothing_is_a_damaged_file() -> None:
    """Was: AssertionError when it was shown."""
    with pytest.raises(InputError, match="of a model or of a recording"):
        loads('{"schema": "probe.inspect/1", "kind": "model"}')


def test_a_lone_surrogate_where_a_number_should_be() -> None:
    """Was: UnicodeEncodeError."""
    tree = json.loads(dumps(api.diff({"y": [1.0]}, {"y": [1.0]})))
    tree["seconds"] = "\ud800"
    with pytest.raises(InputError, match=r"damaged probe\.diff/1 result"):
        loads(json.dumps(tree))


@pytest.mark.parametrize("count", [-1, 4, 2**60, 10**30])
def test_counts_of_nan_that_cannot_be(count: int, tmp_path: Path) -> None:
    """Was: OverflowError when the statistics were compared."""
    from tests.fuzz.bases import reseal

    path = record(tmp_path / "d", {"x": np.zeros(3)}, stats_only=True)
    lines = (path / "manifest.jsonl").read_bytes().splitlines(keepends=True)[:-1]
    row = {**json.loads(lines[1]), "inf": count}
    reseal(path, [lines[0], json.dumps(row).encode() + b"\n"])
    with pytest.raises(InputError, match="among 3 elements"):
        Dump(path)


def test_an_archive_whose_directory_was_wiped(tmp_path: Path) -> None:
    """Was: opened as a recording without tensors."""
    path = tmp_path / "x.npz"
    np.savez(path, x=np.arange(10))
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    content[end + 8 : end + 20] = bytes(12)
    path.write_bytes(content)
    assert zipfile.ZipFile(path).namelist() == []
    with pytest.raises(InputError, match="directory is empty"):
        open_source(path)
    np.savez(path)
    assert list(open_source(path).rows()) == []  # an archive of nothing is whole


def test_an_input_too_large_to_be_made_up(tmp_path: Path) -> None:
    """Was: MemoryError, or a machine that swaps."""
    proto = builders.model(
        [builders.node("Relu", ["x"], ["y"])], [builders.value("x", (2**32, 3))], [builders.value("y", None)]
    )
    with pytest.raises(InputError, match="12884901888 elements"):
        make_inputs(load(builders.save(proto, tmp_path / "m.onnx")))


@pytest.mark.parametrize(("elements", "propagated"), [(1000, True), (1 << 20, False)])
def test_a_long_vector_costs_no_memory(
    elements: int, propagated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: 200 bytes of shape inference an element, 3.8 GB and 8 s for a state that is declared as long as numbers go."""
    from probe.model import sizes
    from probe.model.expose import expose

    proto = builders.growing_loop()
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "body")
    body.input[2].type.tensor_type.shape.dim.add(dim_value=elements)
    plain, asked = onnx.shape_inference.infer_shapes, []

    def spy(model: Any, **options: Any) -> Any:
        asked.append(options["data_prop"])
        return plain(model, **{**options, "data_prop": False})

    exposure = expose(load(builders.save(proto, tmp_path / "m.onnx")))
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", spy)
    sizes.tensor_bytes(exposure, {"x": np.zeros((2, 3), np.float32), "n": np.array(3)})
    assert any(asked) == propagated


@pytest.mark.parametrize("condition", ["kept", "kept through Identity", "constant"])
def test_a_loop_that_never_ends(condition: str, tmp_path: Path) -> None:
    """Was: it ran, for ever or until the memory was full."""
    nodes = [builders.node("Add", ["state", "x"], ["next"], name="add")]
    if condition == "kept through Identity":
        nodes += [builders.node("Identity", ["going"], ["a"]), builders.node("Identity", ["a"], ["go_on"])]
    elif condition == "constant":
        nodes.append(builders.node("Constant", [], ["go_on"], value=builders.weight("", np.array(True))))
    last = "going" if condition == "kept" else "go_on"
    body = builders.graph(
        nodes,
        [builders.value("i", (), builders.INT64), builders.value("going", (), builders.BOOL), builders.value("state")],
        [builders.value(last, (), builders.BOOL), builders.value("next")],
    )

    def loop(trips: str) -> Path:
        ports = [builders.value("x"), builders.value("n", (), builders.INT64)]
        node = builders.node("Loop", [trips, "", "x"], ["y"], name="loop", body=body)
        return builders.save(builders.model([node], ports, [builders.value("y")]), tmp_path / "m.onnx")

    with pytest.raises(InputError, match=r"node loop \(Loop\) never ends"):
        load(loop(""))
    load(loop("n"))
