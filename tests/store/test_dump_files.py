"""Dump folders as files: size, alignment, splitting, windows, hashes, memory, and what reading one does not import."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from probe.errors import InputError
from probe.results.tensors import RunHeader, TensorInfo
from probe.store import dump as reading
from probe.store import opening, writer
from probe.store.dump import Dump
from probe.store.opening import read_array
from probe.store.writer import DumpWriter
from tests.store.arrays import Array, bits, contents, fresh_python, record


def flip(path: Path, at: int, mask: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ mask]))


def test_large_tensors_cost_at_most_one_percent_more_than_their_values(tmp_path: Path) -> None:
    arrays = {f"t{k}": np.random.default_rng(k).standard_normal(300_001, np.float32) for k in range(8)}
    path = record(tmp_path / "d", arrays)
    raw = sum(array.nbytes for array in arrays.values())
    assert raw < sum(x.stat().st_size for x in path.iterdir()) <= 1.01 * raw


def test_data_is_split_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_DATA_FILE", 3 * 4096)
    sizes = [1, 4096, 4097, 12288, 20000, 0, 5]  # bytes; one is larger than a file may be
    arrays = {str(k): np.full(size, k, np.uint8) for k, size in enumerate(sizes)}
    path = record(tmp_path / "d", arrays)
    rows = Dump(path).rows()
    assert [row.data for row in rows] == [0, 0, 1, 2, 3, 4, 4]
    assert {name: bits(array) for (name, _), array in contents(path).items()} == {n: bits(a) for n, a in arrays.items()}
    assert sorted(x.name for x in path.iterdir()) == [*(f"data-{k:03d}.bin" for k in range(5)), "manifest.jsonl"]
    for number in range(5):
        if number != 3:
            assert (path / f"data-{number:03d}.bin").stat().st_size <= 3 * 4096


def test_stats_only_keeps_everything_but_the_values(tmp_path: Path) -> None:
    array = np.array([[1.5, -2, np.nan], [np.inf, 0, 3]], np.float32)
    full = Dump(record(tmp_path / "full", {"x": array}))
    stats = Dump(record(tmp_path / "stats", {"x": array}, stats_only=True))
    (row,), (other,) = stats.rows(), full.rows()
    assert stats.header.stats_only and not full.header.stats_only
    assert row.status == "stats_only" and row.data is None and row.offset is None
    same = ("dtype", "shape", "bytes", "sha256", "min", "max", "absmax_finite", "min_abs_nonzero", "mean", "nan", "inf")
    assert {key: getattr(row, key) for key in same} == {key: getattr(other, key) for key in same}
    assert [x.name for x in (tmp_path / "stats").iterdir()] == ["manifest.jsonl"]
    with pytest.raises(InputError, match="--stats-only"):
        stats.open(row)


# --- reading in windows


@pytest.fixture
def long(tmp_path: Path) -> tuple[Path, Array]:
    array = np.random.default_rng(0).standard_normal(10_007, np.float32)
    return record(tmp_path / "d", {"first": np.zeros(3), "x": array, "last": np.ones(3)}), array


@pytest.mark.parametrize("step", [1 << 22, 10_007, 4096, 1000, 7])
def test_windows_are_views_that_cover_the_tensor(long: tuple[Path, Array], step: int) -> None:
    path, array = long
    dump = Dump(path)
    reader = dump.open(dump.rows()[1])
    parts = []
    for start in range(0, array.size, step):
        window = reader.window(start, min(start + step, array.size))
        assert not window.flags.writeable and not window.flags.owndata
        parts.append(window.copy())
    reader.close()
    assert bits(np.concatenate(parts)) == bits(array)


def test_windows_may_be_read_again_and_in_any_order(long: tuple[Path, Array]) -> None:
    path, array = long
    dump = Dump(path)
    reader = dump.open(dump.rows()[1])
    rng = np.random.default_rng(1)
    for _ in range(200):
        start, stop = sorted(int(x) for x in rng.integers(0, array.size + 1, 2))
        assert (reader.window(start, stop) == array[start:stop]).all()
    reader.close()


@pytest.mark.parametrize("place", [0, 1, 5000, 4 * 10_007 - 1])
@pytest.mark.parametrize("step", [1 << 22, 1000])
def test_a_flipped_bit_is_found_when_all_windows_were_read(long: tuple[Path, Array], place: int, step: int) -> None:
    path, array = long
    offset = Dump(path).rows()[1].offset
    assert offset is not None
    flip(path / "data-000.bin", offset + place)
    dump = Dump(path)
    reader = dump.open(dump.rows()[1])
    for start in range(0, array.size, step):
        reader.window(start, min(start + step, array.size))
    with pytest.raises(InputError, match="not those that were recorded"):
        reader.close()


def test_reading_twice_in_order_still_finds_it(long: tuple[Path, Array]) -> None:
    """The comparison surveys golden once before it measures: the second pass must not hide what the first one hashed."""
    path, array = long
    flip(path / "data-000.bin", 4096 + 3)
    dump = Dump(path)
    reader = dump.open(dump.rows()[1])
    for step in (1000, 999):
        for start in range(0, array.size, step):
            reader.window(start, min(start + step, array.size))
    with pytest.raises(InputError, match="not those that were recorded"):
        reader.close()


def test_reading_twice_in_order_is_no_damage(long: tuple[Path, Array]) -> None:
    path, array = long
    dump = Dump(path)
    reader = dump.open(dump.rows()[1])
    for step in (1000, 4096, 1 << 22):
        for start in range(0, array.size, step):
            reader.window(start, min(start + step, array.size))
    reader.close()


def test_what_was_not_read_in_full_is_not_hashed(long: tuple[Path, Array]) -> None:
    path, _ = long
    dump = Dump(path)
    reader = dump.open(dump.rows()[1])
    reader.window(0, 10)
    reader.window(20, 30)
    reader.close()


def test_read_array_takes_several_windows_and_finds_damage_in_the_last(
    long: tuple[Path, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, array = long
    monkeypatch.setattr(opening, "WINDOW", 1000)
    dump = Dump(path)
    row = dump.rows()[1]
    assert bits(read_array(dump, row)) == bits(array)
    assert row.offset is not None
    flip(path / "data-000.bin", row.offset + 4 * 10_006)
    with pytest.raises(InputError, match="tensor 'x' are not those"):
        read_array(Dump(path), row)


def test_padding_between_tensors_does_not_matter(long: tuple[Path, Array]) -> None:
    path, array = long
    flip(path / "data-000.bin", 100)  # "first" is 24 bytes
    assert bits(contents(path)["x", ""]) == bits(array)


def test_a_damaged_tensor_does_not_spoil_the_others(long: tuple[Path, Array]) -> None:
    path, array = long
    flip(path / "data-000.bin", 0)
    dump = Dump(path)
    with pytest.raises(InputError, match="tensor 'first'"):
        read_array(dump, dump.rows()[0])
    assert bits(read_array(dump, dump.rows()[1])) == bits(array)


def test_a_window_held_when_the_dump_is_closed_stays_valid(long: tuple[Path, Array]) -> None:
    path, array = long
    dump = Dump(path)
    window = dump.open(dump.rows()[1]).window(0, array.size)
    dump.close()
    assert bits(window) == bits(array)
    assert bits(read_array(dump, dump.rows()[1])) == bits(array)  # and a closed dump opens again


@pytest.mark.skipif(not hasattr(reading.mmap, "MADV_DONTNEED"), reason="no madvise here")
def test_a_kernel_without_populate_is_only_slower(long: tuple[Path, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_POPULATE_READ", 9999)
    assert bits(contents(long[0])["x", ""]) == bits(long[1])


# --- manifests


def lines(path: Path) -> list[str]:
    return (path / "manifest.jsonl").read_text().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: [], "truncated"),
        (lambda x: x[:1], "truncated"),
        (lambda x: x[:-1], "no end line"),
        (lambda x: [*x[:-1], x[-1].rstrip()], "truncated"),
        (lambda x: [x[0], x[2], x[1], x[3]], "SHA-256"),
        (lambda x: [x[0], x[1], x[3]], "SHA-256"),
        (lambda x: [x[0], x[1], x[1], x[2], x[3]], "SHA-256"),
        (lambda x: [x[0].replace("dump/1", "dump/2"), *x[1:]], "format 'probe.dump/2'; this probe reads probe.dump/1"),
        (lambda x: [x[0].replace('"run"', '"end"'), *x[1:]], "not a run header"),
        (lambda x: [*x[:-1], x[-1].replace('"tensors":2', '"tensors":3')], "2 rows, 3 promised"),
        (lambda x: ["\x00" * 10 + x[0], *x[1:]], "not a whole recording"),
        (lambda x: ["[" * 100_000 + "\n", *x[1:]], "not a whole recording"),
    ],
)
def test_a_manifest_that_is_not_whole_is_refused(change, message: str, tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"a": np.zeros(3), "b": np.ones(3)})
    (path / "manifest.jsonl").write_text("".join(change(lines(path))))
    with pytest.raises(InputError, match=message) as caught:
        Dump(path)
    assert "manifest.jsonl" in str(caught.value) and "try" in str(caught.value)


def reseal(path: Path, change) -> None:
    """Change one row of a manifest and make its own hash right again, so that what the row says is all that can be wrong."""
    import hashlib

    content = lines(path)
    row = json.loads(content[1])
    changed = change(row)
    content[1] = json.dumps(row if changed is None else changed) + "\n"
    body = "".join(content[:-1])
    end = {"kind": "end", "tensors": len(content) - 2, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    (path / "manifest.jsonl").write_text(body + json.dumps(end) + "\n")


ROW_FAULTS = [
    ({"offset": -4096}, "not a multiple"), ({"offset": 1}, "not a multiple"), ({"offset": 8192}, "truncated"),
    ({"offset": 2**62}, "truncated"), ({"offset": 10**30}, "truncated"), ({"offset": None}, "no position"),
    ({"offset": 0.5}, "Expected `int"), ({"offset": "0"}, "Expected `int"), ({"offset": True}, "Expected `int"),
    ({"bytes": 11}, "cannot hold"), ({"bytes": -12}, "no position"), ({"bytes": 2**63}, "cannot hold"), ({"bytes": None}, "no position"),
    ({"data": 1}, "truncated"), ({"data": -1}, "no position"), ({"data": 10**12}, "no position"), ({"data": 10**400}, "no position"),
    ({"shape": [4]}, "cannot hold"), ({"shape": [-3]}, "no tensor has the shape"), ({"shape": [2**60]}, "no tensor has the shape"),
    ({"shape": [2**60, 0], "bytes": 0}, "no tensor has the shape"), ({"shape": [1] * 65}, "no tensor has the shape"),
    ({"shape": 3}, "Expected `array"), ({"shape": ["3"]}, "Expected `int"), ({"shape": {}}, "Expected `array"),
    ({"dtype": "float16"}, "cannot hold"), ({"dtype": "float31"}, "unknown tensor type 'float31'"), ({"dtype": None}, "Expected `str"),
    ({"dtype": "object"}, "unknown tensor type"), ({"name": None}, "Expected `str"), ({"name": 3}, "Expected `str"),
    ({"name": "b"}, "appears twice"), ({"status": "maybe"}, "Invalid enum"), ({"role": "king"}, "Invalid enum"),
    ({"nodes": "n"}, "Expected `array"), ({"nodes": [1]}, "Expected `str"), ({"nan": "many"}, "Expected `int"),
    ({"min": "low"}, "Expected `float"), ({"kind": "end"}, "no tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "message"), ROW_FAULTS, ids=str)
def test_a_row_that_cannot_be_is_refused_when_the_dump_is_opened(fault: dict, message: str, tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"a": np.zeros(3, np.float32), "b": np.ones(3, np.float32)})
    reseal(path, lambda row: row.update(fault))
    with pytest.raises(InputError, match=message):
        Dump(path)


@pytest.mark.parametrize(
    "fault",
    [
        {"offset": 4096},
        {"dtype": "string"},
        {"sha256": "0" * 64},
        {"sha256": None},
        {"sha256": ""},
        {"dtype": "string", "shape": []},
    ],
    ids=str,
)
def test_a_row_that_does_not_fit_the_bytes_is_refused_when_they_are_read(fault: dict, tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"a": np.zeros(3, np.float32), "b": np.ones(3, np.float32)})
    reseal(path, lambda row: row.update(fault))
    with pytest.raises(InputError, match=r"not what was recorded|not those that were recorded"):
        contents(path)


@pytest.mark.parametrize(
    "payload", ["5", "null", '["a"]', '["a",1]', '{"a":1,"b":2}', '["a","b"', "[" * 2000, '["\\ud8']
)
def test_text_that_is_no_list_of_text_is_refused(payload: str, tmp_path: Path) -> None:
    import hashlib

    path = record(tmp_path / "d", {"a": np.array(["a", "b"])})
    raw = payload.encode()
    with (path / "data-000.bin").open("r+b") as file:
        file.write(raw)
    reseal(path, lambda row: row.update(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest()))
    with pytest.raises(InputError, match="not what was recorded"):
        contents(path)


def test_json_constants_are_no_numbers(tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"a": np.zeros(3)})
    reseal(path, lambda row: row.update(min=float("nan")))
    with pytest.raises(InputError, match="NaN"):
        Dump(path)


def test_unknown_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"a": np.ones(3)})
    reseal(path, lambda row: row.update(colour="red"))
    assert contents(path)["a", ""].tolist() == [1, 1, 1]


@pytest.mark.parametrize("what", ["missing", "short", "empty", "folder"])
def test_missing_or_short_data_files_are_told_when_the_dump_is_opened(what: str, tmp_path: Path) -> None:
    path = record(tmp_path / "d", {"a": np.zeros(3000)})
    data = path / "data-000.bin"
    size = data.stat().st_size
    data.unlink()
    if what == "folder":
        data.mkdir()
    elif what != "missing":
        data.write_bytes(b"x" * (0 if what == "empty" else size - 4096))
    with pytest.raises(InputError, match=r"data-000\.bin is truncated"):
        Dump(path)


# --- cost

MEMORY = """
import resource, sys
import numpy as np
from probe.results.tensors import RunHeader, TensorInfo
from probe.store.writer import DumpWriter
from probe.store.dump import Dump
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
x = np.random.default_rng(0).standard_normal(1 << 22, np.float32)  # 16 MiB
with DumpWriter(sys.argv[1] + "/warm", RunHeader()) as writer:
    writer.add(TensorInfo("w", "", ()), x)
