"""What is added to a dump comes back to the last bit, whatever its type, layout and name."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.errors import InputError
from probe.precision import dtype_name, numpy_dtype
from probe.results.tensors import InputInfo, Role, RunHeader, TensorInfo
from probe.store.dump import Dump
from probe.store.opening import open_source, read_array
from probe.store.writer import ALIGNMENT, DumpWriter
from tests.store.arrays import (
    HOSTILE_NAMES,
    NUMERIC,
    Array,
    bits,
    contents,
    fill,
    leftovers,
    numeric,
    record,
    text,
    texts,
)


@settings(max_examples=200)
@given(st.lists(numeric(), min_size=1, max_size=4))
def test_numbers_come_back_to_the_last_bit(arrays: list[Array]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = record(Path(folder) / "d", {str(k): array for k, array in enumerate(arrays)})
        for (name, _), found in contents(path).items():
            added = arrays[int(name)]
            assert (found.dtype.name, found.shape, bits(found)) == (added.dtype.name, added.shape, bits(added))
            assert found.dtype.isnative


@pytest.mark.parametrize("name", NUMERIC)
def test_every_type_comes_back(name: str, tmp_path: Path) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(numpy_dtype(name))
    found = contents(record(tmp_path / "d", {"x": array}))["x", ""]
    assert found.dtype == array.dtype and bits(found) == bits(array)
    assert Dump(tmp_path / "d").rows()[0].dtype == name


@given(text())
def test_text_comes_back(array: Array) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = contents(record(Path(folder) / "d", {"x": array}))["x", ""]
        assert found.shape == array.shape and texts(found) == texts(array)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "bc", ""]),
        np.array([b"a", b"bc", b""]),
        np.array([b"\xff\xfe", "é".encode()], object),
        np.array(["trailing zero \0", "\ud800"], object),
        np.array("scalar", object),
        np.array(["x" * 100_000], object),
    ],
    ids=["str", "bytes", "not UTF-8", "odd", "0-d", "long"],
)
def test_text_of_other_numpy_types_comes_back_as_text(array: Array, tmp_path: Path) -> None:
    found = contents(record(tmp_path / "d", {"x": array}))["x", ""]
    expected = [x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else str(x) for x in array.reshape(-1)]
    assert found.dtype == object and texts(found) == expected and found.shape == array.shape


NAN_PAYLOADS = [
    (np.uint16, np.float16, [0x7C01, 0x7E00, 0xFE01, 0xFFFF]),
    (np.uint16, ml_dtypes.bfloat16, [0x7F81, 0x7FC0, 0xFF81, 0xFFFF]),
    (np.uint32, np.float32, [0x7F800001, 0x7FC00000, 0xFFC12345, 0xFFFFFFFF]),
    (np.uint64, np.float64, [0x7FF0000000000001, 0xFFF8000000000123]),
    (np.uint8, ml_dtypes.float8_e5m2, [0x7D, 0x7E, 0x7F, 0xFD]),
]


@pytest.mark.parametrize(("raw", "dtype", "patterns"), NAN_PAYLOADS, ids=lambda x: getattr(x, "__name__", None))
def test_nan_payloads_are_kept(raw: Any, dtype: Any, patterns: list[int], tmp_path: Path) -> None:
    array = np.array(patterns, raw).view(dtype)
    found = contents(record(tmp_path / "d", {"x": array}))["x", ""]
    assert found.view(raw).tolist() == patterns
    assert Dump(tmp_path / "d").rows()[0].nan == len(patterns)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,) * 64, (1 << 20, 0)], ids=str)
def test_shapes_at_the_edge(shape: tuple[int, ...], tmp_path: Path) -> None:
    found = contents(record(tmp_path / "d", {"x": np.zeros(shape, np.float32)}))["x", ""]
    assert found.shape == shape


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    path = tmp_path / "d"
    record(path, {name: np.full(3, k) for k, name in enumerate(HOSTILE_NAMES)})
    found = contents(path)
    assert [name for name, _ in found] == HOSTILE_NAMES
    assert all((found[name, ""] == k).all() for k, name in enumerate(HOSTILE_NAMES))
    assert sorted(x.name for x in path.iterdir()) == ["data-000.bin", "manifest.jsonl"]
    assert [x.name for x in tmp_path.iterdir()] == ["d"]


@given(st.lists(st.text(max_size=300), min_size=1, max_size=5, unique=True))
def test_any_text_is_a_name(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = record(Path(folder) / "d", {name: np.full(1, k) for k, name in enumerate(names)})
        assert {name: int(array[0]) for (name, _), array in contents(path).items()} == {
            n: k for k, n in enumerate(names)
        }


def test_a_name_that_is_no_text_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not Unicode text"):
        record(tmp_path / "d", {"ok": np.zeros(3), "lone \ud800 surrogate": np.zeros(3)})
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_no_utf8_do_not_spoil_a_dump(tmp_path: Path) -> None:
    odd = "caf\udce9.onnx"  # as os.fsdecode gives for Latin-1 file names
    header = RunHeader(model=odd, command=f"probe dump {odd}", inputs=(InputInfo(odd, "0" * 64, f"file {odd}"),))
    with DumpWriter(tmp_path / "d", header) as writer:
        writer.add(TensorInfo("x", "", (), input_id=odd, note=odd, layer=odd), np.ones(2))
    dump = Dump(tmp_path / "d")
    assert (dump.header.model, dump.header.inputs[0].id) == (odd, odd)
    assert (dump.rows()[0].input_id, dump.rows()[0].note, dump.rows()[0].layer) == (odd, odd, odd)


def test_rows_and_header_come_back_as_they_were(tmp_path: Path) -> None:
    header = RunHeader(
        runner="ort", command="c", model="m", model_sha256="s", precision="fp16", golden="as_is", device="cpu", interior="i",
        passes="safe", fusion="safe", inputs=(InputInfo("a", "1", "seed 0"),), environment={"k": "v"}, notes=("n",),
    )  # fmt: skip
    info = TensorInfo(
        name="x", dtype="float32", shape=(2,), input_id="a", role="output", precision="fp16", layer="l", nodes=("n1", "n2"),
        reads=("r",), tactic="t", step=0.5, note="because",
    )  # fmt: skip
    with DumpWriter(tmp_path / "d", RunHeader()) as writer:
        stored = writer.add(info, np.array([1, -2], np.float32))
        lost = [replace(info, name=f"no {k}", status=k) for k in ("not_run", "unsupported")]
        assert [writer.add(row, None) for row in lost] == lost
        writer.replace_header(header)
    dump = Dump(tmp_path / "d")
    assert dump.header == header
    assert list(dump.rows()) == [stored, *lost]
    assert replace(stored, **{k: getattr(info, k) for k in "data offset bytes sha256 min max absmax_finite min_abs_nonzero mean nan inf".split()}) == info  # fmt: skip
    assert (stored.min, stored.max, stored.absmax_finite, stored.min_abs_nonzero, stored.mean) == (-2, 1, 2, 1, -0.5)
    for row in lost:
        with pytest.raises(InputError, match="no stored values: because"):
            dump.open(row)


@pytest.mark.parametrize("role", get_args(Role))
def test_roles_come_back(role: Role, tmp_path: Path) -> None:
    with DumpWriter(tmp_path / "d", RunHeader()) as writer:
        writer.add(TensorInfo("x", "", (), role=role), np.ones(1))
    assert Dump(tmp_path / "d").rows()[0].role == role


def test_a_tensor_of_several_inputs_is_several_rows(tmp_path: Path) -> None:
    with DumpWriter(tmp_path / "d", RunHeader()) as writer:
        for k, one in enumerate(("a", "b", "")):
            writer.add(TensorInfo("x", "", (), input_id=one), np.full(2 + k, k))
    found = contents(tmp_path / "d")
    assert {key: value.tolist() for key, value in found.items()} == {
        ("x", "a"): [0, 0],
        ("x", "b"): [1] * 3,
        ("x", ""): [2] * 4,
    }


def test_one_tensor_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recorded twice for input 'a'"):
        fill(DumpWriter(tmp_path / "d", RunHeader()), [TensorInfo("x", "", (), input_id="a")] * 2)
    assert list(tmp_path.iterdir()) == []


def test_a_type_no_tensor_has_is_refused_and_can_be_noted_instead(tmp_path: Path) -> None:
    with DumpWriter(tmp_path / "d", RunHeader()) as writer:
        info = TensorInfo("when", "", ())
        with pytest.raises(InputError, match="cannot have the numpy type datetime64"):
            writer.add(info, np.array(["2026-01-01"], "datetime64[s]"))
        writer.add(replace(info, status="unsupported", note="a date"), None)
    assert Dump(tmp_path / "d").rows()[0].status == "unsupported"


def test_a_recorded_row_without_values_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no values"), DumpWriter(tmp_path / "d", RunHeader()) as writer:
        writer.add(TensorInfo("x", "float32", (2,)), None)
    assert leftovers(tmp_path) == []


def test_a_step_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    with DumpWriter(tmp_path / "d", RunHeader()) as writer:
        for k, step in enumerate((float("inf"), float("nan"), 0.25)):
            writer.add(TensorInfo(str(k), "", (), step=step), np.ones(1))
    assert [row.step for row in Dump(tmp_path / "d").rows()] == [None, None, 0.25]


def test_an_empty_recording_is_a_recording(tmp_path: Path) -> None:
    record(tmp_path / "d", {})
    assert list(open_source(tmp_path / "d").rows()) == []


def test_values_do_not_depend_on_how_they_lie_in_memory(tmp_path: Path) -> None:
    plain = np.arange(24, dtype=np.float32).reshape(4, 6) - 7.5
    others = {
        "fortran": np.asfortranarray(plain),
        "big": plain.astype(">f4"),
        "strided": np.repeat(plain, 2, 1)[:, ::2],
    }
    record(tmp_path / "d", {"plain": plain, **others})
    rows = {row.name: row for row in Dump(tmp_path / "d").rows()}
    for name in others:
        assert rows[name] == replace(rows["plain"], name=name, offset=rows[name].offset)


@given(numeric(names=["float32", "int8", "bfloat16"]), numeric(names=["float64", "bool"]))
def test_every_tensor_starts_on_a_page(first: Array, second: Array) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dump = Dump(record(Path(folder) / "d", {"a": first, "b": second}))
        for row, array in zip(dump.rows(), (first, second), strict=True):
            assert row.offset is not None and row.offset % ALIGNMENT == 0
            assert (row.bytes, row.dtype, row.count) == (array.nbytes, dtype_name(array.dtype), array.size)
            data = (Path(folder) / "d" / f"data-{row.data:03d}.bin").read_bytes()
            assert data[row.offset : row.offset + array.nbytes] == bits(array)
            assert bits(read_array(dump, row)) == bits(array)
        dump.close()
