"""Polygraphy's saved outputs and inputs, from files made by the documented format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.errors import InputError
from probe.store.feeds import read_input_sets
from probe.store.opening import is_recording, open_source, read_array
from tests.store.arrays import Array, fresh_python
from tests.store.polygraphy_files import encoded, lazy, run_results, save_inputs, save_outputs, torch_tensor

# Polygraphy puts the date and the time into the names of runners.
ORT, OTHER = "onnxrt-runner-N0-11/21/26-02:37:15", "trt-runner-N0-11/21/26-02:37:16"


def read(path: Path | str) -> dict[tuple[str, str], Array]:
    source = open_source(path)
    try:
        return {(row.name, row.input_id): read_array(source, row) for row in source.rows() if row.status == "recorded"}
    finally:
        source.close()


def test_outputs_of_one_runner(tmp_path: Path) -> None:
    arrays = {
        "y": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.array([1, np.nan], np.float16), "i8": np.int8(-3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "none": np.empty((0, 2), np.int64), "b": np.array([True]), "t": np.array(["é"]),
        "big": np.array([1, 2], ">i4"), "odd/name:0": np.zeros(2), "": np.ones(1),
    }  # fmt: skip
    path = save_outputs(tmp_path / "o.json", {ORT: [arrays]})
    source = open_source(path)
    assert (source.kind, source.header.runner, source.roles_known) == ("polygraphy", ORT, False)
    assert [(row.name, row.shape, row.input_id, row.role) for row in source.rows()] == [
        (name, np.shape(array), "", "internal") for name, array in arrays.items()
    ]
    for (name, _), found in read(path).items():
        assert np.array_equal(found, arrays[name], equal_nan=found.dtype.kind == "f")
        assert found.dtype.isnative and found.dtype.name == (arrays[name].dtype.name if name != "t" else "object")


def test_iterations_are_inputs(tmp_path: Path) -> None:
    path = save_outputs(tmp_path / "o.json", {ORT: [{"y": [float(k)]} for k in range(3)]})
    assert {key: value.tolist() for key, value in read(path).items()} == {
        ("y", f"iteration-{k}"): [k] for k in range(3)
    }


def test_saved_inputs_have_the_input_role(tmp_path: Path) -> None:
    path = save_inputs(tmp_path / "i.json", [{"x": [1], "m": [2]}, {"x": [3], "m": [4]}])
    source = open_source(path)
    assert source.roles_known and {row.role for row in source.rows()} == {"input"}
    assert [(row.name, row.input_id) for row in source.rows()] == [
        (n, f"iteration-{k}") for k in range(2) for n in "xm"
    ]
    assert [row.input_id for row in open_source(save_inputs(tmp_path / "1.json", [{"x": [1]}])).rows()] == [""]


def test_several_runners_must_be_picked_from(tmp_path: Path) -> None:
    path = save_outputs(tmp_path / "o.json", {ORT: [{"y": [1.0]}], OTHER: [{"y": [2.0]}]})
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert ORT in caught.value.where and OTHER in caught.value.where and "#NAME" in caught.value.hint
    for pick, value in ((ORT, 1.0), (OTHER, 2.0), ("onnxrt", 1.0), ("trt-runner-N0", 2.0)):
        assert is_recording(f"{path}#{pick}")
        assert read(f"{path}#{pick}")["y", ""].tolist() == [value]
    for pick in ("nobody", "x/y"):
        with pytest.raises(InputError, match="no runner"):
            open_source(f"{path}#{pick}")


def test_an_exact_name_wins_over_names_that_begin_with_it(tmp_path: Path) -> None:
    path = save_outputs(tmp_path / "o.json", {"ort": [{"y": [1.0]}], "ort-2": [{"y": [2.0]}]})
    assert read(f"{path}#ort")["y", ""].tolist() == [1.0]
    assert read(f"{path}#ort-")["y", ""].tolist() == [2.0]
    with pytest.raises(InputError, match="2 runners"):
        open_source(f"{path}#o")


def test_names_with_a_number_sign(tmp_path: Path) -> None:
    (tmp_path / "a#b").mkdir()
    path = save_outputs(tmp_path / "a#b" / "o#1.json", {"one#x": [{"y": [1.0]}], "two": [{"y": [2.0]}]})
    assert read(f"{path}#one#x")["y", ""].tolist() == [1.0]
    assert read(f"{path}#two")["y", ""].tolist() == [2.0]


def test_torch_tensors_are_listed_and_not_read(tmp_path: Path) -> None:
    path = save_outputs(tmp_path / "o.json", {ORT: [{"y": [1.0], "t": torch_tensor()}]})
    source = open_source(path)
    row = next(row for row in source.rows() if row.name == "t")
    assert row.status == "unsupported" and "torch" in row.note
    with pytest.raises(InputError, match="torch"):
        source.open(row)


def test_escaped_slashes_are_read(tmp_path: Path) -> None:
    """Other JSON writers escape "/", which base64 is full of."""
    array = np.random.default_rng(0).standard_normal(5000)
    text = json.dumps(run_results({ORT: [{"y": array}]}))
    (tmp_path / "o.json").write_text(text.replace(ORT, "ort").replace("/", "\\/"))
    assert (read(tmp_path / "o.json")["y", ""] == array).all()


def edited(change: Any) -> dict[str, Any]:
    tree = run_results({ORT: [{"y": np.arange(3.0)}]})
    output = tree["lst"][0][1][0]["outputs"]["y"]
    change(tree, output["values"])
    return tree


def set_array(text: Any) -> Any:
    return lambda tree, values: values.update(array=text)


Y = encoded(np.arange(3.0))["array"]
DAMAGE = {
    "not base64": edited(set_array("&" + Y[1:])),
    "a letter less": edited(set_array(Y[:-2])),
    "four letters less": edited(set_array(Y[:-8])),
    "four letters more": edited(set_array(Y + "AAAA")),
    "a letter that is none inside": edited(set_array(Y[:60] + "-" + Y[60:])),
    "base64 of something else": edited(set_array("aGVsbG8=")),
    "array is a number": edited(set_array(123456)),
    "array is null": edited(set_array(None)),
    "array is a list": edited(set_array([1, 2])),
    "no array": edited(lambda tree, values: values.pop("array")),
    "values is a list": edited(lambda tree, values: tree["lst"][0][1][0]["outputs"].update(y=[1])),
    "outputs is a list": edited(lambda tree, values: tree["lst"][0][1][0].update(outputs=[])),
    "no outputs": edited(lambda tree, values: tree["lst"][0][1][0].pop("outputs")),
    "lst is a number": {"lst": 3},
    "no lst": {"polygraphy_class": "RunResults"},
    "no runner": {"lst": []},
    "a pair of three": {"lst": [["a", [], 1]]},
    "a number": 3,
    "a result of probe": {"schema": "probe.diff/1", "verdict": "passed"},
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text(json.dumps(DAMAGE[what]))
    with pytest.raises(InputError):
        read(tmp_path / "o.json")


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[", "[[]]", "\ud800", "[" * 100_000, '{"lst":' * 5000, "null", "NaN", "\x00" * 100]
)
def test_what_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "o.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError):
        open_source(tmp_path / "o.json")


@pytest.mark.parametrize("cut", [10, 60, 200, 300, -1, -20, -100])
def test_a_truncated_file_is_refused(cut: int, tmp_path: Path) -> None:
    text = json.dumps(run_results({ORT: [{"y": np.arange(30.0)}]}))
    (tmp_path / "o.json").write_text(text[:cut])
    with pytest.raises(InputError, match="Polygraphy JSON"):
        open_source(tmp_path / "o.json")


LIMITED = """
import re, resource, sys
import numpy as np
from probe.store.opening import open_source, read_array
used = 1024 * int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_DATA, (used + (24 << 20),) * 2)
source = open_source(sys.argv[1])
assert len(source.rows()) == 12
for row in source.rows():
    assert read_array(source, row)[-1] == float(row.name)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux to limit memory that is not mapped files"
)
def test_arrays_stay_in_the_file_until_they_are_read(tmp_path: Path) -> None:
    """48 MiB of values, read within 24 MiB of memory beside the mapped file; one tensor is 4 MiB."""
    path = save_outputs(tmp_path / "o.json", {ORT: [{str(k): np.full(1 << 19, k, np.float64) for k in range(12)}]})
    fresh_python(LIMITED, str(path))