before = peak()
with DumpWriter(sys.argv[1] + "/d", RunHeader()) as writer:
    for k in range(24):
        x[0] = k
        writer.add(TensorInfo(f"t{k}", "", ()), x)
written = peak() - before
dump = Dump(sys.argv[1] + "/d")
for row in dump.rows():
    reader = dump.open(row)
    for start in range(0, row.count, 1 << 20):
        reader.window(start, start + (1 << 20)).max()
    reader.close()
print(written // 1024, (peak() - before) // 1024)
"""


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """384 MiB are written and read in a fresh process; one tensor is 16 MiB, one window 4 MiB."""
    written, read = (int(x) for x in fresh_python(MEMORY, str(tmp_path)).split())
    assert written <= 16 and read <= 32


def test_reading_and_writing_a_dump_imports_no_model_library(tmp_path: Path) -> None:
    record(tmp_path / "d", {"a": np.zeros(3, np.float32), "b": np.array(["text"])})
    code = (
        "import sys\n"
        "from probe.store.opening import open_source, read_array\n"
        "from probe.store.writer import DumpWriter\n"
        "source = open_source(sys.argv[1])\n"
        "with DumpWriter(sys.argv[2], source.header) as writer:\n"
        "    for row in source.rows():\n"
        "        writer.add(row, read_array(source, row))\n"
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = set(fresh_python(code, str(tmp_path / "d"), str(tmp_path / "copy")).split())
    assert not loaded & {
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "polars",
        "ml_dtypes",
        "safetensors",
        "rich",
        "typer",
        "google",
    }
    assert contents(tmp_path / "copy")["b", ""].tolist() == ["text"]


def test_an_untouched_header_says_nothing_about_the_run(tmp_path: Path) -> None:
    with DumpWriter(tmp_path / "d", RunHeader()) as sink:
        sink.add(TensorInfo("x", "", ()), np.ones(1))
    assert Dump(tmp_path / "d").header == RunHeader()
