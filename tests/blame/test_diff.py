"""Files and folders of good and bad runs, tactic files and Polygraphy's: read, compared, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.blame.diff import diff_tactics
from probe.blame.run_files import good_and_bad, least_different, read_runs
from probe.engine.tuning.tactic_file import text_of
from probe.errors import InputError
from probe.results.tactics import Fingerprint, TacticFile, TacticLine

MODEL = "a" * 64
ALGORITHM = {"implementation": 6, "tactic": 0}
STORED = {"dtype": "DataType.FLOAT", "strides": [1, 2, 3], "vectorized_dim": -1, "components_per_element": 1}


def tactic_file(tactics: dict[str, str], model: str = MODEL, **changed: Any) -> TacticFile:
    lines = tuple(
        TacticLine(t, "fp16", name, "conv", (f"{name}_out",), ("x",), "problem") for name, t in tactics.items()
    )
    file = TacticFile(
        Fingerprint(model, "cpu x86_64", "a cpu", "ort", "0" * 64), "fp16", "safe", "safe", "storage", lines
    )
    return replace(file, **changed)


def save(path: Path, tactics: dict[str, str], **changed: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(tactic_file(tactics, **changed)))
    return path


def replay(path: Path, **layers: tuple[int, str]) -> Path:
    """A file of Polygraphy's: layer -> (tactic number, storage of its input)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = {
        name: ALGORITHM | {"tactic": tactic, "inputs": [STORED | {"dtype": stored}], "outputs": [STORED]}
        for name, (tactic, stored) in layers.items()
    }
    path.write_text(json.dumps({"replay": tree}))
    return path


def test_files_and_folders_are_the_same_runs(tmp_path: Path) -> None:
    for at in range(3):
        save(tmp_path / "good" / f"{at}.tactics", {"a": "exact", "b": ("exact", "acc16", "splitk2")[at]})
    save(tmp_path / "bad" / "deep" / "0.json", {"a": "acc16", "b": "exact"})
    save(tmp_path / "bad" / "1.json", {"a": "acc16", "b": "acc16"})
    (tmp_path / "bad" / "notes.txt").write_text("not a tactic file")
    (tmp_path / "bad" / "timings.json").write_text('{"schema": "probe.timings/1", "times": []}')
    found = diff_tactics([tmp_path / "good"], [tmp_path / "bad"])
    assert (len(found.good), len(found.bad), found.layers, found.same) == (3, 2, 2, 0)
    first = found.suspects[0]
    assert (first.layer, first.outputs, first.tactic, first.bad, first.good) == ("a", ("a_out",), "acc16", 2, 0)
    assert first.only_in_bad and first.instead == {"exact": 3} and first.confidence > 0.8
    single = diff_tactics(sorted((tmp_path / "good").iterdir()), list(good_and_bad(tmp_path)[1]))
    assert single == found


def test_the_same_choices_again_are_no_further_evidence(tmp_path: Path) -> None:
    """Ten runs of one good and one bad build tell what two files tell: every difference is as suspect as every other."""
    for at in range(5):
        save(tmp_path / "good" / f"{at}", {"a": "exact", "b": "exact"}, verdict="passed")
        save(tmp_path / "bad" / f"{at}", {"a": "acc16", "b": "splitk2"}, verdict="failed")
    found = diff_tactics([tmp_path / "good"], [tmp_path / "bad"])
    alone = diff_tactics([tmp_path / "good" / "0"], [tmp_path / "bad" / "0"])
    assert found.suspects == alone.suspects and found.unexplained == alone.unexplained
    assert {one.p_value for one in found.suspects} == {0.5} and {one.bad_runs for one in found.suspects} == {1}
    assert len(found.bad) == 5 and "5 bad runs are 1 by their choices" in " ".join(found.notes)
    assert alone.notes == ()


def test_equal_choices_on_both_sides_are_said(tmp_path: Path) -> None:
    good, bad = save(tmp_path / "g", {"a": "acc16"}), save(tmp_path / "b", {"a": "acc16"}, verdict="failed")
    found = diff_tactics([good], [bad])
    assert not found and not found.suspects
    assert "exactly the choices of a good one" in found.notes[0]


def test_precisions_are_part_of_a_choice_where_they_differ(tmp_path: Path) -> None:
    good = save(tmp_path / "g", {"a": "exact", "b": "exact"})
    file = tactic_file({"a": "exact", "b": "exact"})
    bad = tmp_path / "b"
    bad.write_text(text_of(replace(file, layers=(replace(file.layers[0], precision="fp32"), file.layers[1]))))
    (one,) = diff_tactics([good], [bad]).suspects
    assert (one.layer, one.tactic, one.instead) == ("a", "exact in fp32", {"exact in fp16": 1})


def test_an_edited_file_is_compared_and_said(tmp_path: Path) -> None:
    good, bad = save(tmp_path / "g", {"a": "exact"}), save(tmp_path / "b", {"a": "exact"})
    bad.write_text(bad.read_text().replace('"tactic": "exact"', '"tactic": "acc16"'))
    found = diff_tactics([good], [bad])
    assert [one.tactic for one in found.suspects] == ["acc16"] and "was edited" in found.notes[0]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"g": ({"a": "exact"}, MODEL), "b": ({"a": "acc16"}, "b" * 64)}, "two models"),
        ({"g": ({"a": "exact"}, MODEL)}, "no bad run is named"),
        ({"b": ({"a": "exact"}, MODEL)}, "no good run is named"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, files: dict[str, Any], said: str) -> None:
    made = {name: save(tmp_path / name, tactics, model=model) for name, (tactics, model) in files.items()}
    with pytest.raises(InputError, match=said):
        diff_tactics([p for n, p in made.items() if n == "g"], [p for n, p in made.items() if n == "b"])


