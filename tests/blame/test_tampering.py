"""Tactic files with any field changed: a strict replay refuses, says that the bits are others, or makes the recorded bits."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.blame.choosing import TacticOptions, record_tactics
from probe.blame.replaying import replay_tactics
from probe.engine.tuning.selector import Random
from probe.engine.tuning.tactic_file import read_tactic_file
from probe.errors import InputError
from probe.model.load import load
from probe.model.model import Model
from probe.results.tactics import TacticsReplayResult
from probe.store.feeds import InputSet
from tests.debug import faulty

SEAL = '"sha256": "'
Place = tuple[str | int, ...]
# Fields that name nothing which is computed: labels, what the run came to, and where, of which replay makes notes.
LABELS = {"layer", "kind", "verdict", "input", "processor", "driver", "sources"}


@dataclass(frozen=True)
class Recorded:
    """A recorded run.

    Attributes:
        tree: its file.
        tactics: of its layers, in order.
    """

    model: Model
    sets: tuple[InputSet, ...]
    text: str
    tree: dict[str, Any]
    tactics: tuple[str, ...]

    def replay(self, text: str, folder: Path) -> TacticsReplayResult | None:
        """None where it is refused: then nothing may be written."""
        (folder / "f").write_text(text, encoding="utf-8")
        (folder / "new").unlink(missing_ok=True)
        try:
            return replay_tactics(self.model, self.sets, folder / "f", TacticOptions(), out=folder / "new")
        except InputError as error:
            assert error.what
            assert not (folder / "new").exists()
            return None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("tampering")
    model = load(faulty.build(folder / "model.onnx"))
    sets = (InputSet("calm", faulty.feeds(), "test"),)
    options = TacticOptions(keep=(re.compile("^norm_out$|^softmax$"),))
    found = record_tactics(model, sets, folder / "f", options, selectors=[Random(4)], measure=False)
    text = (folder / "f").read_text()
    return Recorded(model, sets, text, json.loads(text), tuple(one.tactic for one in found.run.layers))


def sealed(tree: dict[str, Any]) -> str:
    """As a forger would write it: with the hash that belongs to it."""
    body = json.dumps({name: value for name, value in tree.items() if name != "sha256"}, indent=0)[:-2] + ",\n"
    return f'{body}{SEAL}{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def places(tree: Any, here: Place = ()) -> Iterator[Place]:
    """Of every value that holds no others."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from places(value, (*here, name))
    elif isinstance(tree, list):
        for at, value in enumerate(tree):
            yield from places(value, (*here, at))
    else:
        yield here


