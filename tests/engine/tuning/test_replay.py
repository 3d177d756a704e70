"""Tactic files and their replay: the same choices again, or a list of everything that is not as it was recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.engine.assignment import Choice
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.engine.tuning.choose import choose
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.selector import Allow, Deny, Random
from probe.engine.tuning.tactic_file import (
    base_of,
    differences,
    line_of,
    read_tactic_file,
    tactic_file_of,
    text_of,
    with_tactics,
)
from probe.errors import InputError
from probe.model import load
from probe.results.tactics import Fingerprint, RecordedOutputs, TacticFile
from tests.debug import faulty
from tests.engine.tuning.selectors import candidate, context, names

Feeds = dict[str, np.ndarray]
FC2 = "fc2/MatMul + fc2/Add"


@pytest.fixture(scope="module")
def recorded(engine: Engine, feeds: Feeds) -> TacticFile:
    choices = choose(engine, feeds, [Random(2)])
    assert len(set(choices.tactics.values())) > 3
    return tactic_file_of(engine, choices, [RecordedOutputs("cat", "12" * 32, "34" * 32)], "passed")


def saved(file: TacticFile, path: Path) -> Path:
    path.write_text(text_of(file), encoding="utf-8")
    return path


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_file_is_read_back(recorded: TacticFile, tmp_path: Path) -> None:
    assert read_tactic_file(saved(recorded, tmp_path / "a.tactics")) == (recorded, True)


def test_one_line_a_layer_in_execution_order(recorded: TacticFile, engine: Engine) -> None:
    lines = [line for line in text_of(recorded).splitlines() if line.startswith('{"tactic"')]
    assert [json.loads(line.rstrip(","))["layer"] for line in lines] == [line.layer for line in recorded.layers]
    order = [layer.name for layer in engine.layers]
    assert [order.index(line.layer) for line in recorded.layers] == sorted(
        order.index(x.layer) for x in recorded.layers
    )


def test_the_text_is_stable_and_differs_where_choices_do(engine: Engine, feeds: Feeds, recorded: TacticFile) -> None:
    again = tactic_file_of(engine, choose(engine, feeds, [Random(2)]), recorded.recorded, "passed")
    assert text_of(again) == text_of(recorded)
    flipped = replace(
        recorded, layers=tuple(replace(x, tactic="exact") if x.layer == FC2 else x for x in recorded.layers)
    )
    pairs = zip(text_of(recorded).splitlines(), text_of(flipped).splitlines(), strict=True)
    assert len([1 for a, b in pairs if a != b]) == 2, "the layer's line and the hash"


def test_the_file_is_json_with_a_published_schema(recorded: TacticFile) -> None:
    import jsonschema

    from probe.results.json import schema_of

    tree = json.loads(text_of(recorded))
    jsonschema.validate(tree, schema_of(TacticFile))
    assert next(iter(tree)) == "schema" and tree["schema"] == "probe.tactics/1"


def test_hostile_names(tmp_path: Path, recorded: TacticFile) -> None:
    for name in ('"', "\\", "a\nb", "\ud800", '"sha256": "', "\u2028", "層", ""):
        one = line_of(context(name, (name,), problem=name), "exact")
        file = replace(recorded, layers=(one,), kept=(name,))
        assert read_tactic_file(saved(file, tmp_path / "a.tactics")) == (file, True)


def test_line_ends_of_a_checkout_change_nothing(recorded: TacticFile, tmp_path: Path) -> None:
    path = tmp_path / "a.tactics"
    path.write_bytes(text_of(recorded).replace("\n", "\r\n").encode())
    assert read_tactic_file(path) == (recorded, True)


def test_other_tactics_forget_what_was_recorded(recorded: TacticFile) -> None:
    changed = with_tactics(recorded, {(("norm_out",), "norm"): "sum_acc16"})
    assert changed.recorded == () and changed.verdict == "not_judged"
    assert {x.layer: x.tactic for x in changed.layers} == {x.layer: x.tactic for x in recorded.layers} | {
        "norm": "sum_acc16"
    }


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_is_taken_for_what_was_recorded(recorded: TacticFile, tmp_path: Path, data: st.DataObject) -> None:
    sound = text_of(recorded).encode()
    content = bytearray(sound)
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["cut", "byte", "gone", "twice", "bit"])):
        case "cut":
            del content[at:]
        case "byte":
            content[at] = data.draw(st.integers(0, 255))
        case "bit":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        case "gone":
            del content[at : at + data.draw(st.integers(1, 300))]
        case _:
            content[at:at] = content[at : at + data.draw(st.integers(1, 300))]
    path = tmp_path / "a.tactics"
    path.write_bytes(content)
    try:
        file, as_written = read_tactic_file(path)
    except InputError:
        return
    if as_written:
        assert file == recorded and content.replace(b"\r\n", b"\n") == sound


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"{}", 'no "schema"'),
        (b"\xff\xfe{\x00}\x00", "cannot read"),
        (b'{"schema": "probe.tactics/9"}', "unknown schema"),
        (b'{"schema": "probe.tactics/1"}', "fingerprint"),
        (b'{"schema": "probe.timings/1", "times": []}', "unknown schema"),
    ],
)
def test_what_is_no_tactic_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.tactics"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_tactic_file(path)


def test_two_lines_for_one_layer(recorded: TacticFile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two lines for the layer that makes act1_out"):
        read_tactic_file(
            saved(replace(recorded, layers=(*recorded.layers, recorded.layers[0])), tmp_path / "a.tactics")
        )


# --- strict ----------------------------------------------------------------------------------------------------------


def test_the_same_choices_on_another_build(path: Path, feeds: Feeds, recorded: TacticFile) -> None:
    other = compile_model(load(path))
    choices = choose(other, feeds, [Replay(recorded, engine=other)])
    assert [line_of(one.context, one.candidate.tactic) for one in choices] == list(recorded.layers)


def misses(engine: Engine, feeds: Feeds, replay: Replay) -> list[tuple[str, str]]:
    with pytest.raises(InputError) as refused:
        choose(engine, feeds, [replay])
    told = refused.value.what.splitlines()
    assert len(told) == 1 + len(replay.misses)
    for line, miss in zip(told[1:], replay.misses, strict=True):
        assert miss.message in line and miss.layer in line
    return [(miss.kind, miss.layer) for miss in replay.misses]


def changed_line(file: TacticFile, layer: str, **changed: Any) -> TacticFile:
    return replace(file, layers=tuple(replace(x, **changed) if x.layer == layer else x for x in file.layers))


def without(file: TacticFile, layer: str) -> TacticFile:
    return replace(file, layers=tuple(x for x in file.layers if x.layer != layer))


ONE = [
    (lambda f: without(f, FC2), ("new_layer", FC2)),
    (lambda f: replace(f, layers=(*f.layers, line_of(context("gone", ("z",)), "exact"))), ("missing_layer", "gone")),
    (lambda f: changed_line(f, FC2, tactic="cutlass_42"), ("unknown_tactic", FC2)),
    (lambda f: changed_line(f, FC2, tactic="winograd_f4"), ("unsupported_tactic", FC2)),
    (lambda f: changed_line(f, FC2, problem="MatMul(fp16[8,32])"), ("changed_problem", FC2)),
    (lambda f: changed_line(f, FC2, reads=("x",)), ("changed_problem", FC2)),
    (lambda f: changed_line(f, FC2, precision="bf16"), ("changed_precision", FC2)),
    (lambda f: replace(f, fingerprint=replace(f.fingerprint, model_sha256="0" * 64)), ("other_model", "")),
    (lambda f: replace(f, fingerprint=replace(f.fingerprint, device="cuda sm_90a")), ("other_device", "")),
    (lambda f: replace(f, fusion="none"), ("other_settings", "")),
    (lambda f: replace(f, interior="fp32"), ("other_settings", "")),
    (lambda f: replace(f, kept=("nowhere",)), ("other_settings", "")),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), ONE, ids=lambda one: one[0] if isinstance(one, tuple) else "")
def test_one_miss(
    engine: Engine,
    feeds: Feeds,
    recorded: TacticFile,
    change: Callable[[TacticFile], TacticFile],
    expected: tuple[str, str],
) -> None:
    assert misses(engine, feeds, Replay(change(recorded), engine=engine)) == [expected]


def test_all_misses_are_listed_the_file_s_own_first(engine: Engine, feeds: Feeds, recorded: TacticFile) -> None:
    file = recorded
    for change, _ in (ONE[1], ONE[2], ONE[7], ONE[8]):
        file = change(file)
    file = changed_line(file, "norm", problem="another")
    kinds = misses(engine, feeds, Replay(file, engine=engine, edited=True))
    assert [kind for kind, _ in kinds] == [
        "edited", "other_model", "other_device", "missing_layer", "unknown_tactic", "changed_problem",
    ]  # fmt: skip


def test_another_shape_is_another_problem(engine: Engine, recorded: TacticFile) -> None:
    kinds = misses(engine, {"x": np.ones((5, 32), np.float32)}, Replay(recorded, engine=engine))
    assert kinds == [("changed_problem", line.layer) for line in recorded.layers]


def test_an_edited_model_names_what_changed(tmp_path: Path, feeds: Feeds, recorded: TacticFile) -> None:
    proto = onnx.load(faulty.build(tmp_path / "m.onnx"))
    (node,) = [one for one in proto.graph.node if one.op_type == "Softmax"]
    node.attribute[0].i = 0
    onnx.save(proto, tmp_path / "m.onnx")
    other = compile_model(load(tmp_path / "m.onnx"))
    assert misses(other, feeds, Replay(recorded, engine=other)) == [("other_model", ""), ("changed_problem", "softmax")]


def test_what_a_selector_before_it_refused_cannot_be_replayed(
    engine: Engine, feeds: Feeds, recorded: TacticFile
) -> None:
    tactic = next(line.tactic for line in recorded.layers if line.layer == FC2)
    with pytest.raises(InputError, match=f"{tactic} is no candidate; there is"):
        choose(engine, feeds, [Deny(f"{tactic} @ ^fc2"), Replay(recorded)])


# --- lenient ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "expected"), ONE, ids=lambda one: one[0] if isinstance(one, tuple) else "")
def test_lenient_takes_what_fits_and_says_what_it_took_instead(
    engine: Engine,
    feeds: Feeds,
    recorded: TacticFile,
    change: Callable[[TacticFile], TacticFile],
    expected: tuple[str, str],
) -> None:
    layer = expected[1]
    replay = Replay(change(recorded), engine=engine, strict=False)
    choices = choose(engine, feeds, [replay])
    (miss,) = replay.misses
    assert (miss.kind, miss.layer) == expected
    wanted = {line.layer: line.tactic for line in recorded.layers}
    here = layer if layer in wanted else ""
    assert {k: v for k, v in choices.tactics.items() if k != here} == {k: v for k, v in wanted.items() if k != here}
    if here:
        assert choices.tactics[here] == miss.chosen == "exact"


def test_lenient_leaves_a_new_layer_to_the_others(engine: Engine, feeds: Feeds, recorded: TacticFile) -> None:
    replay = Replay(without(recorded, FC2), strict=False)
    choices = choose(engine, feeds, [Allow("splitk8 @ ^fc2"), replay])
    assert choices.tactics[FC2] == "splitk8" == replay.misses[0].chosen


def test_a_choice_begins_anew(engine: Engine, feeds: Feeds, recorded: TacticFile) -> None:
    replay = Replay(without(recorded, FC2), strict=False)
    for _ in range(2):
        choose(engine, feeds, [replay])
    assert len(replay.misses) == 1


# --- precision -------------------------------------------------------------------------------------------------------


def test_precisions_and_kept_tensors_come_back(path: Path, feeds: Feeds) -> None:
    engine = compile_model(load(path), keep=["softmax", "norm_out"])
    file = tactic_file_of(engine, choose(engine, feeds))
    assert file.kept == ("norm_out",) and {x.layer for x in file.layers if x.precision == "fp32"} == {"softmax"}
    other = compile_model(load(path))
    base = base_of(file, other)
    assert base == engine.assignment and base.of("softmax") == Choice("fp32")
    other.assignment = base
    assert choose(other, feeds, [Replay(file, engine=other)]).tactics == {x.layer: x.tactic for x in file.layers}


def test_what_is_kept_is_compared(path: Path, feeds: Feeds) -> None:
    """By whoever replays on an engine of his own: the choices of a network are not those of one that rounds more, or less."""
    engine, plain = compile_model(load(path), keep=["norm_out"]), compile_model(load(path))
    kept, all_low = (tactic_file_of(one, choose(one, feeds)) for one in (engine, plain))
    with pytest.raises(InputError, match="kept in FP32 and rounded here: norm_out"):
        choose(plain, feeds, [Replay(kept, engine=plain)])
    with pytest.raises(InputError, match="kept in FP32 here and rounded there: norm_out"):
        choose(engine, feeds, [Replay(all_low, engine=engine)])


def test_at_a_kept_tensor_a_layer_has_the_tactics_of_fp32(path: Path, feeds: Feeds) -> None:
    def tactics(engine: Engine, name: str) -> set[str]:
        return {one.tactic for one in choose(engine, feeds)[name].candidates}

    engine, plain = compile_model(load(path), keep=["norm_out"]), compile_model(load(path))
    assert tactics(plain, "norm") - tactics(engine, "norm") == {"sum_acc16"}
    assert tactics(engine, FC2) <= tactics(plain, FC2) and "exact" in tactics(engine, "norm")


def test_what_need_not_matter_is_a_note() -> None:
    then = Fingerprint("m", "cpu x86_64", "EPYC", "onnxruntime 1.30", "aa")
    now = replace(then, driver="onnxruntime 1.31", sources="bb", model_sha256="n")
    assert differences(then, then) == ()
    assert differences(then, now) == (
        "recorded with another driver: onnxruntime 1.30; here onnxruntime 1.31", "recorded with another version of the tactics",
    )  # fmt: skip


# --- Polygraphy's tests of its selector, as black boxes ----------------------------------------------------------------
# tests/backend/trt/test_algorithm_selector.py: basic, new_layer_falls_back, missing_algo_fails, different_algo_fails, fails_if_wrong_selected.
# On purpose: a new layer is refused when strict, and falls back when lenient, as does a layer whose tactic is missing.


def one_line(tactic: str = "splitk2") -> TacticFile:
    here = Fingerprint("m", "cpu", "", "", "")
    return TacticFile(here, "fp16", "safe", "safe", "storage", (line_of(context(), tactic),))


OFFERED = [candidate("exact"), candidate("splitk2"), candidate("acc16")]


def test_basic() -> None:
    assert names(Replay(one_line()).select(context(), OFFERED)) == ["splitk2"]


def test_new_layer_falls_back() -> None:
    new = context("new_layer", ("z",))
    assert names(Replay(one_line(), strict=False).select(new, OFFERED)) == ["exact", "splitk2", "acc16"]
    with pytest.raises(InputError, match="says nothing of the layer that makes z"):
        Replay(one_line()).select(new, OFFERED)


def test_missing_algorithm_fails() -> None:
    with pytest.raises(InputError, match="splitk2 is no candidate; there is acc16"):
        Replay(one_line()).select(context(), [candidate("acc16")])
    assert names(Replay(one_line(), strict=False).select(context(), [candidate("acc16")])) == ["acc16"]


@pytest.mark.parametrize(
    "other",
    [
        {"precision": "bf16"},
        {"problem": "Conv(fp16[1,3,8,8]) -> fp16[1,4,9,9]"},
        {"problem": "Conv(int8[1,3,8,8]) -> fp16[1,4,8,8]"},
    ],
)
def test_different_algorithm_fails(other: dict[str, str]) -> None:
    with pytest.raises(InputError, match="layer conv1: recorded"):
        Replay(one_line()).select(context(**other), OFFERED)  # type: ignore[arg-type]


def test_fails_if_something_else_was_selected() -> None:
    replay = Replay(one_line())
    replay.chosen(context(), candidate("splitk2"))
    with pytest.raises(InputError, match="acc16 was taken, the file says splitk2 in fp16"):
        replay.chosen(context(), candidate("acc16"))


def test_replay_keeps_what_a_later_selector_took_in_view(engine: Engine, feeds: Feeds, recorded: TacticFile) -> None:
    with pytest.raises(InputError, match="was taken, the file says"):
        choose(engine, feeds, [Replay(recorded, strict=False), _strict_about_nothing(recorded)])


def _strict_about_nothing(recorded: TacticFile) -> Any:
    """Takes everything in another order than the file, behind a strict replay that only listens."""

    class Listening(Replay):
        def begin(self, layers: Any) -> None:
            del layers

        def select(self, context: Any, candidates: Any) -> Any:
            del context
            return candidates[::-1]

    return Listening(recorded)
