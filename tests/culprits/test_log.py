"""The log of a search: nothing in it is lost, nothing of another search is taken for it, and a search goes on from any part of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.culprits.log import EvaluationLog, fingerprint, read_log
from probe.culprits.oracle import EngineOracle
from probe.engine.engine import Settings
from probe.errors import InputError
from probe.metrics.acceptance import parse_criterion
from probe.model.load import load
from probe.search.find import Options, find
from probe.search.oracle import Entry, Evaluation
from probe.search.result import SearchResult
from tests.culprits.overflowing import oracle_of, save, sets

HEADER = {"schema": "probe.find-log/1", "precision": "fp16", "inputs": ["a" * 64], "acceptance": ["range_rel<=0.01"]}


def entry(index: int = 0, **measured: Any) -> Entry:
    evaluation = Evaluation(passed=index % 2 == 0, margin=index / 3, measured=measured)
    return Entry(index, "search", f"prefix {index}", frozenset({f"t{index}", "a/b:0 c"}), evaluation)


def written(path: Path, entries: list[Entry], header: dict[str, Any] | None = None) -> Path:
    with EvaluationLog(path, header or HEADER) as log:
        for one in entries:
            log.append(one)
    return path


def same(one: Entry, other: Entry) -> bool:
    return repr(replace(one, kept=frozenset())) == repr(replace(other, kept=frozenset())) and one.kept == other.kept


# --- round trip

values = st.none() | st.floats() | st.text() | st.lists(st.text(), max_size=3) | st.integers(-9, 9)
names = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates and line separators too
entries = st.builds(
    Entry,
    index=st.integers(0, 10**6),
    kind=st.sampled_from(["search", "probes", "proof"]),
    why=names,
    kept=st.frozensets(names, max_size=4),
    evaluation=st.builds(
        Evaluation,
        passed=st.booleans(),
        margin=st.floats(),
        measured=st.dictionaries(names, values.filter(lambda v: v not in ("NaN", "Infinity", "-Infinity")), max_size=3),
    ),
)


@given(st.lists(entries, max_size=5))
def test_what_is_appended_is_read_back(made: list[Entry]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "log", made)
        header, found = read_log(path)
        assert header == HEADER
        assert len(found) == len(made) and all(map(same, made, found))
        with EvaluationLog(path, HEADER, resume=True) as log:
            assert all(map(same, made, log.entries))


def test_every_line_is_there_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = EvaluationLog(path, HEADER)
    for number in range(3):
        log.append(entry(number))
        assert len(read_log(path)[1]) == number + 1
    log.close()


def test_a_killed_process_leaves_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.culprits import test_log as t\n"
        f"log = t.EvaluationLog({str(path)!r}, t.HEADER)\nlog.append(t.entry(0))\nlog.append(t.entry(1))\nos._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    assert len(read_log(path)[1]) == 2


def test_lines_are_standard_json(tmp_path: Path) -> None:
    path = written(tmp_path / "log", [entry(0, error=math.inf, floor=math.nan, some=np.float32(0.5).item())])
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert rows[0]["schema"] == "probe.find-log/1"
    assert rows[1]["measured"] == {"error": "Infinity", "floor": "NaN", "some": 0.5}


# --- what was cut off


def test_from_every_byte_on_whole_lines_count(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", [entry(number) for number in range(3)]).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole) + 1):
        path = tmp_path / "cut"
        path.write_bytes(whole[:cut])
        if cut < first:
            with pytest.raises(InputError, match="no log of a search"):
                EvaluationLog(path, HEADER, resume=True)
            continue
        with EvaluationLog(path, HEADER, resume=True) as log:
            count = len(log.entries)
            assert count == whole[first:cut].count(b"\n")
            for number in range(count, 3):
                log.append(entry(number))
        assert path.read_bytes() == whole, "a torn line has gone, and the next begins on its own"


def test_reading_does_not_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "log", [entry(0)])
    torn = path.read_bytes() + b'{"index":1,"ki'
    path.write_bytes(torn)
    assert len(read_log(path)[1]) == 1 and path.read_bytes() == torn


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"[]", b"nonsense", b'{"index":1,"kind":"other","why":"","passed":true,"margin":0,"measured":{},"kept":[]}',
        b'{"index":1,"kind":"search","why":"","passed":1,"margin":0,"measured":{},"kept":[]}',
        b'{"index":1,"kind":"search","why":"","passed":true,"margin":"wide","measured":{},"kept":[]}',
        b'{"index":1,"kind":"search","why":"","passed":true,"margin":0,"measured":{},"kept":[1]}',
        b'{"index":1,"kind":"search","why":"","passed":true,"margin":0,"measured":{}}', b"", b"\xff\xfe", b"[" * 9999,
    ],
)  # fmt: skip
def test_damage_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "log", [entry(0)])
    good = path.read_bytes().splitlines()[-1]
    path.write_bytes(path.read_bytes() + line + b"\n" + good + b"\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match="damaged in line 3"):
        EvaluationLog(path, HEADER, resume=True)
    assert path.read_bytes() == before


# --- another search


@dataclass
class Model:
    path: str = "model.onnx"
    sha256: str = "1" * 64


BASE: dict[str, Any] = {
    "precision": "fp16", "granularity": "tensor", "objective": "count", "acceptance": [parse_criterion("range_rel<=0.01")],
    "settings": Settings("fp16", "cpu", "none", "none"),
}  # fmt: skip
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "precision": ({"precision": "bf16"}, "precision: fp16 there, bf16 here"),
    "granularity": ({"granularity": "layer"}, "granularity: tensor there, layer here"),
    "objective": ({"objective": "bytes"}, "objective: count there, bytes here"),
    "acceptance": ({"acceptance": [parse_criterion("range_rel<=0.0100001")]}, "acceptance: range_rel<=0.01 there, range_rel<=0.0100001 here"),
    "no acceptance": ({"acceptance": []}, "acceptance: range_rel<=0.01 there, none here"),
    "preset": ({"preset": "torch"}, "preset: none there, torch here"),
    "aggregate": ({"aggregate": "mean"}, "aggregate: worst there, mean here"),
    "program": ({"check": "prog {dump}"}, "check: none there, prog {dump} here"),
    "function": ({"check": save}, "check: none there, tests.culprits.overflowing.save here"),
    "golden": ({"golden": "fp64"}, "golden: none there, fp64 here"),
    "kept": ({"kept": ["t"]}, "kept: none there, t here"),
    "passes": ({"settings": Settings("fp16", "cpu", "safe", "none")}, "passes: none there, safe here"),
    "fusion": ({"settings": Settings("fp16", "cpu", "none", "full")}, "fusion: none there, full here"),
    "interior": ({"settings": Settings("fp16", "cpu", "none", "none", "fp32")}, "interior: storage there, fp32 here"),
    "device": ({"settings": Settings("fp16", "cuda", "none", "none")}, "device: cpu there, cuda here"),
}  # fmt: skip


def of(model: Any = None, inputs: Any = None, **other: Any) -> dict[str, Any]:
    return fingerprint(model or Model(), inputs or sets(a=1.0), **{**BASE, **other})


@pytest.mark.parametrize("name", OTHER)
def test_another_search_is_refused(tmp_path: Path, name: str) -> None:
    changed, said = OTHER[name]
    path = written(tmp_path / "log", [entry(0)], of())
    before = path.read_bytes()
    with pytest.raises(InputError, match="belongs to another search") as caught:
        EvaluationLog(path, of(**changed), resume=True)
    assert said in caught.value.where and caught.value.where.count(" there, ") == 1
    assert path.read_bytes() == before


def test_every_difference_is_listed(tmp_path: Path) -> None:
    path = written(tmp_path / "log", [], of())
    other = of(Model(sha256="2" * 64), sets(a=2.0, b=1.0), precision="bf16")
    with pytest.raises(InputError) as caught:
        EvaluationLog(path, {**other, "probe": "99.0"}, resume=True)
    for said in (
        "probe: ",
        "model sha256: 111111111111... there, 222222222222... here",
        "inputs: ",
        "precision: fp16 there",
    ):
        assert said in caught.value.where
    assert caught.value.where.count(" there, ") == 4


def test_where_model_and_inputs_lie_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "log", [entry(0)], of())
    renamed = [replace(one, id="elsewhere") for one in sets(a=1.0)]
    with EvaluationLog(path, of(Model("moved/model.onnx"), renamed), resume=True) as log:
        assert len(log.entries) == 1


def test_a_header_without_a_field_is_of_another_search(tmp_path: Path) -> None:
    header = of()
    path = written(tmp_path / "log", [], {key: value for key, value in header.items() if key != "interior"})
    with pytest.raises(InputError) as caught:
        EvaluationLog(path, header, resume=True)
    assert "interior: none there, storage here" in caught.value.where


# --- files


def test_a_log_that_exists_is_not_written_over(tmp_path: Path) -> None:
    path = written(tmp_path / "log", [entry(0)])
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists") as caught:
        EvaluationLog(path, HEADER)
    assert "--resume" in caught.value.hint and path.read_bytes() == before


@pytest.mark.parametrize(("content", "match"), [(b"", "no log"), (b"hello\n", "no log"), (b'{"schema":"probe.diff/1"}\n', "no log"), (b'{"schema":"probe.find-log/9"}\n', "no log")])  # fmt: skip
def test_what_is_no_log(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    for act in (lambda: read_log(path), lambda: EvaluationLog(path, HEADER, resume=True)):
        with pytest.raises(InputError, match=match):
            act()
    assert path.read_bytes() == content


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no log"):
        EvaluationLog(tmp_path / "none", HEADER, resume=True)
    with pytest.raises(InputError, match="no folder"):
        EvaluationLog(tmp_path / "none" / "log", HEADER)
    with pytest.raises(InputError, match=r"exists|cannot open"):
        EvaluationLog(tmp_path, HEADER)
    with pytest.raises(InputError, match="cannot open"):
        EvaluationLog(tmp_path, HEADER, resume=True)
    with pytest.raises(InputError, match="cannot read"):
        read_log(tmp_path / "none")


def test_a_full_disk_is_the_users() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    log = object.__new__(EvaluationLog)
    log.path, log.entries = full, ()
    log._file = full.open("wb", buffering=0)
    with pytest.raises(InputError, match="cannot write the log"):
        log.append(entry(0))
    log.close()


def test_two_searches_do_not_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with EvaluationLog(path, HEADER) as log:
        log.append(entry(0))
        with pytest.raises(InputError, match="another search is writing"):
            EvaluationLog(path, HEADER, resume=True)
    EvaluationLog(path, HEADER, resume=True).close()


# --- a search that goes on


class Counting:
    """An oracle, and what it was asked."""

    def __init__(self, oracle: EngineOracle) -> None:
        self.oracle = oracle
        self.asked: list[frozenset[str]] = []

    def __call__(self, members: frozenset[str], /) -> Evaluation:
        self.asked.append(members)
        return self.oracle(members)


def searched(
    path: Path, oracle: EngineOracle, header: dict[str, Any], *, resume: bool, probes: bool
) -> tuple[SearchResult, Counting]:
    counting = Counting(oracle)
    with EvaluationLog(path, header, resume=resume) as log:
        options = Options(probes=probes)
        units = oracle.space.units  # type: ignore[attr-defined]
        return find(units, counting, options, log=log.entries, on_entry=log.append), counting


def told(result: SearchResult) -> tuple[Any, ...]:
    return result.status, result.keep, result.certificates, result.groups, dict(result.evaluations), result.baselines


@pytest.mark.parametrize("probes", [False, True])
def test_a_search_goes_on_from_any_prefix_of_its_log(tmp_path: Path, probes: bool) -> None:
    model = save(tmp_path / "model.onnx", (1, 300, 1, 300))
    inputs = sets(i=1.0, j=0.5)
    oracle = oracle_of(model, inputs)
    header = fingerprint(load(model), inputs, **{**BASE, "settings": oracle.engine.settings})
    whole, counted = searched(tmp_path / "whole", oracle, header, resume=False, probes=probes)
    assert whole.status == "found" and whole.keep is not None and 0 < len(whole.keep) < len(oracle.space.units)  # type: ignore[attr-defined]
    content = (tmp_path / "whole").read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 1 + len(counted.asked) > 10
    step = 1 if not probes else 4
    for number in range(0, len(lines), step):
        torn = lines[number + 1][:20] if number + 1 < len(lines) else b""
        path = tmp_path / f"prefix-{number}"
        path.write_bytes(b"".join(lines[: number + 1]) + torn)
        again, asked = searched(path, oracle, header, resume=True, probes=probes)
        assert told(again) == told(whole), number
        assert asked.asked == counted.asked[number:], "what the log answers is not asked, and the rest in its order"
        assert path.read_bytes() == content
