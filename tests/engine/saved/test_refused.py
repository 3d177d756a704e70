"""What is no engine for this place is refused, with what differs; what cannot be written leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe import ir
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.engine.saved.container import Writer, open_container
from probe.engine.saved.load import load_engine, read_header
from probe.engine.saved.save import save_engine
from probe.errors import InputError
from probe.results.json import dumps
from tests.engine.saved.small import X, small_engine

# --- places


def test_places(engine: Engine, tmp_path: Path) -> None:
    engine.save(tmp_path / "e.probe")
    (tmp_path / "other.txt").write_text("mine")
    refused = {
        "e.probe": "exists", "m.onnx": "is the model", "other.txt": "exists", "gone/e.probe": "its folder does not exist", ".": "folder",
    }  # fmt: skip
    for name, said in refused.items():
        with pytest.raises(InputError, match=said):
            engine.save(tmp_path / name)
    for name, said in {"m.onnx": "is the model", "other.txt": "no saved engine; it will not be overwritten"}.items():
        with pytest.raises(InputError, match=said):
            engine.save(tmp_path / name, overwrite=True)
    assert (tmp_path / "other.txt").read_text() == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["e.probe", "m.onnx", "other.txt"]


def test_a_model_that_changed_meanwhile_is_not_saved(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes((tmp_path / "m.onnx").read_bytes() + b"\0")
    with pytest.raises(InputError, match="changed"):
        engine.save(tmp_path / "e.probe")
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


def test_what_does_not_survive_the_file_is_not_saved(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read back is compared with what was compiled."""
    written_as = ir.value_proto

    def forgetful(value: ir.Value) -> onnx.ValueInfoProto:
        proto = written_as(value)
        proto.type.tensor_type.ClearField("shape")
        return proto

    monkeypatch.setattr(ir, "value_proto", forgetful)
    with pytest.raises(InputError, match="other layers"):
        engine.save(tmp_path / "e.probe")
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]


# --- what is refused


def rewritten(path: Path, **changed: Any) -> None:
    """The same file with another header, hashes and all."""
    container, header = open_container(path), read_header(path)
    parts = container.read(header.sections)
    with Writer(path) as writer:
        for name, part in parts.items():
            writer.section(name, bytes(part))
        writer.finish(lambda sections: dumps(replace(header, sections=sections, **changed)).encode())


def test_another_version_of_probe(engine: Engine, tmp_path: Path) -> None:
    engine.save(tmp_path / "e.probe")
    rewritten(tmp_path / "e.probe", probe="9.9")
    with pytest.raises(InputError, match=r"built by probe 9\.9; this is probe .*") as caught:
        load_engine(tmp_path / "e.probe")
    assert "probe build MODEL" in caught.value.hint


def test_another_device_is_refused_and_another_driver_noted(engine: Engine, tmp_path: Path) -> None:
    engine.save(tmp_path / "e.probe")
    fingerprint = read_header(tmp_path / "e.probe").fingerprint
    rewritten(tmp_path / "e.probe", fingerprint=replace(fingerprint, driver="onnxruntime 0.1", sources="0"))
    notes = load_engine(tmp_path / "e.probe").model.notes
    assert any("another driver: onnxruntime 0.1; here onnxruntime" in note for note in notes)
    assert any("another version of the tactics" in note for note in notes)
    rewritten(tmp_path / "e.probe", fingerprint=replace(fingerprint, device="cpu vax"))
    with pytest.raises(InputError, match="built for cpu vax; this is cpu "):
        load_engine(tmp_path / "e.probe")


UNFIT: dict[str, dict[str, Any]] = {
    "passes": {"passes": "some"},
    "device": {"device": "tpu"},
    "interior": {"interior": "wide"},
    "precision": {"precision": "fp12"},
    "fewer origins": {"origins": ()},
    "no groups": {"groups": ()},
    "other layers": {"layers_sha256": "0" * 64},
    "fates": {"fates": {}},
}


@pytest.mark.parametrize("case", UNFIT)
def test_parts_that_do_not_fit_together(case: str, engine: Engine, tmp_path: Path) -> None:
    engine = compile_model(engine.model, passes="all", fusion="full")
    engine.save(tmp_path / "e.probe")
    if case == "fates" and not engine.network.fates:
        pytest.fail("the network has no fates to forget")
    rewritten(tmp_path / "e.probe", **UNFIT[case])
    with pytest.raises(InputError):
        load_engine(tmp_path / "e.probe")


@given(data=st.data())
@settings(max_examples=80)
def test_damage_is_refused_or_means_the_same(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Flipped, cut out, put in, anywhere: an error, or the same program; never other numbers, never another exception."""
    folder = tmp_path_factory.getbasetemp() / "damage"
    if not folder.exists():
        folder.mkdir()
        built = small_engine(folder)
        built.save(folder / "whole.probe")
        np.save(folder / "y.npy", built(X)["y"])
    content = bytearray((folder / "whole.probe").read_bytes())
    edges = [
        0,
        64,
        *(at for one in read_header(folder / "whole.probe").sections for at in (one.offset, one.offset + one.bytes)),
    ]
    near = st.builds(lambda at, by: max(0, min(len(content) - 1, at + by)), st.sampled_from(edges), st.integers(-3, 40))
    at = data.draw(st.one_of(near, st.integers(0, len(content) - 1)))
    match data.draw(st.sampled_from(["flip", "cut", "insert", "end"])):
        case "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        case "cut":
            del content[at : at + data.draw(st.integers(1, 5000))]
        case "insert":
            content[at:at] = bytes(data.draw(st.integers(1, 5000)))
        case "end":
            del content[at:]
    (folder / "changed.probe").write_bytes(content)
    try:
        loaded = load_engine(folder / "changed.probe")
    except InputError:
        return
    assert loaded(X)["y"].tobytes() == np.load(folder / "y.npy").tobytes()


def test_a_section_of_another_engine_is_refused(engine: Engine, tmp_path: Path) -> None:
    """Whole files crossed: each byte has its hash, the parts do not fit."""
    engine.save(tmp_path / "one.probe")
    compile_model(engine.model, passes="none", fusion="none").save(tmp_path / "two.probe")
    header, other = read_header(tmp_path / "one.probe"), read_header(tmp_path / "two.probe")
    mine = open_container(tmp_path / "one.probe").read(header.sections)
    theirs = open_container(tmp_path / "two.probe").read(other.sections)
    crossed = {name: bytes(theirs["network"] if name == "network" else part) for name, part in mine.items()}
    with Writer(tmp_path / "crossed.probe") as writer:
        for name, part in crossed.items():
            writer.section(name, part)
        writer.finish(lambda sections: dumps(replace(header, sections=sections)).encode())
    with pytest.raises(InputError, match=r"fit together|other layers"):
        load_engine(tmp_path / "crossed.probe")


def test_save_returns_the_header_that_is_read(engine: Engine, tmp_path: Path) -> None:
    assert save_engine(engine, tmp_path / "e.probe") == read_header(tmp_path / "e.probe")
