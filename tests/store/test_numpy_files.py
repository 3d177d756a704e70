""".npz, .npy and folders of .npy: conventions, types numpy cannot name, damage."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import InputError
from probe.precision import numpy_dtype
from probe.results.tensors import Role, RunHeader, TensorInfo
from probe.store.opening import open_sink, open_source, read_array
from tests.store.arrays import NUMERIC, bits, fill, leftovers, texts


def read(path: Path | str) -> dict[tuple[str, Role], np.ndarray[Any, Any]]:
    source = open_source(path)
    try:
        return {(row.name, row.role): read_array(source, row) for row in source.rows()}
    finally:
        source.close()


def sink(path: Path, tensors: dict[tuple[str, Role], Any], **options: Any) -> Path:
    with open_sink(path, RunHeader(), **options) as out:
        for (name, role), value in tensors.items():
            out.add(TensorInfo(name, "", (), role=role), np.asarray(value))
    return path


# --- reading what others wrote


@pytest.mark.parametrize(
    ("keys", "expected", "known"),
    [
        (["x", "y"], [("x", "internal"), ("y", "internal")], False),
        (["in/x", "out/y"], [("x", "input"), ("y", "output")], True),
        (["in/x", "out/y", "z"], [("x", "input"), ("y", "output"), ("z", "internal")], True),
        (["in/x"], [("x", "input")], False),
        (["out/in/x", "in/out/x"], [("in/x", "output"), ("out/x", "input")], True),
        (["input", "output"], [("input", "internal"), ("output", "internal")], False),
        (["a/b:0", "../c", "日本"], [("a/b:0", "internal"), ("../c", "internal"), ("日本", "internal")], False),
    ],
)
def test_npz_keys_give_names_and_roles(
    keys: list[str], expected: list[tuple[str, Role]], known: bool, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **{key: np.arange(2) for key in keys})  # pyright: ignore[reportArgumentType]
    source = open_source(tmp_path / "x.npz")
    assert [(row.name, row.role) for row in source.rows()] == expected
    assert source.roles_known is known
    source.close()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_arrays_of_any_order_and_shape(save: Any, tmp_path: Path) -> None:
    arrays = {
        "c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">i8"),
        "scalar": np.float16(2.5), "empty": np.empty((2, 0), np.int8), "text": np.array([["a", "bé"]]), "bytes": np.array([b"a", b"\xff"]),
        "flags": np.array([True, False]), "complex": np.array([1j]),
    }  # fmt: skip
    save(tmp_path / "x.npz", **arrays)
    found = read(tmp_path / "x.npz")
    for name, array in arrays.items():
        got = found[name, "internal"]
        assert got.shape == array.shape
        if got.dtype == object:
            assert texts(got) == {"text": ["a", "bé"], "bytes": ["a", "\udcff"]}[name]
        else:
            assert got.dtype.isnative and got.dtype.name == array.dtype.name and (got == array).all()


def test_big_endian_windows_are_native(tmp_path: Path) -> None:
    """What measures a tensor views its bits: in the wrong byte order every ULP and every 64-bit difference would be wrong."""
    np.savez(tmp_path / "x.npz", x=np.array([1, 2**63 + 1], ">u8"))
    np.save(tmp_path / "y.npy", np.array([1.0, 2.0], ">f4"))
    for path in ("x.npz", "y.npy"):
        source = open_source(tmp_path / path)
        assert source.open(source.rows()[0]).window(0, 2).dtype.isnative
        source.close()


REFUSED = {
    "pickle": np.array([{"a": 1}], object),
    "structured": np.zeros(2, [("a", "f4")]),
    "date": np.array(["2026-01-01"], "datetime64[D]"),
    "longdouble": np.zeros(2, np.longdouble),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_that_are_no_tensors_are_refused(what: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    np.savez(path, bad=REFUSED[what]) if kind == "npz" else np.save(path, REFUSED[what])
    with pytest.raises(InputError, match=r"pickled|raw type|cannot have the numpy type"):
        open_source(path)


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_bfloat16_saved_by_numpy_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    """numpy writes it as '<V2', two raw bytes: reading it as float16 or uint16 would compare nonsense."""
    path = tmp_path / f"x.{kind}"
    array = np.ones(3, ml_dtypes.bfloat16)
    np.savez(path, x=array) if kind == "npz" else np.save(path, array)
    with pytest.raises(InputError, match="says nothing about its numbers") as caught:
        open_source(path)
    assert "bfloat16" in caught.value.hint


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    payload = header.getvalue() + pickle.dumps([Bomb()])
    (tmp_path / "x.npy").write_bytes(payload)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", payload)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(InputError, match="pickled Python objects"):
            open_source(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def npy(
    descr: str = "<f4", shape: Any = (3,), count: int = 3, extra: bytes = b"", header: bytes | None = None
) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    text = out.getvalue()
    if header is not None:
        text = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    return text + np.ones(count, np.float32).tobytes() + extra


DAMAGED = {
    "short": npy(count=2),
    "long": npy(extra=b"\0"),
    "two arrays": npy() + npy(),
    "half the shape": npy(shape=(1,)),
    "half the type": npy(descr="<f2"),
    "negative": npy(shape=(-3,)),
    "huge": npy(shape=(2**60,)),
    "huge and empty": npy(shape=(2**62, 2**62, 0), count=0),
    "larger than memory": npy(shape=(2**45,)),
    "no magic": b"hello, world, this is not numpy",
    "empty": b"",
    "only magic": b"\x93NUMPY\x01\x00",
    "version 9": npy().replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09", 1),
    "header is no dict": npy(header=b"[1]\n"),
    "header is code": npy(header=b"__import__('os').getpid()\n"),
    "header is deep": npy(header=b"-" * 9000 + b"1\n"),
    "header is nested": npy(header=b"(" * 9000 + b"\n"),
    "header of mixed keys": npy(header=b"{'descr': '<f4', 1: 2, 'shape': (3,)}\n"),
    "unknown type": npy(header=b"{'descr': 'zz9', 'fortran_order': False, 'shape': (3,)}\n"),
    "shape of floats": npy(header=b"{'descr': '<f4', 'fortran_order': False, 'shape': (3.0,)}\n"),
    "shape of bools": npy(header=b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, -1)}\n"),
    "65 axes": npy(shape=(1,) * 65, count=1),
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("kind", ["npz", "npy", "folder"])
def test_damage_is_refused(what: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "folder" if kind == "folder" else tmp_path / f"x.{kind}"
    if kind == "npz":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", DAMAGED[what])
    else:
        file = path / "x.npy" if kind == "folder" else path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(DAMAGED[what])
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path.name) in str(caught.value) or "x.npy" in str(caught.value)


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_npz_is_refused(place: float, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(100), b=np.arange(50))
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content[: int(place * len(content))])
    with pytest.raises(InputError, match="cannot read"):
        open_source(tmp_path / "x.npz")


def test_a_bit_flipped_in_an_npz_is_found_by_its_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(1000))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[4000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="Bad CRC-32"):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"x.npy": npy(), "readme.txt": b"hello"}, r"readme\.txt is not a numpy array"),
        ({"x.npy": npy(), "x": npy()}, "two arrays are called 'x'"),
        ({"in/x.npy": npy(), "out/y.npy": npy(), "x.npy": npy()}, "two arrays are called 'x'"),
    ],
)
def test_archives_that_are_no_npz(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with pytest.raises(InputError, match=message):
        open_source(tmp_path / "x.npz")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + at] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        open_source(tmp_path / "x.npz")


# --- folders


def test_a_folder_of_npy_is_named_by_paths_and_percent_encoding(tmp_path: Path) -> None:
    names = {"a.npy": "a", "b.c.npy": "b.c", "sub/deep/x.npy": "sub/deep/x", "%2Fblock%3A0.npy": "/block:0", "100%.npy": "100%",
             "caf%C3%A9.npy": "café", "%2E%2E%2Fup.npy": "../up"}  # fmt: skip
    for k, file in enumerate(names):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / file, np.full(2, k))
    source = open_source(tmp_path)
    assert source.kind == "npy folder" and not source.roles_known
    found = {row.name: int(read_array(source, row)[0]) for row in source.rows()}
    assert found == {name: k for k, name in enumerate(names.values())}


def test_two_files_for_one_tensor_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a:b.npy", np.zeros(1))
    np.save(tmp_path / "a%3Ab.npy", np.zeros(1))
    with pytest.raises(InputError, match="two files are tensor 'a:b'"):
        open_source(tmp_path)


def test_a_folder_without_arrays_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(InputError, match=r"neither manifest\.jsonl nor any \.npy"):
        open_source(tmp_path)


def test_one_npy_is_a_tensor_named_after_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "logits.npy", np.array(["a", "b"]))
    assert texts(read(tmp_path / "logits.npy")["logits", "internal"]) == ["a", "b"]


# --- writing


@pytest.mark.parametrize("name", NUMERIC)
def test_an_npz_holds_every_type_as_numbers_numpy_can_read(name: str, tmp_path: Path) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(numpy_dtype(name))
    sink(tmp_path / "x.npz", {("y", "output"): array})
    loaded = np.load(tmp_path / "x.npz", allow_pickle=False)["out/y"]
    assert loaded.dtype.kind in "biufc" and loaded.shape == array.shape
    with np.errstate(invalid="ignore"):
        assert np.array_equal(
            loaded.astype(np.complex128),
            array.astype(np.float64 if array.dtype.kind != "c" else array.dtype),
            equal_nan=True,
        )
    if loaded.dtype == array.dtype:
        assert bits(loaded) == bits(array)


@given(st.lists(st.floats(width=16), min_size=1), st.sampled_from(["bfloat16", "float8_e5m2", "float8_e4m3fn"]))
def test_widening_to_float32_changes_no_value(values: list[float], name: str) -> None:
    from probe.store.numpy_files import portable

    with np.errstate(invalid="ignore", over="ignore"):
        array = np.array(values, np.float32).astype(numpy_dtype(name))
        assert bits(portable(array).astype(array.dtype)) == bits(array) or np.isnan(array.astype(np.float32)).any()


def test_an_npz_keeps_roles_and_text(tmp_path: Path) -> None:
    tensors: dict[tuple[str, Role], Any] = {
        ("x", "input"): [1, 2], ("y", "output"): 2.5, ("mid:0/a", "internal"): np.zeros((0, 2)), ("t", "output"): [["a", "bé"]],
        ("b", "output"): np.array([b"a", b"bc"]), ("none", "output"): np.array([], object), ("日本", "internal"): [1],
    }  # fmt: skip
    found = read(sink(tmp_path / "x.npz", tensors))
    assert {key: value.shape for key, value in found.items()} == {
        key: np.shape(value) for key, value in tensors.items()
    }
    assert texts(found["t", "output"]) == ["a", "bé"] and texts(found["b", "output"]) == ["a", "bc"]


@pytest.mark.parametrize("other", ["internal", "input", "output"])
def test_a_name_is_one_tensor_whatever_its_role(other: Role, tmp_path: Path) -> None:
    rows = [TensorInfo("x", "", (), role="output"), TensorInfo("x", "", (), role=other)]
    with pytest.raises(InputError, match="'x' appears twice"):
        fill(open_sink(tmp_path / "x.npz", RunHeader()), rows)


@pytest.mark.parametrize(
    ("name", "role", "message"),
    [
        ("a\0b", "output", "zero character"),
        ("x" * 70_000, "output", "too long"),
        ("lone \ud800", "output", "not Unicode text"),
        ("in/x", "internal", "read back as one of its inputs or outputs"),
        ("out/x", "internal", "read back as one of its inputs or outputs"),
    ],
)
def test_names_an_npz_would_change_are_refused(name: str, role: Role, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        sink(tmp_path / "x.npz", {("first", "output"): [1], (name, role): [1]})
    assert list(tmp_path.iterdir()) == []


def test_an_npz_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one input set"):
        fill(open_sink(tmp_path / "x.npz", RunHeader()), [TensorInfo("x", "", (), input_id=one) for one in "ab"])
    with pytest.raises(InputError, match="zero character, which numpy files drop"):
        sink(tmp_path / "x.npz", {("t", "output"): np.array(["ends in \0"], object)})
    assert leftovers(tmp_path) == [] and not (tmp_path / "x.npz").exists()
