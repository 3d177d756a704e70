"""Polygraphy's tactic replay JSON: what of it means something here, what is said to be ignored, and files that are none."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.blame.polygraphy_replay import Algorithm, is_polygraphy_replay, meaning_of, read_polygraphy_replay
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.errors import InputError
from probe.model import load
from tests.debug import faulty


def stored(dtype: str) -> dict[str, Any]:
    return {
        "dtype": f"DataType.{dtype}", "strides": [32, 1], "vectorized_dim": -1, "components_per_element": 1,
        "polygraphy_class": "TensorInfo",
    }  # fmt: skip


def algorithm(*outputs: str, implementation: int = 2147483661, tactic: int = -3) -> dict[str, Any]:
    return {
        "implementation": implementation, "tactic": tactic, "inputs": [stored("HALF")], "outputs": [stored(one) for one in outputs],
        "polygraphy_class": "Algorithm",
    }  # fmt: skip


def replay(**layers: dict[str, Any]) -> dict[str, Any]:
    return {"replay": layers, "polygraphy_class": "TacticReplayData"}


SOUND = replay(
    **{
        "fc1/MatMul + fc1/Add + act1": algorithm("HALF"),
        "fc2/MatMul": algorithm("FLOAT"),
        "PWN(gate, gated)": algorithm("FLOAT"),
        "{ForeignNode[norm...mixed]}": algorithm("BF16"),
        "softmax": algorithm("INT8"),
        "Reformatting CopyNode for Input Tensor 0 to somewhere": algorithm("HALF"),
    }
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return compile_model(load(faulty.build(tmp_path_factory.mktemp("polygraphy") / "m.onnx")))


def write(tree: Any, path: Path) -> Path:
    path.write_text(json.dumps(tree))
    return path


def test_a_file_is_read(tmp_path: Path) -> None:
    path = write(SOUND, tmp_path / "replay.json")
    assert is_polygraphy_replay(path)
    read = read_polygraphy_replay(path)
    assert list(read) == list(SOUND["replay"])
    one = read["fc2/MatMul"]
    assert (one.implementation, one.tactic, one.outputs[0].dtype, one.inputs[0].strides) == (
        2147483661,
        -3,
        "FLOAT",
        (32, 1),
    )
    assert str(one) == "implementation 2147483661, tactic -3 (HALF -> FLOAT)"


def test_choices_are_equal_as_polygraphy_has_it(tmp_path: Path) -> None:
    """Polygraphy's TestAlgorithm: implementation, tactic, formats, number of inputs and outputs."""

    def read(tree: dict[str, Any]) -> Algorithm:
        return read_polygraphy_replay(write(replay(layer=tree), tmp_path / "replay.json"))["layer"]

    base = algorithm("FLOAT", implementation=6, tactic=1)
    same = read(base)
    others = [
        {**base, "implementation": 7}, {**base, "tactic": 2}, {**base, "inputs": [stored("INT8")]}, {**base, "outputs": [stored("INT8")]},
        {**base, "inputs": [stored("HALF")] * 2}, {**base, "outputs": [stored("FLOAT")] * 2},
        {**base, "inputs": [{**stored("HALF"), "vectorized_dim": 0}]},
    ]  # fmt: skip
    assert read(copy.deepcopy(base)) == same and hash(read(base)) == hash(same)
    assert all(read(one) != same for one in others)


def test_what_it_means_here(tmp_path: Path, engine: Engine) -> None:
    meant = meaning_of(read_polygraphy_replay(write(SOUND, tmp_path / "replay.json")), engine)
    assert meant.precisions == {
        "fc1/MatMul + fc1/Add + act1": "fp16", "fc2/MatMul + fc2/Add": "fp32", "gate + gated": "fp32", "norm": "bf16", "mixed": "bf16",
    }  # fmt: skip
    numbers, nowhere, formats = meant.ignored
    assert "numbers of 6 layers" in numbers and "name no tactic here" in numbers
    assert nowhere.endswith("not in this network: Reformatting CopyNode for Input Tensor 0 to somewhere")
    assert formats.endswith("does not store: softmax")


def test_layers_that_tensorrt_split_otherwise(engine: Engine, tmp_path: Path) -> None:
    tree = replay(**{"fc1/MatMul": algorithm("HALF"), "act1": algorithm("FLOAT")})
    meant = meaning_of(read_polygraphy_replay(write(tree, tmp_path / "replay.json")), engine)
    assert not meant.precisions and "several types: fc1/MatMul + fc1/Add + act1" in meant.ignored[-1]


BAD: list[Any] = [
    [], {}, {"replay": []}, {"replay": {"a": 3}}, {"replay": {"a": {}}}, replay(a={**algorithm("HALF"), "tactic": "1"}),
    replay(a={**algorithm("HALF"), "inputs": None}), replay(a={**algorithm("HALF"), "outputs": [{"dtype": 3, "strides": []}]}),
    replay(a={**algorithm("HALF"), "outputs": [{"dtype": "FLOAT", "strides": ["x"]}]}), replay(a={**algorithm("HALF"), "outputs": "FLOAT"}),
]  # fmt: skip


@pytest.mark.parametrize("tree", BAD, ids=range(len(BAD)))
def test_what_is_no_replay(tmp_path: Path, tree: Any) -> None:
    with pytest.raises(InputError, match="not a tactic replay of Polygraphy"):
        read_polygraphy_replay(write(tree, tmp_path / "replay.json"))


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"replay": ', b"\xff\xfe", b'{"schema": "probe.tactics/1", "replay": {}}', b"[" * 50000]
)
def test_what_does_not_look_like_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "replay.json"
    path.write_bytes(content)
    assert not (is_polygraphy_replay(path) and b"schema" in content)
    if b"schema" not in content:
        with pytest.raises(InputError):
            read_polygraphy_replay(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_an_error_or_gives_a_replay(tmp_path: Path, engine: Engine, data: st.DataObject) -> None:
    content = bytearray(json.dumps(SOUND).encode())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + data.draw(st.integers(1, 60))] = data.draw(st.binary(max_size=4))
    path = tmp_path / "replay.json"
    path.write_bytes(content)
    try:
        found = read_polygraphy_replay(path)
    except InputError:
        return
    assert set(meaning_of(found, engine).precisions.values()) <= {"fp32", "fp16", "bf16"}