def test_lazy_and_plain_arrays_mean_the_same(tmp_path: Path) -> None:
    plain = run_results({ORT: [{"y": encoded([1.0]), "z": lazy([2.0])}]})
    (tmp_path / "o.json").write_text(json.dumps(plain))
    assert {name: value.tolist() for (name, _), value in read(tmp_path / "o.json").items()} == {"y": [1.0], "z": [2.0]}


def test_folders_hold_a_file_an_iteration(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / "outputs").mkdir(exist_ok=True)
        save_outputs(tmp_path / "outputs" / f"{k:010d}.json", {"trt": [{"y": np.full(2, k, np.float32)}]})
    source = open_source(tmp_path / "outputs")
    assert [(row.name, row.input_id) for row in source.rows()] == [("y", f"iteration-{k}") for k in range(3)]
    assert [read_array(source, row).tolist() for row in source.rows()] == [[k, k] for k in range(3)]
    assert source.header.runner == "trt"


def test_folders_of_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "inputs"
    folder.mkdir()
    for k in range(2):
        (folder / f"{k:010d}.json").write_text(json.dumps({"x": encoded(np.full(2, k, np.float32))}))
    assert [row.role for row in open_source(folder).rows()] == ["input", "input"]
    sets = read_input_sets(folder)
    assert [one.feeds["x"][0] for one in sets] == [0, 1]
    assert len({one.id for one in sets}) == 2


def test_a_folder_of_other_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": 3}')
    with pytest.raises(InputError):
        open_source(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"polygraphy_class": "RunResults"}', '{"lst": 3}'])
def test_outputs_that_lost_their_list_are_not_taken_for_inputs(text: str, tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text(text)
    with pytest.raises(InputError):
        open_source(tmp_path / "o.json")
