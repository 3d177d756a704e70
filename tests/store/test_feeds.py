"""Input sets from files of every kind, and the hash that says whether two of them are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import InputError
from probe.precision import numpy_dtype
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.feeds import InputSet, hash_feeds, odd_inputs, read_input_sets
from probe.store.writer import DumpWriter
from tests.store.arrays import Array, numeric, record, text
from tests.store.polygraphy_files import save_inputs, save_outputs, torch_tensor

X, MASK = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[1, 0]])


def same(sets: list[InputSet], expected: dict[str, dict[str, Any]]) -> None:
    assert [one.id for one in sets] == list(expected)
    for one, feeds in zip(sets, expected.values(), strict=True):
        assert list(one.feeds) == list(feeds)
        for name, value in feeds.items():
            found = one.feeds[name]
            assert found.dtype == np.asarray(value).dtype and found.shape == np.shape(value) and (found == value).all()


def test_an_npz_of_input_names_is_one_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "cat.npz", x=X, mask=MASK)
    sets = read_input_sets(tmp_path / "cat.npz")
    same(sets, {"cat": {"x": X, "mask": MASK}})
    assert sets[0].source == f"file {tmp_path / 'cat.npz'}" and len(sets[0].sha256) == 64


def test_of_an_npz_with_outputs_only_the_inputs_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "cat.npz", **{"in/x": X, "out/y": MASK})
    same(read_input_sets(tmp_path / "cat.npz"), {"cat": {"x": X}})
    np.savez(tmp_path / "cat.npz", **{"in/x": X, "in/a/b": MASK})
    same(read_input_sets(tmp_path / "cat.npz"), {"cat": {"x": X, "a/b": MASK}})


def test_a_folder_of_npz_is_a_set_a_file_in_name_order(tmp_path: Path) -> None:
    for k, name in enumerate(("b", "a", "c")):
        np.savez(tmp_path / f"{name}.npz", x=X + k)
    (tmp_path / "notes.txt").write_text("ignored")
    same(read_input_sets(tmp_path), {"a": {"x": X + 1}, "b": {"x": X}, "c": {"x": X + 2}})


def test_a_folder_of_npy_is_one_set(tmp_path: Path) -> None:
    np.save(tmp_path / "x%3A0.npy", X)
    np.save(tmp_path / "mask.npy", MASK)
    same(read_input_sets(tmp_path), {tmp_path.name: {"mask": MASK, "x:0": X}})


def test_one_npy_and_one_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    np.save(tmp_path / "x.npy", X)
    save_file({"x": X}, tmp_path / "s.safetensors")
    same(read_input_sets(tmp_path / "x.npy"), {"x": {"x": X}})
    same(read_input_sets(tmp_path / "s.safetensors"), {"s": {"x": X}})


def test_polygraphy_inputs_are_as_many_sets_as_the_list_is_long(tmp_path: Path) -> None:
    same(read_input_sets(save_inputs(tmp_path / "i.json", [{"x": X, "mask": MASK}])), {"i": {"x": X, "mask": MASK}})
    same(
        read_input_sets(save_inputs(tmp_path / "i.json", [{"x": X}, {"x": X + 1}])),
        {"iteration-0": {"x": X}, "iteration-1": {"x": X + 1}},
    )


def test_a_dump_gives_the_inputs_it_was_made_from(tmp_path: Path) -> None:
    with DumpWriter(tmp_path / "d", RunHeader()) as writer:
        for k, one in enumerate(("cat", "dog")):
            writer.add(TensorInfo("x", "", (), input_id=one, role="input"), X + k)
            writer.add(TensorInfo("y", "", (), input_id=one, role="output"), MASK)
    same(read_input_sets(tmp_path / "d"), {"cat": {"x": X}, "dog": {"x": X + 1}})


def test_a_dump_of_one_unnamed_input_is_named_after_its_folder(tmp_path: Path) -> None:
    with DumpWriter(tmp_path / "golden", RunHeader()) as writer:
        writer.add(TensorInfo("x", "", (), role="input"), X)
    same(read_input_sets(tmp_path / "golden"), {"golden": {"x": X}})


def nothing_there(folder: Path) -> Path:
    return folder / "missing.npz"


def empty_folder(folder: Path) -> Path:
    return folder


def outputs_only(folder: Path) -> Path:
    np.savez(folder / "x.npz", **{"out/y": X})  # pyright: ignore[reportArgumentType]
    return folder / "x.npz"


def empty_npz(folder: Path) -> Path:
    np.savez(folder / "x.npz")
    return folder / "x.npz"


def dump_without_inputs(folder: Path) -> Path:
    return record(folder / "d", {"y": X})


def dump_of_statistics(folder: Path) -> Path:
    with DumpWriter(folder / "d", RunHeader(), stats_only=True) as writer:
        writer.add(TensorInfo("x", "", (), role="input"), X)
    return folder / "d"


def empty_list(folder: Path) -> Path:
    return save_inputs(folder / "i.json", [])


def torch_only(folder: Path) -> Path:
    return save_outputs(folder / "o.json", {"ort": [{"x": torch_tensor()}]})


def both_kinds(folder: Path) -> Path:
    np.savez(folder / "a.npz", x=X)
    np.save(folder / "x.npy", X)
    return folder


def text_file(folder: Path) -> Path:
    (folder / "x.txt").write_text("1 2 3")
    return folder / "x.txt"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing_there, "does not exist"),
        (empty_folder, r"neither manifest\.jsonl nor any \.npy"),
        (outputs_only, "no network inputs"),
        (empty_npz, "no network inputs"),
        (dump_without_inputs, "no network inputs"),
        (dump_of_statistics, "--stats-only"),
        (empty_list, "no network inputs"),
        (torch_only, "torch"),
        (both_kinds, "a set each"),
        (text_file, "no recording"),
    ],
)
def test_what_holds_no_inputs_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_input_sets(make(tmp_path))


# --- hash_feeds


@given(st.dictionaries(st.text(), st.one_of(numeric(), text()), max_size=4), st.randoms())
def test_the_order_of_names_does_not_matter(feeds: dict[str, Array], random: Any) -> None:
    names = list(feeds)
    random.shuffle(names)
    assert hash_feeds(feeds) == hash_feeds({name: feeds[name] for name in names})


@given(numeric())
def test_the_layout_in_memory_does_not_matter(array: Array) -> None:
    native = array if array.dtype.isnative else array.byteswap().view(array.dtype.newbyteorder("="))
    copies = [np.ascontiguousarray(native).reshape(array.shape), np.asfortranarray(native).reshape(array.shape)]
    assert {hash_feeds({"x": copy}) for copy in copies} == {hash_feeds({"x": array})}


def test_anything_else_matters() -> None:
    base = {"x": np.array([1.0, 2.0]), "t": np.array(["a", "b"])}
    others = [
        {"y": base["x"], "t": base["t"]},
        {"x": base["x"]},
        {**base, "z": np.zeros(0)},
        {**base, "x": base["x"][::-1]},
        {**base, "x": base["x"][None]},
        {**base, "x": base["x"].astype(np.float32)},
        {**base, "x": base["x"].view(np.int64)},
        {**base, "x": np.array([1.0, np.nextafter(2.0, 3)])},
        {**base, "x": np.array([1.0, -2.0])},
        {**base, "t": np.array(["ab", ""])},
        {**base, "t": np.array(["a", "b", ""])},
        {"x": base["t"], "t": base["x"]},
        {},
    ]
    assert len({hash_feeds(feeds) for feeds in [base, *others]}) == len(others) + 1


def test_zero_and_minus_zero_are_different_feeds() -> None:
    assert hash_feeds({"x": np.array([0.0])}) != hash_feeds({"x": np.array([-0.0])})


def test_a_hash_is_the_same_in_every_process_and_version() -> None:
    feeds = {"x": np.arange(4, dtype=np.float32), "t": np.array(["é"])}
    assert hash_feeds(feeds) == "f69b2015ecf647929fe5b5fb819e54f01e7278432623a71fc291311a981e5250"


def test_nan_and_inf_are_said_by_input_with_how_many_and_where() -> None:
    nan, mask = X.copy(), np.zeros((2, 2), np.float32)
    nan[1, 0], nan[1, 2], mask[0, 1] = np.nan, np.inf, -np.inf
    clean = InputSet("b", {"x": X, "mask": mask}, "file b")
    notes = odd_inputs(
        [
            clean,
            InputSet("a", {"x": nan, "mask": mask, "ids": np.array([1]), "words": np.array(["inf"], object)}, "file a"),
        ]
    )
    assert [note.partition(": ")[0] for note in notes] == [
        "input 'mask' in 2 of 2 input sets, first in b, holds 1 -Inf of 4 elements, first at [0,1]",
        "input 'x' in 1 of 2 input sets, first in a, holds 1 NaN and 1 Inf of 6 elements, first at [1,0]",
    ]
    assert ["unless it is a mask" in note for note in notes] == [True, False]
    assert not odd_inputs([InputSet("b", {"x": X}, "file b")])


def test_an_input_without_elements_is_said() -> None:
    sets = [InputSet("a", {"x": X}, "file a"), *(InputSet(key, {"x": X[:0]}, "file") for key in "bc")]
    assert [note.partition(":")[0] for note in odd_inputs(sets)] == ["input 'x' of b has no elements ([0, 3])"]


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "float8_e5m2", "complex64"])
def test_nan_is_seen_in_every_type_that_holds_it(dtype: str) -> None:
    array = np.array([0.0, np.nan]).astype(numpy_dtype(dtype))
    assert "'x' holds 1 NaN of 2 elements, first at [1]:" in odd_inputs([InputSet("a", {"x": array}, "file a")])[0]
    assert "'x' holds 1 NaN: " in odd_inputs([InputSet("a", {"x": array[1:].reshape(())}, "file a")])[0]
