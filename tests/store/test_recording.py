"""``Recording``: tensors by name, whatever the format. ``Arrays``: a source without a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.memory import Arrays
from probe.store.opening import open_sink, open_source, read_array
from probe.store.recording import Recording


@pytest.fixture
def two_inputs(tmp_path: Path) -> Recording:
    with open_sink(tmp_path / "dump", RunHeader(runner="test")) as sink:
        for number, input_id in enumerate(("cat", "dog")):
            for name in ("x", "a b/c:0"):
                info = TensorInfo(name, "float32", (2,), input_id=input_id, role="input" if name == "x" else "output")
                sink.add(info, np.full(2, number, np.float32))
        sink.add(TensorInfo("branch", "float32", (), input_id="dog", status="not_run", note="else was taken"), None)
    return Recording(open_source(tmp_path / "dump"))


def test_names_in_recorded_order(two_inputs: Recording) -> None:
    assert list(two_inputs) == ["x", "a b/c:0", "branch"]
    assert (len(two_inputs), two_inputs.input_ids) == (3, ("cat", "dog"))
    assert "a b/c:0" in two_inputs and "y" not in two_inputs
    assert "3 tensors of 2 input(s)" in repr(two_inputs)


def test_the_first_input_unless_another_is_named(two_inputs: Recording) -> None:
    assert two_inputs["a b/c:0"].tolist() == [0, 0]
    assert two_inputs.read("a b/c:0", "dog").tolist() == [1, 1]
    assert two_inputs.info("x", "dog").input_id == "dog"


def test_what_is_not_there(two_inputs: Recording) -> None:
    with pytest.raises(KeyError):
        _ = two_inputs["y"]
    with pytest.raises(KeyError):
        two_inputs.read("branch", "cat")
    with pytest.raises(InputError, match="else was taken"):
        _ = two_inputs["branch"]
    assert two_inputs.get("y") is None


def test_it_is_a_source(two_inputs: Recording) -> None:
    assert two_inputs.header.runner == "test"
    row = two_inputs.rows()[1]
    reader = two_inputs.open(row)
    assert reader.window(0, 1).tolist() == [0]
    reader.close()


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (np.float32([1, 2]), "float32", (2,)),
        ([1.0, 2.0], "float64", (2,)),
        (3, "int64", ()),
        (np.zeros((0, 3), np.int8), "int8", (0, 3)),
        ([["a", "b"]], "string", (1, 2)),
        (np.arange(6).reshape(2, 3).T, "int64", (3, 2)),
    ],
)
def test_arrays_in_memory(value: object, dtype: str, shape: tuple[int, ...]) -> None:
    source = Arrays({"first": 0.5, "it": value})
    row = source.rows()[1]
    assert (row.name, row.dtype, row.shape) == ("it", dtype, shape)
    np.testing.assert_array_equal(read_array(source, row), np.asarray(value))
    source.close()


def test_arrays_of_no_tensor_type() -> None:
    with pytest.raises(InputError, match="cannot have the numpy type"):
        Arrays({"when": np.array(["2026-11-21"], "datetime64[D]")})
