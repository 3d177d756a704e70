"""``.safetensors``, bfloat16 and float8 included, against the library that defines the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as library

from probe.errors import InputError
from probe.precision import numpy_dtype
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.opening import open_sink, open_source, read_array
from tests.store.arrays import Array, bits, fill, leftovers

HELD = ("float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu int64 int32 int16 int8 "
        "uint64 uint32 uint16 uint8 bool complex64").split()  # fmt: skip


def read(path: Path) -> dict[str, Array]:
    source = open_source(path)
    try:
        return {row.name: read_array(source, row) for row in source.rows()}
    finally:
        source.close()


def sink(path: Path, tensors: dict[str, Any]) -> Path:
    with open_sink(path, RunHeader()) as out:
        for name, array in tensors.items():
            out.add(TensorInfo(name, "", ()), np.asarray(array))
    return path


@pytest.mark.parametrize("name", HELD)
def test_every_type_it_can_hold_comes_back_to_the_last_bit(name: str, tmp_path: Path) -> None:
    dtype = numpy_dtype(name)
    raw = np.random.default_rng(0).integers(0, 2 if name == "bool" else 256, 6 * dtype.itemsize, np.uint8)
    array = raw.view(dtype).reshape(2, 3)
    found = read(sink(tmp_path / "x.safetensors", {"pad": np.zeros(3, np.int8), "x": array}))["x"]
    assert found.dtype == dtype and found.shape == (2, 3) and bits(found) == bits(array)


@pytest.mark.parametrize("name", ["int4", "uint4", "float4_e2m1fn", "complex128"])
def test_types_it_cannot_hold_are_refused_when_they_are_added(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"is {name}, which .safetensors cannot hold"):
        sink(tmp_path / "x.safetensors", {"x": np.zeros(3).astype(numpy_dtype(name))})
    with pytest.raises(InputError, match="is string, which"):
        sink(tmp_path / "x.safetensors", {"x": ["text"]})
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_library_are_read_and_ours_by_it(tmp_path: Path) -> None:
    arrays = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "s": np.array(2.5),
        "none": np.empty((0, 3), np.int32),
    }
    library.save_file(arrays, tmp_path / "theirs.safetensors", {"format": "pt"})
    for found in (
        read(tmp_path / "theirs.safetensors"),
        library.load_file(sink(tmp_path / "ours.safetensors", arrays)),
    ):
        assert found.keys() == arrays.keys()
        assert all((found[k] == arrays[k]).all() and found[k].shape == arrays[k].shape for k in arrays)


def test_layouts_and_buffers_in_use(tmp_path: Path) -> None:
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer = plain.copy()
    with open_sink(tmp_path / "x.safetensors", RunHeader()) as out:
        out.add(TensorInfo("fortran", "", ()), np.asfortranarray(plain))
        out.add(TensorInfo("big", "", ()), plain.astype(">f4"))
        out.add(TensorInfo("strided", "", ()), np.repeat(plain, 2, 1)[:, ::2])
        out.add(TensorInfo("buffer", "", ()), buffer)
        buffer[:] = -1  # a runner reuses its memory for the next tensor
    assert {name: bits(array) for name, array in read(tmp_path / "x.safetensors").items()} == dict.fromkeys(
        ("fortran", "big", "strided", "buffer"), bits(plain)
    )


@pytest.mark.parametrize("name", ["a/b:0", "..", "new\nline", "x" * 300, "🧨", "a\0b", ""])
def test_names_are_kept(name: str, tmp_path: Path) -> None:
    assert list(read(sink(tmp_path / "x.safetensors", {name: np.zeros(1)}))) == [name]


@pytest.mark.parametrize("name", ["__metadata__", "lone \ud800"])
def test_names_it_cannot_hold_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reserved or not Unicode"):
        sink(tmp_path / "x.safetensors", {name: np.zeros(1)})


def test_duplicates_and_second_inputs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="appears twice"):
        fill(open_sink(path, RunHeader()), [TensorInfo("x", "", ())] * 2)
    with pytest.raises(InputError, match="one input set"):
        fill(open_sink(path, RunHeader()), [TensorInfo("x", "", (), input_id=one) for one in "ab"])
    assert leftovers(tmp_path) == [] and not path.exists()


def with_header(header: Any, data: bytes = bytes(12)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
DAMAGE = {
    "empty": b"",
    "no header": b"\x10\0\0\0\0\0\0\0",
    "header longer than the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "not JSON": with_header(b"hello"),
    "offsets beyond": with_header({"x": {**ENTRY, "data_offsets": [0, 16], "shape": [4]}}),
    "offsets backwards": with_header({"x": {**ENTRY, "data_offsets": [12, 0]}}),
    "shape too large": with_header({"x": {**ENTRY, "shape": [2**62]}}),
    "negative": with_header({"x": {**ENTRY, "shape": [-3]}}),
    "unknown type": with_header({"x": {**ENTRY, "dtype": "F33"}}),
    "too much data": with_header({"x": ENTRY}, bytes(16)),
    "too little data": with_header({"x": ENTRY}, bytes(8)),
    "wrong kind": with_header({"x": 3}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(DAMAGE[what])
    with pytest.raises(InputError, match=r"x\.safetensors"):
        read(tmp_path / "x.safetensors")


def test_a_type_probe_does_not_know_is_named(tmp_path: Path) -> None:
    entry = {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]}
    (tmp_path / "x.safetensors").write_bytes(with_header({"x": entry}, bytes(3)))
    with pytest.raises(InputError, match="F4"):
        open_source(tmp_path / "x.safetensors")