def changed(tree: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    inside: Any = tree
    for step in place[:-1]:
        inside = inside[step]
    if value is GONE:
        del inside[place[-1]]
    else:
        inside[place[-1]] = value
    return tree


GONE = object()
VALUES = st.one_of(
    st.just(GONE), st.none(), st.booleans(), st.integers(-2, 2), st.text(max_size=6), st.lists(st.text(max_size=2), max_size=2),
    st.sampled_from(["exact", "acc16", "splitk2", "sum_pairwise", "winograd_f4", "fp32", "fp16", "bf16", "none", "all", "full", "x", "norm_out"]),
)  # fmt: skip


def check(recorded: Recorded, tree: dict[str, Any], place: Place, folder: Path) -> str:
    """What became of it: refused, other bits, the same."""
    found = recorded.replay(sealed(tree), folder)
    if found is None:
        return "refused"
    assert read_tactic_file(folder / "f")[1]
    if not found:
        assert found.identical is False and found.differing
        return "other bits"
    # What ran is what the file says, and the bits are the recorded ones where the file has any of this input.
    said = {tuple(line["outputs"]): line["tactic"] for line in tree["layers"]}
    assert {one.outputs: one.tactic for one in found.run.layers} == said
    assert found.identical or "recorded" in place, place
    return "the same"


def test_as_it_was_written(recorded: Recorded, tmp_path: Path) -> None:
    assert sealed(recorded.tree) != recorded.text  # spaces alone
    assert check(recorded, recorded.tree, (), tmp_path) == "the same"
    assert recorded.replay(recorded.text, tmp_path)


def test_no_field_can_be_changed_without_the_hash(recorded: Recorded, tmp_path: Path) -> None:
    """Every field, every line: refused before anything is compiled."""
    for place in places(recorded.tree):
        tree = changed(recorded.tree, place, "exact")
        if tree == recorded.tree:
            continue
        lines = recorded.text.splitlines(keepends=True)
        was, now = (json.dumps(one) for one in _line(recorded.tree, tree, place))
        text = "".join(lines).replace(was, now, 1)
        assert text != recorded.text, place
        assert recorded.replay(text, tmp_path) is None, place


def _line(before: Any, after: Any, place: Place) -> tuple[Any, Any]:
    """The line that changes: an entry of a list with a line for each, or a field."""
    depth = 2 if place[0] in ("layers", "recorded") else 1
    for step in place[:depth]:
        before, after = before[step], after[step]
    return before, after


@pytest.mark.parametrize("field", ["tactic", "precision", "layer", "kind", "outputs", "reads", "problem"])
def test_every_field_of_a_layer_with_a_forged_hash(recorded: Recorded, tmp_path: Path, field: str) -> None:
    at = next(i for i, line in enumerate(recorded.tree["layers"]) if line["tactic"] != "exact")
    value: Any = (
        ["nowhere"] if field in ("outputs", "reads") else {"precision": "bf16", "tactic": "acc16"}.get(field, "changed")
    )
    ended = check(recorded, changed(recorded.tree, ("layers", at, field), value), ("layers", at, field), tmp_path)
    assert ended == {"tactic": "other bits", "layer": "the same", "kind": "the same"}.get(field, "refused")


OTHERS: list[tuple[Place, Any, str]] = [
    (("fingerprint", "model_sha256"), "00", "refused"),
    (("fingerprint", "device"), "cpu riscv64", "refused"),
    (("fingerprint", "processor"), "Z80", "the same"),
    (("fingerprint", "driver"), "onnxruntime 0.1", "the same"),
    (("fingerprint", "sources"), "00", "the same"),
    (("precision",), "bf16", "the same"),  # every line says its own
    (("precision",), "fp12", "refused"),
    (("passes",), "magic", "refused"),
    (("interior",), "fp32", "other bits"),
    (("fusion",), "none", "refused"),
    (("kept",), [], "other bits"),
    (("kept",), ["norm_out", "nowhere"], "refused"),
    (("verdict",), "failed", "the same"),
    (("recorded",), [], "the same"),
    (("recorded", 0, "input"), "dog", "the same"),
    (("recorded", 0, "input_sha256"), "00", "the same"),  # of these inputs nothing is recorded, which is said
    (("recorded", 0, "outputs_sha256"), "00", "other bits"),
    (("schema",), "probe.tactics/9", "refused"),
    (("layers", 0), GONE, "refused"),
    (("layers",), [], "refused"),
    (("layers",), GONE, "refused"),
    (("fingerprint",), GONE, "refused"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "ended"), OTHERS)
def test_every_other_field_with_a_forged_hash(
    recorded: Recorded, tmp_path: Path, place: Place, value: Any, ended: str
) -> None:
    found = check(recorded, changed(recorded.tree, place, value), place, tmp_path)
    assert found == ended
    assert found != "the same" or place[-1] in LABELS or place[0] in ("recorded", "precision")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_is_refused_told_or_means_the_same(recorded: Recorded, tmp_path: Path, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([one for one in places(recorded.tree) if one != ("sha256",)]))
    tree = changed(recorded.tree, place, data.draw(VALUES))
    if data.draw(st.booleans()) and isinstance(tree.get("layers"), list):
        tree["layers"] = data.draw(st.permutations(tree["layers"]))  # lines are found by what their layers make
    check(recorded, tree, place, tmp_path)
