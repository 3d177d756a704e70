"""Saving and loading: exact round trips, whole files or none, and a clear word for every damaged one."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import stat
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import InputError
from probe.results import json as saved
from probe.results import publish
from probe.results.diff import DiffResult, Finding, Metrics

EXAMPLES = publish.examples()


def same(one: Any, other: Any) -> bool:
    """Equal, NaN equal to NaN, types too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def validate(text: str) -> None:
    tree = json.loads(text, parse_constant=lambda c: pytest.fail(f"bare {c} in the JSON"))
    jsonschema.validate(tree, saved.schema_of(saved.class_of(tree["schema"])), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", EXAMPLES)
def test_round_trip_and_schema(name: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    saved.save(EXAMPLES[name], file)
    assert same(saved.load(file), EXAMPLES[name])
    validate(file.read_text())
    assert next(iter(json.loads(file.read_text()))) == "schema"
    assert saved.is_result(file)


def test_published_files_are_up_to_date() -> None:
    published = publish.files()
    there = {
        f"{p.parent.name}/{p.name}" for place in ("schemas", "examples") for p in (publish.HERE / place).glob("*.json")
    }
    assert there == set(published), "run python -m probe.results.publish"
    for name, text in published.items():
        assert (publish.HERE / name).read_text(encoding="utf-8") == text, f"{name}: run python -m probe.results.publish"


def test_publishing_removes_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "probe.old-1.schema.json").write_text("{}")
    publish.main(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")} == set(publish.files())


@pytest.mark.parametrize("schema", saved.schema_names())
def test_schemas_are_schemas(schema: str) -> None:
    described = saved.schema_of(saved.class_of(schema))
    jsonschema.Draft202012Validator.check_schema(described)
    assert described["properties"]["schema"] == {"const": schema}
    for wrong in ({}, {"schema": "probe.other/1"}, []):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, described)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1])
def test_every_float_survives(value: float) -> None:
    result = replace(EXAMPLES["diff"], seconds=value)
    text = saved.dumps(result)
    validate(text)
    back = saved.loads(text).seconds
    assert (
        math.isnan(back) if math.isnan(value) else (back == value and math.copysign(1, back) == math.copysign(1, value))
    )


@given(st.text(), st.floats(), st.integers(-(2**63), 2**63 - 1))
def test_any_text_and_number_survives(text: str, number: float, count: int) -> None:
    finding = Finding(text, text, text, None, text)
    metrics = replace(publish.example_metrics(), kl=number, count=count)
    result = replace(
        EXAMPLES["diff"], findings=(finding,), tensors=(publish.example_tensor(text, metrics=metrics),), command=text
    )
    dumped = saved.dumps(result)
    assert dumped.isascii()
    assert same(saved.loads(dumped), result)


@pytest.mark.parametrize("name", ["NaN", "Infinity", "null", "true", "1.5", "\ud800", "a\x00b", "層", ""])
def test_names_that_look_like_values_stay_names(name: str) -> None:
    result = replace(EXAMPLES["diff"], tensors=(publish.example_tensor(name, actual_name=name, layer=name),))
    tensor = saved.loads(saved.dumps(result)).tensors[0]
    assert (tensor.name, tensor.actual_name, tensor.layer) == (name, name, name)


def test_numpy_scalars_are_numbers() -> None:
    metrics = replace(publish.example_metrics(), max_abs=np.float32(0.5), count=np.int64(7), rmse=np.float64("nan"))  # type: ignore[arg-type]
    plain = json.loads(saved.dumps(replace(EXAMPLES["diff"], tensors=(publish.example_tensor("x", metrics=metrics),))))
    kept = plain["tensors"][0]["metrics"]
    assert (kept["max_abs"], kept["count"], kept["rmse"]) == (0.5, 7, "NaN")


def test_what_json_cannot_hold_is_our_bug() -> None:
    with pytest.raises(TypeError, match="cannot hold a object"):
        saved.dumps(replace(EXAMPLES["diff"], environment={"x": object()}))


# --- damaged files