def test_other_refusals(tmp_path: Path) -> None:
    good = save(tmp_path / "g", {"a": "exact"})
    with pytest.raises(InputError, match="as a good and as a bad run"):
        diff_tactics([good], [good])
    with pytest.raises(InputError, match="two tools"):
        diff_tactics([good], [replay(tmp_path / "r.json", a=(1, "FLOAT"))])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no tactic files"):
        diff_tactics([good], [tmp_path / "empty"])
    with pytest.raises(InputError, match="cannot read"):
        diff_tactics([good], [tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no folder called 'good'"):
        good_and_bad(tmp_path)
    other = save(tmp_path / "other", {"a": "acc16"})
    other.write_text(other.read_text()[:-60])
    with pytest.raises(InputError, match="no tactic file"):
        diff_tactics([good], [other])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), new=st.binary(max_size=3), cut=st.integers(0, 3))
def test_damaged_files_are_read_or_refused(tmp_path: Path, at: int, new: bytes, cut: int) -> None:
    """Whatever three bytes become: an error that says what, or a comparison; a file that was changed is never taken for whole."""
    good = save(tmp_path / "g", {"a": "exact", "b": "splitk2"})
    content = good.read_bytes()
    at %= len(content)
    bad = tmp_path / "b"
    bad.write_bytes(content[:at] + new + content[at + cut :])
    try:
        found = diff_tactics([good], [bad])
    except InputError as error:
        assert error.what
    else:
        changed = bad.read_bytes().replace(b"\r\n", b"\n") != content
        assert any("was edited" in note for note in found.notes) == changed


def test_another_device_is_a_note(tmp_path: Path) -> None:
    there = Fingerprint(MODEL, "cuda sm_90a", "a gpu", "570", "1" * 64)
    found = diff_tactics(
        [save(tmp_path / "g", {"a": "exact"})], [save(tmp_path / "b", {"a": "acc16"}, fingerprint=there)]
    )
    assert [note.rpartition(": ")[0].partition(": ")[2] for note in found.notes[:3]] == [
        f"another {what} than {tmp_path / 'g'}" for what in ("device", "processor", "driver")
    ]


def test_the_pair_that_differs_least(tmp_path: Path) -> None:
    base = dict.fromkeys("abcd", "exact")
    for name, changed in {
        "far": {"a": "acc16", "b": "acc16"},
        "near": {"c": "splitk2"},
        "twin": {"d": "acc16"},
    }.items():
        save(tmp_path / "good" / name, base | changed)
    save(tmp_path / "bad" / "one", base | {"c": "splitk2", "d": "acc16"})
    save(tmp_path / "bad" / "same as good", base | {"d": "acc16"})
    good, bad, notes = least_different(read_runs([tmp_path / "good"]), read_runs([tmp_path / "bad"]))
    assert (Path(good.path).name, Path(bad.path).name) == ("near", "one")
    assert notes[-1].startswith("of 3 good and 2 bad files") and notes[-1].endswith("in 1")


# --- what Polygraphy's ``inspect diff-tactics`` does, as black-box cases; on purpose different: suspects are ranked, a choice that one good
# run has, too, is not acquitted by it, and sides that hold no files are an error


def test_polygraphy_dir(tmp_path: Path) -> None:
    """``--dir``: good and bad folders at any depth; what no good run has is listed."""
    replay(tmp_path / "runs" / "good" / "0.json", conv=(1, "FLOAT"), fc=(5, "FLOAT"))
    replay(tmp_path / "runs" / "good" / "1.json", conv=(2, "FLOAT"), fc=(5, "FLOAT"))
    replay(tmp_path / "runs" / "bad" / "0.json", conv=(3, "FLOAT"), fc=(5, "FLOAT"))
    found = diff_tactics(*good_and_bad(tmp_path))
    assert found.kind == "polygraphy"
    assert [(one.layer, one.tactic) for one in found.suspects if one.only_in_bad] == [
        ("conv", "implementation 6, tactic 3 (FLOAT -> FLOAT)")
    ]


def test_polygraphy_good_and_bad_files(tmp_path: Path) -> None:
    good, bad = replay(tmp_path / "g.json", conv=(1, "FLOAT")), replay(tmp_path / "b.json", conv=(1, "FLOAT"))
    assert not diff_tactics([good], [bad])


def test_polygraphy_another_format_is_another_algorithm(tmp_path: Path) -> None:
    good, bad = replay(tmp_path / "g.json", conv=(1, "FLOAT")), replay(tmp_path / "b.json", conv=(1, "HALF"))
    (one,) = diff_tactics([good], [bad]).suspects
    assert one.tactic == "implementation 6, tactic 1 (HALF -> FLOAT)"


def test_polygraphy_a_layer_that_only_bad_runs_have(tmp_path: Path) -> None:
    """It is listed: nothing there is known to be good."""
    good, bad = (
        replay(tmp_path / "g.json", conv=(1, "FLOAT")),
        replay(tmp_path / "b.json", conv=(1, "FLOAT"), extra=(7, "FLOAT")),
    )
    (one,) = diff_tactics([good], [bad]).suspects
    assert (one.layer, one.good_runs, one.p_value) == ("extra", 0, 1.0)


def test_polygraphy_damaged_files_are_refused(tmp_path: Path) -> None:
    good = replay(tmp_path / "g.json", conv=(1, "FLOAT"))
    bad = tmp_path / "b.json"
    bad.write_text('{"replay": {"conv": {"implementation": "six"}}}')
    with pytest.raises(InputError, match="not a tactic replay"):
        diff_tactics([good], [bad])