def edited(**changes: Any) -> bytes:
    return json.dumps(json.loads(saved.dumps(EXAMPLES["diff"])) | changes).encode()


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "truncated": (saved.dumps(EXAMPLES["diff"]).encode()[:2000], "not valid JSON"),
    "not utf-8": (b'{"schema": "\xff\xfe"}', "the file is not text"),
    "a list": (b"[1, 2]", 'no "schema"'),
    "a number": (b"3", 'no "schema"'),
    "another tool's": (b'{"lst": []}', 'no "schema"'),
    "a schema that is no name": (b'{"schema": {"a": 1}}', 'no "schema"'),
    "bare NaN": (b'{"schema": "probe.diff/1", "seconds": NaN}', "bare NaN"),
    "a newer schema": (edited(schema="probe.diff/9"), "unknown schema 'probe.diff/9'"),
    "a missing field": (b'{"schema": "probe.diff/1"}', "missing required field `verdict`"),
    "a wrong type": (edited(tensors=[3]), "$.tensors[0]"),
    "a wrong word": (edited(verdict="fine"), "$.verdict"),
    "text for a number": (edited(seconds="soon"), "$.seconds"),
    "null for a list": (edited(findings=None), "$.findings"),
    "nested deeply": (b'{"schema":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    "a huge integer": (b'{"schema": "probe.diff/1", "seconds": ' + b"9" * 5000 + b"}", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_damaged_results_are_refused_with_reason(case: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(BROKEN[case][0])
    with pytest.raises(InputError) as caught:
        saved.load(file)
    assert BROKEN[case][1] in str(caught.value)
    assert caught.value.where == str(file)


def test_unreadable_places(tmp_path: Path) -> None:
    for place in (tmp_path / "none.json", tmp_path, Path("a\x00b")):
        with pytest.raises(InputError, match="cannot read the result"):
            saved.load(place)
        assert not saved.is_result(place)


def test_flipped_and_cut_results_never_raise_anything_else() -> None:
    whole = [saved.dumps(result).encode() for result in EXAMPLES.values()]
    rng = random.Random(1)
    loaded = 0
    for _ in range(3000):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(0, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            result = saved.loads(bytes(data))
        except InputError:
            continue
        loaded += 1
        assert saved.loads(saved.dumps(result)) is not None
    assert loaded > 100, "flips inside texts must load: the test would show nothing otherwise"


def test_is_result_reads_little_and_tells_formats_apart(tmp_path: Path) -> None:
    cases = {
        "polygraphy.json": b'{"lst": [], "polygraphy_class": "RunResults"}',
        "npz": b"PK\x03\x04",
        "list.json": b"[]",
        "empty": b"",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        assert not saved.is_result(tmp_path / name)


# --- writing


def test_unknown_fields_of_a_later_version_are_ignored() -> None:
    assert same(saved.loads(edited(invented=[1, 2])), EXAMPLES["diff"])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.json"
    saved.save(EXAMPLES["dump"], file)
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        saved.save(EXAMPLES["diff"], file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="over the folder"):
        saved.save(EXAMPLES["diff"], tmp_path)
    with pytest.raises(InputError, match="folder does not exist") as caught:
        saved.check_target(tmp_path / "no" / "r.json")
    assert "mkdir -p" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="read-only"):
            saved.check_target(tmp_path / "r.json")
    finally:
        tmp_path.chmod(0o700)


def test_links_stay_and_permissions_follow_the_umask(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    old = os.umask(0o022)
    try:
        saved.save(EXAMPLES["diff"], link)
    finally:
        os.umask(old)
    assert link.is_symlink() and saved.is_result(real)
    assert stat.S_IMODE(real.stat().st_mode) == 0o644


def test_devices_are_written_to_not_replaced() -> None:
    saved.save(EXAMPLES["diff"], "/dev/null")
    assert not Path("/dev/null").is_file()


def test_full_device() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(InputError, match="No space left"):
        saved.save(EXAMPLES["diff"], "/dev/full")


def test_long_names_can_be_saved(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 250 + ".json")
    saved.save(EXAMPLES["diff"], file)
    assert saved.is_result(file)


# --- schemas


@dataclass(frozen=True)
class Odd:
    pair: tuple[int, str]
    either: int | str | None
    schema: str = "odd/1"


def test_schema_of_rarer_types() -> None:
    described = saved.schema_of(Odd)
    jsonschema.validate({"schema": "odd/1", "pair": [1, "x"], "either": None}, described)
    for wrong in ([1], [1, "x", 2], ["x", 1]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"schema": "odd/1", "pair": wrong, "either": 1}, described)


def test_undescribable_types_are_refused() -> None:
    @dataclass
    class Bad:
        x: object

    Bad.__annotations__["x"] = set[int]
    with pytest.raises(TypeError, match="cannot be described"):
        saved.schema_of(Bad)


def test_schemas_say_that_metrics_may_be_missing_or_not_finite() -> None:
    described = saved.schema_of(DiffResult)["$defs"]["Metrics"]
    assert described["properties"]["range_rel"] == {"$ref": "#/$defs/number"}
    assert {"type": "null"} in described["properties"]["kl"]["anyOf"]
    assert set(described["required"]) <= {f.name for f in fields(Metrics)}
